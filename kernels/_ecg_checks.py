"""What every ECG kernel asks of its arguments, before a loop trusts them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from aidpost.errors import UsageError

FloatArray = npt.NDArray[np.float64]


def refuse(operation: str, target: str, cause: str, remedy: str = "") -> UsageError:
    """The error for an argument that a kernel cannot work with."""
    return UsageError(operation=operation, target=target, cause=cause, remedy=remedy)


def samples(x: npt.ArrayLike, operation: str) -> FloatArray:
    """`x` as contiguous float64 of shape (n,); it is not copied when it is that already.

    Raises
    ------
    UsageError
        `x` is not one-dimensional, or not made of real numbers.
    """
    array: npt.NDArray[Any] = np.asarray(x)
    if array.ndim != 1:
        raise refuse(operation, "samples", f"one lead of shape (n,) is needed, not {array.shape}")
    if array.dtype.kind not in "fiub":
        raise refuse(operation, "samples", f"real numbers are needed, not {array.dtype}")
    # longdouble and float64 signalling values may overflow into inf, which the kernels take as missing
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float64)


def rate(fs_hz: float, operation: str, low: float = 1.0, high: float = 100_000.0) -> float:
    """`fs_hz` as a float within [low, high] Hz.

    Raises
    ------
    UsageError
        It is not finite, or outside the range.
    """
    fs = float(fs_hz)
    if not (math.isfinite(fs) and low <= fs <= high):
        raise refuse(operation, f"sampling rate {fs_hz} Hz", f"it must be between {low:g} and {high:g} Hz")
    return fs
