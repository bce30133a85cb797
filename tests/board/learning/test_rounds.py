"""Rounds in the clear between real stores and a real hub, carried by stick: who answers, how often, at what cost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clinics import Clinic, Hub, confirmed_exams, mean_of, plan, with_section

from aidpost.errors import StoreDamagedError, UsageError
from aidpost.inference.private import epsilon
from aidpost.records import ConsentPurpose
from aidpost.sync import settings
from aidpost.sync.hub import consents
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.rounds import RoundAnswer, RoundCall, RoundEnd


def test_two_rounds_by_stick_go_on_from_one_another(hub: Hub, clinics: list[Clinic]) -> None:
    weights = np.zeros(plan().shape)
    for number in (1, 2):
        opened = hub.open()
        assert (opened.number, opened.asked, opened.state) == (number, 3, "open")
        for one in clinics:
            one.carry()
            assert [kept.state for kept in one.act()] == ["answered"]
            one.carry()
        assert hub.status().state == "closed"
        weights = weights + mean_of([one.sent(RoundAnswer)[-1] for one in clinics]).reshape(weights.shape)
        assert hub.head() == pytest.approx(weights, abs=1e-4)
        clinics[0].carry()
        [*_, end] = clinics[0].store.inbox.records(RoundEnd, None)
        assert (end.answers, end.head) == (3, bytes(hub.row().head))
    assert [actor for actor, _ in hub.audited("round-closed")] == ["hub", "hub"]
    calls = clinics[0].store.inbox.records(RoundCall, None)
    assert {call.number: any(call.head) for call in calls} == {1: False, 2: True}


def test_a_device_answers_once_however_often_it_is_asked_to(hub: Hub, clinics: list[Clinic]) -> None:
    hub.open()
    north = clinics[0]
    north.carry()
    assert [kept.state for kept in north.act()] == ["answered"]
    assert north.act() == []
    north.carry()
    north.carry()
    assert north.act() == []
    assert len(north.sent(RoundAnswer)) == 1


def test_what_it_cost_is_shown_by_device_and_by_patient_group(hub: Hub, clinics: list[Clinic]) -> None:
    north = clinics[0]
    for number in range(2):
        hub.open()
        north.carry()
        north.act()
        north.carry()
        hub.close()
        confirmed_exams(north.store, 2, seed=500 + number)
    once, twice = epsilon(1 / 2.33**2, 1e-5), epsilon(2 / 2.33**2, 1e-5)
    assert epsilon(north.me.ledger.spent(), 1e-5) == pytest.approx(twice)
    assert [one[:2] for one in north.me.ledger.groups(1e-5)] == [(3, 2), (2, 1)]
    assert [one.epsilon for one in north.me.ledger.groups(1e-5)] == pytest.approx([twice, once])


def test_a_spent_budget_stops_the_device_with_a_reason(hub: Hub, clinics: list[Clinic]) -> None:
    north = clinics[0]
    north.section = with_section(epsilon=epsilon(1.5 / 2.33**2, 1e-5))
    states = []
    for _ in range(2):
        hub.open()
        north.carry()
        states += north.act()
        north.carry()
        hub.close()
    assert [kept.state for kept in states] == ["answered", "declined"]
    assert "privacy budget is spent" in states[-1].reason
    assert len(north.sent(RoundAnswer)) == 1


def test_a_hub_cannot_raise_the_budget() -> None:
    assert not [key for key in settings.REMOTE if key.startswith("federated.")]


def test_only_consent_to_this_purpose_counts_and_not_what_was_withdrawn_at_the_hub(
    hub: Hub, clinics: list[Clinic]
) -> None:
    north = clinics[0]
    confirmed_exams(north.store, 1, seed=600, consents=())
    confirmed_exams(north.store, 1, seed=601, consents=(True, False))
    gone = north.reports[0].patient.id
    north.carry()
    database = Database(hub.config.url)
    with database.write() as connection:
        consents.withdraw(connection, gone, ConsentPurpose.MODEL_TRAINING, "okoro", "asked to", now_ms())
    database.close()
    hub.open()
    north.carry()
    [kept] = north.act()
    assert set(kept.patients) == {report.patient.id for report in north.reports[1:]}
    clinics[1].carry()
    assert clinics[1].store.inbox.records(RoundCall, None)[0].withdrawn == (), "it is told of its own patients only"


def test_too_few_cases_wait_until_there_are_more(hub: Hub, clinics: list[Clinic]) -> None:
    north = clinics[0]
    north.section = with_section(least_patients=4)
    hub.open()
    north.carry()
    assert [(kept.state, kept.cost) for kept in north.act()] == [("waits", 0.0)]
    confirmed_exams(north.store, 1, seed=700)
    assert north.act() == [], "it looks again tomorrow"
    north.clock.wall += 2 * 86_400_000
    assert [kept.state for kept in north.act()] == ["answered"]


def test_of_two_rounds_that_wait_only_the_newer_one_is_begun(hub: Hub, clinics: list[Clinic]) -> None:
    """Weeks offline: what was asked first is over, and would cost patients for nothing."""
    hub.open()
    clinics[0].carry()
    hub.close()
    hub.open()
    for one in clinics[:2]:
        one.carry()
        assert [kept.number for kept in one.act()] == [2]


def test_after_its_deadline_by_a_clock_that_is_set_nothing_is_begun(hub: Hub, clinics: list[Clinic]) -> None:
    north = clinics[0]
    hub.open(days=1)
    north.carry()
    north.clock.wall += 3 * 86_400_000
    north.clock.synced = lambda: True  # type: ignore[method-assign]
    assert north.act() == []
    north.clock.synced = lambda: False  # type: ignore[method-assign]
    assert [kept.state for kept in north.act()] == ["answered"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"base": "0" * 64}, "not the model"), ({"kind": "cumulative"}, "not the model"), ({"model": "x"}, "not the")],
)
def test_a_round_of_another_network_is_declined(
    hub: Hub, clinics: list[Clinic], changes: dict[str, str], reason: str
) -> None:
    hub.open(**changes)
    clinics[0].carry()
    [kept] = clinics[0].act()
    assert kept.state == "declined"
    assert reason in kept.reason
    assert kept.cost == 0


def test_late_answers_count_for_the_next_round(hub: Hub, clinics: list[Clinic]) -> None:
    hub.open(minimum=2)
    for one in clinics:
        one.carry()
        one.act()
    for one in clinics[:2]:
        one.carry()
    first = hub.later(15)
    assert (first.state, first.counted) == ("closed", 2)
    before = hub.head()
    hub.open(minimum=2)
    clinics[0].carry()
    clinics[0].act()
    clinics[0].carry()
    clinics[2].carry()  # its answer to the first round
    assert hub.close().counted == 2
    given = [clinics[0].sent(RoundAnswer)[1], clinics[2].sent(RoundAnswer)[0]]
    assert hub.head() == pytest.approx(before + mean_of(given).reshape(before.shape), abs=1e-4)


def test_answers_to_a_round_that_had_too_few_count_for_the_next(hub: Hub, clinics: list[Clinic]) -> None:
    hub.open(minimum=2)
    for one in clinics[:2]:
        one.carry()
        one.act()
    clinics[0].carry()
    assert hub.later(15).reason == "1 answers of 2 needed"
    hub.open(minimum=2)
    clinics[1].carry()
    clinics[2].carry()
    clinics[2].act()
    clinics[2].carry()
    assert hub.close().counted == 3


def test_a_round_that_nobody_answers_is_void_with_the_reason_and_the_next_goes_on(
    hub: Hub, clinics: list[Clinic]
) -> None:
    hub.open()
    ended = hub.later(15)
    assert (ended.state, ended.reason) == ("void", "0 answers of 3 needed")
    assert hub.audited("round-void") == [("hub", "0 answers of 3 needed")]
    clinics[0].carry()
    [end] = clinics[0].store.inbox.records(RoundEnd, None)
    assert (end.head, end.reason) == (b"", "0 answers of 3 needed")
    assert clinics[0].act() == [], "nothing is learned for a round that is over"
    assert hub.open().number == 2


def test_a_round_that_begins_afresh_forgets_the_head_and_takes_no_answer_to_another_start(
    hub: Hub, clinics: list[Clinic]
) -> None:
    north, south, west = clinics
    for number in (1, 2, 3):
        hub.open(minimum=2, afresh=number == 3)
        for one in (north, south):
            one.carry()
            one.act()
            one.carry()
        if number == 2:
            west.carry()
            west.act()  # it is brought when the third is open, and was an answer to the first's head
        if number == 3:
            west.carry()
        assert hub.close().counted == 2
    given = [one.sent(RoundAnswer)[-1] for one in (north, south)]
    assert hub.head().ravel() == pytest.approx(mean_of(given), abs=1e-4)


def test_one_round_of_a_model_at_a_time_and_enough_devices(hub: Hub, clinics: list[Clinic]) -> None:
    with pytest.raises(UsageError, match="3 devices for at least 4"):
        hub.open(minimum=4)
    with pytest.raises(UsageError, match="noise"):
        hub.open(noise=0.0)
    with pytest.raises(UsageError, match="secure sum"):
        hub.open(secure=True, strategy="krum")
    hub.open()
    with pytest.raises(UsageError, match="round 1 is open"):
        hub.open()


def test_a_round_s_file_that_does_not_open_stops_the_device(hub: Hub, clinics: list[Clinic]) -> None:
    """Nobody knows any more what was spent."""
    north = clinics[0]
    hub.open()
    north.carry()
    north.act()
    hub.close()
    hub.open()
    north.carry()
    [path] = Path(north.folder / "rounds").glob("*.round")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreDamagedError):
        north.act()
    assert len(north.sent(RoundAnswer)) == 1
