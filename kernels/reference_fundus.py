"""What the loops of `fundus` compute, in plain NumPy: the proof of them. Slow, and every step spelled out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def resample(
    photo: NDArray[np.uint8],
    first_row: NDArray[np.int32],
    row_weights: NDArray[np.int16],
    first_column: NDArray[np.int32],
    column_weights: NDArray[np.int16],
) -> NDArray[np.uint8]:
    """Rows blended with Q14 weights to Q6, then columns, rounded half up."""
    rows = first_row[:, None] + np.arange(row_weights.shape[1])
    blended = (np.einsum("yk,ykxc->yxc", row_weights.astype(np.int64), photo[rows].astype(np.int64)) + 128) >> 8
    columns = first_column[:, None] + np.arange(column_weights.shape[1])
    sums = np.einsum("xk,yxkc->yxc", column_weights.astype(np.int64), blended[:, columns])
    return np.asarray((sums + (1 << 19)) >> 20, np.uint8)


def visible(lo: NDArray[np.int32], hi: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Mask (size, size) of the pixels lo <= x < hi of each row."""
    x = np.arange(len(lo))
    return (x >= lo[:, None]) & (x < hi[:, None])


def window_sum(values: NDArray[np.int64], half: int) -> NDArray[np.int64]:
    """Sum over the (2 half + 1)^2 window around each element of a (size, size) array, zero outside it."""
    size = len(values)
    table = np.pad(values.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    near = np.maximum(np.arange(size) - half, 0)
    far = np.minimum(np.arange(size) + half + 1, size)
    return np.asarray(
        table[np.ix_(far, far)] - table[np.ix_(near, far)] - table[np.ix_(far, near)] + table[np.ix_(near, near)]
    )


def local_difference(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], half: int) -> NDArray[np.int16]:
    """Pixel minus the mean of the window's visible pixels, Q6, rounded half up; zero where not visible.

    The mean is (float32 sum) * (float32 1 / count), each step rounded once.
    """
    count = np.maximum(window_sum(mask.astype(np.int64), half), 1)
    inverse = np.float32(1) / count.astype(np.float32)
    out = np.zeros(pixels.shape, np.int16)
    for c in range(3):
        mean = window_sum(np.where(mask, pixels[..., c], 0).astype(np.int64), half).astype(np.float32) * inverse
        scaled = (pixels[..., c].astype(np.float32) - mean) * np.float32(64) + np.float32(16384.5)
        out[..., c] = np.where(mask, scaled.astype(np.int32) - 16384, 0)
    return out


def quantise(
    difference: NDArray[np.int16], mask: NDArray[np.bool_], gain: NDArray[np.int16], table: NDArray[np.int8]
) -> NDArray[np.int8]:
    """Q6 times Q11 gains (by channel), rounded half up, saturated, through the table of the model's quantisation."""
    steps = (((difference.astype(np.int64) * gain) >> 16) + 1) >> 1
    clipped = np.where(mask[..., None], np.clip(steps, -128, 127), 0)
    return np.asarray(table[clipped + 128])


def measure(pixels: NDArray[np.uint8], mask: NDArray[np.bool_], dark: int, bright: int) -> NDArray[np.int64]:
    """Sums of red, green, blue; dark, bright and all pixels; magnitude of green's Laplacian and the pixels it was
    taken at."""
    p = pixels.astype(np.int64)
    light = (p[..., 0] + 2 * p[..., 1] + p[..., 2]) >> 2
    inner = mask.copy()
    inner[[0, -1]] = False
    inner[:, [0, -1]] = False
    green, within = p[1:-1, 1:-1, 1], np.zeros_like(mask)
    within[1:-1, 1:-1] = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
    edges = np.abs(4 * green - p[:-2, 1:-1, 1] - p[2:, 1:-1, 1] - p[1:-1, :-2, 1] - p[1:-1, 2:, 1])
    inner &= within
    sums = [*p[mask].sum(0), (light[mask] < dark).sum(), (light[mask] >= bright).sum(), mask.sum()]
    return np.array([*sums, edges[inner[1:-1, 1:-1]].sum(), inner.sum()], np.int64)
