"""Resampling between any two rates with a polyphase windowed-sinc filter, whole or in chunks.

Error, with f the lower of the two Nyquist frequencies: a tone below 0.8 f keeps its amplitude and phase within
0.1 % (-60 dB), a tone above 1.2 f leaves less than 0.1 % of itself as an alias, a constant stays exact to the last
bits. At 360 -> 250 Hz that is all of 0-100 Hz. The output's sample m lies at time m / fs_out of the input's clock;
nothing is delayed.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from aidpost.kernels._ecg_checks import FloatArray, rate, refuse, samples
from aidpost.kernels._resample import dot

__all__ = ["Resampler", "resample"]

_OPERATION = "resampling"
# Kaiser's formulas for -66 dB and a transition from 0.8 to 1.2 of the lower Nyquist frequency: beta 6.2, and
# 9.3 zero crossings of the sinc on either side.
_BETA, _ZEROS = 6.2, 10
# The rate is met within 1 / (2 * 2000^2): 4 ms in a 9-hour recording.
_MAX_DENOMINATOR = 2000
# Rounded to it, so that the last bit of a platform's sine does not reach the result.
_GRID = 2.0**40


class Resampler:
    """Streaming form: the concatenated answers are those of `resample` on the whole, bit for bit.

    An output is given when the input reaches `latency_s` beyond it; `flush` gives the rest.

    Parameters
    ----------
    fs_in, fs_out
        Rates in Hz; their ratio is taken as the nearest fraction with a denominator up to 2000.

    Raises
    ------
    UsageError
        A rate is not within 1-100,000 Hz, or the rates lie further apart than 1:200.
    """

    def __init__(self, fs_in: float, fs_out: float) -> None:
        ratio = Fraction(rate(fs_out, _OPERATION)) / Fraction(rate(fs_in, _OPERATION))
        if not Fraction(1, 200) <= ratio <= 200:
            raise refuse(_OPERATION, f"{fs_in} -> {fs_out} Hz", "the rates lie further apart than 1:200")
        ratio = ratio.limit_denominator(_MAX_DENOMINATOR) if ratio < 1 else 1 / (1 / ratio).limit_denominator(2000)
        self._up, self._down = ratio.numerator, ratio.denominator
        self._phases = _phases(self._up, self._down)
        self._before = self._phases.shape[1] // 2 - 1
        self.latency_s = (self._phases.shape[1] - self._before) / fs_in
        self._tail: FloatArray = np.empty(0)  # samples still needed; the first is number _origin
        self._origin = -self._before
        self._seen = self._given = 0

    def feed(self, x: npt.ArrayLike) -> FloatArray:
        """The next (n,) samples, n may be 0 -> (m,) float64 outputs that are ready."""
        return self._take(samples(x, _OPERATION), ready_only=True)

    def flush(self) -> FloatArray:
        """The rest, as if the last sample were held -> (m,) float64, ceil(n * fs_out / fs_in) in all."""
        if self._seen == 0:
            return np.empty(0)
        held = np.full(self._phases.shape[1], self._tail[-1])
        out = self._take(held, ready_only=False)
        self._tail, self._origin, self._seen, self._given = np.empty(0), -self._before, 0, 0
        return out

    def _take(self, x: FloatArray, *, ready_only: bool) -> FloatArray:
        if x.shape[0] == 0:
            return np.empty(0)
        if self._seen == 0:
            self._tail = np.full(self._before, x[0])  # the first sample is held backwards
        work = np.concatenate([self._tail, x])
        if ready_only:
            self._seen += x.shape[0]
            # output j needs tap samples up to floor(j * down / up) + taps - 1 - before, all of them seen
            whole = self._seen - (self._phases.shape[1] - self._before) + 1
            end = max(self._given, -(-whole * self._up // self._down)) if whole > 0 else self._given
        else:
            end = -(-self._seen * self._up // self._down)
        y = np.empty(end - self._given)
        dot(work, self._phases, self._given, self._up, self._down, self._origin + self._before, y)
        self._given = end
        drop = self._given * self._down // self._up - self._before - self._origin
        self._tail, self._origin = work[drop:].copy(), self._origin + drop
        return y


def resample(x: npt.ArrayLike, fs_in: float, fs_out: float) -> npt.NDArray[Any]:
    """`x` (n,) at `fs_in` Hz -> (ceil(n * fs_out / fs_in),) at `fs_out` Hz, in the same unit.

    float32 stays float32, everything else becomes float64; arithmetic is float64. The ends are held. A NaN or infinity
    reaches the outputs within 12 samples of the lower rate and no further. Equal rates give a copy.

    Raises
    ------
    UsageError
        `x` is not (n,) of real numbers, or a rate is refused by `Resampler`.
    """
    signal = samples(x, _OPERATION)
    resampler = Resampler(fs_in, fs_out)
    y = signal.copy() if fs_in == fs_out else np.concatenate([resampler.feed(signal), resampler.flush()])
    return y.astype(np.float32) if getattr(x, "dtype", None) == np.float32 else y


@lru_cache(maxsize=16)
def _phases(up: int, down: int) -> FloatArray:
    """(up, taps) filters: row p interpolates at p / up of a sample after tap number taps / 2 - 1; each sums to 1."""
    widening = max(1.0, down / up)
    half = int(np.ceil(_ZEROS * widening))
    half += half % 2  # taps = 2 * half is a multiple of four, as the loop wants it
    at = np.arange(1 - half, half + 1)[None, :] - np.arange(up)[:, None] / up
    at /= widening
    window = np.i0(_BETA * np.sqrt(np.clip(1 - (at / _ZEROS) ** 2, 0, None))) * (np.abs(at) < _ZEROS)
    taps = np.sinc(at) * window
    taps = np.round(taps / taps.sum(axis=1, keepdims=True) * _GRID) / _GRID
    taps[:, half - 1] += 1 - taps.sum(axis=1)
    taps.setflags(write=False)
    return np.asarray(taps, dtype=np.float64)
