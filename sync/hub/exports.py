"""Exams that other systems are to have: a queue in the database, so that nothing is forgotten over a restart.

An exam is due once it is here, and again with each change: a new version, a signed part, a referral. What is sent is
what the hub has at that moment, so that changes in quick succession are sent once.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, select, update

from aidpost.records import ExamReport, decode
from aidpost.sync.hub import schema, tally
from aidpost.sync.hub._rows import clean, insert_new

FHIR, DICOM = TARGETS = ("fhir", "dicom")
_LONGEST_WAIT_MS = 3_600_000


def changed(connection: Connection, exams: Sequence[tuple[uuid.UUID, uuid.UUID]]) -> None:
    """Notes in the caller's transaction that exams, as (exam, patient), are to be sent, again where they were, and
    counted."""
    tally.changed(connection, exams)
    touch(connection, [patient for _, patient in exams])
    table = schema.exports
    for start in range(0, len(exams), 400):
        page = exams[start : start + 400]
        connection.execute(
            update(table)
            .where(table.c.exam.in_([exam for exam, _ in page]))
            .values(change=table.c.change + 1, attempts=0, next_ms=0)
        )
        rows = [
            {"exam": exam, "target": target, "patient": patient, "change": 0, "attempts": 0, "next_ms": 0, "error": ""}
            for exam, patient in page
            for target in TARGETS
        ]
        insert_new(connection, table, rows)


def touch(connection: Connection, patients: Sequence[uuid.UUID]) -> None:
    """Notes that something of patients changed: devices are sent their entries of the patient index anew."""
    rows = [{"patient": patient} for patient in dict.fromkeys(patients)]
    for start in range(0, len(rows), 400):
        insert_new(connection, schema.index_due, rows[start : start + 400])


def anything_due(connection: Connection, target: str, now_ms: int) -> bool:
    """Whether something waits, asked without a writer's lock."""
    table = schema.exports
    query = select(table.c.exam).where(table.c.target == target, table.c.next_ms <= now_ms).limit(1)
    return connection.execute(query).first() is not None


def claim(connection: Connection, target: str, now_ms: int, again_ms: int, most: int = 20) -> list[Any]:
    """Rows to be sent now. If whoever claims one dies, it is due again after `again_ms`."""
    table = schema.exports
    rows = connection.execute(
        select(table).where(table.c.target == target, table.c.next_ms <= now_ms).order_by(table.c.next_ms).limit(most)
    ).all()
    return [
        row
        for row in rows
        if connection.execute(
            update(table)
            .where(table.c.exam == row.exam, table.c.target == target, table.c.next_ms == row.next_ms)
            .values(next_ms=now_ms + again_ms)
        ).rowcount
    ]


def report_of(connection: Connection, exam: uuid.UUID) -> ExamReport | None:
    """The exam as it is here now; None where it was erased."""
    exams, reports, envelopes = schema.exams, schema.reports, schema.envelopes
    body = connection.execute(
        select(envelopes.c.body)
        .join(reports, (reports.c.stream == envelopes.c.stream) & (reports.c.seq == envelopes.c.seq))
        .join(exams, exams.c.report == reports.c.id)
        .where(exams.c.id == exam)
    ).scalar_one_or_none()
    return decode(ExamReport, bytes(body)) if body else None


def done(connection: Connection, row: Any, now_ms: int) -> None:
    """The other system has it; if something changed meanwhile, it stays due."""
    table = schema.exports
    connection.execute(
        update(table)
        .where(table.c.exam == row.exam, table.c.target == row.target, table.c.change == row.change)
        .values(next_ms=None, sent_ms=now_ms, attempts=0, error="")
    )


def failed(connection: Connection, row: Any, cause: str, now_ms: int) -> None:
    """It is tried again after ten seconds, then each time after twice as long, at most an hour."""
    table = schema.exports
    wait = min(10_000 << min(row.attempts, 10), _LONGEST_WAIT_MS)
    connection.execute(
        update(table)
        .where(table.c.exam == row.exam, table.c.target == row.target)
        .values(next_ms=now_ms + wait, attempts=row.attempts + 1, error=clean(cause, 500))
    )
