"""The report on paper: A5 or A4, in the reader's language, large enough to read without glasses.

Both eyes, ten seconds of ECG on their grid with their scale, vital signs, triage in words, advice, what was not
assessed, who made it with what, and a code by which the hub finds it. Letters beyond Latin come from the device's
fonts, and are embedded.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any
from xml.sax.saxutils import escape

import PIL.Image
import PIL.ImageChops
import segno
from reportlab.graphics.shapes import Drawing, Line, PolyLine, Rect
from reportlab.lib import colors, pagesizes
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import inch, mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.platypus import Flowable, Image, KeepTogether, Paragraph, SimpleDocTemplate, Spacer, Table

from aidpost.board.console import words
from aidpost.board.console.fonts import Face, Fonts, Setter, chinese, joined
from aidpost.board.console.ranges import usual
from aidpost.board.console.result import RHYTHMS, Shown, eye_state, hidden_notes, notes_of
from aidpost.board.console.steps import METHODS
from aidpost.board.console.words import N_, Translate
from aidpost.inference.reminders import reminders
from aidpost.inference.wording import advice, word
from aidpost.records import ExamReport, Origin, Timestamp, TriageLevel, VitalKind
from aidpost.sync.hub.catalogue import unit, vital_name
from aidpost.sync.hub.ecg_paper import Row

SIZES = {"A5": pagesizes.A5, "A4": pagesizes.A4}
SIGNS = {
    TriageLevel.ROUTINE: (N_("Routine"), "#0c6b2f"),
    TriageLevel.SOON: (N_("Soon"), "#8a4b00"),
    TriageLevel.URGENT: (N_("Urgent"), "#b00020"),
    TriageLevel.EMERGENCY: (N_("Emergency"), "#8e0018"),
}
_CJK = "STSong-Light"
_MARGIN = 9 * mm
_DPI = 300

Body = Callable[[str], bytes]


def pdf(
    report: ExamReport,
    shown: Shown,
    body: Body,
    translate: Translate,
    *,
    size: str = "A5",
    language: str = "en",
    offset_min: int | None = None,
    reviewer: str = "",
    large: bool = False,
    limits: Mapping[str, Mapping[str, float]] | None = None,
    fonts: Fonts | None = None,
) -> bytes:
    """The report as PDF.

    Parameters
    ----------
    shown
        What is shown of it, from `result_of`.
    body
        SHA-256 -> a photograph's bytes.
    reviewer
        The clinician who confirmed it; empty while it is preliminary.
    large
        Letters two fifths larger.
    limits
        The site's own clinical limits, from which the usual ranges are.
    """
    out = io.BytesIO()
    width = SIZES[size][0] - 2 * _MARGIN
    document = SimpleDocTemplate(
        out,
        pagesize=SIZES[size],
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
        title=f"Aidpost {report.exam.id}",
        author=report.exam.clinic.name,
    )
    page = _Page(report, translate, language, width, offset_min, fonts or Fonts(), large=large)
    story: list[Flowable] = [
        *page.head(),
        *page.conclusion(reviewer, shown),
        *page.eyes(shown, body),
        *page.heart(shown),
    ]
    story += [*page.vitals(shown, usual(report, limits)), *page.missing(), *page.foot()]
    document.build(story)
    return out.getvalue()


class _SetText(Flowable):  # type: ignore[misc]  # reportlab has no types
    """Text of a script that must be shaped, as a picture of 300 dots an inch."""

    def __init__(self, setter: Setter, text: str, style: ParagraphStyle, *, right: bool) -> None:
        super().__init__()
        self._setter, self._text, self._style, self.hAlign = setter, text, style, "RIGHT" if right else "LEFT"

    def wrap(self, width: float, _height: float) -> tuple[float, float]:
        """Sets it for that width."""
        dots, size = max(8, int(width / inch * _DPI)), round(self._style.fontSize / inch * _DPI)
        bold = self._style.fontName.endswith("Bold")
        self._page = self._setter.picture(self._text, dots, size, bold=bold)
        self.width, self.height = width, self._page.height * inch / _DPI
        return self.width, self.height

    def draw(self) -> None:
        """Draws it in the style's colour."""
        ink = PIL.Image.new("RGB", self._page.size, self._style.textColor.hexval().replace("0x", "#"))
        ink.putalpha(PIL.ImageChops.invert(self._page))
        self.canv.drawImage(ImageReader(ink), 0, 0, self.width, self.height, mask="auto")


class _Page:
    """Makes the parts of one report."""

    def __init__(
        self,
        report: ExamReport,
        translate: Translate,
        language: str,
        width: float,
        offset_min: int | None,
        fonts: Fonts,
        *,
        large: bool,
    ) -> None:
        self._report, self._tr, self._width, self._offset = report, translate, width, offset_min
        self._rtl = words.direction(language) == "rtl"
        self._fonts = fonts
        self._setter = Setter(fonts, rtl=self._rtl)
        scale = 1.4 if large else 1.0
        normal, bold = ("Helvetica", "Helvetica-Bold")
        self._text = ParagraphStyle("text", fontName=normal, fontSize=10 * scale, leading=13 * scale)
        self._small = ParagraphStyle("small", parent=self._text, fontSize=8 * scale, leading=10 * scale)
        self._title = ParagraphStyle("title", parent=self._text, fontName=bold, fontSize=13 * scale, leading=17 * scale)
        self._level = ParagraphStyle(
            "level", parent=self._title, fontSize=17 * scale, leading=22 * scale, textColor=colors.white
        )

    def _say(self, text: str, style: ParagraphStyle | None = None) -> Flowable:
        style = style or self._text
        if _fits(text, "cp1252") and not self._rtl:
            return Paragraph(escape(text), style)
        if self._rtl or joined(text):
            if self._setter.can(text):
                return _SetText(self._setter, text, style, right=self._rtl)
        elif pieces := self._fonts.runs(text):
            wrap = "CJK" if chinese(text) else None
            return Paragraph(_markup(pieces), ParagraphStyle("other", parent=style, wordWrap=wrap))
        elif _fits(text, "gbk"):  # no such font here: the reader's own
            pdfmetrics.registerFont(UnicodeCIDFont(_CJK))
            return Paragraph(escape(text), ParagraphStyle("cjk", parent=style, fontName=_CJK, wordWrap="CJK"))
        # a script that no font here has: said, and never printed as boxes that look like a name
        plain = "".join(c if _fits(c, "cp1252") else "·" for c in text)
        lacking = self._tr("letters that this printer lacks: see the code")
        lacking = lacking if _fits(lacking, "cp1252") else "letters that this printer lacks: see the code"
        return Paragraph(escape(f"{plain} ({lacking})"), style)

    def head(self) -> list[Flowable]:
        """Clinic, patient, when, and the code for the hub; what is not live is marked first."""
        report, patient = self._report, self._report.patient
        numbers = ", ".join(one.value for one in patient.identifiers)
        born = f"{self._tr('born')} {patient.birth_date}" if patient.birth_date else ""
        parts = [part for part in (self._tr(patient.sex.value), born, numbers, str(patient.id)[:8]) if part]
        left = [
            self._say(report.exam.clinic.name or report.exam.clinic.id, self._small),
            self._say(patient.name or self._tr("No name"), self._title),
            self._say(" · ".join(parts)),
            self._say(moment(report.exam.started, self._offset, self._tr)),
        ]
        table = Table([[left, _qr(str(report.exam.id))]], colWidths=[self._width - 24 * mm, 24 * mm])
        table.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (-1, -1), 0)])
        mark = (
            [self._say(self._tr("NOT A REAL PATIENT: simulated"), self._title)]
            if report.origin is Origin.SIMULATED
            else []
        )
        return [*mark, table]

    def conclusion(self, reviewer: str, shown: Shown) -> list[Flowable]:
        """Triage, findings, advice and what to remember."""
        report = self._report
        name, colour = SIGNS[report.triage.level]
        band = Table([[self._say(self._tr(name), self._level)]], colWidths=[self._width])
        band.setStyle([("BACKGROUND", (0, 0), (-1, -1), colors.HexColor(colour))])
        found = [self._say(f"• {word(one, self._tr)}") for one in report.findings]
        found = found or [self._say(self._tr("Nothing was found in what was assessed."))]
        lines = (*advice(report, self._tr), *reminders(report, self._tr))
        advised = [self._say(f"→ {one}") for one in lines]
        advised += [self._say(self._tr(one)) for one in hidden_notes(shown)]
        standing = (
            f"{self._tr('Confirmed by')} {reviewer}"
            if reviewer
            else self._tr("Preliminary, not a diagnosis; confirmed by") + " ______________________"
        )
        return [Spacer(1, 2 * mm), band, Spacer(1, 1.5 * mm), *found, *advised, Spacer(1, 1 * mm), self._say(standing)]

    def eyes(self, shown: Shown, body: Body) -> list[Flowable]:
        """Both photographs, the right eye on the left as one looks at the patient."""
        side = min(44 * mm, self._width / 2 - 6 * mm)
        cells: list[Any] = []
        for eye in shown.eyes:
            title = self._tr("Right eye" if eye.eye.value == "right" else "Left eye")
            photo = eye.photo
            if photo is None:
                cells.append([self._say(f"{title}: {self._tr('not photographed')}")])
                continue
            state = eye_state(shown, photo)
            said = self._tr(state) if state or not photo.dr else f"DR {photo.dr.grade}"
            picture = (
                Image(io.BytesIO(_small(body(photo.body.sha256))), side, side, "proportional") if photo.body else ""
            )
            cells.append([self._say(f"{title}: {said}"), picture])
        return [Spacer(1, 2 * mm), _top(Table([cells], colWidths=[self._width / 2] * 2))]

    def heart(self, shown: Shown) -> list[Flowable]:
        """The first row of the ECG, and its numbers."""
        ecg = shown.ecg
        if ecg is None or not shown.rows:
            return []
        rate = ecg.measurements.heart_rate_bpm
        text = f"ECG {ecg.lead} · {'–' if rate is None else round(rate)} /min"
        if ecg.rhythm.label:
            rhythm = RHYTHMS.get(ecg.rhythm.label, ecg.rhythm.label)
            text += f" · {self._tr(rhythm)} {ecg.rhythm.probability.get(ecg.rhythm.label, 0):.0%}"
        drawing, scale = _strip(shown.rows[0], self._width)
        speed = f"{25 * scale:.1f} mm/s · {10 * scale:.1f} mm/mV"
        return [KeepTogether([self._say(f"{text} · {speed}", self._small), drawing])]

    def vitals(self, shown: Shown, ranges: dict[VitalKind, str]) -> list[Flowable]:
        """What was measured, what is usual, and how it was measured."""
        notes = [self._say(f"{title}: {said}", self._small) for title, said in notes_of(self._report.answers, self._tr)]
        if not shown.vitals:
            return notes
        rows = [
            [
                self._say(self._tr(vital_name(one.kind.value)), self._small),
                self._say("–" if one.value is None else f"{one.value:g} {unit(one.unit)}", self._small),
                self._say(f"{self._tr('usual')} {ranges[one.kind]}" if one.kind in ranges else "", self._small),
                self._say(self._tr(METHODS.get(one.method, one.method)), self._small),
            ]
            for one in shown.vitals
        ]
        table = Table(rows, colWidths=[self._width * part for part in (0.32, 0.2, 0.24, 0.24)])
        table.setStyle([("LINEBELOW", (0, 0), (-1, -1), 0.25, colors.grey), ("TOPPADDING", (0, 0), (-1, -1), 1)])
        return [Spacer(1, 2 * mm), table, *notes]

    def missing(self) -> list[Flowable]:
        """What was not assessed never counts as normal."""
        if not self._report.not_assessed:
            return []
        text = f"{self._tr('Not assessed')}: {', '.join(map(self._tr, self._report.not_assessed))}"
        return [Spacer(1, 2 * mm), self._say(text)]

    def foot(self) -> list[Flowable]:
        """Who and what made it."""
        report = self._report
        used = [*(one.models for one in report.ecg), *(one.models for one in report.fundus)]
        models = {f"{one.name} {one.version}" for some in used for one in some}
        parts: Sequence[str] = (
            f"{self._tr('by')} {report.exam.operator.name or report.exam.operator.id}",
            report.exam.device.name,
            report.software,
            *sorted(models),
            report.exam.clinic.telephone,
        )
        return [Spacer(1, 2 * mm), self._say(" · ".join(part for part in parts if part), self._small)]


def moment(at: Timestamp, offset_min: int | None, translate: Translate) -> str:
    """When, in the device's zone; "date unconfirmed" where nobody set its clock."""
    zone = timezone(timedelta(minutes=offset_min or 0))
    text = datetime.fromtimestamp(at.wall_ms / 1000, zone).strftime("%Y-%m-%d %H:%M")
    return text if at.synced else f"{text} ({translate('date unconfirmed')})"


def _top(table: Table) -> Table:
    table.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP")])
    return table


def _markup(pieces: list[tuple[Face, str]]) -> str:
    """Letters of every reader's own font stay in it; the others name theirs."""
    out = ""
    for face, piece in pieces:
        out += escape(piece) if _fits(piece, "cp1252") else f'<font name="{face.name}">{escape(piece)}</font>'
    return out


def _fits(text: str, encoding: str) -> bool:
    try:
        text.replace("→", "").encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _qr(text: str) -> Image:
    out = io.BytesIO()
    segno.make(text, error="m").save(out, kind="png", scale=6, border=2)
    out.seek(0)
    return Image(out, 22 * mm, 22 * mm)


def _small(encoded: bytes, side: int = 720) -> bytes:
    """A photograph as small as paper needs it: the report goes through a slow printer."""
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    if image is None:  # it was read when it was taken; a part that fails now does not keep the rest from the paper
        return encoded
    scale = side / max(image.shape[:2])
    if scale < 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def _strip(row: Row, width: float) -> tuple[Drawing, float]:
    """The row on its grid, and its scale: 1 is true to size."""
    scale = min(1.0, width / (row.width * mm))
    step = mm * scale
    made = Drawing(row.width * step, row.height * step)
    made.add(Rect(0, 0, made.width, made.height, fillColor=colors.white, strokeColor=None))
    for every, colour, line in ((1, "#f7cfd3", 0.2), (5, "#ee9ca5", 0.4)):
        kind = {"strokeColor": colors.HexColor(colour), "strokeWidth": line}
        for x in range(0, int(row.width) + 1, every):
            made.add(Line(x * step, 0, x * step, made.height, **kind))
        for y in range(0, int(row.height) + 1, every):
            made.add(Line(0, made.height - y * step, made.width, made.height - y * step, **kind))
    for path in row.paths:
        numbers = [float(one) for one in re.findall(r"-?\d+\.?\d*", path)]
        points = [v * step if i % 2 == 0 else made.height - v * step for i, v in enumerate(numbers)]
        made.add(PolyLine(points, strokeColor=colors.black, strokeWidth=0.7))
    return made, scale
