"""A report as it is shown, on the screen and on paper: the same choice of photographs, words and trace."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from aidpost.board.console.steps import NOTES
from aidpost.board.console.words import N_, Translate
from aidpost.board.console.workspace import Workspace
from aidpost.errors import AidpostError
from aidpost.records import Answer, EcgResult, ExamReport, Eye, FundusResult, VitalSign
from aidpost.sync.hub.ecg_paper import Row, draw

RHYTHMS = {
    "N": N_("sinus rhythm"),
    "A": N_("atrial fibrillation"),
    "O": N_("another rhythm"),
    "~": N_("too noisy"),
}
"""The model's labels in words."""


class ShownEye(NamedTuple):
    """An eye with the photograph that counts (the best usable one, else the last), and how often it was tried."""

    eye: Eye
    photo: FundusResult | None
    attempts: int


class Shown(NamedTuple):
    """What pages and paper show of a report."""

    eyes: tuple[ShownEye, ...]
    ecg: EcgResult | None
    rows: tuple[Row, ...]
    vitals: tuple[VitalSign, ...]
    hidden: tuple[str, ...] = ()
    """Tasks whose model's answer is not shown here yet."""


def result_of(workspace: Workspace, report: ExamReport) -> Shown:
    """What is shown of a report; a waveform that does not open leaves its rows out."""
    eyes = tuple(_eye(report, eye) for eye in (Eye.RIGHT, Eye.LEFT))
    ecg = _best_ecg(report.ecg)
    rows: tuple[Row, ...] = ()
    if ecg is not None and ecg.body is not None:
        try:
            rows = picture_rows(ecg, body_of(workspace, report, ecg.body.sha256))
        except AidpostError:
            rows = ()
    last = {one.kind: one for one in report.vitals}
    return Shown(eyes=eyes, ecg=ecg, rows=rows, vitals=tuple(last.values()), hidden=workspace.hidden())


HIDDEN = {
    "dr": N_("Photographs: a clinician reads them; what the model found is not shown here yet."),
    "af": N_("Heart rhythm: a clinician reads it; what the model found is not shown here yet."),
}
"""What a report says where a model's answer is hidden, by task."""


def hidden_notes(shown: Shown) -> list[str]:
    """Those that are about something recorded."""
    there = {"dr": any(eye.photo for eye in shown.eyes), "af": shown.ecg is not None}
    return [text for task, text in HIDDEN.items() if task in shown.hidden and there[task]]


def eye_state(shown: Shown, photo: FundusResult | None) -> str:
    """Why an eye has no grade, in words; empty where it has one."""
    if photo is None:
        return N_("not photographed")
    if not photo.quality.usable:
        return N_("ungradable")
    if photo.dr is not None and photo.dr.grade is not None:
        return ""
    return N_("a clinician reads it") if "dr" in shown.hidden else N_("not sure")


def notes_of(answers: Iterable[Answer], translate: Translate) -> list[tuple[str, str]]:
    """What was written down beside the vital signs: title and answer, in words."""
    given = {one.question: one.answer for one in answers}
    return [
        (translate(note.title), translate(note.in_words(given[note.code]))) for note in NOTES if given.get(note.code)
    ]


def body_of(workspace: Workspace, report: ExamReport, sha256: str) -> bytes:
    """A large body of a report, from its draft while the exam is open."""
    if workspace.drafts.find(report.exam.id) is not None:
        return workspace.drafts.body(report.exam.id, sha256).data
    return workspace.store.read_blob(sha256)


def picture_rows(ecg: EcgResult, body: bytes) -> tuple[Row, ...]:
    """Ten-second rows of the interpreted lead, in millimetres of ECG paper."""
    return draw(ecg, body).rows if body else ()


def _eye(report: ExamReport, eye: Eye) -> ShownEye:
    tried = [one for one in report.fundus if one.eye is eye]
    usable = [one for one in tried if one.quality.usable]
    best = max(usable, key=lambda one: one.quality.score) if usable else tried[-1] if tried else None
    return ShownEye(eye, best, len(tried))


def _best_ecg(recorded: tuple[EcgResult, ...]) -> EcgResult | None:
    usable = tuple(one for one in recorded if one.quality.usable)
    return next(iter(reversed(usable or recorded)), None)
