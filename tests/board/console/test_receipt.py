"""The receipt: what the printer gets is decoded again, looked at, and read."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import zxingcpp
from PIL import Image
from pseudo import pseudo

from aidpost.board.console import printing
from aidpost.board.console.fonts import Fonts, Setter
from aidpost.board.console.ranges import usual
from aidpost.board.console.receipt import WIDTHS, escpos, receipt
from aidpost.board.console.result import body_of, result_of
from aidpost.board.console.words import Translate
from aidpost.board.console.workspace import Workspace
from aidpost.errors import DeviceError
from aidpost.records import Answer, ExamReport, VitalKind


def printed(
    paper_workspace: Workspace,
    report: ExamReport,
    roll_mm: int = 58,
    translate: Translate = str,
    language: str = "en",
    large: bool = False,
) -> Image.Image:
    shown = result_of(paper_workspace, report)

    def body(sha256: str) -> bytes:
        return body_of(paper_workspace, report, sha256)

    return receipt(report, shown, body, translate, roll_mm=roll_mm, language=language, large=large)


def decoded(data: bytes) -> Image.Image:
    """What an ESC/POS printer puts on paper: `GS v 0` rasters one below the other (Epson's command reference)."""
    assert data.startswith(b"\x1b@"), "the printer is set up first"
    rows, at = [], data.index(b"\x1dv0")
    while data[at : at + 3] == b"\x1dv0":
        across, down = (int.from_bytes(data[at + i : at + i + 2], "little") for i in (4, 6))
        raster = np.frombuffer(data[at + 8 : at + 8 + across * down], np.uint8).reshape(down, across)
        rows.append(np.unpackbits(raster, axis=1))
        at += 8 + across * down
    assert b"\x1dV" in data[at:], "and the paper is cut"
    return Image.fromarray(np.where(np.concatenate(rows), 0, 255).astype(np.uint8))


@pytest.mark.parametrize("roll_mm", [58, 80])
def test_printer_gets_the_picture_dot_by_dot_and_its_code_finds_the_exam(
    paper_workspace: Workspace,
    report: ExamReport,
    roll_mm: int,
) -> None:
    picture = printed(paper_workspace, report, roll_mm)
    assert picture.width == WIDTHS[roll_mm]
    seen = decoded(escpos(picture))
    assert np.array_equal(np.asarray(seen) > 127, np.asarray(picture.convert("L")) > 127)
    page = np.asarray(seen)[-900:]  # as a telephone sees it: the end of the paper
    (code,) = zxingcpp.read_barcodes(np.pad(page, 40, constant_values=255), formats=zxingcpp.BarcodeFormat.QRCode)
    assert code.text == str(report.exam.id)


def found(page: Image.Image, text: str, size: int, *, bold: bool = False) -> bool:
    """Whether the text stands somewhere on the page, set as the receipt sets it."""
    word = np.asarray(Setter(Fonts()).picture(text, page.width, size, bold=bold))
    ink = np.argwhere(word < 128)
    (top, left), (bottom, right) = ink.min(axis=0), ink.max(axis=0) + 1
    match = cv2.matchTemplate(np.asarray(page.convert("L")), word[top:bottom, left:right], cv2.TM_CCOEFF_NORMED)
    return bool(match.max() > 0.9)


def test_receipt_says_what_a_reader_needs_to_know(paper_workspace: Workspace, report: ExamReport) -> None:
    page = printed(paper_workspace, report, 80)
    for text in ("Chest pain:", "date unconfirmed", "Not assessed:", "Preliminary,", "Right eye:", "25 mm/s"):
        assert found(page, text, 24), text
    assert found(page, "NOT A REAL PATIENT", 24, bold=True)
    assert found(page, "Amina Yusuf", 31, bold=True)
    assert not found(page, "Confirmed by", 24)


def test_large_print_is_larger(paper_workspace: Workspace, report: ExamReport) -> None:
    page = printed(paper_workspace, report, 80, large=True)
    assert found(page, "Chest pain:", 34)
    assert not found(page, "Chest pain:", 24)


def test_ecg_runs_along_the_paper_true_to_scale(paper_workspace: Workspace, report: ExamReport) -> None:
    without = msgspec.structs.replace(report, ecg=())
    longer = printed(paper_workspace, report, 80).height - printed(paper_workspace, without, 80).height
    assert 0 <= longer - 250 * 8 < 100, "ten seconds are 250 mm of 8 dots, and a line of text"


def test_receipt_from_the_right_and_in_chinese_has_its_letters(paper_workspace: Workspace, report: ExamReport) -> None:
    named = msgspec.structs.replace(report, patient=msgspec.structs.replace(report.patient, name="王小明"))
    assert found(printed(paper_workspace, named), "王小明", 31, bold=True)
    assert not found(printed(paper_workspace, report, translate=pseudo, language="ar"), "Chest pain:", 24)


def test_usual_ranges_are_the_rules_limits_and_only_for_adults(report: ExamReport) -> None:
    at = msgspec.structs.replace(report.exam.started, synced=True)
    known = msgspec.structs.replace(report, exam=msgspec.structs.replace(report.exam, started=at))
    assert usual(known)[VitalKind.SYSTOLIC_BP] == "90 – 140"
    assert usual(known)[VitalKind.SPO2] == "≥ 94"
    assert usual(known, {"vitals": {"bp_grade_1_systolic": 135}})[VitalKind.SYSTOLIC_BP] == "90 – 135"
    child = msgspec.structs.replace(known, patient=msgspec.structs.replace(known.patient, birth_date="2020"))
    pregnant = msgspec.structs.replace(known, answers=(Answer(question="pregnant", answer="yes", at=at),))
    assert usual(child) == usual(pregnant) == usual(report) == {}, "the last one's date is not confirmed: no age"


LP = """#!/bin/sh
printf '%s\\n' "$@" > "$OUT/arguments"
cat > "$OUT/document"
[ ! -e "$OUT/fail" ] || { echo 'lp: The printer or class does not exist.' >&2; exit 1; }
"""


@pytest.fixture
def cups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An `lp` that keeps what it is given."""
    (tmp_path / "lp").write_text(LP)
    (tmp_path / "lp").chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("OUT", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("raw", "options"), [(False, ["-d", "front desk", "-"]), (True, ["-d", "front desk", "-o", "raw", "-"])]
)
def test_cups_gets_the_document_through_its_input_and_never_as_a_file(
    cups: Path, raw: bool, options: list[str]
) -> None:
    printing.send(b"%PDF-document", "cups:front desk", raw=raw)
    assert (cups / "arguments").read_text().splitlines() == options
    assert (cups / "document").read_bytes() == b"%PDF-document"


def test_printer_that_fails_is_said_with_what_to_do(
    cups: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cups / "fail").touch()
    with pytest.raises(DeviceError, match="does not exist") as caught:
        printing.send(b"x", "cups:desk")
    assert "paper" in caught.value.remedy
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(DeviceError, match="no CUPS"):
        printing.send(b"x", "cups:desk")
    with pytest.raises(DeviceError, match="no printer"):
        printing.send(b"x", "")
    with pytest.raises(DeviceError, match="No such file"):
        printing.send(b"x", str(tmp_path / "lp0"))


def test_device_file_gets_every_byte_of_a_slow_printer(tmp_path: Path) -> None:
    path, got = tmp_path / "lp0", bytearray()
    os.mkfifo(path)
    keep = os.open(path, os.O_RDWR)  # a printer that is there before anything is sent

    def take() -> None:
        while len(got) < 300_000:
            got.extend(os.read(keep, 1000))

    printer = threading.Thread(target=take, daemon=True)
    printer.start()
    document = os.urandom(300_000)
    printing.send(document, str(path), raw=True)
    printer.join(60)
    os.close(keep)
    assert bytes(got) == document
