"""What this clinic's own confirmed cases teach a model: cases in, a head in the state directory out, or a refusal."""

from __future__ import annotations

import csv
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from aidpost.errors import AidpostError, UsageError
from aidpost.inference.cases import Example, collect, ecg_example, label_number, photo_example
from aidpost.inference.head import Adaptation, Cases, Head, adapt
from aidpost.inference.model import Model
from aidpost.kernels import codec
from aidpost.records import (
    Consent,
    ConsentPurpose,
    Device,
    EcgRecording,
    EcgResult,
    ExamReport,
    Origin,
    Review,
    ReviewDecision,
    Timestamp,
)
from aidpost.sync._durable import make_folder, replace_file, sync_folder
from aidpost.sync.store import Store

__all__ = ["Collected", "from_store", "from_table", "graded", "learn", "remove_head", "write_head"]


@dataclass(frozen=True)
class Collected:
    """Labelled cases, why others were left out, with how often, and whose the cases are, each patient once."""

    cases: Cases
    left_out: dict[str, int]
    patients: tuple[object, ...] = ()


class _Gathering:
    def __init__(self, model: Model) -> None:
        self.model, self.left_out = model, Counter[str]()
        self.examples: list[Example] = []
        self.labels: list[int] = []
        self.patients: list[object] = []

    def add(self, label: str, patient: object, read: Any) -> None:
        number = label_number(self.model, label)
        if number is None:
            self.left_out[f"graded {label!r}, which is none of the model's labels"] += 1
            return
        try:
            self.examples.append(read())
        except AidpostError as error:
            self.left_out[error.cause] += 1
            return
        self.labels.append(number)
        self.patients.append(patient)

    def done(self) -> Collected:
        cases = collect(self.examples, self.labels, self.patients)
        return Collected(cases, dict(self.left_out), tuple(dict.fromkeys(self.patients)))


def from_table(model: Model, table: Path, at: Timestamp) -> Collected:
    """Cases from a CSV table with the columns file, label and, where one person has several, patient; files are found
    beside the table. What cannot be read is left out and counted.

    Raises
    ------
    UsageError
        The table cannot be read, or lacks a column.
    """
    from aidpost.firmware_bridge.formats.inputs import read_ecg_file, read_photo_file

    gathering = _Gathering(model)
    for number, row in enumerate(_rows(table)):
        path = table.parent / row["file"]

        def read(path: Path = path) -> Example:
            if model.card.task == "ecg-rhythm":
                return ecg_example(model, read_ecg_file(path, at=at, source=path.name))
            return photo_example(model, read_photo_file(path, at=at, eye=None, source=path.name).encoded)

        gathering.add(row["label"].strip(), row.get("patient") or number, read)
    return gathering.done()


def _rows(table: Path) -> list[dict[str, str]]:
    try:
        with table.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _unusable(table, str(error)) from error
    if not {"file", "label"} <= set(reader.fieldnames or ()):
        raise _unusable(table, "it lacks the column file or label")
    return [row for row in rows if row["file"] and row["label"]]


def _unusable(table: Path, cause: str) -> UsageError:
    return UsageError(
        operation="reading labelled cases",
        target=str(table),
        cause=cause,
        remedy="Give a CSV table with the columns file, label and patient (patient may be left out).",
    )


def from_store(model: Model, store: Store, most: int = 5000, withdrawn: Collection[uuid.UUID] = ()) -> Collected:
    """Cases that clinicians at the hub have graded, of patients whose last word on model training is yes.

    Parameters
    ----------
    withdrawn
        Patients who took their consent back elsewhere, of which their reports here do not tell.
    """
    gathering = _Gathering(model)
    reports = store.reports(most)
    willing = consenting(reports)
    newest = {report.exam.id: report for report in reversed(reports)}
    for report in newest.values():
        grades = _grades(store.reviews(report.exam.id), report)
        if not grades:
            continue
        if report.origin is Origin.SIMULATED:
            gathering.left_out["simulated"] += 1
            continue
        if report.patient.id not in willing or report.patient.id in withdrawn:
            gathering.left_out["the patient has not consented to model training"] += 1
            continue
        for label, _, read in graded(model, store.read_blob, report, grades):
            gathering.add(label, report.patient.id, read)
    return gathering.done()


def consenting(reports: list[ExamReport]) -> frozenset[uuid.UUID]:
    """The patients whose latest consent to model training was given and not withdrawn since."""
    last: dict[uuid.UUID, Consent] = {}
    for report in reports:
        for one in report.consents:
            if one.purpose is ConsentPurpose.MODEL_TRAINING:
                known = last.get(one.patient)
                if known is None or _order(one) >= _order(known):
                    last[one.patient] = one
    return frozenset(patient for patient, one in last.items() if one.given)


def _order(consent: Consent) -> tuple[int, int]:
    # boots are in order even where the clock is not
    return consent.at.boot, consent.at.monotonic_ms


def _grades(reviews: list[Review], report: ExamReport) -> dict[str, str]:
    """What the reviews that stand say of this version of the report, part by part."""
    superseded = {review.supersedes for review in reviews}
    grades: dict[str, str] = {}
    for one in reviews:
        if one.id not in superseded and one.report == report.id and one.decision is not ReviewDecision.RETAKE:
            grades |= one.grades
    return grades


def graded(
    model: Model, read: Callable[[str], bytes], report: ExamReport, grades: dict[str, str]
) -> Iterator[tuple[str, str, Callable[[], Example]]]:
    """The recordings of a report that have a grade: the grade, what recorded it, and what makes an example of it, with
    `read` for the bytes of a SHA-256."""
    if model.card.task == "ecg-rhythm":
        for ecg in report.ecg:
            if ecg.body is not None and "rhythm" in grades:
                yield grades["rhythm"], _made_by(ecg.device), partial(_ecg_of, model, read, ecg)
        return
    for photo in report.fundus:
        label = grades.get(f"dr_{photo.eye.value}") if photo.eye else None
        if photo.body is not None and photo.quality.usable and label is not None:
            yield label, _made_by(photo.camera), partial(_photo_of, model, read, photo.body.sha256)


def _made_by(device: Device) -> str:
    return f"{device.manufacturer} {device.model or device.name}".strip()


def _photo_of(model: Model, read: Callable[[str], bytes], sha256: str) -> Example:
    return photo_example(model, read(sha256))


def _ecg_of(model: Model, read: Callable[[str], bytes], ecg: EcgResult) -> Example:
    assert ecg.body is not None
    recording = EcgRecording(
        id=ecg.id,
        samples=codec.decode(read(ecg.body.sha256)),
        fs_hz=ecg.fs_hz,
        leads=ecg.leads,
        lsb_mv=ecg.lsb_mv,
        baseline=ecg.baseline,
        at=ecg.at,
        origin=ecg.origin,
        device=ecg.device,
        missing=ecg.missing,
        lead_off=ecg.lead_off,
    )
    return ecg_example(model, recording, ecg.lead)


def learn(model: Model, cases: Cases) -> Adaptation:
    """`adapt`, from the head that serves, or from none."""
    start = None if model.head is None else model.head.weights.astype(np.float64)
    return adapt(model.card.output.kind, cases, start)


def write_head(folder: Path, model: Model, adaptation: Adaptation) -> Head:
    """Put what was learned into the folder of heads, whole or not at all; it serves from the next start on."""
    assert adaptation.weights is not None
    made = f"{adaptation.cases} cases of {adaptation.patients} patients here"
    head = Head(model.card.name, model.card.base, adaptation.weights.astype(np.float32), made)
    make_folder(folder)
    replace_file(folder / f"{model.card.name}.head", head.to_bytes())
    return head


def remove_head(folder: Path, model: Model) -> bool:
    """Take what was learned out of the folder of heads; whether there was anything."""
    path = folder / f"{model.card.name}.head"
    if not path.exists():
        return False
    path.unlink()
    sync_folder(folder)
    return True
