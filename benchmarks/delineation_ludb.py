"""Delineation on LUDB: F1 of each fiducial within 150 ms, mean and spread of its error, beside published delineators.

    python benchmarks/delineation_ludb.py --data ../shared/data [--every 4]

All twelve leads of each record, R-peaks from the device's detector, P waves looked for unless the rhythm model reads
atrial fibrillation in lead II: as the device does. LUDB leaves the first and last complexes unmarked; what lies outside
the marked ones is not counted. The rules' settings were chosen on these records (odd numbers): half of them at a time
is shown too, which says how much a figure moves from patients to patients, not how it would be on new ones.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import wfdb

from aidpost.inference._delineation import delineate
from aidpost.inference._rhythm import rhythm_probabilities
from aidpost.inference.model import Models
from aidpost.kernels import rpeaks

FS_HZ, TOLERANCE_S = 500.0, 0.150
WAVES = {"P": "p", "QRS": "N", "T": "t"}
# mean ± SD in ms of a wavelet delineator against QTDB's marks (Martinez et al. 2004): other recordings, other readers
PUBLISHED = {
    ("P", 0): "2.0 ± 14.8",
    ("P", 1): "3.6 ± 13.2",
    ("P", 2): "1.9 ± 12.8",
    ("QRS", 0): "4.6 ± 7.7",
    ("QRS", 2): "0.8 ± 8.7",
    ("T", 1): "0.2 ± 13.9",
    ("T", 2): "-1.6 ± 18.1",
}
Floats = npt.NDArray[np.float64]


def marks(record: str, lead: str) -> dict[str, Floats]:
    """LUDB's waves of a lead as (waves, 3) seconds of onset, peak, end."""
    notes = wfdb.rdann(record, lead)
    symbol, second = notes.symbol, notes.sample / FS_HZ
    whole = [i for i in range(len(symbol) - 2) if symbol[i] == "(" and symbol[i + 2] == ")"]
    return {
        name: np.array([second[i : i + 3] for i in whole if symbol[i + 1] == sign]).reshape(-1, 3)
        for name, sign in WAVES.items()
    }


def errors(due: Floats, made: Floats) -> list[float]:
    """Errors in ms of the matched ones: one to one, each mark to its nearest within the tolerance."""
    left, out = list(made), []
    for one in due:
        near = min(left, key=lambda other: abs(other - one), default=None)
        if near is not None and abs(near - one) <= TOLERANCE_S:
            left.remove(near)
            out.append(1000.0 * (near - one))
    return out


def measure(path: Path, models: Models) -> dict[tuple[str, int], tuple[list[float], int, int]]:
    """(errors in ms, marks, detections) of each wave and fiducial of one record."""
    record = wfdb.rdrecord(str(path))
    names = [name.lower() for name in record.sig_name]
    model = models.get("ecg-rhythm")
    rhythm = rhythm_probabilities(model, np.ascontiguousarray(record.p_signal[:, names.index("ii")]), FS_HZ).mean(
        axis=0
    )
    fibrillating = model.card.output.labels[int(rhythm.argmax())] == "A"
    out: dict[tuple[str, int], tuple[list[float], int, int]] = {}
    for number, name in enumerate(names):
        due = marks(str(path), name)
        every = np.concatenate(list(due.values()))
        if not len(every):
            continue
        signal = np.ascontiguousarray(record.p_signal[:, number])
        found = delineate(signal, FS_HZ, rpeaks.detect(signal, FS_HZ).sample / FS_HZ, p_waves=not fibrillating)
        first, last = every.min() - 0.02, every.max() + 0.02
        for wave, table in (("P", found.p), ("QRS", found.qrs), ("T", found.t)):
            for k in range(3):
                made = table[(table[:, k] >= first) & (table[:, k] <= last), k]
                before = out.get((wave, k), ([], 0, 0))
                deviation = before[0] + errors(due[wave][:, k], made)
                out[wave, k] = deviation, before[1] + len(due[wave]), before[2] + made.size
    return out


def show(title: str, records: list[dict[tuple[str, int], tuple[list[float], int, int]]]) -> None:
    """Print the table over some records."""
    print(
        f"\n{title}\n\n| fiducial | marks | sensitivity | precision | F1 | error, mean ± SD ms | wavelet, QTDB |\n"
        + "|---" * 7
        + "|"
    )
    for wave in WAVES:
        for k, what in enumerate(("onset", "peak", "end")):
            parts = [record[wave, k] for record in records if (wave, k) in record]
            deviation = np.concatenate([part[0] for part in parts])
            due, made = sum(part[1] for part in parts), sum(part[2] for part in parts)
            f1 = 2 * deviation.size / max(due + made, 1)
            spread = f"{deviation.mean():.1f} ± {deviation.std():.1f}"
            published = PUBLISHED.get((wave, k), "")
            found, right = deviation.size / due, deviation.size / made
            print(f"| {wave} {what} | {due} | {found:.4f} | {right:.4f} | {f1:.4f} | {spread} | {published} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AIDPOST_DATA", "../shared/data")))
    parser.add_argument("--every", type=int, default=1, help="take every so manieth record")
    arguments = parser.parse_args()
    paths = sorted((arguments.data / "ecg/ludb").glob("*.hea"))[:: arguments.every]
    models = Models()
    records = [measure(path.with_suffix(""), models) for path in paths]
    show(f"{len(records)} records of LUDB, twelve leads", records)
    for half in (0, 1):
        show(f"every second of them, from number {half + 1}", records[half::2])


if __name__ == "__main__":
    main()
