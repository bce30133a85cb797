"""Filters, resampling, quality and R-peaks beside scipy and sleepecg on the same 30 minutes, in one run.

Processor time, the best of several. Run from the repository's top: python benchmarks/ecg_kernels.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "training"))

import numpy as np
import wfdb
from ecg_beats import DATA
from scipy import signal

from aidpost.kernels.ecg_quality import assess
from aidpost.kernels.filters import BiquadCascade, sosfilt, sosfiltfilt
from aidpost.kernels.resample import resample
from aidpost.kernels.rpeaks import RPeakDetector, detect

CHUNK, CHUNKS = 36, 5000


def best(call: Callable[[], object], rounds: int = 9) -> float:
    times = []
    for _ in range(rounds):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


def row(
    what: str, own: Callable[[], object], peer: str, theirs: Callable[[], object], unit: str, per: float = 1
) -> None:
    scale = {"ms": 1e3, "us": 1e6}[unit] / per
    mine, other = best(own) * scale, best(theirs) * scale
    ratio = f"ratio {mine / other:6.3f}  ({other / mine:.1f} x)"
    print(f"{what:28s} {mine:9.3f} {unit}   {peer:18s} {other:9.3f} {unit}  {ratio}")


def main() -> None:
    import sleepecg

    x = np.ascontiguousarray(wfdb.rdrecord(str(DATA / "mitdb" / "119"), channels=[0]).p_signal[:, 0])
    sos = signal.butter(4, [1, 40], "bandpass", fs=360, output="sos")
    cascade, detector, state, chunk = BiquadCascade(sos), RPeakDetector(360), np.zeros((4, 2)), x[:CHUNK].copy()

    def many(call: Callable[[], object]) -> Callable[[], None]:
        def repeat() -> None:
            for _ in range(CHUNKS):
                call()

        return repeat

    row("4 biquads, 36 samples", many(lambda: cascade.process(chunk)), "scipy.sosfilt",
        many(lambda: signal.sosfilt(sos, chunk, zi=state)), "us", CHUNKS)  # fmt: skip
    row("4 biquads, 648,000 samples", lambda: sosfilt(sos, x), "scipy.sosfilt", lambda: signal.sosfilt(sos, x), "ms")
    row(
        "the same, zero phase",
        lambda: sosfiltfilt(sos, x),
        "scipy.sosfiltfilt",
        lambda: signal.sosfiltfilt(sos, x),
        "ms",
    )
    row(
        "360 -> 250 Hz",
        lambda: resample(x, 360, 250),
        "scipy.resample_poly",
        lambda: signal.resample_poly(x, 25, 36),
        "ms",
    )
    row("R-peaks, 30 min", lambda: detect(x, 360), "sleepecg (C)", lambda: sleepecg.detect_heartbeats(x, 360), "ms")
    print(f"{'R-peaks, 36 samples':46s} {best(many(lambda: detector.feed(chunk))) / CHUNKS * 1e6:9.3f} us")
    print(f"{'quality, 30 min':46s} {best(lambda: assess(x, 360)) * 1e3:9.3f} ms")


if __name__ == "__main__":
    main()
