"""Codes before a camera: what is read, and whom it finds on the device's own screen."""

from __future__ import annotations

import io
from pathlib import Path

import barcode
import cv2
import numpy as np
import pytest
import segno
from console import SENSORS, Running
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.board.console import codes
from aidpost.board.console.codes import MOST, look_for_code, read_code


def qr(text: str) -> bytes:
    out = io.BytesIO()
    segno.make_qr(text, error="m").save(out, kind="png", scale=6, border=4)
    return out.getvalue()


def ean13(digits: str) -> bytes:
    """GS1 General Specifications, 5.2.1: left halves in set A or B by the first digit, right halves in set C."""
    a = ["0001101", "0011001", "0010011", "0111101", "0100011", "0110001", "0101111", "0111011", "0110111", "0001011"]
    c = ["".join("10"[int(bit)] for bit in one) for one in a]
    b = [one[::-1] for one in c]
    sets = ["AAAAAA", "AABABB", "AABBAB", "AABBBA", "ABAABB", "ABBAAB", "ABBBAA", "ABABAB", "ABABBA", "ABBABA"][
        int(digits[0])
    ]
    left = "".join({"A": a, "B": b}[s][int(d)] for s, d in zip(sets, digits[1:7], strict=True))
    bits = f"101{left}01010{''.join(c[int(d)] for d in digits[7:])}101"
    row = np.array([255 * (bit == "0") for bit in f"{'0' * 12}{bits}{'0' * 12}"], np.uint8).repeat(4)
    image = cv2.copyMakeBorder(np.tile(row, (160, 1)), 100, 100, 80, 80, cv2.BORDER_CONSTANT, value=(255,))
    image = cv2.GaussianBlur(image, (5, 5), 0)  # as a camera sees it
    return cv2.imencode(".png", image)[1].tobytes()


def photographed(text: str, degrees: float = 0, blur: float = 0, tilt: float = 0, kind: str = "code128") -> bytes:
    """A card with a barcode as a camera's preview shows it: askew, out of focus (pixels; a bar has three), tilted away,
    unevenly lit, with noise, as JPEG. The bars are python-barcode's."""
    bits = "0" * 12 + barcode.get_barcode_class(kind)(text).build()[0] + "0" * 12
    row = np.array([225 - 185 * (bit == "1") for bit in bits], np.uint8).repeat(3)
    width, height = 854, 480
    page = np.full((height, width), 215, np.uint8)
    x = (width - len(row)) // 2
    page[185:295, x : x + len(row)] = row
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    page = cv2.warpAffine(page, turn, (width, height), borderValue=(215,))
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    away = np.array([[0, 0], [width, height * tilt], [width, height * (1 - tilt)], [0, height]], np.float32)
    view = cv2.getPerspectiveTransform(corners, away)
    page = cv2.warpPerspective(page, view, (width, height), borderValue=(215,))
    page = cv2.GaussianBlur(page, (0, 0), blur) if blur else page
    lit = page * np.linspace(0.75, 1.05, width) + np.random.default_rng(1).normal(0, 6, page.shape)
    return cv2.imencode(".jpg", lit.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()


@pytest.mark.parametrize("degrees", [0, 10, 20, 30, 45, 60, 75, 90, 135, 180, 270])
@pytest.mark.parametrize("blur", [0, 1.5])
def test_a_code_128_is_read_however_it_lies_and_a_little_out_of_focus(degrees: float, blur: float) -> None:
    assert read_code(photographed("A-17", degrees, blur)) == "A-17"


@pytest.mark.parametrize("text", ["A-17", "0012345678905", "ncd/2026/04711", "a-17"])
def test_a_code_128_of_every_set_is_read_tilted_away(text: str) -> None:
    assert read_code(photographed(text, tilt=0.15)) == text


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 360), st.floats(0, 6), st.floats(0, 0.35))
def test_what_is_too_blurred_or_too_far_askew_is_no_code_and_never_another_one(
    degrees: float, blur: float, tilt: float
) -> None:
    assert read_code(photographed("A-17", degrees, blur, tilt)) in ("A-17", "")


def test_a_barcode_without_a_check_of_its_own_is_not_taken() -> None:
    assert read_code(photographed("A-17", kind="code39")) == ""
    assert read_code(photographed("00123456", kind="itf")) == ""


def test_without_the_extra_qr_and_ean_are_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codes, "_zxing", lambda: None)
    assert read_code(qr("A-17")) == "A-17"
    assert read_code(ean13("4006381333931")) == "4006381333931"
    assert read_code(photographed("A-17")) == ""


def test_a_code_128_before_a_real_camera_process_finds_its_patient(tmp_path: Path) -> None:
    film = tmp_path / "wristband.avi"
    frame = cv2.imdecode(np.frombuffer(photographed("A-17", 12, 1), np.uint8), cv2.IMREAD_COLOR)
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 10, frame.shape[1::-1])
    for _ in range(60):
        writer.write(frame)
    writer.release()
    with Running(tmp_path / "device", f'{SENSORS}code = "camera:{film}"\n') as device:
        device.set_up()
        device.register()
        assert "Amina Yusuf" in device.ask("POST", "/find/code", {})[2]


@pytest.mark.parametrize("text", ["A-17", "https://hub.example/exams/1", "7b0c5a2e-5a55-4a52-9f7e-1c2a3b4c5d6e"])
def test_a_qr_code_is_read(text: str) -> None:
    assert read_code(qr(text)) == text


@pytest.mark.parametrize("digits", ["4006381333931", "9780201379624", "0036000291452"])
def test_a_barcode_is_read(digits: str) -> None:
    assert digits.lstrip("0") in read_code(ean13(digits))


def test_what_cannot_be_shown_is_left_out_and_the_text_is_bounded() -> None:
    assert read_code(qr("A-17\r\n\x1b")) == "A-17"
    assert len(read_code(qr("9" * 400))) == MOST


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_no_code(data: bytes) -> None:
    assert read_code(data) == ""


def test_the_camera_is_looked_at_until_there_is_a_code_or_it_is_too_late() -> None:
    pictures = iter([b"", qr("A-17")])
    assert look_for_code(lambda: next(pictures)) == "A-17"
    assert look_for_code(lambda: b"", seconds=0) == ""
    assert look_for_code(lambda: None) is None


def test_a_card_finds_its_patient_and_a_report_the_patient_of_its_exam(tmp_path: Path) -> None:
    with Running(tmp_path / "card", f'{SENSORS}code = "sim:fundus?code=A-17"\n') as device:
        device.set_up()
        exam = device.register()
        assert "Hold a code before the camera" in device.page("/find")
        status, _, found = device.ask("POST", "/find/code", {})
        assert status == 200
        assert "Amina Yusuf" in found
        device.tap(f"{exam}/finish")
    number = exam.rpartition("/")[2]
    configuration = (tmp_path / "card" / "aidpost.toml").read_text().replace("code=A-17", f"code={number}")
    (tmp_path / "card" / "aidpost.toml").write_text(configuration)
    device.start()
    device.unlock()
    assert "Amina Yusuf" in device.ask("POST", "/find/code", {})[2]
    device.__exit__(None, None, None)


def test_without_a_camera_for_codes_nothing_is_offered_and_a_form_says_why(tmp_path: Path) -> None:
    with Running(tmp_path, SENSORS) as device:
        device.set_up()
        assert "Hold a code" not in device.page("/find")
        status, _, text = device.ask("POST", "/find/code", {})
        assert status == 409
        assert "sensors.code" in text
