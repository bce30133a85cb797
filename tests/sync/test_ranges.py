"""Ranges against plain sets."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from aidpost.sync import ranges

pairs = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12)


def as_set(parts: list[tuple[int, int]]) -> set[int]:
    return {number for start, stop in parts for number in range(start, stop)}


@given(pairs)
def test_merged_ranges_are_the_union_written_in_the_one_way(parts: list[tuple[int, int]]) -> None:
    merged = ranges.merge(parts)
    assert set(ranges.numbers(merged)) == as_set(parts)
    assert ranges.count(merged) == len(as_set(parts))
    assert merged == ranges.from_numbers(as_set(parts))
    assert all(start < stop for start, stop in merged)
    assert all(first[1] < second[0] for first, second in itertools.pairwise(merged))


@given(pairs, st.integers(0, 60), st.integers(0, 60))
def test_what_is_missing_is_the_rest_of_the_span(parts: list[tuple[int, int]], start: int, stop: int) -> None:
    gaps = ranges.missing(ranges.merge(parts), start, stop)
    assert set(ranges.numbers(gaps)) == set(range(start, stop)) - as_set(parts)
    assert all(ranges.contains(gaps, number) for number in ranges.numbers(gaps))
