"""Heads that rounds made, as candidates: the reviewed cases they are judged on, and what became of each."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from aidpost.records import ConsentPurpose, ExamReport, Origin
from aidpost.sync.hub import audit, consents, exports, reviews, rounds, schema

__all__ = ["Reviewed", "lineage", "reviewed", "settle"]


class Reviewed(NamedTuple):
    """A report that clinicians have read for good: their grades, and what its exam is grouped by."""

    report: ExamReport
    grades: dict[str, str]
    clinic: str
    sex: str
    born: int | None
    started_ms: int


def reviewed(connection: Connection, after_ms: int | None = None) -> Iterator[Reviewed]:
    """Live exams whose every part is signed, of people who agree to model training; with `after_ms` only those that
    began later."""
    table = schema.exams
    query = select(table).where(table.c.state == "reviewed", table.c.origin == Origin.LIVE.value)
    if after_ms is not None:
        query = query.where(table.c.started_ms > after_ms)
    willing: dict[uuid.UUID, bool] = {}
    for row in connection.execute(query.order_by(table.c.started_ms, table.c.id)).all():
        if row.patient not in willing:
            willing[row.patient] = consents.agrees(connection, row.patient, ConsentPurpose.MODEL_TRAINING)
        report = exports.report_of(connection, row.id) if willing[row.patient] else None
        if report is None:
            continue
        grades: dict[str, str] = {}
        for review in reviews.settled(connection, report.id):
            grades |= review.grades
        born = row.birth_date or ""
        year = int(born[:4]) if born[:4].isdigit() else None
        yield Reviewed(report, grades, row.clinic, row.sex, year, row.started_ms)


def lineage(connection: Connection, row: Any) -> tuple[str, ...]:
    """The rounds that made a head, the first one first, for the model's card."""
    table, names = schema.rounds, []
    while row is not None:
        names.append(f"{row.model}/{row.number} {row.id} ({row.answers} answers)")
        row = connection.execute(select(table).where(table.c.id == row.previous)).one_or_none()
    return tuple(reversed(names))


def settle(connection: Connection, number: uuid.UUID, state: str, verdict: str, reason: str, by: str) -> None:
    """Note what a candidate has come to: passed, shadowed, failed or exported."""
    rounds.set_candidate(connection, number, state, verdict)
    audit.append(connection, by, f"candidate-{state}", str(number), reason)
