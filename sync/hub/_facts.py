"""What one exam, or one patient, adds to the counts behind the quality page.

Facts are read from the rows as they are now and kept, so that they can be taken off the counts when the rows change;
the counts follow from the facts and from nothing else.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, select

from aidpost.sync.hub import schema
from aidpost.sync.hub._calls import TASKS

DAY_MS = 86_400_000
WEEK_MS = 7 * DAY_MS
_YEAR_MS = 31_556_952_000

_AGES = ((40, "under 40"), (60, "40 to 59"), (75, "60 to 74"))

GROUPS = ("model", "clinic", "camera", "age", "sex", "worker")
LIMITS = {"systolic_bp": 140, "diastolic_bp": 90, "hba1c": 7, "glucose": 10}
"""Vital signs that are to be under a limit."""
ARRIVAL = {"eyes": "Arrival to signature, eyes", "heart": "Arrival to signature, heart"}
OPENING, ATTENDANCE = "Opening to signature", "Referral to attendance"
TIMES = (*ARRIVAL.values(), OPENING, ATTENDANCE)

TIME_BINS = 512
"""Bins of a length of time, 48 to a factor of ten: a value is known to within 2.5 %."""
_FIRST_BIN_MS = 60_000


class Cell(NamedTuple):
    """One number of the counts: `what` it is of, its group's `name`, and a `bucket` (`code`, a day or a bin)."""

    clinic: str
    what: str
    name: str
    bucket: int


class Call(msgspec.Struct, frozen=True, array_like=True):
    """What a model said of a task, and what the readers made of it. Calls are 0 none, 1 negative, 2 positive."""

    task: str
    model: str
    camera: str
    call: int
    read: int
    usable: bool
    day: int
    quality: int | None
    score: int | None


class ExamFacts(msgspec.Struct, frozen=True, array_like=True):
    """Of an exam. Only its place on the worklist is counted of one that is not live."""

    clinic: str
    state: str
    triage: int
    live: bool
    worker: str = ""
    age: str = ""
    sex: str = ""
    sampled: bool = False
    calls: tuple[Call, ...] = ()
    times: tuple[tuple[str, int], ...] = ()
    """Each of `TIMES`, and its `time_bucket`."""
    referrals: tuple[tuple[int, bool], ...] = ()
    """Day on which it is due, and whether they went."""

    def cells(self) -> Iterator[tuple[str, str, int]]:
        """What it counts to, as (what, name, bucket)."""
        yield "state", f"{self.state} {self.triage}", 0
        if not self.live:
            return
        yield "exams", self.state, 0
        for call in self.calls:
            bucket = code(call.call, call.read, sampled=self.sampled, usable=call.usable)
            names = (call.model, self.clinic, call.camera, self.age, self.sex, self.worker)
            yield f"{call.task} all", "All", bucket
            for group, name in zip(GROUPS, names, strict=True):
                yield f"{call.task} {group}", name, bucket
            for quantity, tenth in (("quality", call.quality), ("score", call.score)):
                if tenth is not None:
                    yield f"{call.task} drift", quantity, call.day * 10 + tenth
        for name, bucket in self.times:
            yield "time", name, bucket
        for due, attended in self.referrals:
            yield "referral", "attended" if attended else "other", due


class PatientFacts(msgspec.Struct, frozen=True, array_like=True):
    """Of a patient: the last value of each of `LIMITS`, as (kind, clinic, day, whether it is under the limit)."""

    last: tuple[tuple[str, str, int, bool], ...]


class Decoded(NamedTuple):
    """The outcomes that a code stands for."""

    call: bool | None
    read: bool
    positive: bool
    sampled: bool
    usable: bool


def code(call: int, read: int, *, sampled: bool, usable: bool) -> int:
    """How an exam went, as one number."""
    return call + 3 * (read + 3 * (sampled + 2 * usable))


def decoded(number: int) -> Decoded:
    """What `code` was made from."""
    call, read, rest = number % 3, number // 3 % 3, number // 9
    return Decoded((None, False, True)[call], read > 0, read == 2, bool(rest % 2), bool(rest // 2))


def time_bucket(at_ms: int, milliseconds: int) -> int:
    """When it ended, in weeks, and how long it took."""
    ratio = max(0, milliseconds) / _FIRST_BIN_MS
    number = 0 if ratio < 1 else min(TIME_BINS - 1, 1 + int(48 * math.log10(ratio)))
    return at_ms // WEEK_MS * TIME_BINS + number


def hours_of(bucket: int) -> float:
    """The middle of a bucket's length of time, in hours."""
    number = bucket % TIME_BINS
    return 0.0 if number == 0 else _FIRST_BIN_MS * 10 ** ((number - 0.5) / 48) / 3_600_000


def cells_of(facts: ExamFacts | PatientFacts) -> Iterator[Cell]:
    """Every number that goes up by one."""
    if isinstance(facts, PatientFacts):
        for kind, clinic, at, under in facts.last:
            for scope in ("", scope_of(clinic)):
                yield Cell(scope, "last", f"{kind} {'under' if under else 'over'}", at)
        return
    for what, name, bucket in facts.cells():
        for scope in ("", scope_of(facts.clinic)):
            yield Cell(scope, what, name, bucket)


def scope_of(clinic: str) -> str:
    """A clinic, told from all."""
    return f"={clinic}"


def of_exams(connection: Connection, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, ExamFacts]:
    """The facts of those exams that are there."""
    exams, calls, readings, referrals = schema.exams, schema.calls, schema.readings, schema.referrals
    rows = {row.id: row for row in connection.execute(select(exams).where(exams.c.id.in_(ids)))}
    of_shown = [row.report for row in rows.values()]
    found: dict[str, dict[uuid.UUID, list[Any]]] = {"calls": {}, "readings": {}, "referrals": {}}
    for row in connection.execute(select(calls).where(calls.c.report.in_(of_shown)).order_by(calls.c.task)):
        found["calls"].setdefault(row.exam, []).append(row)
    query = select(readings).where(readings.c.report.in_(of_shown))
    for row in connection.execute(query.order_by(readings.c.part, readings.c.number)):
        found["readings"].setdefault(row.exam, []).append(row)
    columns = (referrals.c.exam, referrals.c.status, referrals.c.due, referrals.c.at_ms, referrals.c.current)
    query = select(*columns, referrals.c.supersedes).where(referrals.c.exam.in_(list(rows)))
    for row in connection.execute(query.order_by(referrals.c.at_ms, referrals.c.id)):
        found["referrals"].setdefault(row.exam, []).append(row)
    return {
        number: _exam_facts(row, *(found[kind].get(number, []) for kind in ("calls", "readings", "referrals")))
        for number, row in rows.items()
    }


def of_patients(connection: Connection, due: Sequence[int]) -> dict[uuid.UUID, PatientFacts]:
    """The facts of the patients of these rows of `quality_due`."""
    table, vitals, exams = schema.quality_due, schema.vitals, schema.exams
    wanted = select(table.c.patient).where(table.c.id.in_(due), table.c.patient.is_not(None)).distinct().subquery()
    last: dict[uuid.UUID, list[tuple[str, str, int, bool]]] = {}
    for kind, limit in LIMITS.items():
        one, its = vitals.alias("one"), exams.alias("its")
        newest = (
            select(one.c.id)
            .join(its, its.c.id == one.c.exam)
            .where(one.c.patient == wanted.c.patient, one.c.kind == kind, one.c.value.is_not(None))
            .where(one.c.origin == "live")
            .order_by(one.c.at_ms.desc(), one.c.id.desc())
            .limit(1)
            .correlate(wanted)
            .scalar_subquery()
        )
        query = (
            select(wanted.c.patient, vitals.c.at_ms, vitals.c.value, exams.c.clinic)
            .select_from(wanted)
            .join(vitals, vitals.c.id == newest)
            .join(exams, exams.c.id == vitals.c.exam)
        )
        for row in connection.execute(query):
            fact = (kind, row.clinic, row.at_ms // DAY_MS, row.value < limit)
            last.setdefault(row.patient, []).append(fact)
    return {patient: PatientFacts(tuple(facts)) for patient, facts in last.items()}


def _exam_facts(exam: Any, calls: list[Any], readings: list[Any], referrals: list[Any]) -> ExamFacts:
    live = exam.origin == "live"
    facts = ExamFacts(exam.clinic, exam.state, exam.triage, live)
    if not live:
        return facts
    last = {row.part: row for row in readings}
    return msgspec.structs.replace(
        facts,
        worker=exam.operator,
        age=_age_band(exam.birth_date, exam.started_ms),
        sex=exam.sex,
        sampled=exam.sampled,
        calls=tuple(_call(row, last) for row in calls),
        times=(*_reading_times(exam, readings), *_referral_times(referrals)),
        referrals=tuple(_referrals(referrals)),
    )


def _call(row: Any, last: Mapping[str, Any]) -> Call:
    reading = last.get(TASKS[row.task])
    read = _number(reading.call) if reading is not None and reading.state == "signed" else 0
    day, quality, score = row.at_ms // DAY_MS, _tenth(row.quality), _tenth(row.score)
    return Call(row.task, row.model, row.camera, _number(row.call), read, row.usable, day, quality, score)


def _number(call: bool | None) -> int:
    return 0 if call is None else 2 if call else 1


def _tenth(value: float | None) -> int | None:
    return None if value is None else next((n for n in range(9, 0, -1) if value >= n / 10), 0)


def _reading_times(exam: Any, readings: Sequence[Any]) -> Iterator[tuple[str, int]]:
    for row in readings:
        if row.state == "signed":
            if row.part in ARRIVAL:
                yield ARRIVAL[row.part], time_bucket(row.at_ms, row.at_ms - exam.received_ms)
            if row.opened_ms is not None:
                yield OPENING, time_bucket(row.at_ms, row.at_ms - row.opened_ms)


def _referral_times(referrals: Sequence[Any]) -> Iterator[tuple[str, int]]:
    begun = [row.at_ms for row in referrals if row.supersedes is None]
    for row in referrals:
        if row.current and row.status == "attended":
            for at_ms in begun:
                yield ATTENDANCE, time_bucket(row.at_ms, row.at_ms - at_ms)


def _referrals(referrals: Sequence[Any]) -> Iterator[tuple[int, bool]]:
    for row in referrals:
        if row.current and (due := day_number(row.due)) is not None:
            yield due, row.status == "attended"


def day_number(text: str) -> int | None:
    """Days since 1970 of YYYY-MM-DD; None where it is no date."""
    try:
        return date.fromisoformat(text).toordinal() - date(1970, 1, 1).toordinal()
    except ValueError:
        return None


def _age_band(born: str | None, started_ms: int) -> str:
    if not born or not born[:4].isdecimal():
        return "unknown"
    age = started_ms / _YEAR_MS + 1970 - int(born[:4])
    return next((name for under, name in _AGES if age < under), "75 and over")
