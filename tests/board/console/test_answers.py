"""What came back from the hub: a review stays new until somebody has read it, a referral stands until it is done."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from device_records import KEY

from aidpost.board.configuration import Configuration
from aidpost.board.console import answers
from aidpost.board.console.people import Known
from aidpost.board.console.status import look
from aidpost.board.console.workspace import Workspace
from aidpost.records import ExamReport, Patient, Record, Referral, ReferralStatus, Review, ReviewDecision, encode
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import Envelope
from aidpost.sync.store import Store

from .conftest import Dead


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store:
        made = Workspace(Configuration(), store, Dead(), practice=False)
        yield made
        made.close()


class Hub:
    """What the hub sends down."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self._last = workspace, 0

    def exam(self, name: str) -> ExamReport:
        exam = self.workspace.begin(Known(patient=Patient(id=uuid.uuid4(), name=name)), "Rose").exam.id
        return self.workspace.finish(exam)

    def send(self, record: Review | Referral) -> None:
        self._last += 1
        kind = type(record).__name__
        body: Record = record
        envelope = Envelope(b"hub-epoc", "review", self._last, kind, record.patient, record.exam, encode(body))
        assert self.workspace.store.inbox.keep([envelope], self._last).rejected == ()

    def review(self, report: ExamReport, text: str) -> Review:
        made = Review(
            id=uuid.uuid4(),
            report=report.id,
            exam=report.exam.id,
            patient=report.patient.id,
            reviewer="Dr Achieng",
            decision=ReviewDecision.CONFIRMED,
            at=self.workspace.store.now(),
            text=text,
        )
        self.send(made)
        return made

    def refer(self, report: ExamReport, due: str) -> Referral:
        made = Referral(
            id=uuid.uuid4(),
            exam=report.exam.id,
            patient=report.patient.id,
            to="Eye unit",
            due=due,
            reason="retinopathy",
            status=ReferralStatus.DUE,
            at=self.workspace.store.now(),
        )
        self.send(made)
        return made


@pytest.fixture
def hub(workspace: Workspace) -> Hub:
    return Hub(workspace)


def test_review_is_new_until_somebody_has_read_it_also_after_a_power_cut(workspace: Workspace, hub: Hub) -> None:
    first, second = hub.exam("Amina"), hub.exam("Joseph")
    one, two = hub.review(first, "agreed"), hub.review(second, "repeat the left eye")
    assert look(workspace, None).reviews == 2
    answers.read(workspace, [one], "Rose")
    answers.read(workspace, [one], "Amani")
    again = Workspace(Configuration(), workspace.store, Dead(), practice=False)  # nothing was closed
    try:
        assert answers.unread(again) == {two.exam}
        assert look(again, None).reviews == 1
        back = answers.came_back(again)
        assert [(each.patient, each.fresh) for each in back] == [("Joseph", True), ("Amina", False)]
        assert again.database.read("SELECT worker FROM read_review") == [("Rose",)], "who had it before them first"
    finally:
        again.close()
    hub.review(first, "seen once more")
    assert answers.unread(workspace) == {first.exam.id, second.exam.id}, "a later word is new again"


def test_referral_is_overdue_from_the_day_after_until_the_hub_says_that_it_is_done(
    workspace: Workspace, hub: Hub
) -> None:
    late, today = hub.refer(hub.exam("Amina"), "2020-01-02"), hub.refer(hub.exam("Joseph"), "2999-01-01")
    assert [(one.patient, one.referral.due, one.overdue) for one in answers.due(workspace)] == [
        ("Amina", "2020-01-02", True),
        ("Joseph", "2999-01-01", False),
    ]
    assert look(workspace, None).overdue == answers.overdue(workspace) == 1
    done = msgspec.structs.replace(
        late, id=uuid.uuid4(), status=ReferralStatus.ATTENDED, supersedes=late.id, at=workspace.store.now()
    )
    hub.send(done)
    assert [one.referral.id for one in answers.due(workspace)] == [today.id]
    assert look(workspace, None).overdue == 0


def test_erased_patients_leave_no_name_and_break_nothing(workspace: Workspace, hub: Hub) -> None:
    report = hub.exam("Amina")
    hub.review(report, "agreed")
    hub.refer(report, "2020-01-02")
    workspace.store.erase_patient(report.patient.id)
    assert "Amina" not in str(answers.came_back(workspace)) + str(answers.due(workspace))
    assert look(workspace, None) is not None
