"""One person: what they agree to, what the hub has of them, and that it can all go."""

from __future__ import annotations

import io
import re
import uuid
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from aidpost.board.cli import cli
from aidpost.firmware_bridge.formats.dicom_write import write_dicom
from aidpost.records import Consent, ConsentPurpose, ExamReport, Origin
from aidpost.sync.hub import consents, patients, research, schema
from aidpost.sync.hub._fhir_push import FhirPush
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.dicom import DicomPush
from aidpost.sync.hub.research import without_metadata
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, at
from .web_client import JPEG, Client, logged_in, send, whole_report

RESEARCH, SHARING = ConsentPurpose.RESEARCH, ConsentPurpose.SHARING
T0 = at().wall_ms


def asked(server: HubServer, device: FakeDevice, *said: tuple[ConsentPurpose, bool, int], **changes: Any) -> ExamReport:
    """An exam whose patient said yes or no, so many milliseconds after T0."""
    report = whole_report(server, device, **changes)
    return say(server, device, report, *said)


def say(
    server: HubServer, device: FakeDevice, report: ExamReport, *said: tuple[ConsentPurpose, bool, int]
) -> ExamReport:
    given_ = tuple(
        Consent(
            id=uuid.uuid4(), patient=report.patient.id, purpose=purpose, version="1", language="en", given=yes,
            at=at(T0 + after), operator="R. Banda",
        )
        for purpose, yes, after in said
    )  # fmt: skip
    newer = msgspec.structs.replace(report, id=uuid.uuid4(), supersedes=report.id, consents=given_)
    send(server, device, device.message(device.envelope(newer)))
    return newer


def exported(server: HubServer, purpose: ConsentPurpose = RESEARCH) -> tuple[list[dict[str, Any]], zipfile.ZipFile]:
    out = io.BytesIO()
    research.export(server.config, purpose, out, "test")
    archive = zipfile.ZipFile(out)
    return [msgspec.json.decode(line) for line in archive.read("exams.jsonl").splitlines()], archive


def test_last_word_counts_and_a_refusal_of_the_same_moment_more(server: HubServer, device: FakeDevice) -> None:
    report = asked(server, device, (RESEARCH, True, 0), (SHARING, True, 5), (SHARING, False, 5))
    with server.database.read() as connection:
        assert consents.agrees(connection, report.patient.id, RESEARCH)
        assert consents.refuses(connection, report.patient.id, SHARING)
        assert not consents.refuses(connection, report.patient.id, ConsentPurpose.MODEL_TRAINING)
        assert not consents.agrees(connection, report.patient.id, ConsentPurpose.MODEL_TRAINING)
    report = say(server, device, report, (RESEARCH, False, 10))
    with server.database.read() as connection:
        assert consents.refuses(connection, report.patient.id, RESEARCH)


def test_withdrawal_on_the_page_counts_until_a_later_yes_and_no_clock_that_runs_ahead_undoes_it(
    server: HubServer, device: FakeDevice, reader: Client
) -> None:
    report = asked(server, device, (RESEARCH, True, 0))
    ahead = asked(server, device, (RESEARCH, True, 1 << 40))
    for one in (report, ahead):
        page = f"/patients/{one.patient.id}"
        assert reader.submit(page, f"{page}/consents", purpose="research", reason="") == 400
        assert reader.submit(page, f"{page}/consents", purpose="anything", reason="x") == 400
        assert logged_in(server, "viewer").submit(page, f"{page}/consents", purpose="research", reason="x") == 403
        assert reader.submit(page, f"{page}/consents", purpose="research", reason="by letter") == 303
        reader.get(page)
        assert "<td>withdrawn</td>" in reader.text
        with server.database.read() as connection:
            assert consents.refuses(connection, one.patient.id, RESEARCH)
    assert exported(server)[0] == []
    later = now_ms() + 60_000 - T0
    say(server, device, report, (RESEARCH, True, later))
    with server.database.write() as connection:  # as if a minute had passed since the letter
        table = schema.withdrawn_consents
        connection.execute(table.update().values(at_ms=table.c.at_ms - 60_000))
    with server.database.read() as connection:
        assert consents.agrees(connection, report.patient.id, RESEARCH)


def test_who_refuses_sharing_is_given_to_no_other_system(server: HubServer, device: FakeDevice) -> None:
    report = asked(server, device, (SHARING, True, 0))
    config = msgspec.structs.replace(server.config, fhir_url="http://127.0.0.1:9")
    push = FhirPush(config, server.database, server.files)
    pacs_config = msgspec.structs.replace(server.config, dicom_url="dicom://PACS@127.0.0.1:9")
    pacs = DicomPush(pacs_config, server.database, server.files, write_dicom)
    assert push.bundles(report.exam.id) != []
    with pytest.raises(OSError, match="refused"):
        pacs.send(report.exam.id)
    say(server, device, report, (SHARING, False, 1))
    assert push.bundles(report.exam.id) == []
    pacs.send(report.exam.id)  # nothing to do, so that nobody is called


def test_research_export_holds_who_agrees_and_nothing_that_says_who_they_are(
    server: HubServer, device: FakeDevice
) -> None:
    report = asked(server, device, (RESEARCH, True, 0))
    asked(server, device, (RESEARCH, False, 0))
    asked(server, device, (ConsentPurpose.MODEL_TRAINING, True, 0))
    asked(server, device, (RESEARCH, True, 0), origin=Origin.SIMULATED)
    wrong = asked(server, device, (RESEARCH, True, 0))
    with server.database.write() as connection:
        row = connection.execute(select(schema.exams).where(schema.exams.c.id == wrong.exam.id)).one()
        patients.withdraw(connection, row, None, "okoro", "another patient", now_ms())
    lines, archive = exported(server)
    (line,) = lines
    assert (line["age"], line["sex"], line["day"]) == (64, "female", 0)
    assert line["fundus"][0]["grade"] == 2
    everything = b"".join(archive.read(name) + name.encode() for name in archive.namelist())
    told = (report.patient.name, str(report.patient.id), str(report.exam.id), str(report.id), "North clinic", "Banda")
    for secret in (*told, "raised blood", report.fundus[0].id.hex):
        assert secret.encode() not in everything, secret
    # four digits may also stand in a pseudonym
    assert re.search(rb"(?<![0-9a-f])1961(?![0-9a-f])", everything) is None, "the year of birth"
    samples = np.load(io.BytesIO(archive.read(f"ecg/{line['ecg'][0]['id']}.npy")))
    assert samples.shape == (2, 6000)
    assert archive.read(f"photographs/{line['fundus'][0]['id']}.jpg").endswith(b"\xff\xd9")
    assert exported(server)[0][0]["person"] == line["person"], "a later export goes on with it"
    assert len(exported(server, ConsentPurpose.MODEL_TRAINING)[0]) == 1


def test_linked_records_are_one_person_in_research_and_one_refusal_counts_for_both(
    server: HubServer, device: FakeDevice
) -> None:
    one, two = asked(server, device, (RESEARCH, True, 0)), asked(server, device, (RESEARCH, True, 1))
    with server.database.write() as connection:
        patients.link(connection, one.patient.id, two.patient.id, "okoro", "same card", now_ms())
    assert len({line["person"] for line in exported(server)[0]}) == 1
    say(server, device, two, (RESEARCH, False, 2))
    assert exported(server)[0] == []


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


@given(st.lists(st.tuples(st.sampled_from([0xE1, 0xE2, 0xED, 0xFE]), st.binary(max_size=50))), st.binary(max_size=99))
def test_photograph_loses_all_metadata_and_no_pixel(extra: list[tuple[int, bytes]], after: bytes) -> None:
    plain = without_metadata(JPEG)
    assert plain is not None
    added = b"".join(segment(marker, content) for marker, content in extra)
    assert without_metadata(JPEG[:2] + added + JPEG[2:] + after) == plain


@given(st.binary(max_size=200))
def test_what_is_no_whole_jpeg_is_not_given_out(data: bytes) -> None:
    assert without_metadata(data) is None
    assert without_metadata(JPEG[:-2]) is None
    found = without_metadata(b"\xff\xd8" + data)
    assert found is None or found.endswith(b"\xff\xd9")


def test_person_is_given_out_whole_and_erased_whole(server: HubServer, device: FakeDevice) -> None:
    one, two = whole_report(server, device), whole_report(server, device)
    stays = whole_report(server, device)
    with server.database.write() as connection:
        patients.link(connection, one.patient.id, two.patient.id, "okoro", "same card", now_ms())
    root, page = logged_in(server, "root"), f"/patients/{one.patient.id}"
    assert root.get(f"/exams/{two.exam.id}") == 200
    assert logged_in(server, "okoro").submit(page, f"{page}/export") == 403
    assert root.submit(page, f"{page}/export") == 200
    archive = zipfile.ZipFile(io.BytesIO(root.body))
    assert sum(name.startswith("fhir/") for name in archive.namelist()) == 2
    records = archive.read("records.jsonl").decode()
    assert str(one.id) in records
    assert str(two.id) in records
    assert str(stays.id) not in records
    assert "exam-opened" in archive.read("access.csv").decode()
    assert JPEG in {archive.read(name) for name in archive.namelist() if name.endswith(".jpg")}
    assert logged_in(server, "okoro").submit(page, f"{page}/erasure", number=str(one.patient.id)) == 403
    assert root.submit(page, f"{page}/erasure", number="yes") == 400
    assert root.submit(page, f"{page}/erasure", number=str(one.patient.id)) == 303
    assert root.get(page) == 404
    with server.database.read() as connection:
        assert connection.execute(select(schema.exams.c.id)).scalars().all() == [stays.exam.id]
    assert root.get(f"/patients/{stays.patient.id}") == 200


def test_commands_give_out_and_erase(server: HubServer, device: FakeDevice, config: HubConfig, tmp_path: Path) -> None:
    report = asked(server, device, (RESEARCH, True, 0))
    file = tmp_path / "hub.toml"
    file.write_text(f'[hub]\nstate_dir = "{config.state_dir}"\nbroker_host = ""\n')

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(cli, ["--config", str(file), "hub", *arguments])

    number = str(report.patient.id)
    assert run("research-export", str(tmp_path / "study.zip")).exit_code == 0
    assert len(zipfile.ZipFile(tmp_path / "study.zip").read("exams.jsonl").splitlines()) == 1
    assert run("export-patient", number, str(tmp_path / "p.zip")).exit_code == 0
    assert number in zipfile.ZipFile(tmp_path / "p.zip").read("records.jsonl").decode()
    assert run("erase-patient", number).exit_code == 1, "nobody said yes"
    assert run("erase-patient", number, "--yes").exit_code == 0
    again = run("erase-patient", str(uuid.uuid4()), "--yes")
    assert again.exit_code != 0
    with server.database.read() as connection:
        assert connection.execute(select(schema.exams.c.id)).all() == []
