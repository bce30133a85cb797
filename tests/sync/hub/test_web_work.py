"""What readers do on the pages, and what other programs get: reviews, audit, quality, FHIR, metrics, CSV."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
import pytest
from sqlalchemy import select, update

from aidpost.records import (
    ExamReport,
    Review,
    TriageLevel,
    decode,
)
from aidpost.sync.hub import _site, audit, operations, schema, tally
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, hub_with, make_report
from .web_client import Client, logged_in, send, whole_report

# roles and reviews


def test_viewer_reads_and_signs_nothing(server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    viewer = logged_in(server, "viewer")
    page = f"/exams/{report.exam.id}"
    assert viewer.submit(page, f"{page}/reviews", decision="confirmed", report=str(report.id)) == 403
    assert "Sign as" not in viewer.text
    assert viewer.get("/audit") == 403


def test_review_is_signed_kept_and_put_on_its_way_down(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    page = f"/exams/{report.exam.id}"
    fields = {"decision": "corrected", "triage": "urgent", "dr_right": "3", "text": "Venous beading; laser soon."}
    assert reader.submit(page, f"{page}/reviews", **fields) == 303
    with server.database.read() as connection:
        row = connection.execute(select(schema.outgoing)).one()
        state = connection.execute(select(schema.exams.c.state)).scalar_one()
    review = decode(Review, bytes(row.body))
    assert (row.device, row.cls, state) == (device.name, "review", "reviewed")
    assert (review.report, review.reviewer, review.grades) == (report.id, "Dr Okoro", {"dr_right": "3"})
    assert review.triage is TriageLevel.URGENT
    reader.get(page)
    assert "Venous beading" in reader.text
    assert "on its way to the device" in reader.text
    assert "signed: Dr Okoro" in reader.text
    assert "the device said soon" in reader.text


def test_triage_is_lowered_only_with_a_reason(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    page = f"/exams/{report.exam.id}"
    assert reader.submit(page, f"{page}/reviews", decision="confirmed", triage="routine") == 400
    assert reader.submit(page, f"{page}/reviews", decision="confirmed", triage="routine", text="Cuff too small") == 303


def test_case_is_kept_for_the_reader_who_opened_it(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    page = f"/exams/{report.exam.id}"
    reader.get(page)
    second = logged_in(server, "adeyemi")
    assert second.submit(page, f"{page}/reviews", decision="confirmed", report=str(report.id)) == 409
    second.get(page)
    assert "being read by" in second.text
    assert reader.submit(page, f"{page}/release") == 303
    assert second.submit(page, f"{page}/reviews", decision="confirmed") == 303


def test_review_of_a_report_that_has_changed_meanwhile_is_refused(
    reader: Client, server: HubServer, device: FakeDevice
) -> None:
    report = whole_report(server, device)
    newer = msgspec.structs.replace(report, id=uuid.uuid4(), supersedes=report.id)
    send(server, device, device.message(device.envelope(newer)))
    page = f"/exams/{report.exam.id}"
    assert reader.submit(page, f"{page}/reviews", decision="confirmed", report=str(report.id)) == 409


def test_referral_is_followed_until_the_patient_was_seen(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    page = f"/exams/{report.exam.id}"
    assert reader.submit(page, f"{page}/referrals", to="Eye unit", due="not a date") == 400
    assert reader.submit(page, f"{page}/referrals", to="Eye unit", due="2026-01-02", telephone="0700") == 303
    reader.get("/referrals")
    assert "1 overdue" in reader.text
    with server.database.read() as connection:
        first = connection.execute(select(schema.referrals.c.id)).scalar_one()
    done = {"to": "Eye unit", "due": "2026-01-02", "status": "attended", "supersedes": str(first)}
    assert reader.submit(page, f"{page}/referrals", **done) == 303
    reader.get("/referrals")
    assert "Eye unit" not in reader.text
    with server.database.read() as connection:
        kept = connection.execute(select(schema.referrals.c.status, schema.referrals.c.current)).all()
    assert sorted(map(tuple, kept)) == [("attended", True), ("due", False)]


# the audit log


def test_audit_log_is_whole_and_shows_an_altered_row(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    reader.get(f"/exams/{report.exam.id}")
    state = operations.verify_audit(server.config)
    assert state.broken_at is None
    assert state.rows >= 3
    with server.database.write() as connection:
        connection.execute(update(schema.audit).where(schema.audit.c.id == 2).values(actor="somebody else"))
    assert operations.verify_audit(server.config) == audit.AuditState(1, operations.verify_audit(server.config).head, 2)
    root = logged_in(server, "root")
    root.get("/audit?verify=1")
    assert "The chain is broken at row 2" in root.text


def test_audit_log_notices_a_removed_row(server: HubServer) -> None:
    with server.database.write() as connection:
        connection.execute(schema.audit.delete().where(schema.audit.c.id == 1))
    assert operations.verify_audit(server.config).broken_at == 1


# other programs


def test_fhir_is_read_and_searched_by_who_is_logged_in(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    assert Client(server.url).get(f"/fhir/DiagnosticReport/{report.id}") == 401
    assert reader.get(f"/fhir/DiagnosticReport/{report.id}") == 200
    assert reader.headers["content-type"].startswith("application/fhir+json")
    assert json.loads(reader.body)["id"] == str(report.id)
    assert reader.get(f"/fhir/DiagnosticReport?patient={report.patient.id}") == 200
    assert json.loads(reader.body)["total"] == 1
    assert reader.get(f"/fhir/Observation?patient=Patient/{report.patient.id}") == 200
    assert len(json.loads(reader.body)["entry"]) == 4
    assert reader.get(f"/fhir/Bundle/{report.exam.id}") == 200
    assert reader.get(f"/fhir/Patient/{report.patient.id}") == 200
    assert reader.get("/fhir/Patient/nobody") == 404
    assert reader.get("/fhir/Observation") == 400
    assert json.loads(reader.body)["resourceType"] == "OperationOutcome"


def test_metrics_need_an_administrator_and_name_no_patient(server: HubServer, device: FakeDevice) -> None:
    whole_report(server, device)
    assert Client(server.url).get("/metrics") == 401
    assert logged_in(server, "okoro").get("/metrics") == 401
    root = logged_in(server, "root")
    assert root.get("/metrics") == 200
    assert 'aidpost_exams{state="open",triage="soon"} 1' in root.text
    assert f'aidpost_device_queued{{device="{device.name}"}} 0' in root.text
    assert 'aidpost_model_abstained{task="dr"} 0' in root.text
    assert "aidpost_model_sensitivity" not in root.text, "not estimable"
    assert "aidpost_alerts_unanswered 0" in root.text
    assert "Amina" not in root.text


def test_export_has_no_names_and_no_formulas(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = make_report()
    clinic = msgspec.structs.replace(report.exam.clinic, name="=HYPERLINK(1)")
    report = msgspec.structs.replace(report, exam=msgspec.structs.replace(report.exam, clinic=clinic))
    send(server, device, device.message(device.envelope(report)))
    assert reader.get("/export.csv") == 200
    header, row = reader.text.splitlines()
    assert header.startswith("id,patient,report,device,clinic")
    assert str(report.exam.id) in row
    assert "'=HYPERLINK(1)" in row
    assert "Amina" not in reader.text
    assert logged_in(server, "viewer").get("/export.csv") == 403


def test_script_that_asks_for_news_does_not_keep_a_session_alive(reader: Client, server: HubServer) -> None:
    with server.database.write() as connection:
        connection.execute(update(schema.sessions).values(used_ms=now_ms() - 29 * 60_000))
        before = connection.execute(select(schema.sessions.c.used_ms)).scalar_one()
    assert reader.get("/waiting.json") == 200
    assert json.loads(reader.body) == {"routine": 0, "soon": 0, "urgent": 0, "emergency": 0, "alerts": 0}
    with server.database.read() as connection:
        assert connection.execute(select(schema.sessions.c.used_ms)).scalar_one() == before
    assert Client(server.url).get("/waiting.json") == 303


def test_quality_page_claims_nothing_before_enough_was_read(
    reader: Client, server: HubServer, device: FakeDevice
) -> None:
    report = whole_report(server, device)
    page = f"/exams/{report.exam.id}"
    assert reader.submit(page, f"{page}/reviews", decision="confirmed", dr_right="2", rhythm="af") == 303
    assert reader.get("/quality") == 200
    assert "not estimable" in reader.text
    assert "1 / 1" in reader.text


def add_exams(server: HubServer, report: ExamReport, number: int, **changes: Any) -> None:
    """Copies of an exam as rows, each read as `answer` says; None: not read."""
    answer, call = changes.pop("answer"), changes.pop("call")
    with server.database.write() as connection:
        exam = connection.execute(schema.exams.select().where(schema.exams.c.id == report.exam.id)).one()._asdict()
        model = connection.execute(schema.calls.select().where(schema.calls.c.task == "dr").limit(1)).one()._asdict()
        for _ in range(number):
            mine = {"report": uuid.uuid4(), "exam": uuid.uuid4()}
            tally.changed(connection, [(mine["exam"], None)])
            row = exam | {"id": mine["exam"], "report": mine["report"]} | changes
            connection.execute(schema.exams.insert().values(row))
            connection.execute(schema.calls.insert().values(model | mine | {"call": call}))
            if answer is not None:
                # an earlier reading that was superseded says the opposite
                for place, said in ((1, not answer), (2, answer)):
                    values = {"patient": exam["patient"], "review": uuid.uuid4(), "reader": f"r{place}", "at_ms": place}
                    values |= mine | {"part": "eyes", "number": place, "state": "signed", "call": said}
                    connection.execute(schema.readings.insert().values(values))
    while server.tally.turn():
        pass


def test_quality_page_compares_the_devices_calls_with_the_latest_readings_in_each_group(
    reader: Client, server: HubServer, device: FakeDevice
) -> None:
    report = whole_report(server, device)
    add_exams(server, report, 30, call=True, answer=True)
    add_exams(server, report, 30, call=False, answer=False, sampled=True)
    assert reader.get("/quality") == 200
    assert "30 / 31" in reader.text
    assert "30 / 30" in reader.text
    assert "<b>100 %</b>" in reader.text
    for group in ("fundus-dr 1.2.3", "North clinic", "Kowa VX-10", "60 to 74", "female"):
        assert f"<strong>{group}</strong>" in reader.text
    assert reader.get("/quality.csv") == 200
    assert "dr sensitivity,model,fundus-dr 1.2.3,1.0," in reader.text
    assert logged_in(server, "viewer").get("/quality.csv") == 403


def test_negatives_that_chance_did_not_choose_do_not_count_unless_all_were_read(
    reader: Client, server: HubServer, device: FakeDevice
) -> None:
    report = whole_report(server, device)
    add_exams(server, report, 30, call=True, answer=True)
    # read because of their blood pressure, and diseased more often than chance would have it
    add_exams(server, report, 25, call=False, answer=True, sampled=False)
    add_exams(server, report, 25, call=False, answer=False, sampled=True)
    add_exams(server, report, 1, call=False, answer=None, sampled=False)
    reader.get("/quality")
    assert "25 / 51" in reader.text
    assert "50 / 51" not in reader.text


def test_random_sample_is_read_blinded_whatever_the_device_said_and_listed_by_time(
    reader: Client, server: HubServer, device: FakeDevice
) -> None:
    report = whole_report(server, device)
    page = f"/exams/{report.exam.id}"
    reader.get("/?show=sample")
    assert str(report.exam.id) not in reader.text
    with server.database.write() as connection:
        connection.execute(update(schema.exams).values(sampled=True))
    reader.get("/?show=sample")
    assert str(report.exam.id) in reader.text
    assert "Raised blood pressure" not in reader.text
    reader.get(page)
    assert "hidden until you have graded" in reader.text
    assert "grade 2" not in reader.text
    assert reader.submit(page, f"{page}/reviews", decision="confirmed", dr_right="2", rhythm="af") == 303
    reader.get(page)
    assert "grade 2" in reader.text


@hub_with(shadow_bound=0.6)
def test_shadow_mode_hides_the_models_answer_in_a_clinic_until_it_is_known_to_work_there(
    reader: Client, server: HubServer, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = whole_report(server, device)
    page = f"/exams/{report.exam.id}"
    reader.get(page)
    assert "grade 2" not in reader.text
    reader.get("/quality")
    assert "Readers grade before they see what the model found" in reader.text
    add_exams(server, report, 30, call=True, answer=True)
    add_exams(server, report, 30, call=False, answer=False, sampled=True)
    monkeypatch.setattr(_site, "_REMEMBER_MS", -1)
    reader.get(page)
    assert "grade 2" in reader.text, "the interval's lower end is above 0.6 now"
    assert "atrial fibrillation</dd>" not in reader.text, "of the rhythm nothing is known yet"
