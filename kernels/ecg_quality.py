"""Signal quality of one ECG lead, second by second, for the live screen and the gate before the models.

What is measured follows the usual list (Clifford et al. 2012, Orphanidou et al. 2015): flat line, clipping, lead
off, mains, muscle, baseline wander. The limits are ours: noise counts against the size of this recording's own QRS
complexes, so that a small lead is not refused for noise that a tall one would carry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from aidpost.kernels._ecg_checks import FloatArray, rate, samples
from aidpost.kernels._ecg_quality import measure
from aidpost.kernels.filters import highpass, lowpass, sosfiltfilt

__all__ = ["REASONS", "EcgQuality", "assess"]

BoolArray = npt.NDArray[np.bool_]

REASONS = ("lead_off", "flat", "saturated", "mains", "muscle", "wander")

_FLAT_MV = 0.02  # a second that moves less carries no beat: IEC 60601-2-27 asks for none to be seen below 0.15 mV
_FLAT_RUN = 0.5
_MISSING = 0.2
_CLIPPED = 0.02
_MAINS_LIMIT, _MUSCLE_LIMIT, _WANDER_LIMIT = 0.25, 0.12, 2.5  # times the QRS size
_FLOOR_MV = 0.2  # noise below what these limits give for a QRS of this size is harmless in any lead
_MAINS_HZ = (50.0, 60.0)


@dataclass(frozen=True)
class EcgQuality:
    """Per second (s,), the last one being whatever is left; noise in mV.

    flat, saturated, lead_off: bool. mains_mv: amplitude at 50 or 60 Hz, the larger. muscle_mv: RMS above 25 Hz between
    the QRS complexes, mains taken out. wander_mv: range below 0.7 Hz within the second. usable: bool. score: 0..1, the
    mean over seconds of how far each stays from its limits, 0 for an unusable one. reasons: names from REASONS, of
    everything that made a second unusable, most frequent first.
    """

    fs_hz: float
    flat: BoolArray
    saturated: BoolArray
    lead_off: BoolArray
    mains_mv: FloatArray
    muscle_mv: FloatArray
    wander_mv: FloatArray
    usable: BoolArray
    score: float
    reasons: tuple[str, ...]

    def unusable_spans(self) -> tuple[tuple[int, int], ...]:
        """Sample spans [start, end) of neighbouring unusable seconds; the last second's end may lie past the data."""
        bad = np.concatenate([[False], ~self.usable, [False]]).astype(np.int8)
        change = np.flatnonzero(np.diff(bad))
        return tuple((_edge(int(a), self.fs_hz), _edge(int(b), self.fs_hz)) for a, b in change.reshape(-1, 2))


def assess(x_mv: npt.ArrayLike, fs_hz: float) -> EcgQuality:
    """Judge `x_mv` (n,) in mV at `fs_hz`; NaN and infinities are missing samples. No sample: score 0, no seconds.

    Raises
    ------
    UsageError
        `x_mv` is not (n,) of real numbers, or the rate is not within 50-10,000 Hz.
    """
    fs = rate(fs_hz, "assessing an ECG", 50, 10_000)
    x = samples(x_mv, "assessing an ECG")
    edges = _edges(x.shape[0], fs)
    missing = ~(np.abs(x) < 1e6)
    held = _hold(x, missing)
    out = np.zeros((edges.shape[0] - 1, 9))
    if held.shape[0]:
        fast, slow = sosfiltfilt(_high(fs), held), sosfiltfilt(_low(fs), held)
        tones = _tones(fs, int(np.diff(edges).max()))
        measure(held, fast, slow, missing.view(np.uint8), edges, tones, held.min(), held.max(), out)
    return _judge(out, fs)


def _judge(out: FloatArray, fs: float) -> EcgQuality:
    absent, span, run, clipped, tone50, tone60, quiet, wander, loud = out.T
    mains = np.maximum(tone50, tone60)
    # what the sinusoid adds to the RMS; the high-pass hardly weakens it
    muscle = np.sqrt(np.clip(quiet**2 - mains**2 / 2, 0, None))
    flat = (span < _FLAT_MV) | (run > _FLAT_RUN)
    lead_off = (absent > _MISSING) | (flat & (clipped > _FLAT_RUN) & bool((span > _FLAT_MV).any()))
    saturated = (clipped > _CLIPPED) & ~flat
    seen = ~(flat | lead_off | saturated)
    # what the loudest 50 ms have above 25 Hz beyond the quiet ones is a QRS complex in most seconds, six times as tall
    beyond = np.sqrt(np.clip(loud**2 - quiet**2, 0, None))[seen]
    size = max(_FLOOR_MV, 6 * float(np.median(beyond)) if beyond.size else 0.0)
    load = np.stack([mains / _MAINS_LIMIT, muscle / _MUSCLE_LIMIT, wander / _WANDER_LIMIT]) / size
    faults = np.concatenate([[lead_off, flat & ~lead_off, saturated], load > 1])
    usable: BoolArray = np.logical_not(faults.any(axis=0))
    margin = np.where(usable, 1 - 0.5 * load.max(axis=0, initial=0.0), 0.0)
    count = faults.sum(axis=1)
    reasons = tuple(REASONS[i] for i in np.argsort(-count, kind="stable") if count[i])
    score = float(margin.mean()) if margin.size else 0.0
    return EcgQuality(fs, flat, saturated, lead_off, mains, muscle, wander, usable, score, reasons)


def _edge(second: int, fs: float) -> int:
    return round(second * fs)


def _edges(n: int, fs: float) -> npt.NDArray[np.int64]:
    """Sample numbers where seconds begin, and n; a rest under half a second joins the second before it."""
    whole = int(n / fs)
    inner = [_edge(s, fs) for s in range(1, whole + 1)]
    if inner and n - inner[-1] < fs / 2:
        inner.pop()
    return np.array([0, *inner, n] if n else [0], dtype=np.int64)


def _hold(x: FloatArray, missing: BoolArray) -> FloatArray:
    """`x` with the last value held over missing samples (the first one backwards; 0 where there is none)."""
    if not missing.any():
        return x
    index = np.where(missing, -1, np.arange(x.shape[0]))
    np.maximum.accumulate(index, out=index)
    present = np.flatnonzero(~missing)
    if present.size == 0:
        return np.zeros_like(x)
    index[index < 0] = present[0]
    return x[index]


@lru_cache(maxsize=16)
def _high(fs: float) -> FloatArray:
    return highpass(25.0, fs) if fs > 50 else highpass(0.45 * fs, fs)


@lru_cache(maxsize=16)
def _low(fs: float) -> FloatArray:
    return lowpass(0.7, fs)


@lru_cache(maxsize=16)
def _tones(fs: float, n: int) -> FloatArray:
    """(4, n): cosine and sine of 50 Hz, then of 60 Hz; zeros where the rate cannot carry it."""
    phase = 2 * np.pi * np.arange(n) / fs
    carried = [(hz if hz < 0.48 * fs else None) for hz in _MAINS_HZ]
    rows = [np.zeros(n) if hz is None else wave(hz * phase) for hz in carried for wave in (np.cos, np.sin)]
    return np.ascontiguousarray(rows)
