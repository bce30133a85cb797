"""By what a measurement is known again when a sensor sends its memory once more."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from aidpost.board.measurements import not_heard_before
from aidpost.records import Device, Origin, Timestamp, VitalKind, VitalSign

AT = Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=1, boot=0, synced=True)
HOURS = [f"2026-03-01T{hour:02d}:00:00" for hour in range(6)]

memories = st.lists(st.tuples(st.sampled_from(HOURS), st.integers(90, 180)), max_size=6, unique_by=lambda one: one[0])


def sent(memory: Sequence[tuple[str, int]], address: str = "AA:00:00:00:00:02") -> list[VitalSign]:
    """What a cuff sends of (time, upper pressure): ids and groups are new in each upload."""
    out = []
    for time, upper in memory:
        group = uuid.uuid4()
        for kind, value in ((VitalKind.SYSTOLIC_BP, upper), (VitalKind.DIASTOLIC_BP, 80)):
            out.append(
                VitalSign(
                    id=uuid.uuid4(), kind=kind, value=float(value), unit="mm[Hg]", at=AT, origin=Origin.LIVE,
                    device=Device(name="Cuff", address=address), group=group, device_time=time,
                )
            )  # fmt: skip
    return out


@given(memories, memories)
def test_a_memory_that_grew_gives_what_is_new_and_nothing_twice(
    first: list[tuple[str, int]], second: list[tuple[str, int]]
) -> None:
    grown = [*first, *(one for one in second if one[0] not in {time for time, _ in first})]
    new = not_heard_before(sent(grown), sent(first))
    assert [(one.device_time, one.value) for one in new if one.kind is VitalKind.SYSTOLIC_BP] == grown[len(first) :]
    assert not_heard_before(sent(grown), sent(grown)) == []


@given(memories)
def test_another_cuffs_memory_is_its_own(memory: list[tuple[str, int]]) -> None:
    arrived = sent(memory, "AA:00:00:00:00:99")
    assert not_heard_before(arrived, sent(memory)) == arrived


def test_a_clock_that_stands_still_identifies_nothing() -> None:
    arrived = sent([(HOURS[0], 120)])
    assert not_heard_before(arrived, sent([(HOURS[0], 120)]) + sent([(HOURS[0], 130)])) == arrived


def test_what_has_no_time_of_its_own_was_measured_just_now() -> None:
    arrived = sent([("", 120)])
    assert not_heard_before(arrived, sent([("", 120)])) == arrived
