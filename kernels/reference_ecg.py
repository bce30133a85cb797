"""What the ECG loops compute, written for reading: NumPy and plain Python, slow, used by the tests only."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


def biquads(sos: FloatArray, x: FloatArray) -> FloatArray:
    """A cascade from rest, (n_sections, 6) and (n,) -> (n,): the difference equation, section after section."""
    y = x.astype(np.float64)
    for b0, b1, b2, _, a1, a2 in sos:
        s0 = s1 = 0.0
        for i, v in enumerate(y):
            w = b0 * v + s0
            s0, s1 = b1 * v - a1 * w + s1, b2 * v - a2 * w
            y[i] = w
    return y


def resampled(x: FloatArray, phases: FloatArray, up: int, down: int) -> FloatArray:
    """Polyphase interpolation with `phases` (up, taps), both ends held, (n,) -> (ceil(n * up / down),)."""
    taps = phases.shape[1]
    padded = np.concatenate([np.full(taps // 2 - 1, x[0]), x, np.full(taps, x[-1])])
    count = -(-x.shape[0] * up // down)
    places = [divmod(m * down, up) for m in range(count)]
    return np.array([padded[start : start + taps] @ phases[phase] for start, phase in places])


def quality(x: FloatArray, fast: FloatArray, slow: FloatArray, edges: npt.NDArray[np.int64], fs: float) -> FloatArray:
    """The measures of `_ecg_quality.measure` for a lead without missing samples -> (seconds, 9)."""
    rails = (x.min(), x.max())
    rows = []
    for start, end in pairwise(edges):
        part, n = x[start:end], int(end - start)
        equal = _runs(np.diff(part) == 0)
        clipped = sum(run for run in _runs(np.isin(part, rails)) if run >= 3)
        tone = [
            2 / n * abs(((part - part.mean()) * np.exp(2j * np.pi * hz * np.arange(n) / fs)).sum()) for hz in (50, 60)
        ]
        cuts = [p * n // 20 for p in range(21)]
        rms = sorted(
            float(np.sqrt((fast[start + a : start + b] ** 2).mean())) if b > a else 0.0 for a, b in pairwise(cuts)
        )
        wander = np.ptp(slow[start:end])
        rows.append([0, np.ptp(part), (max(equal, default=0) + 1) / n, clipped / n, *tone, rms[8], wander, rms[18]])
    return np.array(rows, dtype=np.float64).reshape(-1, 9)


def _runs(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of true values."""
    change = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [int(b - a) for a, b in change.reshape(-1, 2)]
