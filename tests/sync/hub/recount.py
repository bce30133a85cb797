"""The quality page's figures counted over all rows, as SQL: what the counts that are kept must be equal to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Integer, Select, Table, and_, case, cast, func, literal, select
from sqlalchemy.sql.elements import SQLColumnExpression

from aidpost.sync.hub import schema
from aidpost.sync.hub._calls import TASKS
from aidpost.sync.hub._quality_data import BEFORE_DAYS, GROUPS, RECENT_DAYS, Drift, Rate, Row
from aidpost.sync.hub.quality import Performance, Share, Stratum, performance, psi, share
from aidpost.sync.hub.users import Session

_DAY_MS = 86_400_000
_YEAR_MS = 31_556_952_000


def rows_of(connection: Connection, session: Session, task: str) -> list[Row]:
    """Performance of a task over all exams and in each group."""
    cells = connection.execute(_cells(session, task)).all()
    found = [Row("all", "All", _performance(cells))]
    for group in GROUPS:
        names = sorted({str(getattr(cell, group)) for cell in cells})
        found += [
            Row(group, name, _performance([cell for cell in cells if str(getattr(cell, group)) == name]))
            for name in names
        ]
    return found


def _cells(session: Session, task: str) -> Select[Any]:
    """Counts of exams by call, sample and every group at once."""
    calls, exams, read = schema.calls, schema.exams, _answers(TASKS[task])
    columns = (
        calls.c.call.label("call"),
        exams.c.sampled.label("sampled"),
        calls.c.model.label("model"),
        exams.c.clinic.label("clinic"),
        calls.c.camera.label("camera"),
        _age_band().label("age"),
        exams.c.sex.label("sex"),
    )
    return (
        select(
            *columns,
            func.count().label("total"),
            func.count(read.c.call).label("read"),
            func.sum(case((read.c.call.is_(True), 1), else_=0)).label("positive"),
        )
        .select_from(calls)
        .join(exams, _shown(calls))
        .outerjoin(read, read.c.report == calls.c.report)
        .where(calls.c.task == task, exams.c.origin == "live", session.sees(exams.c.clinic))
        .group_by(*columns)
    )


def _shown(table: Table) -> ColumnElement[bool]:
    """The rows about the report that is shown of an exam; by the exam's number, which is its key."""
    return and_(schema.exams.c.id == table.c.exam, schema.exams.c.report == table.c.report)


def _answers(part: str) -> Any:
    """The reading that counts of each report's part: the last one, where it is signed."""
    table = schema.readings
    later = table.alias("later")
    superseded = (
        select(later.c.number)
        .where(later.c.report == table.c.report, later.c.part == part, later.c.number > table.c.number)
        .exists()
    )
    return (
        select(table.c.report, table.c.call)
        .where(table.c.part == part, table.c.state == "signed", ~superseded)
        .subquery("answers")
    )


def _age_band() -> ColumnElement[str]:
    exams = schema.exams
    born = cast(func.substr(exams.c.birth_date, 1, 4), Integer)
    age = exams.c.started_ms / literal(_YEAR_MS) + 1970 - born
    return case(
        (exams.c.birth_date.is_(None), "unknown"),
        (age < 40, "under 40"),
        (age < 60, "40 to 59"),
        (age < 75, "60 to 74"),
        else_="75 and over",
    )


def _performance(cells: Any) -> Performance:
    """Of the exams called negative, those count that chance chose, unless all were read: who is read for another
    reason is not like the rest."""

    def stratum(wanted: Callable[[Any], bool]) -> Stratum:
        chosen = [cell for cell in cells if wanted(cell)]
        return Stratum(
            *(sum(int(getattr(cell, name) or 0) for cell in chosen) for name in ("total", "read", "positive"))
        )

    negative = stratum(lambda cell: cell.call is False)
    if negative.read < negative.total:
        chance = stratum(lambda cell: cell.call is False and cell.sampled)
        negative = Stratum(negative.total, chance.read, chance.positive)
    return performance(stratum(lambda cell: cell.call is True), negative, stratum(lambda cell: cell.call is None))


def rates(connection: Connection, session: Session) -> list[Rate]:
    """How often recordings could not be interpreted, by camera and by worker."""
    calls, exams = schema.calls, schema.exams
    found = []
    for group, column in (("camera", calls.c.camera), ("worker", exams.c.operator), ("clinic", exams.c.clinic)):
        query = (
            select(
                column,
                calls.c.task,
                func.count(),
                func.sum(case((calls.c.usable.is_(False), 1), else_=0)),
                func.sum(case((and_(calls.c.usable.is_(True), calls.c.call.is_(None)), 1), else_=0)),
            )
            .join(exams, _shown(calls))
            .where(exams.c.origin == "live", session.sees(exams.c.clinic))
            .group_by(column, calls.c.task)
            .order_by(column, calls.c.task)
        )
        found += [
            Rate(group, row[0] or "–", row[1], row[2], int(row[3]), int(row[4])) for row in connection.execute(query)
        ]
    return found


def drifts(connection: Connection, session: Session, now_ms: int) -> list[Drift]:
    """Whether what comes in lately looks like what came before: the recordings' quality, and the models' scores."""
    calls = schema.calls
    found = []
    for task in TASKS:
        for quantity, column in (("quality", calls.c.quality), ("score", calls.c.score)):
            bins = [
                _histogram(connection, session, task, column, now_ms - start * _DAY_MS, now_ms - stop * _DAY_MS)
                for start, stop in ((RECENT_DAYS, 0), (RECENT_DAYS + BEFORE_DAYS, RECENT_DAYS))
            ]
            found.append(Drift(task, quantity, sum(bins[0]), sum(bins[1]), psi(bins[0], bins[1])))
    return found


def _histogram(
    connection: Connection, session: Session, task: str, column: ColumnElement[Any], start: int, stop: int
) -> list[int]:
    calls, exams = schema.calls, schema.exams
    tenth = case(*((column >= number / 10, number) for number in range(9, 0, -1)), else_=0)
    query = (
        select(tenth, func.count())
        .select_from(calls)
        .join(exams, _shown(calls))
        .where(calls.c.task == task, calls.c.at_ms > start, calls.c.at_ms <= stop, column.is_not(None))
        .where(exams.c.origin == "live", session.sees(exams.c.clinic))
        .group_by(tenth)
    )
    counts = [0] * 10
    for number, count in connection.execute(query):
        counts[number] += count
    return counts


def turnaround(connection: Connection, session: Session) -> dict[str, list[int]]:
    """How long each took, in milliseconds, shortest first."""
    readings, exams = schema.readings, schema.exams
    found = {}
    for name, part, since in (
        ("Arrival to signature, eyes", "eyes", exams.c.received_ms),
        ("Arrival to signature, heart", "heart", exams.c.received_ms),
        ("Opening to signature", None, readings.c.opened_ms),
    ):
        query = (
            select(readings.c.at_ms - since)
            .join(exams, _shown(readings))
            .where(readings.c.state == "signed", since.is_not(None), exams.c.origin == "live")
            .where(session.sees(exams.c.clinic))
        )
        if part is not None:
            query = query.where(readings.c.part == part)
        found[name] = _times(connection, query)
    later, first = schema.referrals, schema.referrals.alias("first")
    query = (
        select(later.c.at_ms - first.c.at_ms)
        .join(first, and_(first.c.exam == later.c.exam, first.c.supersedes.is_(None)))
        .join(exams, exams.c.id == later.c.exam)
        .where(
            later.c.current.is_(True),
            later.c.status == "attended",
            exams.c.origin == "live",
            session.sees(exams.c.clinic),
        )
    )
    found["Referral to attendance"] = _times(connection, query)
    return found


def _times(connection: Connection, query: Select[Any]) -> list[int]:
    return sorted(max(0, int(value)) for value in connection.execute(query).scalars())


def outcomes(connection: Connection, session: Session, today: str, now_ms: int) -> list[Share]:
    """What became of people: exams read, referrals kept, blood pressure and glucose at the last visit of the year."""
    exams, referrals = schema.exams, schema.referrals
    live = (exams.c.origin == "live", session.sees(exams.c.clinic))
    read = connection.execute(
        select(func.count(), func.sum(case((exams.c.state == "reviewed", 1), else_=0))).where(*live)
    ).one()
    due = connection.execute(
        select(func.count(), func.sum(case((referrals.c.status == "attended", 1), else_=0)))
        .join(exams, exams.c.id == referrals.c.exam)
        .where(referrals.c.current.is_(True), referrals.c.due < today, *live)
    ).one()
    return [
        share("Exams whose reading is complete", int(read[1] or 0), read[0]),
        share("Referrals due by now that were attended", int(due[1] or 0), due[0]),
        _controlled(
            connection, session, now_ms, "Patients whose last systolic BP is under 140 mmHg", "systolic_bp", 140
        ),
        _controlled(
            connection, session, now_ms, "Patients whose last diastolic BP is under 90 mmHg", "diastolic_bp", 90
        ),
        _controlled(connection, session, now_ms, "Patients whose last HbA1c is under 7 %", "hba1c", 7),
        _controlled(connection, session, now_ms, "Patients whose last glucose is under 10 mmol/L", "glucose", 10),
    ]


def _controlled(connection: Connection, session: Session, now_ms: int, name: str, kind: str, limit: float) -> Share:
    vitals, exams = schema.vitals, schema.exams
    last = (
        select(vitals.c.patient, func.max(vitals.c.at_ms).label("at_ms"))
        .join(exams, exams.c.id == vitals.c.exam)
        .where(vitals.c.kind == kind, vitals.c.value.is_not(None), vitals.c.origin == "live")
        .where(vitals.c.at_ms > now_ms - _YEAR_MS, session.sees(exams.c.clinic))
        .group_by(vitals.c.patient)
        .subquery()
    )
    below: SQLColumnExpression[int] = case((vitals.c.value < limit, 1), else_=0)
    total, good = connection.execute(
        select(func.count(), func.sum(below)).select_from(
            last.join(
                vitals, and_(vitals.c.patient == last.c.patient, vitals.c.at_ms == last.c.at_ms, vitals.c.kind == kind)
            )
        )
    ).one()
    return share(name, int(good or 0), total)
