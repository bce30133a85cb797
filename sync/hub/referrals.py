"""Referrals: append-only like all results; a change of status is a new record that supersedes."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import Connection, func, select, update

from aidpost.records import Referral, ReferralStatus, decode, encode
from aidpost.sync.hub import exports, schema
from aidpost.sync.hub._rows import insert_new
from aidpost.sync.hub.users import Session

Listed = tuple[Any, Referral]
"""A row and the record in it."""

OPEN = (ReferralStatus.DUE.value, ReferralStatus.UNREACHABLE.value)
"""What somebody must still follow up."""


def of_exam(connection: Connection, exam: uuid.UUID) -> list[Listed]:
    """The referrals of an exam as they stand now."""
    table = schema.referrals
    rows = connection.execute(
        select(table).where(table.c.exam == exam, table.c.current.is_(True)).order_by(table.c.at_ms)
    )
    return [(row, decode(Referral, bytes(row.body))) for row in rows]


def roots(connection: Connection, exam: uuid.UUID) -> dict[uuid.UUID, uuid.UUID]:
    """The first record of each referral's history, by every record of it."""
    table = schema.referrals
    before = {
        row.id: row.supersedes
        for row in connection.execute(select(table.c.id, table.c.supersedes).where(table.c.exam == exam))
    }
    found = {}
    for number in before:
        root, seen = number, {number}
        while (earlier := before.get(root)) is not None and earlier not in seen:
            seen.add(earlier)
            root = earlier
        found[number] = root
    return found


def page(connection: Connection, session: Session, *, only_open: bool, limit: int, offset: int) -> list[Listed]:
    """Referrals by their due date, each with its patient's name and the exam's origin."""
    table, exams = schema.referrals, schema.exams
    query = select(table, exams.c.patient_name, exams.c.origin).join(exams, exams.c.id == table.c.exam)
    query = query.where(table.c.current.is_(True), session.sees(exams.c.clinic))
    if only_open:
        query = query.where(table.c.status.in_(OPEN))
    rows = connection.execute(query.order_by(table.c.due, table.c.id).limit(limit).offset(offset))
    return [(row, decode(Referral, bytes(row.body))) for row in rows]


def overdue(connection: Connection, today: str, session: Session | None = None) -> int:
    """How many should have been seen before today and were not; with a session, of those whom its user sees."""
    table, exams = schema.referrals, schema.exams
    query = select(func.count()).select_from(table)
    query = query.where(table.c.current.is_(True), table.c.status.in_(OPEN), table.c.due < today)
    if session is not None:
        query = query.join(exams, exams.c.id == table.c.exam).where(session.sees(exams.c.clinic))
    return int(connection.execute(query).scalar_one())


def add(connection: Connection, referral: Referral, entered_by: str) -> None:
    """Keeps a referral or a change of one, whichever comes first."""
    table = schema.referrals
    superseded = connection.execute(select(table.c.id).where(table.c.supersedes == referral.id).limit(1)).one_or_none()
    insert_new(
        connection,
        table,
        [
            {
                "id": referral.id,
                "exam": referral.exam,
                "patient": referral.patient,
                "status": referral.status.value,
                "due": referral.due,
                "supersedes": referral.supersedes,
                "current": superseded is None,
                "at_ms": referral.at.wall_ms,
                "entered_by": entered_by,
                "body": encode(referral),
            }
        ],
    )
    exports.changed(connection, [(referral.exam, referral.patient)])
    if referral.supersedes is not None:
        connection.execute(update(table).where(table.c.id == referral.supersedes).values(current=False))
