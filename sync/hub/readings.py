"""Who has read which part of a report, and whether that settles it.

Eyes and heart are read by different people and signed separately. A part is settled by one reading, or by two that
agree; where two readers disagree, or, if the hub is told so, a reader and the device, a reader who has not seen it yet
decides between them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from aidpost.records import ExamReport, Review, ReviewDecision
from aidpost.sync.hub import schema

EYES, HEART, GENERAL = "eyes", "heart", "general"
PARTS = (EYES, HEART)
"""What a reader may be trained for. The general part, vital signs alone, anybody reads who signs."""
GRADES = {
    EYES: ("dr_right", "dr_left", "dme_right", "dme_left"),
    HEART: ("rhythm",),
    GENERAL: (),
}
"""The structured grades of each part."""
DONE = ("signed", "retake")
"""States in which a part waits for nobody."""


class Rules(NamedTuple):
    """How many read each part on their own, and whether a reader who contradicts the device needs a second."""

    readers: int = 1
    against_device: bool = False


class Part(NamedTuple):
    """One part of a report as it stands. `state` is "open" before the first reading."""

    name: str
    readings: tuple[Any, ...] = ()

    @property
    def state(self) -> str:
        """open, waiting (for a second reader), disputed, signed, retake."""
        return self.readings[-1].state if self.readings else "open"

    @property
    def done(self) -> bool:
        """Whether it waits for nobody."""
        return self.state in DONE

    def may_be_read_by(self, reader: str) -> bool:
        """Whoever has not read it yet; once it is settled, anybody again."""
        return self.done or reader not in {reading.reader for reading in self.readings}


def parts_of(modalities: str) -> tuple[str, ...]:
    """The parts of an exam with those `modalities`, as its row names them."""
    present = modalities.split()
    found = tuple(part for part, modality in ((EYES, "eyes"), (HEART, "ecg")) if modality in present)
    return found or (GENERAL,)


def standing(connection: Connection, reports: Sequence[uuid.UUID]) -> dict[uuid.UUID, dict[str, tuple[Any, ...]]]:
    """All readings of the reports by part, oldest first."""
    table = schema.readings
    found: dict[uuid.UUID, dict[str, tuple[Any, ...]]] = {}
    for start in range(0, len(reports), 500):
        page = reports[start : start + 500]
        for row in connection.execute(select(table).where(table.c.report.in_(page)).order_by(table.c.number)):
            parts = found.setdefault(row.report, {})
            parts[row.part] = (*parts.get(row.part, ()), row)
    return found


def parts(connection: Connection, exam: Any) -> tuple[Part, ...]:
    """The parts of an exam, a row of `exams`."""
    read = standing(connection, [exam.report]).get(exam.report, {})
    return tuple(Part(name, read.get(name, ())) for name in parts_of(exam.modalities))


def waiting(modalities: str, states: dict[str, str]) -> tuple[str, ...]:
    """The parts that nobody has settled."""
    return tuple(part for part in parts_of(modalities) if states.get(part, "open") not in DONE)


def state_of(modalities: str, states: dict[str, str]) -> str:
    """An exam's place on the worklist: open until every part is settled."""
    found = [states.get(part, "open") for part in parts_of(modalities)]
    if "retake" in found:
        return "retake"
    return "reviewed" if all(state == "signed" for state in found) else "open"


def note(
    connection: Connection,
    part: Part,
    review: Review,
    reader: str,
    state: str,
    opened_ms: int | None,
) -> None:
    """Keeps a reading. A part that two readers sign in the same moment fails here, for the second."""
    connection.execute(
        insert(schema.readings).values(
            report=review.report,
            part=part.name,
            number=len(part.readings) + 1,
            exam=review.exam,
            patient=review.patient,
            review=review.id,
            reader=reader,
            state=state,
            call=reader_call(part.name, review.grades),
            triage=review.triage.rank if review.triage else None,
            at_ms=review.at.wall_ms,
            opened_ms=opened_ms,
        )
    )


def settle(
    part: Part,
    decision: ReviewDecision,
    triage: int | None,
    grades: dict[str, str],
    report: ExamReport,
    rules: Rules,
) -> str:
    """What a new reading makes of a part: waiting, disputed, signed or retake."""
    if decision is ReviewDecision.RETAKE:
        return "retake"
    if part.done or part.state == "disputed":
        return "signed"
    call = reader_call(part.name, grades)
    level = report.triage.level.rank
    earlier = [(row.call, level if row.triage is None else row.triage) for row in part.readings]
    if len(earlier) + 1 < rules.readers:
        return "waiting"
    mine = (call, level if triage is None else triage)
    if any(other != mine for other in earlier):
        return "disputed"
    device = device_call(part.name, report)
    if rules.against_device and not earlier and None not in (call, device) and call != device:
        return "disputed"
    return "signed"


def reader_call(part: str, grades: dict[str, str]) -> bool | None:
    """Moderate retinopathy or worse, or macular oedema, in either eye; atrial fibrillation. None: no call was made."""
    if part == EYES:
        eyes = [grades[name] for name in ("dr_right", "dr_left") if grades.get(name) in tuple("01234")]
        oedema = "yes" in (grades.get("dme_right"), grades.get("dme_left"))
        return oedema or max(eyes) >= "2" if eyes or oedema else None
    rhythm = grades.get("rhythm", "unreadable") if part == HEART else "unreadable"
    return None if rhythm == "unreadable" else rhythm == "af"


def device_call(part: str, report: ExamReport) -> bool | None:
    """Referable retinopathy, or atrial fibrillation, as the device called it; None where it made no call."""
    if part == EYES:
        grades = [photo.dr for photo in report.fundus if photo.dr and not photo.dr.abstained]
        return any(dr.referable for dr in grades) if grades else None
    if part == HEART:
        rhythms = [ecg.rhythm for ecg in report.ecg if not ecg.rhythm.abstained]
        labels = [rhythm.label for rhythm in rhythms if rhythm.label in ("N", "A", "O")]
        return "A" in labels if labels else None
    return None


def readable(exam_parts: Iterable[Part], reader: str, trained: Sequence[str]) -> tuple[Part, ...]:
    """The parts that a reader trained for `trained` may read now; nobody's training limits the general part."""
    return tuple(part for part in exam_parts if part.name in (*trained, GENERAL) and part.may_be_read_by(reader))
