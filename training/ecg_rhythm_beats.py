"""Print how well the rhythm network's own beat finder finds MIT-BIH's beats; `_rhythm_beats.py` quotes the last line.

    OMP_NUM_THREADS=1 python training/ecg_rhythm_beats.py

It reads AIDPOST_DATA (default ../shared/data). The 22 records of DS1 (de Chazal et al., 2004), first lead, cut into
pieces of 30 s that are cleaned as the network's input is; 150 ms between found and marked.
What lies in ventricular flutter (record 207) is not counted.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import wfdb
from ecg_beats import DATA, Lead, beats_of, matched

from aidpost.inference._rhythm_beats import find_beats
from aidpost.inference._rhythm_input import FS_HZ, WINDOW, _clean
from aidpost.kernels.resample import resample

DS1 = (101, 106, 108, 109, 112, 114, 115, 116, 118, 119, 122, 124, 201, 203, 205, 207, 208, 209, 215, 220, 223, 230)
TOLERANCE_S = 0.15


def first_lead(number: int) -> Lead:
    """The record's first lead with its beats."""
    path = DATA / "mitdb" / str(number)
    record, (beats, ignored) = wfdb.rdrecord(str(path)), beats_of(path, "atr")
    return Lead(path.name, "first", np.ascontiguousarray(record.p_signal[:, 0]), record.fs, beats, ignored, 0)


def found_beats(lead: Lead) -> np.ndarray:
    """Beats in samples of the lead, found in pieces of 30 s, each resampled and cleaned by itself."""
    size = int(WINDOW / FS_HZ * lead.fs)
    found = [np.zeros(0)]
    for start in range(0, len(lead.x) - size // 10, size):
        piece = lead.x[start : start + size]
        wave = _clean(np.asarray(resample(piece - np.median(piece), lead.fs, FS_HZ), dtype=np.float64))
        found.append(start + find_beats(wave) * lead.fs / FS_HZ)
    return np.concatenate(found)


def main() -> None:
    """Print the counts of each record, and sensitivity and precision over all."""
    total = np.zeros(3, np.int64)
    for number in DS1:
        lead = first_lead(number)
        samples = found_beats(lead)
        hit, found = matched(samples, lead.beats, TOLERANCE_S * lead.fs)
        counts = lead.counts(lead.beats)
        row = (found & counts).sum(), (~found & counts).sum(), (~hit & lead.counts(samples)).sum()
        print(f"{number} {row[0]:6d} found {row[1]:5d} missed {row[2]:5d} false", flush=True)
        total += row
    right, missed, false = total
    sensitivity, precision = 100 * right / (right + missed), 100 * right / (right + false)
    print(f"DS1: {right + missed} beats, sensitivity {sensitivity:.2f} %, precision {precision:.2f} %")


if __name__ == "__main__":
    main()
