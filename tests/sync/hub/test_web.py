"""The pages over real HTTP: who may see what, what a form must bring, what is never sent."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import msgspec
import pytest
from browser import Browser, chromium
from sqlalchemy import select, update

from aidpost.records import (
    Origin,
    Patient,
    Triage,
    TriageLevel,
)
from aidpost.sync.bodies import Erasure
from aidpost.sync.hub import accounts, schema
from aidpost.sync.hub._chinese import CHINESE
from aidpost.sync.hub.catalogue import GRADE_NAMES, VITALS
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer

from .conftest import HANDHELD, FakeDevice, at, make_report, make_vital, wait_for
from .web_client import JPEG, PASSWORD, Client, send, whole_report

TEMPLATES = Path(__file__).parents[3] / "sync/hub/templates"

# logging in


@pytest.mark.parametrize(
    "path", ["/", "/devices", "/audit", "/referrals", "/exams/00000000-0000-4000-8000-000000000001", "/export.csv"]
)
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
    accounts.add_user(server.config, "okoro", PASSWORD + "!", "clinician")
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


def test_previous_visits_photograph_ecg_and_trends_stand_beside_this_ones(
    reader: Client, server: HubServer, device: FakeDevice
) -> None:
    first = whole_report(server, device)
    exam = msgspec.structs.replace(first.exam, id=uuid.uuid4(), started=at(1_790_000_000_000))
    later = make_vital(value=91.0, at=at(1_790_000_000_000))
    second = msgspec.structs.replace(first, id=uuid.uuid4(), exam=exam, vitals=(later,))
    send(server, device, device.message(device.envelope(second)))
    assert first.fundus[0].body is not None
    photo = f"/exams/{first.exam.id}/blobs/{first.fundus[0].body.sha256}"
    assert reader.get(f"/exams/{exam.id}") == 200
    assert photo in reader.text
    assert "Previous visit, 2025-10-09" in reader.text
    assert "<polyline" in reader.text
    reader.get(f"/exams/{first.exam.id}")
    assert "Previous visit" not in reader.text


def test_erased_patient_has_no_page(reader: Client, server: HubServer, device: FakeDevice) -> None:
    report = whole_report(server, device)
    tombstone = Erasure(patient=report.patient.id, at=at())
    send(server, device, device.message(device.envelope(tombstone, "alert", patient=report.patient.id)))
    assert reader.get(f"/exams/{report.exam.id}") == 404
    assert reader.get(f"/patients/{report.patient.id}") == 404


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
        for key, shift in (("ArrowRight", "false"), ("ArrowRight", "true"), ("ArrowUp", "false")):
            browser.evaluate(
                "document.querySelector('.ecg').dispatchEvent("
                f"new KeyboardEvent('keydown', {{key: '{key}', shiftKey: {shift}}}))"
            )
        assert browser.evaluate("document.querySelector('[data-measured]').textContent") == "800 ms · 75/min · 0.05 mV"
        browser.evaluate("document.querySelector('input[value=confirmed]').checked = true")
        browser.press("form[action$=reviews] button")
        assert browser.evaluate("document.querySelector('.verdict .signed').textContent") == "signed: Dr Okoro"
        browser.open(server.url)
        assert browser.evaluate("document.querySelectorAll('.list').length") == 0
        send(server, device, device.message(device.envelope(make_report(triage=Triage(level=TriageLevel.EMERGENCY)))))
        browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        wait_for(lambda: not browser.evaluate("document.querySelector('[data-news]').hidden"), "the news is shown")
        server.notifier.turn(now_ms())
        browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        wait_for(lambda: not browser.evaluate("document.querySelector('[data-grave]').hidden"), "the alert is shown")
        assert browser.evaluate("document.querySelector('[data-alerts]').textContent") == "1"
        assert browser.complaints == []
    assert report.exam.device == HANDHELD
