"""The report on paper says what the screen says, and what it is not."""

from __future__ import annotations

import base64
import re
import zlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from pseudo import pseudo

from aidpost.board.console.fonts import FOLDER, Fonts, Setter
from aidpost.board.console.paper import pdf
from aidpost.board.console.result import body_of, result_of
from aidpost.board.console.words import Languages, Translate
from aidpost.board.console.workspace import Workspace
from aidpost.firmware_bridge.sources import open_source
from aidpost.records import ExamReport


def made(
    paper_workspace: Workspace,
    report: ExamReport,
    size: str = "A5",
    reviewer: str = "",
    language: str = "en",
    translate: Translate = str,
    fonts: Fonts | None = None,
    large: bool = False,
) -> bytes:
    return pdf(
        report,
        result_of(paper_workspace, report),
        lambda sha256: body_of(paper_workspace, report, sha256),
        translate,
        size=size,
        reviewer=reviewer,
        language=language,
        fonts=fonts,
        large=large,
    )


def streams(document: bytes) -> bytes:
    """What is drawn, unpacked."""
    out = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", document, re.DOTALL):
        try:
            plain = zlib.decompress(base64.a85decode(b"<~" + stream.strip(), adobe=True))
        except (ValueError, zlib.error):
            continue
        out.append(plain)
    return b"\n".join(out)


def text_of(document: bytes) -> str:
    """What a reader reads, of text in the standard fonts."""
    out = re.findall(rb"\((.*?)(?<!\\)\) Tj", streams(document))
    return b" ".join(out).decode("latin-1").replace("\\", "")


@pytest.mark.parametrize(("size", "width"), [("A5", b"419"), ("A4", b"595")])
def test_paper_has_its_size_and_all_that_a_reader_needs(
    paper_workspace: Workspace, report: ExamReport, size: str, width: bytes
) -> None:
    document = made(paper_workspace, report, size)
    assert b"/MediaBox [ 0 0 " + width in document
    text = text_of(document)
    for words in (
        *("Amina Yusuf", "born 1961", "date unconfirmed", "Emergency", "Chest pain", "Go to a hospital now"),
        *("Be seen today",),
        *("Preliminary, not a diagnosis; confirmed by", "Right eye: ungradable", "Left eye: not photographed"),
        *("mm/s", "Not assessed", "by Rose", "aidpost ", "NOT A REAL PATIENT"),
    ):
        assert words in text, words


def test_confirmed_report_names_the_clinician_and_is_not_preliminary(
    paper_workspace: Workspace, report: ExamReport
) -> None:
    text = text_of(made(paper_workspace, report, reviewer="Dr Achieng"))
    assert "Confirmed by Dr Achieng" in text
    assert "Preliminary" not in text


@pytest.mark.parametrize(
    ("name", "fonts", "used"),
    [
        ("王小明", FOLDER, rb"/FontFile2 .*DroidSansFallback"),
        ("أمينة", FOLDER, rb"/Subtype /Image.*"),
        ("Ольга", FOLDER, rb"DejaVuSans"),
        ("王小明", Path("/nowhere"), rb"STSong-Light"),
        ("أمينة", Path("/nowhere"), None),
        ("🜁", FOLDER, None),
    ],
)
def test_name_in_another_script_is_printed_or_said_to_be_lacking_never_boxes(
    paper_workspace: Workspace, report: ExamReport, name: str, fonts: Path, used: bytes | None
) -> None:
    other = msgspec.structs.replace(report, patient=msgspec.structs.replace(report.patient, name=name))
    document = made(paper_workspace, other, fonts=Fonts(fonts))
    assert ("letters that this printer lacks" in text_of(document)) is (used is None)
    assert used is None or re.search(used, document, re.DOTALL)


def test_chinese_report_is_embedded_whole_so_that_the_reader_needs_no_font(
    paper_workspace: Workspace, report: ExamReport
) -> None:
    document = made(paper_workspace, report, language="zh", translate=Languages().translator("zh"))
    assert b"STSong" not in document, "a font that the reader must have"
    assert re.search(rb"/FontFile2", document)
    assert b"DroidSansFallback" in document
    assert "letters that this printer lacks" not in text_of(document)


def test_report_from_the_right_is_set_as_its_letters_join(paper_workspace: Workspace, report: ExamReport) -> None:
    document = made(paper_workspace, report, language="ar", translate=pseudo)
    assert "letters that this printer lacks" not in text_of(document)
    assert document.count(b"/Subtype /Image") > 10
    setter = Setter(Fonts(), rtl=True)
    page = np.asarray(setter.picture("سلام", 400, 40))
    columns = np.flatnonzero((page < 128).any(axis=0))
    assert columns.min() > 250, "it begins at the right edge"
    assert np.diff(columns).max() <= 12, "its letters join"


@pytest.mark.parametrize("text", ["one two three " * 20, "一二三四五六七八九十" * 8, "x" * 300, "", "a\nb"])
def test_set_text_stays_within_its_width_and_loses_no_letter(text: str) -> None:
    setter = Setter(Fonts())
    lines = setter._lines(text, 300, 24, False)
    assert "".join(lines).replace(" ", "") == text.replace("\n", "").replace(" ", "")
    assert all(setter._length(line, 24, False) <= 300 for line in lines)


def test_markup_in_a_name_stays_text(paper_workspace: Workspace, report: ExamReport) -> None:
    other = msgspec.structs.replace(report, patient=msgspec.structs.replace(report.patient, name="<b>A</b> & <img/>"))
    assert "<b>A</b>&<img/>" in text_of(made(paper_workspace, other)).replace(" ", "")


def test_vital_signs_have_their_usual_range_beside_them_and_large_print_is_larger(
    paper_workspace: Workspace, report: ExamReport
) -> None:
    at = msgspec.structs.replace(report.exam.started, synced=True)
    vitals = tuple(open_source("sim:vitals", clock=paper_workspace.store).read_vitals())
    exam = msgspec.structs.replace(report.exam, started=at)
    known = msgspec.structs.replace(report, exam=exam, vitals=vitals)
    assert "usual 90" in text_of(made(paper_workspace, known))
    assert "usual" not in text_of(made(paper_workspace, msgspec.structs.replace(known, exam=report.exam))), "no age"
    sizes = [
        set(map(float, re.findall(rb" ([0-9.]+) Tf", streams(made(paper_workspace, known, large=one)))))
        for one in (False, True)
    ]
    assert max(sizes[1]) == pytest.approx(1.4 * max(sizes[0]))
