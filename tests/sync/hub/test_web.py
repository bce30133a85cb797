"""The pages over real HTTP: who may see what, what a form must bring, what is never sent."""

from __future__ import annotations

import functools
import hashlib
import http.client
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import msgspec
import numpy as np
import pytest
from sqlalchemy import select, update

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
    Patient,
    Quality,
    Review,
    Rhythm,
    Triage,
    TriageLevel,
    VitalKind,
    decode,
)
from aidpost.sync.bodies import BlobManifest, Erasure
from aidpost.sync.envelope import CHUNK, Chunk, Chunks
from aidpost.sync.hub import audit, operations, schema, users
from aidpost.sync.hub._catalogue import GRADE_NAMES, VITALS
from aidpost.sync.hub._chinese import CHINESE
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.ingest import Incoming, Ingest
from aidpost.sync.hub.server import HubServer

from .browser import Browser, chromium
from .conftest import HANDHELD, FakeDevice, at, make_report, make_vital, wait_for

PASSWORD = "a long enough password"
TEMPLATES = Path(__file__).parents[3] / "sync/hub/templates"

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

    def __init__(self, url: str) -> None:
        self._address = urlsplit(url).netloc
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
        hidden = dict(re.findall(r'<input type="hidden" name="(csrf|report)" value="([^"]*)"', self.text))
        return self.post(action, hidden | fields)

    @property
    def text(self) -> str:
        return self.body.decode()

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection(self._address, timeout=30)
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


@pytest.fixture
def server(config: HubConfig, device: FakeDevice) -> Iterator[HubServer]:
    operations.enroll(config, device.name, device.public_key, accept_simulated=True)
    made = HubServer(config)
    roles = {"viewer": "viewer", "okoro": "clinician", "adeyemi": "clinician", "root": "administrator"}
    with made.database.write() as connection:
        for name, role in roles.items():
            row = {"name": name, "full_name": f"Dr {name.title()}", "role": role, "password": password_hash()}
            connection.execute(schema.users.insert().values(**row, created_ms=now_ms()))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def reader(server: HubServer) -> Client:
    return logged_in(server, "okoro")


def logged_in(server: HubServer, name: str) -> Client:
    """A reader who logged in before the test began."""
    client = Client(server.url)
    with server.database.write() as connection:
        client.cookies["session"] = users.log_in(connection, name, now_ms())
    return client


def send(server: HubServer, device: FakeDevice, *messages: bytes) -> None:
    batch = [Incoming(device.name, message, now_ms()) for message in messages]
    for reply in Ingest(server.database, server.files, server.config).ingest(batch):
        assert not reply.receipt.rejected


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


def whole_report(server: HubServer, device: FakeDevice) -> ExamReport:
    """An exam with a photograph and a two-lead ECG, their bodies at the hub."""
    report = make_report()
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


# logging in


@pytest.mark.parametrize("path", ["/", "/devices", "/audit", "/referrals", f"/exams/{uuid.uuid4()}", "/export.csv"])
def test_nothing_is_shown_without_logging_in(server: HubServer, path: str) -> None:
    client = Client(server.url)
    assert client.get(path) == 303
    assert client.headers["location"] == "/login"
    assert not client.body


def test_wrong_password_is_refused_audited_and_after_five_times_blocked(server: HubServer) -> None:
    client = Client(server.url)
    assert [client.log_in("okoro", "wrong") for _ in range(6)] == [401] * 5 + [429]
    assert client.log_in("okoro") == 429
    with server.database.read() as connection:
        actions = list(connection.execute(select(schema.audit.c.action)).scalars())
    assert actions.count("login-failed") == 5


def test_cookie_is_kept_from_scripts_and_other_sites(reader: Client, server: HubServer) -> None:
    client = Client(server.url)
    client.log_in("okoro")
    assert re.search(r"HttpOnly.*SameSite=strict", client.headers["set-cookie"], re.IGNORECASE)


def test_session_ends_by_logging_out_by_idling_and_with_a_new_password(reader: Client, server: HubServer) -> None:
    assert reader.get("/") == 200
    with server.database.write() as connection:
        connection.execute(update(schema.sessions).values(used_ms=now_ms() - 31 * 60_000))
    assert reader.get("/") == 303
    reader.log_in("okoro")
    operations.add_user(server.config, "okoro", PASSWORD + "!", "clinician")
    assert reader.get("/") == 303
    reader.log_in("okoro", PASSWORD + "!")
    assert reader.submit("/", "/logout") == 303
    assert reader.get("/") == 303


def test_form_without_its_token_or_from_another_site_is_refused(reader: Client) -> None:
    assert reader.post("/logout", {"csrf": "guessed"}) == 403
    token = re.search(r'name="csrf" value="([^"]+)"', reader.text if reader.get("/") == 200 else "")
    assert token is not None
    assert reader.post("/logout", {"csrf": token[1]}, Origin="http://elsewhere.example") == 403
    assert reader.post("/logout", {"csrf": token[1]}, **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert reader.get("/") == 200


def test_oversized_form_is_refused(reader: Client) -> None:
    assert reader.post("/login", {"name": "x" * 70_000}) == 413


# headers and health


def test_every_answer_forbids_inline_script_framing_and_caching(reader: Client) -> None:
    for path in ("/", "/nowhere", "/healthz", "/login"):
        reader.get(path)
        policy = reader.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert reader.headers["cache-control"] == "no-store"
        assert reader.headers["x-content-type-options"] == "nosniff"


def test_templates_have_no_inline_script_or_style() -> None:
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\sstyle=|<style|\son\w+=|<script(?![^>]*src=)", text), path.name


def test_health_says_ok(server: HubServer) -> None:
    client = Client(server.url)
    assert client.get("/healthz") == 200
    assert json.loads(client.body) == {"status": "ok", "broker": None}


# the pages


def test_worklist_is_by_triage_then_by_time(reader: Client, server: HubServer, device: FakeDevice) -> None:
    for name, level, wall in (
        ("Late Routine", TriageLevel.ROUTINE, 5_000),
        ("Second Urgent", TriageLevel.URGENT, 4_000),
        ("First Urgent", TriageLevel.URGENT, 3_000),
        ("Emergency", TriageLevel.EMERGENCY, 9_000),
    ):
        report = make_report(triage=Triage(level=level))
        report = msgspec.structs.replace(
            report,
            patient=msgspec.structs.replace(report.patient, name=name),
            exam=msgspec.structs.replace(report.exam, started=at(wall)),
        )
        send(server, device, device.message(device.envelope(report)))
    assert reader.get("/") == 200
    order = re.findall(r"Emergency<|First Urgent<|Second Urgent<|Late Routine<", reader.text)
    assert [name.rstrip("<") for name in order] == ["Emergency", "First Urgent", "Second Urgent", "Late Routine"]


def test_exam_page_shows_everything_and_says_preliminary(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    assert reader.get(f"/exams/{report.exam.id}") == 200
    for text in (
        "Amina Yusuf", "preliminary", "Raised blood pressure", "grade 2", "moderate", "Kowa VX-10", "macular oedema",
        "atrial fibrillation", "60 /min", "25 mm/s", "10 mm/mV", "97</b> %", "not a number", "fundus-dr", "1.2.3",
        "North clinic", "R. Banda", 'class="gap"', ">V</text>",
    ):  # fmt: skip
        assert text in reader.text, text
    assert reader.text.count('class="ecg"') == 2, "twelve seconds are two rows"
    assert report.fundus[0].body is not None
    assert reader.get(f"/exams/{report.exam.id}/blobs/{report.fundus[0].body.sha256}") == 200
    assert (reader.body, reader.headers["content-type"]) == (JPEG, "image/jpeg")


def test_photograph_of_another_exam_is_not_given(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report, other = whole_report(server, device), make_report()
    send(server, device, device.message(device.envelope(other)))
    assert report.fundus[0].body is not None
    assert reader.get(f"/exams/{other.exam.id}/blobs/{report.fundus[0].body.sha256}") == 404


def test_simulated_exam_is_marked_in_the_list_and_on_its_page(
    reader: Client, server: HubServer, device: FakeDevice
) -> None:
    report = make_report(origin=Origin.SIMULATED)
    send(server, device, device.message(device.envelope(report)))
    reader.get("/")
    assert "SIMULATED" in reader.text
    reader.get(f"/exams/{report.exam.id}")
    assert "SIMULATED: this exam was made by a simulator" in reader.text


def test_unconfirmed_clock_is_said(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = make_report()
    report = msgspec.structs.replace(report, exam=msgspec.structs.replace(report.exam, started=at(5_000, synced=False)))
    send(server, device, device.message(device.envelope(report)))
    for path in ("/", f"/exams/{report.exam.id}"):
        reader.get(path)
        assert "unconfirmed clock" in reader.text
        assert "time unknown" in reader.text


def test_patients_name_is_text_and_never_markup(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = make_report()
    evil = Patient(id=report.patient.id, name="<script>alert(1)</script>")
    report = msgspec.structs.replace(report, patient=evil)
    send(server, device, device.message(device.envelope(report)))
    for path in ("/", f"/exams/{report.exam.id}"):
        reader.get(path)
        assert "<script>alert" not in reader.text
        assert "&lt;script&gt;alert" in reader.text


def test_patients_page_shows_visits_and_trends(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = make_report(vitals=(make_vital(value=95.0),))
    exam = msgspec.structs.replace(report.exam, id=uuid.uuid4(), started=at(1_770_000_000_000))
    later = make_vital(value=91.0, at=at(1_770_000_000_000))
    again = msgspec.structs.replace(report, id=uuid.uuid4(), exam=exam, vitals=(later,))
    send(server, device, device.message(device.envelope(report), device.envelope(again)))
    assert reader.get(f"/patients/{report.patient.id}") == 200
    assert str(report.exam.id) in reader.text
    assert str(exam.id) in reader.text
    assert "<polyline" in reader.text


def test_erased_patient_has_no_page(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    tombstone = Erasure(patient=report.patient.id, at=at())
    send(server, device, device.message(device.envelope(tombstone, "alert", patient=report.patient.id)))
    assert reader.get(f"/exams/{report.exam.id}") == 404
    assert reader.get(f"/patients/{report.patient.id}") == 404


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


# languages and the browser


def test_every_phrase_of_the_pages_is_in_the_chinese_catalogue() -> None:
    phrases = {*VITALS.values(), *GRADE_NAMES.values(), *(level.value for level in TriageLevel)}
    for path in TEMPLATES.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        phrases |= set(re.findall(r'\bt\("([^"]+)"\)', text)) | set(re.findall(r"\bt\('([^']+)'\)", text))
    same_in_both = {"HbA1c"}
    assert sorted(phrases - CHINESE.keys() - same_in_both) == []


def test_language_is_chosen_and_remembered(reader: Client) -> None:
    reader.get("/", **{"Accept-Language": "zh-CN,zh;q=0.9"})
    assert "工作列表" in reader.text
    reader.get("/?lang=en")
    reader.get("/", **{"Accept-Language": "zh-CN"})
    assert "Worklist" in reader.text


@pytest.mark.skipif(chromium() is None, reason="chromium is not installed (apt-get install chromium)")
def test_chromium_logs_in_reads_zooms_and_signs_without_a_complaint(server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    with Browser() as browser:
        browser.open(server.url)
        browser.fill("#name", "okoro")
        browser.fill("#password", PASSWORD)
        browser.press("button.primary")
        assert browser.evaluate("document.querySelector('.name').textContent") == "Amina Yusuf"
        browser.press(".name")
        assert browser.evaluate("document.querySelector('.retina').naturalWidth") == 1
        browser.evaluate(
            "document.querySelector('[data-zoom]').dispatchEvent(new KeyboardEvent('keydown', {key: '+'}))"
        )
        assert "scale(1.25)" in browser.evaluate("document.querySelector('.retina').style.transform")
        assert browser.evaluate("document.querySelector('.ecg .trace').getBBox().width") > 40
        browser.evaluate("document.querySelector('input[value=confirmed]').checked = true")
        browser.press("form[action$=reviews] button")
        assert browser.evaluate("document.querySelector('.verdict .signed').textContent") == "signed: Dr Okoro"
        browser.open(server.url)
        assert browser.evaluate("document.querySelectorAll('.list').length") == 0
        send(server, device, device.message(device.envelope(make_report(triage=Triage(level=TriageLevel.EMERGENCY)))))
        browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        wait_for(lambda: not browser.evaluate("document.querySelector('[data-news]').hidden"), "the news is shown")
        assert browser.evaluate("document.querySelector('[data-news]').className") == "news grave"
        assert browser.complaints == []
    assert report.exam.device == HANDHELD


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
    assert json.loads(reader.body) == {"routine": 0, "soon": 0, "urgent": 0, "emergency": 0}
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


def test_quality_page_compares_the_devices_calls_with_the_latest_reviews(
    reader: Client, server: HubServer, device: FakeDevice
) -> None:
    report = whole_report(server, device)
    with server.database.write() as connection:
        exam = connection.execute(schema.exams.select()).one()._asdict()
        for number in range(60):
            mine, called = uuid.uuid4(), number < 30
            row = exam | {"id": uuid.uuid4(), "report": mine, "dr_referable": called, "af": None}
            connection.execute(schema.exams.insert().values(row))
            for at_ms, answer in ((1, not called), (2, called)):  # an earlier review that was superseded
                values = {"exam": row["id"], "report": mine, "patient": report.patient.id, "reviewer": "x"}
                values |= {"decision": "confirmed", "at_ms": at_ms, "dr_referable": answer, "body": b""}
                connection.execute(schema.reviews.insert().values(id=uuid.uuid4(), **values))
    assert reader.get("/quality") == 200
    assert "30 / 31" in reader.text
    assert "30 / 30" in reader.text
    assert "<b>100 %</b>" in reader.text
