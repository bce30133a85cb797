"""A case is opened by one reader at a time, for a while: two readers do not do the same work."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection, or_, update

from aidpost.sync.hub import schema


def take(connection: Connection, exam: uuid.UUID, reader: str, now_ms: int, minutes: int) -> bool:
    """Takes or prolongs a case. False: another reader has it."""
    table = schema.exams
    changed = connection.execute(
        update(table)
        .where(
            table.c.id == exam,
            or_(table.c.leased_by.is_(None), table.c.leased_by == reader, table.c.leased_until_ms < now_ms),
        )
        .values(leased_by=reader, leased_until_ms=now_ms + minutes * 60_000)
    )
    return bool(changed.rowcount)


def give_back(connection: Connection, exam: uuid.UUID, reader: str) -> None:
    """Lets others have the case."""
    table = schema.exams
    connection.execute(
        update(table)
        .where(table.c.id == exam, table.c.leased_by == reader)
        .values(leased_by=None, leased_until_ms=None)
    )
