"""The exam behind the screen: what is kept, what is refused, what holds the screen, and what is queued."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from aidpost.board.configuration import Configuration, SensorsSection
from aidpost.board.console import steps
from aidpost.board.console.drafts import ATTEMPTS
from aidpost.board.console.people import LOCK_S, TRIES, Known, Workers
from aidpost.board.console.status import look
from aidpost.board.console.workspace import Workspace
from aidpost.errors import StoreDamagedError, UsageError
from aidpost.firmware_bridge.sources import open_source
from aidpost.inference.worker import InferenceWorker
from aidpost.records import Eye, Origin, Patient, Sex, TriageLevel, VitalKind, encode
from aidpost.sync import outbox
from aidpost.sync.bodies import Acknowledgement
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import Envelope
from aidpost.sync.store import Store

from .conftest import begin

CONFIGURATION = Configuration(
    sensors=SensorsSection(ecg="sim:ecg", fundus_right="sim:fundus", fundus_left="sim:fundus", vitals=("sim:vitals",))
)


class Sure(SystemClock):
    """A clock that somebody set."""

    def synced(self) -> bool:
        return True


@pytest.fixture
def configuration() -> Configuration:
    return CONFIGURATION


@pytest.fixture
def clock() -> SystemClock:
    return Sure()


def measure(workspace: Workspace, exam: uuid.UUID, code: str, *values: float, number: uuid.UUID | None = None) -> None:
    one = steps.BY_CODE[code]
    workspace.measure(exam, one, list(values), one.methods[0][0], "", number or uuid.uuid4())


def again(workspace: Workspace) -> Workspace:
    """The same folder opened as after a power cut: nothing was closed."""
    return Workspace(CONFIGURATION, workspace.store, workspace._analyst, practice=False)


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("blood-pressure", (80, 120)),
        ("blood-pressure", (301, 80)),
        ("spo2", (101,)),
        ("temperature", (3.7,)),
        ("breaths", (2,)),
    ],
)
def test_implausible_number_is_refused_and_nothing_changes(
    workspace: Workspace, code: str, values: tuple[float, ...]
) -> None:
    exam = begin(workspace)
    with pytest.raises(UsageError, match=r"within|larger"):
        measure(workspace, exam, code, *values)
    assert workspace.drafts.get(exam).vitals == ()


def test_double_tap_keeps_a_number_once_with_its_method(workspace: Workspace) -> None:
    exam, number = begin(workspace), uuid.uuid4()
    for _ in range(2):
        measure(workspace, exam, "blood-pressure", 141, 85, number=number)
    vitals = workspace.drafts.get(exam).vitals
    assert [(one.kind, one.value, one.method) for one in vitals] == [
        (VitalKind.SYSTOLIC_BP, 141, "cuff, automatic"),
        (VitalKind.DIASTOLIC_BP, 85, "cuff, automatic"),
    ]
    assert {one.group for one in vitals} == {number}


def test_complete_news2_is_possible_without_any_sensor(workspace: Workspace) -> None:
    exam = begin(workspace)
    for code, values in (
        ("blood-pressure", (120, 80)),
        ("pulse", (70,)),
        ("breaths", (16,)),
        ("spo2", (97,)),
        ("temperature", (37,)),
    ):
        measure(workspace, exam, code, *values)
    for question, answer in (("on-oxygen", "no"), ("consciousness", "alert")):
        workspace.answer(exam, question, answer)
    assert not [one for one in workspace.preview(exam).not_assessed if "early warning" in one]


def test_every_step_is_on_the_disk_before_it_is_said_to_be_done(workspace: Workspace) -> None:
    exam = begin(workspace)
    workspace.answer(exam, "chest-pain", "no")
    measure(workspace, exam, "pulse", 72)
    photo = open_source("sim:fundus", clock=workspace.store).read_photo(Eye.RIGHT)
    workspace.take_photo(exam, photo)
    fresh = again(workspace)
    try:
        assert fresh.drafts.get(exam) == workspace.drafts.get(exam)
        ref = fresh.drafts.get(exam).fundus[0].body
        assert ref is not None
        assert fresh.drafts.body(exam, ref.sha256).data == photo.encoded
    finally:
        fresh.close()


def test_undo_takes_back_one_step_and_lasts(workspace: Workspace) -> None:
    exam = begin(workspace)
    measure(workspace, exam, "pulse", 72)
    measure(workspace, exam, "spo2", 97)
    workspace.undo(exam)
    fresh = again(workspace)
    try:
        assert [one.kind for one in fresh.drafts.get(exam).vitals] == [VitalKind.PULSE_RATE]
    finally:
        fresh.close()
    for _ in range(3):
        workspace.undo(exam)
    assert workspace.drafts.get(exam).vitals == ()


def test_exam_that_is_given_up_leaves_nothing_unless_its_finding_is_urgent(workspace: Workspace) -> None:
    exam, urgent = begin(workspace), begin(workspace, "Joseph")
    measure(workspace, exam, "pulse", 72)
    workspace.give_up(exam)
    workspace.answer(urgent, "chest-pain", "yes")
    with pytest.raises(UsageError, match="urgent finding"):
        workspace.give_up(urgent)
    fresh = again(workspace)
    try:
        assert [one.exam.id for one in fresh.drafts.all()] == [urgent]
        assert fresh.store.reports() == []
    finally:
        fresh.close()


def test_corrected_patient_is_so_in_the_list_and_in_the_open_exam_and_old_reports_stay(workspace: Workspace) -> None:
    patient = Patient(id=uuid.uuid4(), name="Amna", sex=Sex.FEMALE)
    known = Known(patient=patient)
    workspace.patients.keep(known)
    old = workspace.finish(workspace.begin(known, "Rose").exam.id)
    exam = workspace.begin(known, "Rose").exam.id
    workspace.correct(Known(patient=msgspec.structs.replace(patient, name="Amina", birth_date="1961")))
    fresh = again(workspace)
    try:
        assert [one.name for one in fresh.patients.search("amina")] == ["Amina"]
        assert fresh.patients.search("amna") == []
        assert fresh.drafts.get(exam).patient.birth_date == "1961"
        assert fresh.store.report(old.exam.id) == old
    finally:
        fresh.close()


def test_urgent_exam_counts_as_unanswered_until_a_human_at_the_hub_answers_for_it(workspace: Workspace) -> None:
    exam = begin(workspace)
    workspace.answer(exam, "chest-pain", "yes")
    workspace.acknowledge(exam, "Rose")
    report = workspace.finish(exam)
    assert look(workspace, None).unanswered == 1, "the worker's own word is not the hub's"
    patient = report.patient.id
    record = Acknowledgement(
        about=report.id, exam=exam, patient=patient, by="Dr Achieng", at=workspace.store.now(), text="called"
    )
    envelope = Envelope(b"hub-epoc", "acknowledgement", 1, "Acknowledgement", patient, exam, encode(record))
    assert workspace.store.inbox.keep([envelope], 1).rejected == ()
    assert workspace.store.acknowledgements(exam) == [record]
    assert look(workspace, None).unanswered == 0


def test_several_open_exams_never_mix(workspace: Workspace) -> None:
    first, second = begin(workspace, "Amina"), begin(workspace, "Joseph")
    measure(workspace, first, "pulse", 61)
    measure(workspace, second, "pulse", 99)
    assert [one.value for one in workspace.finish(second).vitals] == [99]
    assert [one.value for one in workspace.drafts.get(first).vitals] == [61]
    assert [one.patient.name for one in workspace.drafts.all()] == ["Amina"]


def test_third_unusable_photograph_is_ungradable_and_a_fourth_is_refused(workspace: Workspace) -> None:
    exam = begin(workspace)
    photo = open_source("sim:fundus?darkness=0.95", clock=workspace.store).read_photo(Eye.LEFT)
    for _ in range(ATTEMPTS):
        assert not workspace.take_photo(exam, photo).quality.usable
    draft = workspace.drafts.get(exam)
    assert steps.state(draft, "left") == "ungradable"
    assert steps.state(draft, "right") == "open"
    with pytest.raises(UsageError, match="3 times"):
        workspace.take_photo(exam, photo)
    report = workspace.finish(exam)
    assert report.triage.level >= TriageLevel.SOON
    assert [one.attempt for one in report.fundus] == [1, 2, 3]


def test_urgent_finding_raises_an_alarm_that_stays_until_a_human_acknowledges_it(workspace: Workspace) -> None:
    exam = begin(workspace)
    assert workspace.alarms() == []
    workspace.answer(exam, "chest-pain", "yes")
    assert [one.alarm for one in workspace.alarms()] == [TriageLevel.EMERGENCY]
    measure(workspace, exam, "pulse", 72)
    fresh = again(workspace)
    try:
        assert [one.exam.id for one in fresh.alarms()] == [exam]
    finally:
        fresh.close()
    workspace.acknowledge(exam, "Rose")
    assert workspace.alarms() == []
    measure(workspace, exam, "spo2", 97)
    assert workspace.alarms() == []
    draft = workspace.drafts.get(exam)
    assert (draft.acknowledged, draft.acknowledged_by) == (TriageLevel.EMERGENCY, "Rose")


def test_graver_finding_after_an_acknowledged_one_raises_the_alarm_again(workspace: Workspace) -> None:
    exam = begin(workspace)
    workspace.answer(exam, "fainting", "yes")
    workspace.acknowledge(exam, "Rose")
    workspace.answer(exam, "chest-pain", "yes")
    assert [one.alarm for one in workspace.alarms()] == [TriageLevel.EMERGENCY]


def test_finished_exam_is_queued_with_all_it_has_and_its_draft_is_gone(workspace: Workspace) -> None:
    exam = begin(workspace)
    ecg = open_source("sim:ecg?seconds=10", clock=workspace.store).read_ecg()
    workspace.take_ecg(exam, ecg)
    workspace.answer(exam, "chest-pain", "yes")
    workspace.acknowledge(exam, "Rose")
    report = workspace.finish(exam)
    assert workspace.store.report(exam) == report
    body = report.ecg[0].body
    assert body is not None
    assert len(workspace.store.read_blob(body.sha256)) == body.size
    assert {one.cls: one.queued for one in outbox.status(workspace.store)} == {"alert": 1, "waveform": 1}
    assert workspace.drafts.all() == []
    assert workspace.database.read("SELECT count(*) FROM body") == [(0,)]


def test_power_cut_between_queueing_and_forgetting_the_draft_queues_it_once(workspace: Workspace) -> None:
    exam = begin(workspace)
    measure(workspace, exam, "pulse", 72)
    draft = workspace.drafts.get(exam)
    workspace.finish(exam)
    workspace.drafts.save(draft)  # as if the power had gone before the draft was forgotten
    fresh = again(workspace)
    try:
        assert fresh.drafts.all() == []
        assert len(fresh.store.reports()) == 1
    finally:
        fresh.close()


def test_practice_is_simulated_whatever_is_typed_in_and_reads_no_real_sensor(
    store: Store, worker: InferenceWorker
) -> None:
    real = msgspec.structs.replace(
        CONFIGURATION, sensors=SensorsSection(ecg="serial:/dev/ttyACM0", vitals=("ble:cuff",))
    )
    practice = Workspace(real, store, worker, practice=True)
    exam = begin(practice)
    for what in ("ecg", "right", "left", "vitals"):
        assert practice.source(what, exam).startswith("sim:")
    measure(practice, exam, "pulse", 72)
    report = practice.finish(exam)
    assert report.origin is Origin.SIMULATED
    assert {one.origin for one in report.vitals} == {Origin.SIMULATED}
    practice.close()


def test_nothing_of_a_patient_lies_open_on_the_disk_and_erasing_takes_the_draft(workspace: Workspace) -> None:
    exam = begin(workspace, "Wanjiru Kamau")
    measure(workspace, exam, "pulse", 72)
    patient = workspace.drafts.get(exam).patient.id
    content = b"".join(path.read_bytes() for path in workspace.store.folder.rglob("*") if path.is_file())
    assert b"Wanjiru" not in content
    workspace.store.erase_patient(patient)
    fresh = again(workspace)
    try:
        assert fresh.drafts.all() == []
        assert fresh.patients.search("wanjiru") == []
    finally:
        fresh.close()


def test_draft_moved_to_another_exam_does_not_open(workspace: Workspace) -> None:
    first, second = begin(workspace, "Amina"), begin(workspace, "Joseph")
    sealed = workspace.database.read("SELECT sealed FROM draft WHERE exam = ?", (first.bytes,))[0][0]
    patient = workspace.drafts.get(second).patient.id.bytes
    with pytest.raises(StoreDamagedError):
        workspace.drafts._unseal(second, 1, patient, sealed)


@pytest.mark.parametrize("text", ["yusuf AMINA", "a-17", "amína", "0722 1"])
def test_search_finds_by_words_number_and_telephone_without_accents(workspace: Workspace, text: str) -> None:
    from aidpost.records import Identifier

    patient = Patient(
        id=uuid.uuid4(),
        name="Amina Yusuf",
        telephone="0722 123",
        identifiers=(Identifier(system="c", value="A-17"),),
    )
    workspace.patients.keep(Known(patient=patient))
    begin(workspace, "Joseph Otieno")
    assert workspace.patients.search(text) == [patient]
    assert workspace.patients.search("") == []


def test_wrong_pins_lock_a_worker_out_and_switching_off_gains_nothing(workspace: Workspace) -> None:
    now = [0.0]
    workers = Workers(workspace.database, workspace.store, clock=lambda: now[0])
    workers.add("Rose", "2580", supervisor=True)
    for _ in range(TRIES):
        assert workers.check("Rose", "1111") is None
    assert workers.check("Rose", "2580") is None
    now[0] += LOCK_S - 1
    restarted = Workers(workspace.database, workspace.store, clock=lambda: now[0])
    assert restarted.locked_s("Rose") == LOCK_S
    assert restarted.check("Rose", "2580") is None
    now[0] += LOCK_S + 1
    assert restarted.check("Rose", "2580") is not None
    assert restarted.locked_s("Rose") == 0


@pytest.mark.parametrize("pin", ["123", "1234", "7777", "abcd", "123456789", "٤٥٦٧"])
def test_easy_or_malformed_pin_is_refused(workspace: Workspace, pin: str) -> None:
    with pytest.raises(UsageError):
        Workers(workspace.database, workspace.store).add("Rose", pin, supervisor=True)
