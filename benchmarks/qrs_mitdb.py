"""R-peak detectors side by side on MIT-BIH and on MIT-BIH with NSTDB noise: accuracy, time, errors record by record.

Whole records, first lead, 150 ms, each beat matched once; what lies in flutter or fibrillation is left out and shown in
its own column, as AAMI EC57 has it. Times are processor seconds in this run. Peers that are not installed are left out.
Run from the repository's top: python benchmarks/qrs_mitdb.py [--peers sleepecg,gqrs] [--noise] [--minutes 30]
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "training"))

import numpy as np
import wfdb
from ecg_beats import DATA, beats_of, matched, noisy

from aidpost.kernels.rpeaks import detect

Detector = Callable[[np.ndarray, float], np.ndarray]


def ours(x: np.ndarray, fs: float) -> np.ndarray:
    return detect(x, fs).sample


def sleepecg(x: np.ndarray, fs: float) -> np.ndarray:
    from sleepecg import detect_heartbeats

    return np.asarray(detect_heartbeats(x, fs))


def neurokit2(x: np.ndarray, fs: float) -> np.ndarray:
    import neurokit2

    cleaned = neurokit2.ecg_clean(x, sampling_rate=int(fs), method="pantompkins1985")
    return np.asarray(neurokit2.ecg_findpeaks(cleaned, sampling_rate=int(fs), method="pantompkins1985")["ECG_R_Peaks"])


def gqrs(x: np.ndarray, fs: float) -> np.ndarray:
    from wfdb.processing import gqrs_detect

    return np.asarray(gqrs_detect(sig=x, fs=fs))


def xqrs(x: np.ndarray, fs: float) -> np.ndarray:
    from wfdb.processing import xqrs_detect

    return np.asarray(xqrs_detect(sig=x, fs=fs, verbose=False))


def biosppy(x: np.ndarray, fs: float) -> np.ndarray:
    from biosppy.signals import ecg

    return np.asarray(ecg.ecg(x, sampling_rate=fs, show=False)["rpeaks"])


PEERS: dict[str, Detector] = {
    "sleepecg": sleepecg, "neurokit2": neurokit2, "gqrs": gqrs, "xqrs": xqrs, "biosppy": biosppy,
}  # fmt: skip


def run(detector: Detector, noise_db: float | None, minutes: float) -> tuple[np.ndarray, float, list[str]]:
    """(right, false, missed, false in flutter, missed in flutter), median seconds a record, the worst records."""
    total, times, rows = np.zeros(5, dtype=int), [], []
    for number, path in enumerate(sorted(p.with_suffix("") for p in (DATA / "mitdb").glob("*.hea"))):
        record = wfdb.rdrecord(str(path), channels=[0])
        beats, flutter = beats_of(path, "atr")
        fs, x = record.fs, np.ascontiguousarray(record.p_signal[:, 0])
        if noise_db is not None:
            x = noisy(x, beats, fs, noise_db, 3 * number + 2)
        x, beats = x[: int(minutes * 60 * fs)], beats[beats < minutes * 60 * fs]
        started = time.process_time()
        found = detector(x, fs)
        times.append(time.process_time() - started)
        hit, seen = matched(found, beats, 0.15 * fs)
        in_found, in_beats = inside(found, flutter), inside(beats, flutter)
        counts = [
            (seen & ~in_beats).sum(), (~hit & ~in_found).sum(), (~seen & ~in_beats).sum(),
            (~hit & in_found).sum(), (~seen & in_beats).sum(),
        ]  # fmt: skip
        total += counts
        rows.append((counts[1] + counts[2], f"{path.name} {counts[1]}+{counts[2]}"))
    return total, float(np.median(times)), [text for _, text in sorted(rows, reverse=True)[:6]]


def inside(samples: np.ndarray, spans: list[tuple[int, int]]) -> np.ndarray:
    return np.any([(samples >= a) & (samples <= b) for a, b in spans] or [np.zeros(len(samples), bool)], axis=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=",".join(PEERS), help="comma-separated")
    parser.add_argument("--noise", action="store_true", help="add muscle and baseline noise at 6 dB")
    parser.add_argument("--minutes", type=float, default=30.1)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    print(
        f"{'':10s} {'Se %':>7s} {'+P %':>7s} {'F1 %':>7s} {'false':>6s} {'missed':>6s} "
        f"{'flutter':>9s} {'ms/record':>9s} {'ratio':>6s}"
    )
    own = None
    for name, detector in {"ours": ours, **{k: PEERS[k] for k in arguments.peers.split(",") if k}}.items():
        try:
            (right, false, missed, *flutter), seconds, worst = run(
                detector, 6 if arguments.noise else None, arguments.minutes
            )
        except ImportError:
            print(f"{name:10s} not installed")
            continue
        own = own or seconds
        print(
            f"{name:10s} {100 * right / (right + missed):7.2f} {100 * right / (right + false):7.2f} "
            f"{200 * right / (2 * right + false + missed):7.3f} {false:6d} {missed:6d} "
            f"{flutter[0]:4d}+{flutter[1]:<4d} {1e3 * seconds:9.1f} {own / seconds:6.2f}  "
            f"worst (false+missed): {', '.join(worst)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
