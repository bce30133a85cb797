"""A worker in a clinic in shadow: what pages, list, status and paper say, and that the hub gets the report whole."""

from __future__ import annotations

import re
import uuid

import msgspec
import pytest

from aidpost.board.configuration import ClinicSection, Configuration, InferenceSection
from aidpost.board.console.paper import pdf
from aidpost.board.console.people import Known
from aidpost.board.console.receipt import receipt
from aidpost.board.console.result import body_of, hidden_notes, result_of
from aidpost.board.console.status import _answers
from aidpost.board.console.workspace import Workspace
from aidpost.errors import UsageError
from aidpost.firmware_bridge.sources import open_source
from aidpost.inference.worker import InferenceWorker
from aidpost.records import ExamReport, Eye, Finding, Patient, Sex, Timestamp, Triage, TriageLevel, encode
from aidpost.sync.bodies import Shadow
from aidpost.sync.envelope import Envelope
from aidpost.sync.store import Store

from .test_paper import text_of

CONFIGURATION = Configuration(clinic=ClinicSection(id="k7", name="Kisumu East"))
BOTH = ("dr", "af")


def said(store: Store, *tasks: str, seq: int = 1, clinic: str = "Kisumu East") -> None:
    """The hub's word, as it comes down."""
    at = Timestamp(wall_ms=1_760_000_000_000 + seq, monotonic_ms=0, boot=0, synced=True)
    body = encode(Shadow(clinic=clinic, tasks=tasks, at=at))
    assert not store.inbox.keep([Envelope(b"hubepoch", "shadow", seq, "Shadow", None, None, body)], seq).rejected


@pytest.fixture
def configuration() -> Configuration:
    return CONFIGURATION


def examine(workspace: Workspace) -> uuid.UUID:
    patient = Patient(id=uuid.uuid4(), name="Amina Yusuf", birth_date="1961", sex=Sex.FEMALE)
    exam = workspace.begin(Known(patient=patient), "Rose").exam.id
    for eye in Eye:
        source = f"sim:fundus?eye={eye.value}&grade=4&seed=3"
        workspace.take_photo(exam, open_source(source, clock=workspace.store).read_photo(eye))
    workspace.take_ecg(exam, open_source("sim:ecg?rhythm=af&seconds=30", clock=workspace.store).read_ecg())
    return exam


def words_of(workspace: Workspace, report: ExamReport) -> str:
    shown = result_of(workspace, report)
    return text_of(pdf(report, shown, lambda sha256: body_of(workspace, report, sha256), str))


def test_what_the_models_found_is_on_no_paper_and_the_hub_gets_it_whole(workspace: Workspace) -> None:
    exam = examine(workspace)
    said(workspace.store, *BOTH)
    report = workspace.finish(exam)
    assert any(photo.dr for photo in report.fundus)
    assert report.ecg[0].rhythm.label == "A"
    kept = workspace.store.report(exam)
    assert kept is not None
    whole = (kept.triage, kept.findings, kept.fundus, kept.ecg, kept.advice)
    assert whole == (report.triage, report.findings, report.fundus, report.ecg, report.advice), "the hub gets all of it"
    shown = workspace.shown(kept)
    paper, full = words_of(workspace, shown), words_of(workspace, kept)
    assert "fibrillation" in full.lower()
    assert "fibrillation" not in paper.lower()
    assert "DR " not in paper
    assert re.search(r"Photographs: a\s+clinician", paper), "and not only that nothing was found"
    assert re.search(r"Heart rhythm: a\s+clinician", paper)
    assert re.search(r"(Right|Left) eye: a\s+clinician reads it", paper)
    assert len(hidden_notes(result_of(workspace, shown))) == 2
    assert "/min" in paper, "the rate was measured"
    picture = receipt(shown, result_of(workspace, shown), lambda sha256: body_of(workspace, shown, sha256), str)
    assert picture.height > 100


def test_the_newest_word_about_this_clinic_counts_and_before_any_the_configuration(
    workspace: Workspace, store: Store, worker: InferenceWorker
) -> None:
    assert workspace.hidden() == ()
    said(store, *BOTH, seq=1, clinic="Elsewhere")
    assert workspace.hidden() == ()
    said(store, *BOTH, seq=2)
    assert workspace.hidden() == BOTH
    said(store, "af", seq=3, clinic="k7")
    assert workspace.hidden() == ("af",)
    said(store, seq=4)
    assert workspace.hidden() == ()
    careful = msgspec.structs.replace(CONFIGURATION, inference=InferenceSection(shadow=True))
    made = Workspace(careful, store, worker, practice=False)
    assert made.hidden() == (), "the hub has spoken"
    elsewhere = msgspec.structs.replace(careful, clinic=ClinicSection(name="Homa Bay"))
    assert Workspace(elsewhere, store, worker, practice=False).hidden() == BOTH, "a new site starts as configured"
    assert Workspace(careful, store, worker, practice=True).hidden() == (), "practice hides nothing"


def test_hidden_urgency_holds_no_screen_and_what_is_urgent_without_the_model_does(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = examine(workspace)
    conclude = workspace._conclude

    def with_urgent_rhythm(draft: object) -> ExamReport:
        report = conclude(draft)  # type: ignore[arg-type]
        urgent = Finding(
            code="atrial-fibrillation-fast", text="Fast AF", severity=TriageLevel.URGENT, model="ecg-rhythm"
        )
        ecg = msgspec.structs.replace(report.ecg[0], findings=(*report.ecg[0].findings, urgent))
        triage = msgspec.structs.replace(report.triage, level=TriageLevel.URGENT, computed=TriageLevel.URGENT)
        return msgspec.structs.replace(report, ecg=(ecg,), findings=(urgent,), triage=triage)

    monkeypatch.setattr(workspace, "_conclude", with_urgent_rhythm)
    workspace.answer(exam, "pacemaker", "no")
    assert [draft.alarm for draft in workspace.alarms()] == [TriageLevel.URGENT]
    said(workspace.store, *BOTH)
    workspace.answer(exam, "pacemaker", "no")
    assert workspace.alarms() == []
    workspace.answer(exam, "chest-pain", "yes")
    monkeypatch.undo()
    workspace.answer(exam, "chest-pain", "yes")
    assert [draft.alarm for draft in workspace.alarms()] == [TriageLevel.EMERGENCY], "a red flag is no model's"
    workspace.acknowledge(exam, "Rose")
    workspace.finish(exam)
    assert _answers(workspace) == (0, 1)


@pytest.mark.parametrize("urgent", [False, True])
def test_giving_up_an_exam_tells_nobody_whether_a_hidden_answer_is_urgent(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, urgent: bool
) -> None:
    exam = examine(workspace)
    conclude = workspace._conclude

    def concluded(draft: object) -> ExamReport:
        report = conclude(draft)  # type: ignore[arg-type]
        level = TriageLevel.URGENT if urgent else TriageLevel.ROUTINE
        return msgspec.structs.replace(report, triage=Triage(level=level))

    monkeypatch.setattr(workspace, "_conclude", concluded)
    said(workspace.store, *BOTH)
    with pytest.raises(UsageError) as refused:
        workspace.give_up(exam)
    assert refused.value.cause == "it has recordings that a clinician reads", "the same whatever the model says"
    assert workspace.drafts.get(exam)
    if not urgent:
        said(workspace.store, seq=2)
        workspace.give_up(exam)
        assert workspace.drafts.all() == []


def test_exam_without_recordings_of_a_hidden_model_may_be_given_up(workspace: Workspace) -> None:
    said(workspace.store, *BOTH)
    exam = workspace.begin(Known(patient=Patient(id=uuid.uuid4(), name="Otieno", sex=Sex.MALE)), "Rose").exam.id
    workspace.give_up(exam)
    assert workspace.drafts.all() == []
