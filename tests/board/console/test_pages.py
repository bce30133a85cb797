"""The screen's pages over real HTTP: who may see what, and what a page from elsewhere may not do."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from console import SENSORS, Running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("device")
    (folder / "lp0").touch()
    with Running(folder, f'{SENSORS}\n[console]\nreceipt_printer = "{folder / "lp0"}"\n') as running:
        running.set_up()
        yield running


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str


def raw(device: Running, method: str, path: str, headers: dict[str, str]) -> Answer:
    with closing(http.client.HTTPConnection(urlsplit(device.url).netloc, timeout=60)) as connection:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)


def raw_bytes(device: Running, path: str) -> bytes:
    with closing(http.client.HTTPConnection(urlsplit(device.url).netloc, timeout=60)) as connection:
        connection.request("GET", path, headers={"Cookie": device.cookie})
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()


def test_without_a_pin_every_page_leads_to_the_lock(device: Running) -> None:
    exam = device.register()
    for path in ("/", "/find", "/more", exam, f"{exam}/result", f"{exam}/vitals", f"{exam}/blobs/{'0' * 64}"):
        answer = raw(device, "GET", path, {})
        assert (answer.status, answer.headers.get("location")) == (303, "/lock"), path
        assert answer.text == ""


def test_no_inline_script_and_nothing_from_outside(device: Running) -> None:
    exam = device.register()
    for path in ("/", "/find", "/patients/new", exam, f"{exam}/ecg", f"{exam}/eye/left", f"{exam}/result", "/more"):
        answer = raw(device, "GET", path, {"Cookie": device.cookie})
        policy = answer.headers["content-security-policy"]
        assert answer.status == 200, path
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert not re.search(
            r"<script(?! src=\"/static/)|\son\w+=|style=|https?://", answer.text.replace(device.url, "")
        ), path


def test_markup_in_a_name_stays_text_and_no_name_is_in_an_address(device: Running) -> None:
    exam = device.register(name="<script>alert(1)</script> Zawadi")
    page = device.page(exam)
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not re.findall(r'(?:href|action|src)="[^"]*(?:Zawadi|A-17)', page + device.page("/"))


def test_form_of_another_site_and_another_host_name_are_refused(device: Running) -> None:
    exam = device.register()
    headers = {
        "Cookie": device.cookie,
        "Origin": "http://evil.example",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    assert raw(device, "POST", f"{exam}/finish", headers).status == 403
    assert (
        raw(device, "POST", f"{exam}/finish", {"Cookie": device.cookie, "Sec-Fetch-Site": "cross-site"}).status == 403
    )
    assert raw(device, "GET", "/", {"Host": "rebound.example", "Cookie": device.cookie}).status == 421
    assert device.ask("GET", f"{exam}/vitals")[0] == 200, "it is still open"


@pytest.mark.parametrize("origin", ["http://evil.example", None])
def test_live_channel_is_for_our_own_pages_only(device: Running, origin: str | None) -> None:
    exam = device.register()
    address = f"{device.url.replace('http', 'ws')}/live{exam.removeprefix('/exams')}/ecg"
    with (
        pytest.raises((InvalidStatus, ConnectionClosed)),
        connect(
            address, origin=Origin(origin) if origin else None, additional_headers={"Cookie": device.cookie}
        ) as socket,
    ):
        socket.recv()


def test_alarm_goes_before_every_other_page_until_acknowledged(device: Running) -> None:
    other, exam = device.register("Joseph"), device.register("Amina")
    device.tap(f"{exam}/questions", question="chest-pain", answer="yes")
    for path in ("/", "/find", other, exam, f"{exam}/result"):
        assert device.ask("GET", path)[:2] == (303, f"{exam}/alarm"), path
    page = device.page(f"{exam}/alarm")
    assert "Emergency" in page
    assert "999" in page
    assert "hospital" in page
    assert device.tap(f"{exam}/finish") == f"{exam}/alarm"
    device.tap(f"{exam}/acknowledge")
    assert device.ask("GET", "/")[0] == 200


def test_every_capture_screen_says_who_the_patient_is(device: Running) -> None:
    exam = device.register("Amina Yusuf")
    for step in ("", "/questions", "/vitals", "/vitals/pulse", "/ecg", "/eye/left", "/eye/right", "/result"):
        header = device.page(exam + step).split("</header>")[0]
        assert "Amina Yusuf" in header, step
        assert "A-17" in header, step


def test_practice_is_marked_on_every_page(device: Running) -> None:
    exam = device.register()
    for path in ("/", "/find", exam, f"{exam}/ecg", f"{exam}/result"):
        assert "PRACTICE" in device.page(path), path


def test_picture_of_one_exam_is_not_to_be_had_through_another(device: Running) -> None:
    first, second = device.register("Amina"), device.register("Joseph")
    device.tap(f"{first}/eye/right")
    found = re.search(r"/blobs/([0-9a-f]{64})", device.page(f"{first}/eye/right"))
    assert found is not None
    assert device.ask("GET", f"{first}/blobs/{found[1]}")[0] == 200
    assert device.ask("GET", f"{second}/blobs/{found[1]}")[0] == 404


def test_emergency_exam_without_a_pin_is_audited_and_opens_no_other_patient(device: Running) -> None:
    known = device.register("Amina")
    cookie = device.cookie
    exam = device.tap("/break-glass")
    assert "Emergency" in device.page(exam)
    assert device.ask("GET", known)[0] == 403
    assert device.ask("POST", "/find", {"text": "Amina"})[0] == 403
    assert "Amina" not in device.page("/")
    assert device.ask("POST", "/practice", {})[0] == 403
    device.tap("/leave")
    device.cookie = cookie
    device.tap("/unlock", worker="Rose", pin="2580")
    assert "Emergency" in device.page("/")


def test_wrong_pin_and_unknown_worker_let_nobody_in(device: Running) -> None:
    device.tap("/leave")
    for worker, pin in (("Rose", "9999"), ("Nobody", "2580"), ("", "")):
        assert device.ask("POST", "/unlock", {"worker": worker, "pin": pin})[0] == 401
    assert device.ask("GET", "/")[1] == "/lock"
    assert device.ask("POST", "/setup", {"name": "Eve", "pin": "2580", "again": "2580"})[1] == "/lock"
    device.unlock()


def test_consent_to_the_exam_is_needed_and_kept_by_purpose(device: Running) -> None:
    fields = {"name": "Asha", "born": "8", "sex": "female", "guardian": "Neema Ali"}
    status, _, page = device.ask("POST", "/patients/new", fields)
    assert status == 400
    assert "consent" in page
    assert 'value="Asha"' in page, "what was typed in is still there"
    patient = device.tap("/patients/new", **fields, screening="yes")
    page = re.sub(r"\s+", " ", device.page(patient))
    assert "✓ Examine" in page
    assert "✗ Send it" in page


def test_report_is_printed_only_of_a_finished_exam(device: Running) -> None:
    exam = device.register()
    assert device.ask("GET", f"{exam}/report.pdf")[0] == 404
    device.tap(f"{exam}/finish")
    answer = raw_bytes(device, f"{exam}/report.pdf")
    assert answer.startswith(b"%PDF-")


def test_receipt_goes_to_its_printer_by_a_touch_and_a_printer_that_is_not_there_is_said(device: Running) -> None:
    exam = device.register()
    assert device.ask("POST", f"{exam}/print", {"what": "receipt"})[0] == 404, "it is not finished"
    device.tap(f"{exam}/finish")
    assert 'value="receipt"' in device.page(f"{exam}/result")
    assert 'value="report"' not in device.page(f"{exam}/result"), "there is no printer for it"
    assert "Sent to the printer" in device.page(device.tap(f"{exam}/print", what="receipt"))
    assert (device.folder / "lp0").read_bytes().startswith(b"\x1b@")
    status, _, page = device.ask("POST", f"{exam}/print", {"what": "report"})
    assert status == 409
    assert "console.printer" in page


def test_exam_is_given_up_only_with_a_reason_and_then_it_is_gone(device: Running) -> None:
    exam = device.register("Left Early")
    assert device.ask("POST", f"{exam}/give-up", {"why": ""})[0] == 400
    assert device.ask("GET", exam)[0] == 200
    assert "erased" in device.page(f"{exam}/give-up")
    assert device.tap(f"{exam}/give-up", why="left") == "/"
    assert "Left Early" not in device.page("/")


def test_patient_is_corrected_and_what_they_agreed_to_stays(device: Running) -> None:
    patient = device.tap("/patients/new", name="Amna", born="1961", sex="female", screening="yes", guardian="Neema")
    page = device.page(f"{patient}/correct")
    assert 'value="Amna"' in page
    assert 'value="1961"' in page
    assert device.ask("POST", f"{patient}/correct", {"name": ""})[0] == 400
    assert device.tap(f"{patient}/correct", name="Amina", born="1962", sex="female", screening="yes") == patient
    page = re.sub(r"\s+", " ", device.page(patient))
    assert "Amina" in page
    assert 'value="1962"' in device.page(f"{patient}/correct")
    assert "✓ Examine" in page
    assert "✗ Send it" in page


def test_medicines_and_sight_are_kept_and_stand_in_the_result(device: Running) -> None:
    exam = device.register()
    assert device.ask("POST", f"{exam}/notes/acuity-right", {"answer": "7/7"})[0] == 400
    assert device.ask("POST", f"{exam}/notes/medicines", {"answer": "x" * 301})[0] == 400
    assert device.ask("GET", f"{exam}/notes/nothing")[0] == 404
    device.tap(f"{exam}/notes/acuity-right", answer="6/9")
    device.tap(f"{exam}/notes/medicines", answer="metformin <2x>")
    for page in (f"{exam}/vitals", f"{exam}/result?part=vitals"):
        assert "6/9" in device.page(page)
        assert "metformin &lt;2x&gt;" in device.page(page)


@pytest.mark.parametrize(
    ("typed", "unit", "kept"), [("110", "mg/dL", "6.1"), ("6.1", "mmol/L", "6.1"), ("6.1", "", "6.1")]
)
def test_glucose_is_kept_in_one_unit_whichever_was_typed(device: Running, typed: str, unit: str, kept: str) -> None:
    exam = device.register()
    number = "7b1e3cf2-0000-4000-8000-000000000002"
    fields = {"glucose": typed, "method": "fingerstick", "context": "fasting", "number": number}
    device.tap(f"{exam}/vitals/glucose", **fields, **({"unit": unit} if unit else {}))
    assert f"{kept} mmol/L" in device.page(f"{exam}/result?part=vitals")


def test_glucose_typed_in_the_wrong_unit_is_refused_where_it_cannot_be(device: Running) -> None:
    exam = device.register()
    number = "7b1e3cf2-0000-4000-8000-000000000003"
    for typed, unit in (("110", "mmol/L"), ("5.5", "mg/dL")):
        fields = {"glucose": typed, "method": "fingerstick", "context": "fasting", "number": number, "unit": unit}
        assert device.ask("POST", f"{exam}/vitals/glucose", fields)[0] == 409
