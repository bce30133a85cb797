"""Codes before a camera: what is read, and whom it finds on the device's own screen."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
import segno
from console import SENSORS, Running
from hypothesis import given, settings
from hypothesis import strategies as st

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
