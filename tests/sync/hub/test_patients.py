"""Who is who: records of one person read as one, exams taken back from the wrong patient, and both undone."""

from __future__ import annotations

import re
import uuid
from urllib.parse import quote

import msgspec
import pytest
from sqlalchemy import select

from aidpost.records import ExamReport, Review, decode
from aidpost.sync.hub import fhir, schema, search
from aidpost.sync.hub._erasure import erase
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer
from aidpost.sync.hub.users import Role, Session

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


def test_patients_are_found_by_the_beginnings_of_their_names_words(
    server: HubServer, device: FakeDevice, reader: Client
) -> None:
    named(server, device, "Amina Yusuf")
    named(server, device, "100 % Proof")
    named(server, device, "Zoë N’Guessan")
    named(server, device, "王小明")
    for words, name in (
        ("yus+AMI", "Amina Yusuf"),
        ("zoe", "Zoë N’Guessan"),
        ("n’g", "Zoë N’Guessan"),
        ("小明", "王小明"),
    ):
        reader.get(f"/patients?q={quote(words, safe='+')}")
        assert re.findall(r'class="name" href="/patients/[^"]*">([^<]*)', reader.text) == [name]
    for words in ("mina", "%25roof", "_", "amina+proof", "nobody", "%00", "+"):
        reader.get(f"/patients?q={words}")
        assert 'class="name"' not in reader.text, words
    assert reader.get("/patients?q=nobody") == 200
    assert "Nobody of that name is here." in reader.text


@pytest.mark.both_databases
def test_common_names_and_rare_ones_are_found_alike(server: HubServer, device: FakeDevice, reader: Client) -> None:
    report = named(server, device, "Amina Yusuf")
    with server.database.write() as connection:
        exam = connection.execute(select(schema.exams)).one()._asdict()
        rows = []
        for number in range(700):
            ids = {"id": uuid.UUID(int=number), "report": uuid.UUID(int=number), "patient": uuid.UUID(int=number // 2)}
            rows.append(exam | ids | {"patient_name": f"Amina {number // 2:03}x", "started_ms": number})
        connection.execute(schema.exams.insert(), rows)
        search.note(connection, [(row["patient"], row["patient_name"]) for row in rows])
    session = Session("okoro", "", Role.CLINICIAN, "", 0)
    elsewhere = session._replace(clinics=("South clinic",))
    for few in (1, 10_000):  # either way of looking
        search_few = pytest.MonkeyPatch()
        search_few.setattr(search, "_FEW", few)
        with server.database.read() as connection:
            common = search.find(connection, session, "amina")
            assert [row.name for row in common[:2]] == ["Amina Yusuf", "Amina 349x"]
            assert (len(common), common[1].exams) == (50, 2)
            assert [row.name for row in search.find(connection, session, "AMINA 007")] == ["Amina 007x"]
            assert search.find(connection, elsewhere, "amina") == []
        search_few.undo()
    with server.database.write() as connection:
        erase(connection, report.patient.id, "root", now_ms())
        assert search.find(connection, session, "yusuf") == []
        words = select(schema.patient_words.c.word).where(schema.patient_words.c.patient == report.patient.id)
        assert connection.execute(words).all() == []
