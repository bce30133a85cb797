"""Where the fundus kernels read and write: filter weights, visible spans, gains and the quantisation's table."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

TARGET = 18  # mean magnitude of the normalised difference, in int8 steps
FLOOR_Q6 = 32  # half a grey level: keeps a channel without contrast (blue, mostly) from being blown up into noise


class Bounded(Protocol):
    """A circle and the box that bounds what is visible of it, in pixels; hashable."""

    @property
    def cx(self) -> float: ...
    @property
    def cy(self) -> float: ...
    @property
    def r(self) -> float: ...
    @property
    def left(self) -> float: ...
    @property
    def top(self) -> float: ...
    @property
    def right(self) -> float: ...
    @property
    def bottom(self) -> float: ...


@lru_cache(maxsize=8)
def weights_at(start: float, side: float, n: int, size: int) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """First tap and Q14 weights of a triangle filter for `size` outputs over `side` of `n` inputs from `start`."""
    ratio = side / size
    reach = max(ratio, 1.0)
    centre = start + (np.arange(size) + 0.5) * ratio
    taps = min(int(np.ceil(2 * reach)) + 1, n)
    first = np.clip(np.floor(centre - reach + 0.5).astype(np.int64), 0, n - taps)
    where = np.clip(centre, 0.5, n - 0.5)[:, None]  # beyond the photograph: its border
    weight = np.maximum(1 - np.abs(first[:, None] + np.arange(taps) + 0.5 - where) / reach, 0)
    fixed = np.rint(weight / weight.sum(1, keepdims=True) * 16384).astype(np.int64)
    fixed[np.arange(size), fixed.argmax(1)] += 16384 - fixed.sum(1)
    return first.astype(np.int32), fixed.astype(np.int16)


def weights(start: float, side: float, n: int, size: int) -> tuple[NDArray[np.int32], NDArray[np.int16]]:
    """`weights_at`, its geometry rounded to 1/256 of a pixel."""
    # to 1/256 pixel: the same photograph is the same everywhere, and one camera's repeated crops are found again
    return weights_at(round(start * 256) / 256, max(round(side * 256), 256) / 256, n, size)


@lru_cache(maxsize=8)
def spans(circle: Bounded, size: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """First visible pixel and one past the last, for each row; pixels count by their centres."""
    y = np.arange(size) + 0.5
    half = np.sqrt(np.maximum(circle.r**2 - (y - circle.cy) ** 2, 0))
    lo = np.ceil(np.maximum(circle.cx - half, circle.left) - 0.5)
    hi = np.floor(np.minimum(circle.cx + half, circle.right) - 0.5) + 1
    seen = (half > 0) & (y > circle.top) & (y < circle.bottom)
    lo = np.where(seen, np.clip(lo, 0, size), 0).astype(np.int32)
    return lo, np.maximum(np.where(seen, np.clip(hi, 0, size), 0), lo).astype(np.int32)


def gains(magnitude: NDArray[np.int64], n: int) -> NDArray[np.int16]:
    """Gain of each channel in Q11, at most 16: target over mean magnitude, the floor added."""
    top = TARGET * 64 * 2048 * n
    return np.array([min(32767, top // (int(m) + FLOOR_Q6 * n)) if n else 0 for m in magnitude], np.int16)


@lru_cache(maxsize=8)
def table(scale: float, zero_point: int) -> tuple[NDArray[np.int8], bool]:
    """int8 for each step -128..127 under the model's quantisation, and whether that changes nothing."""
    if not (np.isfinite(scale) and scale > 0 and -128 <= zero_point <= 127):
        raise ValueError(f"not an int8 quantisation: scale {scale}, zero point {zero_point}")
    table = np.clip(np.rint(np.arange(-128, 128) / 128 / scale) + zero_point, -128, 127).astype(np.int8)
    return table, bool(np.array_equal(table, np.arange(-128, 128)))
