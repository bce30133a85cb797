"""What a hub takes for an answer, and what not: nothing that is wrong stops the round, or gets into its head."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from sqlalchemy import select

from aidpost.errors import UsageError
from aidpost.records import decode
from aidpost.sync import rounds as wire
from aidpost.sync.hub import _round_phases, operations, outgoing, rounds, schema
from aidpost.sync.hub.aggregate import Strategy
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.rounds import Plan, Progress
from aidpost.sync.rounds import RoundAnswer, RoundCall

from .conftest import FakeDevice, Hub, at

PLAN = Plan("ecg-rhythm", "ab" * 32, "softmax", (4, 33), minimum=2, noise=2.33, rate=16.0)
SIZE = 4 * 33 + 1

pytestmark = pytest.mark.both_databases


@pytest.fixture
def devices(hub: Hub) -> list[FakeDevice]:
    made = [FakeDevice(f"unit-{i}") for i in range(1, 4)]
    for one in made:
        operations.enroll(hub.config, one.name, one.public_key)
    return made


def open_one(hub: Hub, plan: Plan = PLAN) -> RoundCall:
    with hub.database.write() as connection:
        number = rounds.open_round(connection, hub.database.epoch, plan, "okoro", now_ms())
    return call_for(hub, number)


def call_for(hub: Hub, number: uuid.UUID, device: str = "unit-1") -> RoundCall:
    with hub.database.read() as connection:
        found = [
            decode(RoundCall, one.body)
            for one in outgoing.waiting_for(connection, device)
            if one.kind == RoundCall.__name__
        ]
    return next(one for one in found if one.round == number)


def answer(call: RoundCall, value: float = 0.1, patients: float = 30.0, **changes: Any) -> RoundAnswer:
    vector = np.append(np.full(SIZE - 1, value * patients), patients)
    fields: dict[str, Any] = {
        "id": call.round,
        "model": call.model,
        "base": call.base,
        "vector": wire.from_floats(vector),
        "masked": False,
        "at": at(),
    }
    return RoundAnswer(**(fields | changes))


def give(hub: Hub, device: FakeDevice, record: Any) -> Any:
    [receipt] = hub.take(device, device.message(device.envelope(record, "round")))
    return receipt


def advance(hub: Hub, days: float = 0.0) -> None:
    with hub.database.write() as connection:
        _round_phases.advance(connection, hub.database.epoch, now_ms() + round(days * 86_400_000))


def state(hub: Hub) -> Progress:
    with hub.database.read() as connection:
        return rounds.progress(connection)[0]


def head(hub: Hub) -> np.ndarray:
    with hub.database.read() as connection:
        row = connection.execute(select(schema.rounds).order_by(schema.rounds.c.number.desc())).first()
        assert row is not None
        return wire.to_floats(bytes(row.head))


def refusals(hub: Hub) -> list[str]:
    table = schema.audit
    with hub.database.read() as connection:
        query = select(table.c.detail).where(table.c.action == "round-refused").order_by(table.c.id)
        return list(connection.execute(query).scalars())


NOT_FINITE = np.append(np.full(SIZE - 1, np.nan), 5.0)
HUGE = np.append(np.full(SIZE - 1, 1e9), 5.0)
NOBODY = np.append(np.zeros(SIZE - 1), 0.0)
A_NATION = np.append(np.zeros(SIZE - 1), 1e9)

BAD: dict[str, tuple[Callable[[RoundCall], RoundAnswer], str]] = {
    "shape": (lambda call: answer(call, vector=bytes(40)), "bytes, not those of 133 values"),
    "model": (lambda call: answer(call, model="fundus-dr"), "another model"),
    "network": (lambda call: answer(call, base="cd" * 32), "another model"),
    "nan": (lambda call: answer(call, vector=wire.from_floats(NOT_FINITE)), "not finite"),
    "huge": (lambda call: answer(call, vector=wire.from_floats(HUGE)), "at most"),
    "nobody": (lambda call: answer(call, vector=wire.from_floats(NOBODY)), "0 patients stand behind it"),
    "patients": (lambda call: answer(call, vector=wire.from_floats(A_NATION)), "1e+09 patients stand behind it"),
    "masked": (lambda call: answer(call, masked=True, vector=bytes(8 * SIZE)), "it is masked"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_answer_is_skipped_with_a_reason_and_the_round_goes_on(
    hub: Hub, devices: list[FakeDevice], kind: str
) -> None:
    make, reason = BAD[kind]
    call = open_one(hub)
    receipt = give(hub, devices[0], make(call))
    assert not receipt.rejected, "it was taken, and is not sent again"
    give(hub, devices[1], answer(call, 0.1))
    give(hub, devices[2], answer(call, 0.3))
    advance(hub, days=15)
    assert (state(hub).state, state(hub).counted) == ("closed", 2)
    assert reason in state(hub).refused["unit-1"]
    assert reason in refusals(hub)[0]
    assert head(hub) == pytest.approx(0.2, abs=1e-6)


def test_a_second_answer_and_a_replay_count_for_nothing(hub: Hub, devices: list[FakeDevice]) -> None:
    call = open_one(hub)
    first = devices[0].message(devices[0].envelope(answer(call, 0.1), "round"))
    for message in (first, first):
        hub.take(devices[0], message)
    give(hub, devices[0], answer(call, 5.0))
    give(hub, devices[1], answer(call, 0.3))
    give(hub, devices[2], answer(call, 0.2))
    advance(hub)
    assert head(hub) == pytest.approx(0.2, abs=1e-6)
    assert refusals(hub) == ["RoundAnswer: a device answers once"]


def test_an_answer_to_no_round_or_of_nobody_who_was_asked_is_audited(hub: Hub, devices: list[FakeDevice]) -> None:
    call = open_one(hub, PLAN._replace(devices=("unit-1", "unit-2")))
    give(hub, devices[2], answer(call))
    give(hub, devices[0], answer(call, id=uuid.uuid4()))
    assert refusals(hub) == ["RoundAnswer: no such round, or not asked"] * 2
    assert state(hub).answered == 0


def test_bytes_that_are_no_answer_are_rejected_as_any_record(hub: Hub, devices: list[FakeDevice]) -> None:
    open_one(hub)
    envelope = devices[0].envelope(os.urandom(30), "round", kind="RoundAnswer")
    [receipt] = hub.take(devices[0], devices[0].message(envelope))
    assert [one.code for one in receipt.rejected] == ["invalid"]


def test_a_record_of_a_secure_sum_in_a_round_without_one_is_refused(hub: Hub, devices: list[FakeDevice]) -> None:
    call = open_one(hub)
    give(hub, devices[0], wire.RoundKeys(id=call.round, mask=bytes(32), share=bytes(32), at=at()))
    assert refusals(hub) == ["RoundKeys: the round has no secure sum"]


def test_a_round_ends_by_itself_when_all_have_answered_and_a_revoked_device_is_not_waited_for(
    hub: Hub, devices: list[FakeDevice]
) -> None:
    call = open_one(hub)
    for one in devices[:2]:
        give(hub, one, answer(call))
    advance(hub)
    assert state(hub).state == "open"
    operations.revoke(hub.config, "unit-3")
    advance(hub)
    assert state(hub).state == "closed"
    advance(hub)
    assert state(hub).counted == 2


@pytest.mark.parametrize("strategy", ["trimmed-mean", "geometric-median"])
def test_hostile_device_does_not_decide_under_a_robust_strategy(hub: Hub, strategy: Strategy) -> None:
    devices = [FakeDevice(f"unit-{i}") for i in range(1, 8)]
    for one in devices:
        operations.enroll(hub.config, one.name, one.public_key)
    call = open_one(hub, PLAN._replace(strategy=strategy, minimum=5))
    for number, one in enumerate(devices):
        give(hub, one, answer(call, -4.0 if number < 1 else 0.1 + number / 100))
    advance(hub)
    assert state(hub).state == "closed"
    ahead = 1.8 if strategy == "geometric-median" else 1.0  # its momentum's first step
    assert np.all(np.abs(head(hub) / ahead - 0.15) < 0.05)


def test_what_an_adaptive_strategy_remembers_goes_on_in_the_next_round(hub: Hub, devices: list[FakeDevice]) -> None:
    from aidpost.sync.hub.aggregate import Aggregator

    wanted = Aggregator("fedadam", np.zeros(SIZE - 1))
    for _ in range(2):
        call = open_one(hub, PLAN._replace(strategy="fedadam"))
        for one in devices:
            give(hub, one, answer(call, 0.2))
        advance(hub)
        wanted.take(np.full((3, SIZE - 1), 0.2), np.full(3, 30.0))
        assert head(hub) == pytest.approx(wanted.weights, abs=1e-5)


def test_geometric_median_changes_from_single_steps_to_many_and_back(hub: Hub, devices: list[FakeDevice]) -> None:
    """With several steps it remembers what to tell each device, with one its momentum: neither passes for the other."""
    for steps in (1, 2, 2, 1, 1):
        call = open_one(hub, PLAN._replace(strategy="geometric-median", steps=steps, rate=1.0))
        told = call_for(hub, call.round, "unit-3").correction
        for one, value in zip(devices, (0.1, 0.2, 0.3), strict=True):
            give(hub, one, answer(call, value))
        advance(hub)
        assert state(hub).state == "closed", steps
        assert any(told) == (call.number == 3)


@pytest.mark.parametrize("afresh", [False, True])
def test_a_ridge_may_take_back_what_the_head_has_and_no_more(hub: Hub, devices: list[FakeDevice], afresh: bool) -> None:
    call = open_one(hub)
    for one in devices:
        give(hub, one, answer(call, 0.5))
    advance(hub)
    call = open_one(hub, PLAN._replace(rate=0.001, ridge=0.5, afresh=afresh))
    assert call.ridge == 0.5
    for one in devices:
        give(hub, one, answer(call, -0.5))
    assert len(state(hub).refused) == (3 if afresh else 0)


def test_a_ridge_that_a_step_would_overshoot_is_refused_at_both_ends(hub: Hub, devices: list[FakeDevice]) -> None:
    with pytest.raises(UsageError) as refused:
        open_one(hub, PLAN._replace(rate=40.0, ridge=0.03))
    assert "rate may be 33.3333 at most" in refused.value.remedy
    call = open_one(hub, PLAN._replace(rate=30.0, ridge=0.03))
    for ridge in (0.04, float("nan"), -0.01):
        with pytest.raises(ValueError, match=r"ridge|recipe"):
            msgspec.structs.replace(call, ridge=ridge)


def test_under_scaffold_each_device_is_told_of_the_others(hub: Hub, devices: list[FakeDevice]) -> None:
    plan = PLAN._replace(strategy="scaffold", steps=2, rate=1.0)
    call = open_one(hub, plan)
    assert not any(call.correction)
    for one, value in zip(devices, (0.1, 0.2, 0.6), strict=True):
        give(hub, one, answer(call, value))
    advance(hub)
    assert head(hub) == pytest.approx(0.3, abs=1e-6)
    call = open_one(hub, plan)
    told = [wire.to_floats(call_for(hub, call.round, one.name).correction) for one in devices]
    # slopes are -value / (steps * rate); each is told the mean of all less its own
    for correction, value in zip(told, (0.1, 0.2, 0.6), strict=True):
        assert correction == pytest.approx((value - 0.3) / 2, abs=1e-6)
    for one, value in zip(devices, (0.0, 0.0, 0.0), strict=True):
        give(hub, one, answer(call, value))
    advance(hub)
    third = open_one(hub, plan)
    again = wire.to_floats(call_for(hub, third.round, "unit-3").correction)
    # a change of nothing under a correction says that the slope is its opposite, which all of them sum to nothing
    assert again == pytest.approx((0.6 - 0.3) / 2, abs=1e-6)


def test_every_round_leaves_its_audit_entries(hub: Hub, devices: list[FakeDevice]) -> None:
    call = open_one(hub)
    for one in devices:
        give(hub, one, answer(call))
    advance(hub)
    table = schema.audit
    with hub.database.read() as connection:
        query = select(table.c.actor, table.c.action).where(table.c.target == str(call.round)).order_by(table.c.id)
        assert [tuple(row) for row in connection.execute(query)] == [("okoro", "round-opened"), ("hub", "round-closed")]
    assert operations.verify_audit(hub.config).broken_at is None
