"""Sets of whole numbers as sorted half-open ranges: the sequences of a receipt, the bytes of a blob that are held."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator

Range = tuple[int, int]
"""Half-open [start, stop)."""

Ranges = tuple[Range, ...]
"""Sorted, not empty, not touching: there is one way to write each set."""


def merge(ranges: Iterable[Range]) -> Ranges:
    """The union of `ranges`, in any order and overlapping or not; empty ones vanish."""
    merged: list[Range] = []
    for start, stop in sorted(r for r in ranges if r[0] < r[1]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((start, stop))
    return tuple(merged)


def from_numbers(numbers: Iterable[int]) -> Ranges:
    """The ranges that hold exactly these numbers."""
    found: list[Range] = []
    start = stop = 0
    for number in sorted(numbers):
        if number > stop or start == stop:
            if start < stop:
                found.append((start, stop))
            start = number
        stop = number + 1
    return (*found, (start, stop)) if start < stop else ()


def missing(held: Ranges, start: int, stop: int) -> Ranges:
    """What of [start, stop) is not in `held`."""
    gaps: list[Range] = []
    for first, last in held:
        if first >= stop:
            break
        if first > start:
            gaps.append((start, first))
        start = max(start, last)
    gaps.append((start, stop))
    return merge(gaps)


def contains(held: Ranges, number: int) -> bool:
    """Whether `number` is in one of the ranges."""
    at = bisect.bisect_right(held, (number, math.inf)) - 1
    return at >= 0 and number < held[at][1]


def count(ranges: Ranges) -> int:
    """How many numbers they hold."""
    return sum(stop - start for start, stop in ranges)


def numbers(ranges: Ranges) -> Iterator[int]:
    """Each number, ascending."""
    for start, stop in ranges:
        yield from range(start, stop)
