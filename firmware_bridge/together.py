"""Several sensors of vital signs at once: an exam waits for the slowest of them, not for all in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from typing import NamedTuple

from aidpost.errors import AidpostError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.marks import Marks
from aidpost.firmware_bridge.sources import open_source
from aidpost.records import VitalSign

MOST_AT_ONCE = 8
"""Adapters hold seven links or so; the other sensors wait for their turn."""


class Reading(NamedTuple):
    """What one sensor gave; `number` is its place among those that were asked for. `error` is why it gave nothing.
    `read_up_to` goes to `Marks.keep` once the vital signs are stored."""

    number: int
    source: str
    vitals: tuple[VitalSign, ...] = ()
    read_up_to: Mapping[str, int] = {}
    error: AidpostError | None = None


def read_together(
    sources: Sequence[str], *, clock: Clock, marks: Marks | None = None, patience_s: float | None = None
) -> Iterator[Reading]:
    """Read every source's vital signs, each in a thread of its own; gives each as it is done. One that fails never
    keeps another from being read.

    Parameters
    ----------
    sources
        SOURCE texts; one that is named twice is read twice, one after the other.
    marks
        How far the sensors' own records have been stored.
    patience_s
        How long a silent sensor is waited for whose source does not say so itself.
    """

    def read(number: int, source: str) -> Reading:
        try:
            with closing(open_source(source, clock=clock, marks=marks, patience_s=patience_s)) as opened:
                vitals = tuple(opened.read_vitals())
                return Reading(number, source, vitals, dict(opened.read_up_to))
        except AidpostError as error:
            return Reading(number, source, error=error)

    def in_turn(source: str, numbers: list[int]) -> list[Reading]:
        return [read(number, source) for number in numbers]

    wanted: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        wanted.setdefault(source, []).append(number)
    if not wanted:
        return
    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(wanted)), thread_name_prefix="sensor") as pool:
        for done in as_completed([pool.submit(in_turn, *item) for item in wanted.items()]):
            yield from done.result()
