"""Who is who: records of one person read as one, exams taken back from the wrong patient, and both undone."""

from __future__ import annotations

import re
import uuid

import msgspec
from sqlalchemy import select

from aidpost.records import ExamReport, Review, decode
from aidpost.sync.hub import fhir, schema
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, make_report
from .web_client import Client, logged_in, send, whole_report


def named(server: HubServer, device: FakeDevice, name: str) -> ExamReport:
    report = make_report()
    report = msgspec.structs.replace(report, patient=msgspec.structs.replace(report.patient, name=name))
    send(server, device, device.message(device.envelope(report)))
    return report


def test_two_records_of_one_person_are_read_as_one_and_parted_again(
    server: HubServer, device: FakeDevice, reader: Client
) -> None:
    first, second, third = (named(server, device, name) for name in ("Amina Yusuf", "A. Yusuf", "Amina Y."))
    page = f"/patients/{first.patient.id}"
    assert reader.submit(page, f"{page}/links", other=str(second.patient.id)) == 400, "how one knows is said"
    assert reader.submit(page, f"{page}/links", other=str(first.patient.id), reason="x") == 400
    assert reader.submit(page, f"{page}/links", other=str(uuid.uuid4()), reason="x") == 404
    address = f"https://hub.example/patients/{second.patient.id}"
    assert reader.submit(page, f"{page}/links", other=address, reason="same identity card") == 303
    other = f"/patients/{second.patient.id}"
    assert reader.submit(other, f"{other}/links", other=str(third.patient.id), reason="same telephone") == 303
    for one in (first, second, third):
        reader.get(f"/patients/{one.patient.id}")
        assert all(str(report.exam.id) in reader.text for report in (first, second, third))
    assert logged_in(server, "viewer").submit(page, f"{page}/parted", link="x") == 403
    link = re.search(r'name="link" value="([^"]+)"[^>]*>', reader.text)
    assert link is not None
    assert reader.submit(page, f"{page}/parted", link=link[1]) == 303
    reader.get(f"/patients/{third.patient.id}")
    assert str(first.exam.id) not in reader.text


def test_exam_of_another_patient_is_withdrawn_told_to_the_device_and_shown_under_the_right_one(
    server: HubServer, device: FakeDevice, reader: Client
) -> None:
    wrong, right = whole_report(server, device), named(server, device, "Wanjiru Kamau")
    page = f"/exams/{wrong.exam.id}"
    assert reader.submit(page, f"{page}/withdrawal", other=str(right.patient.id)) == 400, "how one knows is said"
    assert reader.submit(page, f"{page}/withdrawal", other="nobody", reason="x") == 400
    assert reader.submit(page, f"{page}/withdrawal", other=str(right.patient.id), reason="Names were mixed up.") == 303
    with server.database.read() as connection:
        down = connection.execute(select(schema.outgoing.c.body)).scalar_one()
    told = decode(Review, bytes(down))
    assert (told.exam, told.patient) == (wrong.exam.id, wrong.patient.id)
    assert "Names were mixed up." in told.text
    fields = {"decision": "confirmed", "report": str(wrong.id), "parts": "eyes"}
    assert reader.submit(page, f"{page}/reviews", **fields) == 409, "nobody signs it for the wrong patient"
    reader.get(page)
    assert "Withdrawn: another patient&#39;s exam" in reader.text or "Withdrawn: another patient's exam" in reader.text
    reader.get("/")
    assert str(wrong.exam.id) not in reader.text
    assert reader.get(f"/patients/{wrong.patient.id}") == 404, "nothing else was filed under that patient"
    reader.get(f"/patients/{right.patient.id}")
    assert str(wrong.exam.id) in reader.text
    newer = msgspec.structs.replace(wrong, id=uuid.uuid4(), supersedes=wrong.id)
    send(server, device, device.message(device.envelope(newer)))
    reader.get("/")
    assert str(wrong.exam.id) not in reader.text, "a newer version is withdrawn, too"
    assert reader.submit(page, f"{page}/withdrawal", undo="1") == 303
    reader.get("/")
    assert str(wrong.exam.id) in reader.text
    assert reader.get(f"/patients/{wrong.patient.id}") == 200
    reader.get(f"/patients/{right.patient.id}")
    assert str(wrong.exam.id) not in reader.text


def test_withdrawn_results_are_entered_in_error_in_fhir(server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    statuses = {
        resource["status"]
        for resource in fhir.withdrawn(report)
        if resource["resourceType"] in ("DiagnosticReport", "Observation", "Media")
    }
    assert statuses == {"entered-in-error"}


def test_patients_are_found_by_parts_of_their_name(server: HubServer, device: FakeDevice, reader: Client) -> None:
    named(server, device, "Amina Yusuf")
    named(server, device, "100 % Proof")
    reader.get("/patients?q=yus+AMI")
    assert "Amina Yusuf" in reader.text
    assert "Proof" not in reader.text
    reader.get("/patients?q=%25")
    assert "Amina" not in reader.text
    reader.get("/patients?q=nobody")
    assert "Nobody of that name is here." in reader.text
