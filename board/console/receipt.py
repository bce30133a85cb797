"""The report on a roll of 58 or 80 mm: set as a picture, so that every script prints on every receipt printer, and sent
as ESC/POS raster by python-escpos.

Dots are those of such printers: 8 a millimetre, 384 across a roll of 58 mm and 576 across one of 80 mm. The ECG runs
along the paper, true to scale.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping

import cv2
import numpy as np
import segno
from PIL import Image, ImageDraw, ImageOps

from aidpost.board.console import words
from aidpost.board.console.fonts import Fonts, Setter
from aidpost.board.console.paper import SIGNS, Body, moment
from aidpost.board.console.ranges import usual
from aidpost.board.console.result import RHYTHMS, Shown, eye_state, hidden_notes, notes_of
from aidpost.board.console.words import N_, Translate
from aidpost.inference.reminders import reminders
from aidpost.inference.wording import advice, word
from aidpost.records import ExamReport, Origin, TriageLevel
from aidpost.sync.hub.catalogue import unit, vital_name
from aidpost.sync.hub.ecg_paper import Row

DOTS_MM = 8
WIDTHS = {58: 384, 80: 576}
"""Width of the roll in mm -> dots that are printed across it."""
_BAND = 1 << 10
"""Dots of the picture in one command: cheap printers hold little more."""


def receipt(
    report: ExamReport,
    shown: Shown,
    body: Body,
    translate: Translate,
    *,
    roll_mm: int = 58,
    language: str = "en",
    large: bool = False,
    offset_min: int | None = None,
    reviewer: str = "",
    limits: Mapping[str, Mapping[str, float]] | None = None,
    fonts: Fonts | None = None,
) -> Image.Image:
    """The receipt as a picture of black and white dots. Parameters as `paper.pdf`; `roll_mm` is 58 or 80."""
    setter = Setter(fonts or Fonts(), rtl=words.direction(language) == "rtl")
    roll = _Roll(
        setter, WIDTHS[roll_mm], 34 if large else 24, translate("letters that this printer lacks: see the code")
    )
    patient, tr = report.patient, translate
    if report.origin is Origin.SIMULATED:
        roll.say(tr("NOT A REAL PATIENT: simulated"), bold=True)
    roll.say(report.exam.clinic.name or report.exam.clinic.id)
    roll.say(patient.name or tr("No name"), scale=1.3, bold=True)
    born = f"{tr('born')} {patient.birth_date}" if patient.birth_date else ""
    numbers = [one.value for one in patient.identifiers]
    roll.say(" · ".join(one for one in (tr(patient.sex.value), born, *numbers, str(patient.id)[:8]) if one))
    roll.say(moment(report.exam.started, offset_min, tr))
    roll.level(tr(SIGNS[report.triage.level][0]), report.triage.level)
    for one in report.findings:
        roll.say(f"• {word(one, tr)}")
    if not report.findings:
        roll.say(tr("Nothing was found in what was assessed."))
    for line in (*advice(report, tr), *reminders(report, tr)):
        roll.say(f"» {line}", bold=True)
    for note in hidden_notes(shown):
        roll.say(tr(note))
    roll.rule()
    _vitals(roll, report, shown, tr, limits)
    _pictures(roll, shown, body, tr)
    if report.not_assessed:
        roll.rule()
        roll.say(f"{tr('Not assessed')}: {', '.join(map(tr, report.not_assessed))}")
    roll.rule()
    confirmed = f"{tr('Confirmed by')} {reviewer}"
    roll.say(confirmed if reviewer else f"{tr('Preliminary, not a diagnosis; confirmed by')} ____________")
    roll.code(str(report.exam.id))
    used = [*(one.models for one in report.ecg), *(one.models for one in report.fundus)]
    models = {f"{ref.name} {ref.version}" for some in used for ref in some}
    made = (
        f"{tr('by')} {report.exam.operator.name or report.exam.operator.id}",
        report.exam.device.name,
        report.software,
    )
    roll.say(" · ".join(one for one in (*made, *sorted(models), report.exam.clinic.telephone) if one), scale=0.8)
    return roll.picture()


def _vitals(
    roll: _Roll, report: ExamReport, shown: Shown, tr: Translate, limits: Mapping[str, Mapping[str, float]] | None
) -> None:
    ranges = usual(report, limits)
    for one in shown.vitals:
        value = "–" if one.value is None else f"{one.value:g} {unit(one.unit)}"
        beside = f"  ({tr('usual')} {ranges[one.kind]})" if one.kind in ranges else ""
        roll.say(f"{tr(vital_name(one.kind.value))}: {value}{beside}")

    for title, said in notes_of(report.answers, tr):
        roll.say(f"{title}: {said}")


def _pictures(roll: _Roll, shown: Shown, body: Body, tr: Translate) -> None:
    for eye in shown.eyes:
        title = tr(N_("Right eye") if eye.eye.value == "right" else N_("Left eye"))
        photo = eye.photo
        state = eye_state(shown, photo)
        roll.say(f"{title}: {f'DR {photo.dr.grade}' if not state and photo and photo.dr else tr(state)}")
        if photo and photo.body:
            roll.photograph(body(photo.body.sha256))
    ecg = shown.ecg
    if ecg is not None and shown.rows:
        rate = ecg.measurements.heart_rate_bpm
        rhythm = f" · {tr(RHYTHMS.get(ecg.rhythm.label, ecg.rhythm.label))}" if ecg.rhythm.label else ""
        roll.say(f"{tr('ECG')} {ecg.lead} · {'–' if rate is None else round(rate)} /min{rhythm} · 25 mm/s · 10 mm/mV")
        roll.trace(shown.rows[0])


class _Roll:
    """Grows downwards."""

    def __init__(self, setter: Setter, width: int, size: int, lacking: str) -> None:
        self._setter, self._width, self._size, self._lacking = setter, width, size, lacking
        self._parts: list[Image.Image] = []

    def say(self, text: str, *, scale: float = 1.0, bold: bool = False) -> None:
        """A paragraph; letters that no font here has are said to be lacking."""
        if not self._setter.can(text):
            text = "".join(c if self._setter.can(c) else "·" for c in text)
            text = f"{text} ({self._lacking if self._setter.can(self._lacking) else 'letters lacking'})"
        self._add(self._setter.picture(text, self._width, round(self._size * scale), bold=bold))

    def level(self, text: str, level: TriageLevel) -> None:
        """The triage: white on black where it is urgent, framed where it is not; never by colour."""
        made = self._setter.picture(text, self._width - 24, round(self._size * 1.7), bold=True, centred=True)
        framed = ImageOps.expand(made, border=12, fill=255)
        urgent = level >= TriageLevel.URGENT
        self._add(ImageOps.invert(framed) if urgent else _frame(framed))

    def rule(self) -> None:
        """A line across."""
        line = Image.new("L", (self._width, 13), 255)
        ImageDraw.Draw(line).line((0, 6, self._width, 6), fill=0, width=2)
        self._add(line)

    def code(self, text: str) -> None:
        """The exam's number at the hub."""
        made = segno.make(text, error="m")
        scale = max(4, self._width // 2 // made.symbol_size(border=4)[0])
        out = io.BytesIO()
        made.save(out, kind="png", scale=scale, border=4)
        picture = Image.open(out).convert("L")
        page = Image.new("L", (self._width, picture.height), 255)
        page.paste(picture, ((self._width - picture.width) // 2, 0))
        self._add(page)

    def photograph(self, encoded: bytes) -> None:
        """A photograph in its green channel, where vessels and bleeding stand out, spread over black dots."""
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        if image is None:
            return  # it was read when it was taken; a part that fails now does not keep the rest from the paper
        side = min(self._width, 320)
        scale = side / max(image.shape[:2])
        grey = cv2.resize(image[:, :, 1], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        photo = ImageOps.autocontrast(Image.fromarray(grey))
        page = Image.new("L", (self._width, photo.height + 8), 255)
        page.paste(photo, ((self._width - photo.width) // 2, 0))
        self._add(page)

    def trace(self, row: Row) -> None:
        """The ECG along the paper; true to scale where it is no wider than the roll."""
        scale = min(float(DOTS_MM), self._width / row.height)
        along, across = round(row.width * DOTS_MM), round(row.height * scale)
        page = Image.new("L", (along, self._width), 255)
        pen = ImageDraw.Draw(page)
        for x in range(0, along, 5 * DOTS_MM):
            pen.line((x, 0, x, across), fill=200)
        for y in np.arange(0, across, 5 * scale):
            pen.line((0, y, along, y), fill=200)
        for path in row.paths:
            numbers = np.array(re.findall(r"-?\d+\.?\d*", path), dtype=float).reshape(-1, 2)
            pen.line([(x * DOTS_MM, y * scale) for x, y in numbers], fill=0, width=2)
        self._add(page.transpose(Image.Transpose.ROTATE_270))

    def _add(self, part: Image.Image) -> None:
        self._parts.append(part)

    def picture(self) -> Image.Image:
        """All of it, in dots."""
        page = Image.new("L", (self._width, sum(one.height for one in self._parts)), 255)
        at = 0
        for one in self._parts:
            page.paste(one, (0, at))
            at += one.height
        return page.convert("1")


def _frame(picture: Image.Image) -> Image.Image:
    ImageDraw.Draw(picture).rectangle((0, 0, picture.width - 1, picture.height - 1), outline=0, width=4)
    return picture


def escpos(picture: Image.Image) -> bytes:
    """The bytes for an ESC/POS printer: set up, raster in bands, feed, cut."""
    from escpos.printer import Dummy

    printer = Dummy()
    printer.hw("INIT")
    printer.image(picture, impl="bitImageRaster", fragment_height=_BAND)
    printer.cut()
    return bytes(printer.output)
