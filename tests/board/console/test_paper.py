"""The report on paper says what the screen says, and what it is not."""

from __future__ import annotations

import base64
import re
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from device_records import KEY
from pseudo import pseudo

from aidpost.board.configuration import Configuration
from aidpost.board.console.fonts import FOLDER, Fonts, Setter
from aidpost.board.console.paper import pdf
from aidpost.board.console.people import Known
from aidpost.board.console.result import body_of, result_of
from aidpost.board.console.words import Languages, Translate
from aidpost.board.console.workspace import Workspace
from aidpost.errors import InferenceTimeoutError
from aidpost.firmware_bridge.sources import open_source
from aidpost.inference.fundus import FundusAnalysis
from aidpost.records import EcgRecording, EcgResult, ExamReport, Eye, FundusPhoto, Patient, Sex
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store


class Dead:
    """An analyst whose models never answer: the paper must say so, and be whole all the same."""

    def ecg(self, recording: EcgRecording, lead: str | None = None) -> EcgResult:
        raise InferenceTimeoutError(operation="analysing", target="ECG", cause="no answer within 1 s")

    def fundus(self, photo: FundusPhoto, *, force: bool = False, attempt: int = 1) -> FundusAnalysis:
        raise InferenceTimeoutError(operation="analysing", target="photograph", cause="no answer within 1 s")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder: Path = tmp_path_factory.mktemp("device")
    # a clock that nobody set
    with Store.open(folder, KEY, clock=SystemClock(folder_root(folder)), name="unit-1") as store:
        made = Workspace(Configuration(), store, Dead(), practice=False)
        yield made
        made.close()


def folder_root(folder: Path) -> Path:
    """A root where no time server ever set the clock."""
    boot = folder / "root/proc/sys/kernel/random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("boot-1\n")
    return folder / "root"


@pytest.fixture(scope="module")
def report(workspace: Workspace) -> ExamReport:
    patient = Patient(id=uuid.uuid4(), name="Amina Yusuf", birth_date="1961", sex=Sex.FEMALE)
    exam = workspace.begin(Known(patient=patient), "Rose").exam.id
    workspace.take_photo(exam, open_source("sim:fundus?size=256", clock=workspace.store).read_photo(Eye.RIGHT))
    workspace.take_ecg(exam, open_source("sim:ecg?seconds=10", clock=workspace.store).read_ecg())
    workspace.answer(exam, "chest-pain", "yes")
    workspace.acknowledge(exam, "Rose")
    return workspace.finish(exam)


def made(
    workspace: Workspace,
    report: ExamReport,
    size: str = "A5",
    reviewer: str = "",
    language: str = "en",
    translate: Translate = str,
    fonts: Fonts | None = None,
) -> bytes:
    return pdf(
        report,
        result_of(workspace, report),
        lambda sha256: body_of(workspace, report, sha256),
        translate,
        size=size,
        reviewer=reviewer,
        language=language,
        fonts=fonts,
    )


def text_of(document: bytes) -> str:
    """What a reader reads, of text in the standard fonts."""
    out = []
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", document, re.DOTALL):
        try:
            plain = zlib.decompress(base64.a85decode(b"<~" + stream.strip(), adobe=True))
        except (ValueError, zlib.error):
            continue
        out += re.findall(rb"\((.*?)(?<!\\)\) Tj", plain)
    return b" ".join(out).decode("latin-1").replace("\\", "")


@pytest.mark.parametrize(("size", "width"), [("A5", b"419"), ("A4", b"595")])
def test_paper_has_its_size_and_all_that_a_reader_needs(
    workspace: Workspace, report: ExamReport, size: str, width: bytes
) -> None:
    document = made(workspace, report, size)
    assert b"/MediaBox [ 0 0 " + width in document
    text = text_of(document)
    for words in (
        *("Amina Yusuf", "born 1961", "date unconfirmed", "Emergency", "Chest pain", "Go to a hospital now"),
        *("Be seen today",),
        *("Preliminary, not a diagnosis; confirmed by", "Right eye: ungradable", "Left eye: not photographed"),
        *("mm/s", "Not assessed", "by Rose", "aidpost ", "NOT A REAL PATIENT"),
    ):
        assert words in text, words


def test_confirmed_report_names_the_clinician_and_is_not_preliminary(workspace: Workspace, report: ExamReport) -> None:
    text = text_of(made(workspace, report, reviewer="Dr Achieng"))
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
    workspace: Workspace, report: ExamReport, name: str, fonts: Path, used: bytes | None
) -> None:
    other = msgspec.structs.replace(report, patient=msgspec.structs.replace(report.patient, name=name))
    document = made(workspace, other, fonts=Fonts(fonts))
    assert ("letters that this printer lacks" in text_of(document)) is (used is None)
    assert used is None or re.search(used, document, re.DOTALL)


def test_chinese_report_is_embedded_whole_so_that_the_reader_needs_no_font(
    workspace: Workspace, report: ExamReport
) -> None:
    document = made(workspace, report, language="zh", translate=Languages().translator("zh"))
    assert b"STSong" not in document, "a font that the reader must have"
    assert re.search(rb"/FontFile2", document)
    assert b"DroidSansFallback" in document
    assert "letters that this printer lacks" not in text_of(document)


def test_report_from_the_right_is_set_as_its_letters_join(workspace: Workspace, report: ExamReport) -> None:
    document = made(workspace, report, language="ar", translate=pseudo)
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


def test_markup_in_a_name_stays_text(workspace: Workspace, report: ExamReport) -> None:
    other = msgspec.structs.replace(report, patient=msgspec.structs.replace(report.patient, name="<b>A</b> & <img/>"))
    assert "<b>A</b>&<img/>" in text_of(made(workspace, other)).replace(" ", "")
