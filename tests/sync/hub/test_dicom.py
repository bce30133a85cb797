"""What was recorded reaches other people's PACS: once each, whatever happens on the way, and exactly."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sqlalchemy import select

from aidpost.firmware_bridge.formats.dicom_write import write_dicom
from aidpost.records import ExamReport, Origin
from aidpost.sync.hub import patients, schema
from aidpost.sync.hub._dicom_wire import Refused, StowRs
from aidpost.sync.hub._erasure import erase
from aidpost.sync.hub._exporter import Exporter
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.dicom import DicomPush
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice
from .pacs import Orthanc, StoreScp
from .web_client import JPEG, Client, send, whole_report

SECOND = 1000


@pytest.fixture
def pacs(tmp_path: Path) -> StoreScp:
    return StoreScp(tmp_path / "pacs")


def exporter_to(server: HubServer, url: str, **changes: object) -> Exporter:
    config = msgspec.structs.replace(server.config, dicom_url=url, **changes)
    return Exporter(server.database, DicomPush(config, server.database, server.files, write_dicom))


@pytest.fixture
def exporter(server: HubServer, pacs: StoreScp) -> Exporter:
    """Turned by hand."""
    return exporter_to(server, f"dicom://PACS@127.0.0.1:{pacs.port}")


def uids(report: ExamReport) -> set[str]:
    return {f"2.25.{result.id.int}" for result in (*report.ecg, *report.fundus)}


def waiting(server: HubServer) -> tuple[object, str]:
    table = schema.exports
    with server.database.read() as connection:
        row = connection.execute(select(table).where(table.c.target == "dicom")).one()
    return row.next_ms, row.error


def audited(server: HubServer) -> list[str]:
    table = schema.audit
    with server.database.read() as connection:
        rows = connection.execute(select(table.c.action).where(table.c.action.like("dicom-%")).order_by(table.c.id))
        return list(rows.scalars())


def test_photograph_and_ecg_arrive_in_one_study_exactly_as_recorded(
    server: HubServer, device: FakeDevice, pacs: StoreScp, exporter: Exporter
) -> None:
    report = whole_report(server, device)
    with pacs.running("+xa"):
        assert exporter.turn(now_ms()) == 1
    stored = pacs.objects()
    assert set(stored) == uids(report)
    assert {str(data.StudyInstanceUID) for data in stored.values()} == {f"2.25.{report.exam.id.int}"}
    assert len({(data.StudyDate, data.StudyTime) for data in stored.values()}) == 1
    for data in stored.values():
        assert (data.PatientID, str(data.PatientName)) == (str(report.patient.id), "Amina Yusuf")
        assert data.InstitutionName == "North clinic"
    photo, ecg = stored[f"2.25.{report.fundus[0].id.int}"], stored[f"2.25.{report.ecg[0].id.int}"]
    assert (photo.ImageLaterality, photo.Modality) == ("R", "OP")
    assert JPEG in photo.PixelData, "byte for byte"
    millivolt = ecg.waveform_array(0) / 1000
    assert millivolt.shape == (6000, 2)
    assert np.isclose(millivolt[250, 0], 1.0)
    assert audited(server) == ["dicom-stored", "dicom-stored"]
    assert waiting(server) == (None, "")


def test_pacs_without_jpeg_gets_plain_pixels(
    server: HubServer, device: FakeDevice, pacs: StoreScp, exporter: Exporter
) -> None:
    report = whole_report(server, device)
    with pacs.running():
        exporter.turn(now_ms())
    photo = pacs.objects()[f"2.25.{report.fundus[0].id.int}"]
    assert photo.PhotometricInterpretation == "RGB"
    assert photo.LossyImageCompression == "01", "it was a JPEG once"
    assert len(photo.PixelData) == 4


def test_away_refusing_and_lost_answers_are_tried_again_and_double_nothing(
    server: HubServer, device: FakeDevice, pacs: StoreScp, exporter: Exporter
) -> None:
    report = whole_report(server, device)
    now = now_ms()
    assert exporter.turn(now) == 1  # nobody is there
    assert "refused" in waiting(server)[1]
    assert exporter.turn(now + 9 * SECOND) == 0
    with pacs.running("--refuse"):
        assert exporter.turn(now + 10 * SECOND) == 1
    assert "refuses" in waiting(server)[1]
    with pacs.running("+xa", "--abort-after"):  # takes the first object, and its answer never comes
        assert exporter.turn(now + 30 * SECOND) == 1
    assert audited(server) == []
    with pacs.running("+xa"):
        assert exporter.turn(now + 70 * SECOND) == 1
    assert set(pacs.objects()) == uids(report)
    assert waiting(server) == (None, "")


def test_review_sends_nothing_again(
    server: HubServer, device: FakeDevice, pacs: StoreScp, exporter: Exporter, reader: Client
) -> None:
    report = whole_report(server, device)
    with pacs.running("+xa"):
        exporter.turn(now_ms())
    page = f"/exams/{report.exam.id}"
    assert reader.submit(page, f"{page}/reviews", decision="confirmed", parts="eyes", dr_right="2") == 303
    assert exporter.turn(now_ms()) == 1, "due, and done without a PACS"
    assert waiting(server) == (None, "")


def test_withdrawn_exam_says_what_the_pacs_has_of_it(
    server: HubServer, device: FakeDevice, pacs: StoreScp, exporter: Exporter, reader: Client
) -> None:
    report = whole_report(server, device)
    with pacs.running("+xa"):
        exporter.turn(now_ms())
    page = f"/exams/{report.exam.id}"
    assert reader.submit(page, f"{page}/withdrawal", reason="Names were mixed up.") == 303
    assert reader.get(page) == 200
    assert "to be rejected there: 2" in reader.text
    with server.database.write() as connection:
        erase(connection, report.patient.id, "root", now_ms())
        row = connection.execute(select(schema.audit).order_by(schema.audit.c.id.desc())).first()
        assert connection.execute(select(schema.dicom_objects)).all() == []
    assert row is not None
    assert row.detail == "2 blobs, 2 objects at the PACS"


def test_photograph_of_an_unknown_eye_is_noted_and_holds_up_nothing(
    server: HubServer, device: FakeDevice, pacs: StoreScp, exporter: Exporter
) -> None:
    report = whole_report(server, device)
    photo = msgspec.structs.replace(report.fundus[0], eye=None)
    newer = msgspec.structs.replace(report, id=uuid.uuid4(), supersedes=report.id, fundus=(photo,))
    send(server, device, device.message(device.envelope(newer)))
    with pacs.running("+xa"):
        exporter.turn(now_ms())
    assert set(pacs.objects()) == {f"2.25.{report.ecg[0].id.int}"}
    assert sorted(audited(server)) == ["dicom-impossible", "dicom-stored"]
    assert waiting(server) == (None, "")


def test_simulated_withdrawn_and_erased_exams_are_not_sent(
    server: HubServer, device: FakeDevice, pacs: StoreScp, exporter: Exporter
) -> None:
    whole_report(server, device, origin=Origin.SIMULATED)
    wrong, gone = whole_report(server, device), whole_report(server, device)
    with server.database.write() as connection:
        row = connection.execute(select(schema.exams).where(schema.exams.c.id == wrong.exam.id)).one()
        patients.withdraw(connection, row, None, "okoro", "another patient", now_ms())
        erase(connection, gone.patient.id, "root", now_ms())
    with pacs.running("+xa"):
        exporter.turn(now_ms())
    assert pacs.objects() == {}
    practice = exporter_to(server, f"dicom://PACS@127.0.0.1:{pacs.port}", dicom_simulated=True)
    whole_report(server, device, origin=Origin.SIMULATED)
    with pacs.running("+xa"):
        practice.turn(now_ms())
    assert len(pacs.objects()) == 2, "where a site wants them"


def test_tls_checks_the_pacs(server: HubServer, device: FakeDevice, pacs: StoreScp, tmp_path: Path) -> None:
    report = whole_report(server, device)
    key, certificate = self_signed(tmp_path, "localhost")
    url = f"dicoms://PACS@localhost:{pacs.port}"
    with pacs.running("+xa", "+tls", str(key), str(certificate), "--ignore-peer-cert"):
        exporter_to(server, url).turn(now_ms())
        assert pacs.objects() == {}
        exporter_to(server, url, dicom_ca=str(certificate)).turn(now_ms() + 20 * SECOND)
    assert set(pacs.objects()) == uids(report)


def test_orthanc_takes_both_ways_and_has_each_object_once(
    server: HubServer, device: FakeDevice, tmp_path: Path
) -> None:
    report, other = whole_report(server, device), whole_report(server, device)
    orthanc = Orthanc(tmp_path / "orthanc")
    with orthanc.running():
        ways = [orthanc.url, f"dicom://PACS@127.0.0.1:{orthanc.dicom}"]
        for url in [*ways, *ways]:
            with server.database.write() as connection:  # as if no answer had ever come
                connection.execute(schema.dicom_objects.delete())
                connection.execute(schema.exports.update().values(next_ms=0))
            assert exporter_to(server, url).turn(now_ms()) == 2
            assert waiting_all(server) == {""}
        found = orthanc.get("/dicom-web/instances?includefield=00080018")
        studies = orthanc.get("/dicom-web/studies")
    assert {item["00080018"]["Value"][0] for item in found} == uids(report) | uids(other)
    assert len(found) == 4
    assert len(studies) == 2


def waiting_all(server: HubServer) -> set[str]:
    table = schema.exports
    with server.database.read() as connection:
        rows = connection.execute(select(table).where(table.c.target == "dicom")).all()
    assert {row.next_ms for row in rows} == {None}
    return {row.error for row in rows}


def self_signed(folder: Path, host: str) -> tuple[Path, Path]:
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "key.pem", folder / "cert.pem"


@contextlib.contextmanager
def answering(status: int, answer: object, seen: list[tuple[str, bytes]]) -> Iterator[str]:
    """A DICOMweb server that says what a test wants to hear."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            seen.append((f"{self.path} {self.headers['content-type']} {self.headers['authorization']}", body))
            data = msgspec.json.encode(answer)
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    web = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}/dw/"
    web.shutdown()
    web.server_close()


def failed(reason: int) -> dict[str, object]:
    return {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [reason]}}]}}


@pytest.mark.parametrize(
    ("status", "answer", "refused"),
    [
        (200, {}, ""),
        (409, failed(0x0111), ""),  # it has it already
        (202, failed(0xA700), "0xa700"),  # PS3.18 I.2: of several some, of one none
        (409, failed(0x0122), "0x0122"),
        (503, {"busy": True}, "503"),
    ],
)
def test_stow_answers_are_read_as_the_standard_says(tmp_path: Path, status: int, answer: object, refused: str) -> None:
    path, seen = tmp_path / "x.dcm", []
    path.write_bytes(b"an object\r\n--with a dash")
    with answering(status, answer, seen) as url:
        context = pytest.raises(Refused, match=refused) if refused else contextlib.nullcontext()
        with context:
            StowRs(url, "a token").store(path)
    ((head, body),) = seen
    where, kind, rest = head.split(" ", 2)
    assert (where, kind) == ("/dw/studies", "multipart/related;")
    assert 'type="application/dicom"; boundary=' in rest
    assert rest.endswith("Bearer a token")
    boundary = rest.split("boundary=")[1].split(" ")[0].encode()
    first, part, last = body.split(b"--" + boundary)
    assert (first, last) == (b"", b"--\r\n")
    assert part == b"\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n"
