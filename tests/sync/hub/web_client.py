"""A reader's browser as far as HTTP goes, and an exam with everything in it."""

from __future__ import annotations

import functools
import hashlib
import http.client
import re
import uuid
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec
import numpy as np

from aidpost.kernels import codec
from aidpost.records import (
    AbsentReason,
    Beats,
    BlobRef,
    Device,
    DrGrade,
    EcgMeasurements,
    EcgResult,
    ExamReport,
    Eye,
    FundusResult,
    ModelRef,
    Origin,
    Quality,
    Rhythm,
    Triage,
    TriageLevel,
    VitalKind,
)
from aidpost.sync.bodies import BlobManifest
from aidpost.sync.envelope import CHUNK, Chunk, Chunks, Receipt
from aidpost.sync.hub import schema, users
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.ingest import Incoming, Ingest
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, at, make_report, make_vital

PASSWORD = "a long enough password"

# the smallest baseline JPEG that browsers show: 1 x 1, grey
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb004300" + "01" * 64 + "ffc0000b080001000101011100ffc4001f0000010501"
    "010101010100000000000000000102030405060708090a0bffc400b5100002010303020403050504040000017d01020300041105122131"
    "410613516107227114328191a1082342b1c11552d1f02433627282090a161718191a25262728292a3435363738393a434445464748494a"
    "535455565758595a636465666768696a737475767778797a838485868788898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6"
    "b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9faffda0008010100003f00bfffd9"
)


class Client:
    """A reader's browser as far as HTTP goes: one cookie jar, redirects followed by hand."""

    def __init__(self, url: str, timeout_s: float = 30) -> None:
        self._address, self._timeout_s = urlsplit(url).netloc, timeout_s
        self.cookies: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        self.body = b""

    def get(self, path: str, **headers: str) -> int:
        return self._ask("GET", path, None, headers)

    def post(self, path: str, fields: dict[str, str], **headers: str) -> int:
        headers = {"Content-Type": "application/x-www-form-urlencoded"} | headers
        return self._ask("POST", path, urlencode(fields).encode(), headers)

    def log_in(self, name: str, password: str = PASSWORD) -> int:
        return self.post("/login", {"name": name, "password": password})

    def submit(self, page: str, action: str, **fields: str) -> int:
        """Sends a form of a page with its hidden fields."""
        assert self.get(page) == 200
        hidden = dict(re.findall(r'<input type="hidden" name="(csrf|report|parts)" value="([^"]*)"', self.text))
        return self.post(action, hidden | fields)

    @property
    def text(self) -> str:
        return self.body.decode()

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection(self._address, timeout=self._timeout_s)
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        connection.request(method, path, body, ({"Cookie": cookie} if cookie else {}) | headers)
        response = connection.getresponse()
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        for value in response.headers.get_all("set-cookie") or ():
            name, _, rest = value.partition("=")
            self.cookies[name] = rest.split(";")[0].strip('"')
        self.body = response.read()
        connection.close()
        return response.status


@functools.cache
def password_hash() -> str:
    """scrypt is slow on purpose: once for all tests."""
    return users.hash_password(PASSWORD)


def add_people(database: Database) -> None:
    """Accounts in each role, whose password is `PASSWORD`."""
    roles = {"viewer": "viewer", "okoro": "clinician", "adeyemi": "clinician", "root": "administrator"}
    with database.write() as connection:
        for name, role in roles.items():
            row = {"name": name, "full_name": f"Dr {name.title()}", "role": role, "password": password_hash()}
            connection.execute(schema.users.insert().values(**row, created_ms=now_ms()))


def logged_in(server: HubServer, name: str, timeout_s: float = 30) -> Client:
    """A reader who logged in before the test began."""
    client = Client(server.url, timeout_s)
    with server.database.write() as connection:
        client.cookies["session"] = users.log_in(connection, name, now_ms())
    return client


def send(server: HubServer, device: FakeDevice, *messages: bytes) -> None:
    batch = [Incoming(device.name, message, now_ms()) for message in messages]
    for reply in Ingest(server.database, server.files, server.config).ingest(batch):
        assert isinstance(reply.content, Receipt)
        assert not reply.content.rejected


def send_blob(server: HubServer, device: FakeDevice, data: bytes, media_type: str, report: ExamReport) -> BlobRef:
    digest = hashlib.sha256(data)
    ref = BlobRef(sha256=digest.hexdigest(), size=len(data), media_type=media_type)
    manifest = BlobManifest(blob=ref, origin=Origin.LIVE, at=at(), preview=b"")
    pieces = [Chunk(digest.digest(), len(data), i, data[i : i + CHUNK]) for i in range(0, len(data), CHUNK)]
    about = {"patient": report.patient.id, "exam": report.exam.id}
    send(
        server, device, device.message(device.envelope(manifest, "image", **about)), device.sign(Chunks(tuple(pieces)))
    )
    return ref


def whole_report(
    server: HubServer, device: FakeDevice, triage: TriageLevel = TriageLevel.SOON, **changes: Any
) -> ExamReport:
    """An exam with a photograph and a two-lead ECG, their bodies at the hub."""
    report = make_report(triage=Triage(level=triage, reasons=("raised blood pressure",)), **changes)
    models = (ModelRef(name="fundus-dr", version="1.2.3", sha256="ab" * 32, runtime="ai-edge-litert 2.3.0"),)
    photo = FundusResult(
        id=uuid.uuid4(),
        eye=Eye.RIGHT,
        width=64,
        height=48,
        at=at(),
        origin=Origin.LIVE,
        camera=Device(name="camera", manufacturer="Kowa", model="VX-10"),
        quality=Quality(usable=True, score=0.91, label="good"),
        dr=DrGrade(
            grade=2, probability=(0.1, 0.1, 0.6, 0.15, 0.05), referable_probability=0.8, referable=True, threshold=0.4
        ),
        not_assessed=("macular oedema",),
        models=models,
        body=send_blob(server, device, JPEG, "image/jpeg", report),
    )
    signal = np.zeros((2, 500 * 12), np.int32)
    signal[:, 250::500] = 1000
    ecg = EcgResult(
        id=uuid.uuid4(),
        fs_hz=500.0,
        duration_s=12.0,
        leads=("I", "II"),
        lsb_mv=(0.001, 0.001),
        baseline=(0, 0),
        lead="II",
        at=at(),
        origin=Origin.LIVE,
        device=Device(name="ecg"),
        quality=Quality(usable=True, score=0.9),
        beats=Beats(sample=(250, 750), label=("N", "V")),
        rhythm=Rhythm(label="A", probability={"N": 0.1, "A": 0.9}),
        measurements=EcgMeasurements(heart_rate_bpm=60.0),
        missing=((1000, 1500),),
        body=send_blob(server, device, codec.encode(signal), "application/octet-stream", report),
    )
    absent = make_vital(kind=VitalKind.TEMPERATURE, unit="Cel", value=None, absent=AbsentReason.NOT_A_NUMBER)
    report = msgspec.structs.replace(report, fundus=(photo,), ecg=(ecg,), vitals=(make_vital(), absent))
    send(server, device, device.message(device.envelope(report)))
    return report
