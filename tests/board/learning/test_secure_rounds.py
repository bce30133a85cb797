"""Rounds of which the hub sees the sum only, between real stores and a real hub, whoever drops out at which phase."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from clinics import Clinic, Hub

from aidpost.records import Record
from aidpost.sync import rounds
from aidpost.sync.hub.rounds import Progress
from aidpost.sync.inbox import Inbox
from aidpost.sync.rounds import RoundAnswer, RoundKeys, RoundPeers, RoundReveal, RoundRoster, RoundShares, RoundUnmask

PHASES = ("keys", "shares", "answer", "reveal")


def turn(clinics: list[Clinic]) -> list[str]:
    """Each fetches what the hub has for it, does what is due, and brings it back; what came of it."""
    states = []
    for one in clinics:
        one.carry()
        states += [kept.state for kept in one.act()]
        one.carry()
    return states


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """What devices learned, before it is masked."""
    from aidpost.board.learning import participant

    seen: list[np.ndarray] = []
    train = participant.train

    def noting(*arguments: Any) -> Any:
        update = train(*arguments)
        seen.append(update.to_vector())
        return update

    monkeypatch.setattr(participant, "train", noting)
    return seen


def test_four_phases_make_the_head_of_the_sum(hub: Hub, clinics: list[Clinic], given: list[np.ndarray]) -> None:
    hub.open(secure=True, minimum=2)
    for state, phase in zip(("keys", "shares", "answered", "revealed"), PHASES, strict=True):
        assert hub.status().phase == phase
        # two of three can unmask: the third is told that it is over
        assert turn(clinics) == [state] * (2 if state == "revealed" else 3)
    assert (hub.status().state, hub.status().counted) == ("closed", 3)
    total = np.sum(given, axis=0)
    assert hub.head().ravel() == pytest.approx(total[:-1] / total[-1], abs=1e-5)
    answers = [one.sent(RoundAnswer)[0] for one in clinics]
    assert all(len(one.vector) == 8 * given[0].size and one.masked for one in answers)
    assert [kept.secrets for one in clinics for kept in one.me.ledger.all()] == [None] * 3


@pytest.mark.parametrize("missing_from", [1, 2, 3])
def test_one_of_three_may_go_away_in_any_phase(
    hub: Hub, clinics: list[Clinic], given: list[np.ndarray], missing_from: int
) -> None:
    hub.open(secure=True, minimum=2)
    for number in range(4):
        turn(clinics if number < missing_from else clinics[:2])
        if hub.status().phase == PHASES[number] and hub.status().state == "open":
            hub.later(15 * (number + 1))
    assert hub.status().state == "closed"
    counted = given if missing_from == 3 else given[:2]
    assert hub.status().counted == len(counted)
    total = np.sum(counted, axis=0)
    assert hub.head().ravel() == pytest.approx(total[:-1] / total[-1], abs=1e-5)


def test_with_too_few_left_nothing_is_opened(hub: Hub, clinics: list[Clinic]) -> None:
    hub.open(secure=True, minimum=2)
    turn(clinics)
    turn(clinics)
    turn(clinics[:1])
    ended = hub.later(15)
    assert (ended.state, ended.reason) == ("void", "1 devices answered of 2 needed")


def test_a_late_answer_cannot_be_added_to_a_sum_of_masks(hub: Hub, clinics: list[Clinic]) -> None:
    hub.open(secure=True, minimum=2)
    turn(clinics)
    turn(clinics)
    clinics[2].carry()
    clinics[2].act()
    turn(clinics[:2])
    hub.later(15)
    clinics[2].carry()
    assert "late for answer" in hub.status().refused["west"]


def test_noise_in_shares_is_accounted_as_that_of_the_sum(hub: Hub, clinics: list[Clinic]) -> None:
    hub.open(secure=True, minimum=2)
    for _ in range(3):
        turn(clinics)
    assert clinics[0].me.ledger.spent() == pytest.approx(1 / 2.33**2)


# -- a hub that does not keep to the protocol


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> dict[type[Record], Any]:
    """Kind -> what the hub's record of it is changed into before a device keeps it."""
    lies: dict[type[Record], Any] = {}
    records = Inbox.records

    def told(self: Inbox, kind: Any, exam: Any) -> Any:
        change = lies.get(kind, lambda one: one)
        return [change(one) for one in records(self, kind, exam)]

    monkeypatch.setattr(Inbox, "records", told)
    return lies


def ends_declined(clinics: list[Clinic]) -> str:
    north = clinics[0]
    north.carry()
    [kept] = north.act()
    assert kept.state == "declined"
    assert kept.secrets is None
    return kept.reason


def test_a_key_that_is_not_this_device_s_is_declined(
    hub: Hub, clinics: list[Clinic], lying: dict[type[Record], Any]
) -> None:
    hub.open(secure=True, minimum=2)
    turn(clinics)
    other = clinics[1].sent(RoundKeys)[0]

    def forged(roster: RoundRoster) -> RoundRoster:
        members = {**roster.members, "north": (bytes(31) + b"\x09", other.share[:-1] + b"\x01")}
        return msgspec.structs.replace(roster, members=members)

    lying[RoundRoster] = forged
    assert "another key" in ends_declined(clinics)
    assert clinics[0].sent(RoundShares) == []


def test_too_few_peers_to_hide_among_are_declined_and_nothing_is_learned(
    hub: Hub, clinics: list[Clinic], lying: dict[type[Record], Any]
) -> None:
    hub.open(secure=True, minimum=2)
    turn(clinics)
    turn(clinics)
    lying[RoundPeers] = lambda one: msgspec.structs.replace(one, sealed={"north": one.sealed["north"]})
    assert "too few to hide among" in ends_declined(clinics)
    assert (clinics[0].sent(RoundAnswer), clinics[0].me.ledger.spent()) == ([], 0.0)


def test_one_answer_alone_is_never_opened(hub: Hub, clinics: list[Clinic], lying: dict[type[Record], Any]) -> None:
    hub.open(secure=True, minimum=2)
    for _ in range(3):
        turn(clinics)
    lying[RoundUnmask] = lambda one: msgspec.structs.replace(one, answered=("south", "south"))
    assert "too few to hide among" in ends_declined(clinics)
    assert clinics[0].sent(RoundReveal) == []


def test_of_one_member_no_device_gives_seed_and_key(
    hub: Hub, clinics: list[Clinic], lying: dict[type[Record], Any]
) -> None:
    """A hub that first says that somebody answered, and then that they did not, would have both."""
    hub.open(secure=True, minimum=2)
    for _ in range(3):
        turn(clinics)
    north = clinics[0]
    north.carry()
    [kept] = north.act()
    lying[RoundUnmask] = lambda one: msgspec.structs.replace(one, answered=("north", "south"))
    north.me.ledger.put(msgspec.structs.replace(kept, state="answered"))
    again = north.act()
    [reveal] = north.sent(RoundReveal)
    assert set(reveal.seeds) == {"north", "south", "west"}
    assert reveal.keys == {}
    assert all(one.state == "declined" for one in again)


def test_wrong_shares_void_the_round_and_the_head_stays(hub: Hub, clinics: list[Clinic]) -> None:
    hub.open(secure=True, minimum=2)
    for _ in range(3):
        turn(clinics)
    for one in clinics[:2]:
        one.carry()
        due = one.me.due()
        one.store.append(_wrong_reveal(due[0].call, one))
        one.carry()
    ended: Progress = hub.status()
    assert ended.state == "void"
    assert hub.row().head is None


def _wrong_reveal(call: rounds.RoundCall, clinic: Clinic) -> Any:
    from aidpost.sync.envelope import RecordClass
    from aidpost.sync.store import Item

    seeds = {name: bytes(31) + name.encode()[:2] for name in ("north", "south", "west")}
    return Item(RecordClass.ROUND, RoundReveal(id=call.round, seeds=seeds, keys={}, at=clinic.store.now()), None)
