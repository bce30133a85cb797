"""The review loop: who reads what, what settles it, and what a raised triage sets going."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from aidpost.records import ExamReport, Review, ReviewDecision, TriageLevel, decode
from aidpost.sync.bodies import Acknowledgement
from aidpost.sync.hub import readings, schema
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.readings import Part, Rules
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, at, hub_with, make_report
from .web_client import Client, logged_in, send, whole_report

Limit = Callable[[str, str, str], None]


@pytest.fixture
def limit(server: HubServer) -> Limit:
    def add(user: str, kind: str, value: str) -> None:
        with server.database.write() as connection:
            connection.execute(schema.user_scopes.insert().values(user=user, kind=kind, value=value))

    return add


def sent_down(server: HubServer) -> list[Review]:
    with server.database.read() as connection:
        table = schema.outgoing
        rows = connection.execute(select(table.c.body).where(table.c.cls == "review").order_by(table.c.seq))
        return [decode(Review, bytes(body)) for body in rows.scalars()]


def state(server: HubServer, report: ExamReport) -> str:
    with server.database.read() as connection:
        return str(
            connection.execute(select(schema.exams.c.state).where(schema.exams.c.id == report.exam.id)).scalar_one()
        )


def sign(reader: Client, report: ExamReport, **fields: str) -> int:
    page = f"/exams/{report.exam.id}"
    return reader.submit(page, f"{page}/reviews", **({"decision": "confirmed", "report": str(report.id)} | fields))


# routing


def test_eye_and_heart_readers_sign_their_own_part_and_the_exam_is_reviewed_when_both_have(
    server: HubServer, device: FakeDevice, limit: Limit
) -> None:
    report = whole_report(server, device)
    limit("okoro", "part", "eyes")
    limit("adeyemi", "part", "heart")
    eye, heart = logged_in(server, "okoro"), logged_in(server, "adeyemi")
    assert sign(eye, report, parts="heart") == 403
    assert sign(eye, report, dr_right="2", rhythm="af") == 303
    assert state(server, report) == "open"
    eye.get("/")
    assert str(report.exam.id) not in eye.text
    heart.get("/")
    assert str(report.exam.id) in heart.text
    assert sign(heart, report, rhythm="af") == 303
    assert state(server, report) == "reviewed"
    assert [(review.parts, review.grades) for review in sent_down(server)] == [
        (("eyes",), {"dr_right": "2"}),  # the rhythm was not this reader's to grade
        (("heart",), {"rhythm": "af"}),
    ]
    eye.get(f"/exams/{report.exam.id}")
    assert "signed: Dr Okoro, Dr Adeyemi" in eye.text


def test_parts_are_leased_apart_and_two_readers_of_one_part_do_not_collide(
    server: HubServer, device: FakeDevice, limit: Limit
) -> None:
    report = whole_report(server, device)
    limit("okoro", "part", "eyes")
    eye, both = logged_in(server, "okoro"), logged_in(server, "adeyemi")
    eye.get(f"/exams/{report.exam.id}")
    assert sign(both, report, parts="eyes") == 409
    assert sign(both, report, parts="heart", rhythm="af") == 303
    assert sign(eye, report, dr_right="2") == 303


def test_newer_version_of_an_exam_is_read_anew(server: HubServer, device: FakeDevice, reader: Client) -> None:
    report = whole_report(server, device)
    assert sign(reader, report, dr_right="2") == 303
    newer = msgspec.structs.replace(report, id=uuid.uuid4(), supersedes=report.id)
    send(server, device, device.message(device.envelope(newer)))
    assert state(server, report) == "open"


# two readers, and a third


@hub_with(readers=2)
def test_second_reader_does_not_see_the_first_and_their_agreement_is_signed(
    server: HubServer, device: FakeDevice
) -> None:
    report = whole_report(server, device)
    first, second = logged_in(server, "okoro"), logged_in(server, "adeyemi")
    assert sign(first, report, dr_right="2", rhythm="af", text="Venous beading.", decision="corrected") == 303
    assert state(server, report) == "open"
    assert not sent_down(server), "one reading of two settles nothing"
    assert sign(first, report, dr_right="2", parts="eyes") == 403, "nobody is their own second reader"
    first.get("/")
    assert str(report.exam.id) not in first.text
    second.get(f"/exams/{report.exam.id}")
    assert "Venous beading" not in second.text
    assert sign(second, report, dr_right="3", rhythm="af") == 303
    assert state(server, report) == "reviewed"
    (review,) = sent_down(server)
    assert (review.reviewer, review.parts) == ("Dr Adeyemi", ("eyes", "heart"))


@hub_with(readers=2)
def test_disagreement_is_decided_by_a_third_who_sees_both(server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    first, second, third = (logged_in(server, name) for name in ("okoro", "adeyemi", "root"))
    assert sign(first, report, dr_right="2", rhythm="af") == 303
    assert sign(second, report, dr_right="0", rhythm="af", decision="corrected", text="No lesion seen.") == 303
    (review,) = sent_down(server)
    assert review.parts == ("heart",), "on the rhythm they agreed"
    assert state(server, report) == "open"
    assert sign(first, report, dr_right="2", parts="eyes") == 403
    third.get("/")
    assert "readers disagree: a third decides" in third.text
    third.get(f"/exams/{report.exam.id}")
    assert "No lesion seen." in third.text
    assert sign(third, report, dr_right="2") == 303
    assert state(server, report) == "reviewed"
    assert sent_down(server)[-1].parts == ("eyes",)


@hub_with(readers=2)
def test_retake_needs_no_second_word(server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    assert sign(logged_in(server, "okoro"), report, decision="retake", text="Blurred.", parts="eyes") == 303
    assert state(server, report) == "retake"
    assert sent_down(server)[0].decision is ReviewDecision.RETAKE


@hub_with(second_reader_against_device=True)
def test_reader_who_contradicts_the_device_is_followed_by_a_second_who_decides(
    server: HubServer, device: FakeDevice
) -> None:
    report = whole_report(server, device)
    first, second = logged_in(server, "okoro"), logged_in(server, "adeyemi")
    assert sign(first, report, decision="corrected", dr_right="0", rhythm="af", text="Artefact.") == 303
    assert state(server, report) == "open"
    assert sign(second, report, decision="corrected", dr_right="1", text="Artefact, one aneurysm.") == 303
    assert state(server, report) == "reviewed"


@hub_with(blinded_first_read=True)
def test_what_the_device_found_is_hidden_until_the_reader_has_graded(
    server: HubServer, device: FakeDevice, reader: Client
) -> None:
    report = whole_report(server, device)
    page = f"/exams/{report.exam.id}"
    for path in ("/", page):
        reader.get(path)
        for told in ("Raised blood pressure", "grade 2", "atrial fibrillation</dd>", ">V</text>", "triage-soon"):
            # the counts above the list name each level
            assert told not in reader.text.replace('</strong> <span class="triage triage-soon">', ""), (path, told)
    assert sign(reader, report, decision="confirmed") == 400, "a blinded reader grades"
    assert sign(reader, report, dr_right="0", rhythm="af") == 303
    reader.get(page)
    assert "grade 2" in reader.text
    assert "Raised blood pressure" in reader.text
    (review,) = sent_down(server)
    assert review.decision is ReviewDecision.CORRECTED, "it contradicts what the reader had not seen"


@hub_with(blinded_first_read=True)
def test_urgent_stays_visible_to_a_blinded_reader(server: HubServer, device: FakeDevice, reader: Client) -> None:
    report = whole_report(server, device, triage=TriageLevel.URGENT)
    reader.get("/")
    assert reader.text.count("triage-urgent") == 2, "the count and the row"
    reader.get(f"/exams/{report.exam.id}")
    assert "triage-urgent" in reader.text


# the rules by themselves


@given(
    readers=st.integers(1, 2),
    against=st.booleans(),
    calls=st.lists(st.sampled_from("01234"), min_size=1, max_size=6),
)
def test_every_part_is_settled_by_at_most_three_readers_and_stays_settled(
    readers: int, against: bool, calls: list[str]
) -> None:
    report, rows = make_report(), ()
    for number, grade in enumerate(calls):
        part = Part("eyes", rows)
        grades = {"dr_right": grade}
        found = readings.settle(part, ReviewDecision.CONFIRMED, None, grades, report, Rules(readers, against))
        call = readings.reader_call("eyes", grades)
        row = type("Row", (), {"state": found, "call": call, "triage": None, "reader": str(number)})
        assert not (part.done and found not in readings.DONE)
        rows = (*rows, row)
    states = [row.state for row in rows]
    assert states.index("signed") < 3 if "signed" in states else len(states) < 3


def test_oedema_alone_is_referable_and_an_ungradable_eye_is_no_call() -> None:
    assert readings.reader_call("eyes", {"dr_right": "0", "dme_right": "yes"}) is True
    assert readings.reader_call("eyes", {"dr_right": "ungradable", "dr_left": "1"}) is False
    assert readings.reader_call("eyes", {"dr_right": "ungradable"}) is None
    assert readings.reader_call("heart", {"rhythm": "unreadable"}) is None


# recall


def test_review_that_raises_the_triage_makes_a_recall_that_is_open_until_somebody_answers(
    server: HubServer, device: FakeDevice, reader: Client
) -> None:
    server.notifier.stop()
    report = whole_report(server, device)
    assert sign(reader, report, dr_right="4", decision="corrected", triage="urgent", text="New vessels.") == 303
    reader.get("/alerts")
    assert "Recall" in reader.text
    with server.database.read() as connection:
        alert = connection.execute(select(schema.alerts)).one()
    assert (alert.kind, alert.triage, alert.exam) == ("recall", TriageLevel.URGENT.rank, report.exam.id)
    viewer = logged_in(server, "viewer")
    assert viewer.submit("/alerts", f"/alerts/{alert.id}", text="done") == 403
    assert reader.submit("/alerts", f"/alerts/{alert.id}") == 400, "what was done is said"
    assert reader.submit("/alerts", f"/alerts/{alert.id}", text="Telephoned; comes tomorrow.") == 303
    with server.database.read() as connection:
        down = connection.execute(select(schema.outgoing).where(schema.outgoing.c.cls == "acknowledgement")).one()
        steps = connection.execute(select(schema.alert_steps.c.step).order_by(schema.alert_steps.c.number)).scalars()
        assert list(steps) == ["opened", "acknowledged"]
    told = decode(Acknowledgement, bytes(down.body))
    assert (told.by, told.text, down.device) == ("Dr Okoro", "Telephoned; comes tomorrow.", device.name)
    reader.get("/alerts")
    assert "Recall" not in reader.text
    reader.get(f"/exams/{report.exam.id}")
    assert "Telephoned; comes tomorrow." in reader.text


def test_device_answers_for_its_own_recall_and_for_no_other(
    server: HubServer, device: FakeDevice, reader: Client
) -> None:
    report = whole_report(server, device)
    assert sign(reader, report, decision="corrected", triage="urgent", text="New vessels.", parts="eyes") == 303
    with server.database.read() as connection:
        about = connection.execute(select(schema.alerts.c.about)).scalar_one()
    answer = Acknowledgement(
        about=about, exam=report.exam.id, patient=report.patient.id, by="R. Banda", text="Called back.", at=at()
    )
    about_it = {"patient": report.patient.id, "exam": report.exam.id}
    other = FakeDevice("unit-2")
    from aidpost.sync.hub import operations

    operations.enroll(server.config, other.name, other.public_key)
    send(server, other, other.message(other.envelope(answer, "review-ack", **about_it)))
    with server.database.read() as connection:
        assert connection.execute(select(schema.alerts.c.acknowledged_by)).scalar_one() == ""
    send(server, device, device.message(device.envelope(answer, "review-ack", **about_it)))
    with server.database.read() as connection:
        row = connection.execute(select(schema.alerts)).one()
    assert row.acknowledged_by == "R. Banda"
    assert row.next_ms is None
    assert row.acknowledged_ms is not None
    assert row.acknowledged_ms <= now_ms()


# clinics


def test_user_of_one_clinic_sees_nothing_of_another(
    server: HubServer, device: FakeDevice, limit: Limit, reader: Client
) -> None:
    report = whole_report(server, device, triage=TriageLevel.URGENT)
    server.notifier.turn(now_ms())
    limit("okoro", "clinic", "South clinic")
    with server.database.read() as connection:
        alert = connection.execute(select(schema.alerts.c.id)).scalar_one()
    photo = report.fundus[0].body
    assert photo is not None
    page = f"/exams/{report.exam.id}"
    for path in (
        page, f"{page}/blobs/{photo.sha256}", f"{page}/previews/{photo.sha256}", f"/patients/{report.patient.id}",
        f"/fhir/DiagnosticReport/{report.id}", f"/fhir/Patient/{report.patient.id}", f"/fhir/Bundle/{report.exam.id}",
    ):  # fmt: skip
        assert reader.get(path) == 404, path
    for path in (
        "/",
        "/?show=all",
        "/alerts",
        "/referrals",
        "/export.csv",
        f"/fhir/Observation?patient={report.patient.id}",
    ):
        assert reader.get(path) == 200
        for told in (str(report.exam.id), "Amina", "North clinic"):
            assert told not in reader.text, path
    for action, fields in (
        (f"{page}/reviews", {"decision": "confirmed", "report": str(report.id), "parts": "eyes"}),
        (f"{page}/referrals", {"to": "Eye unit", "due": "2026-01-02"}),
        (f"/alerts/{alert}", {"text": "done"}),
    ):
        assert reader.submit("/", action, **fields) == 404, action
