"""A part of a case is opened by one reader at a time, for a while: two readers do not do the same work."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, delete, or_, select, update

from aidpost.sync.hub import schema
from aidpost.sync.hub._rows import insert_new


def take(
    connection: Connection, exam: uuid.UUID, parts: Iterable[str], reader: str, now_ms: int, minutes: int
) -> tuple[str, ...]:
    """Takes or prolongs parts of a case. Returns those that this reader now has; another has the rest."""
    return tuple(part for part in parts if _take(connection, exam, part, reader, now_ms, now_ms + minutes * 60_000))


def _take(connection: Connection, exam: uuid.UUID, part: str, reader: str, now_ms: int, until_ms: int) -> bool:
    table = schema.leases
    this = (table.c.exam == exam, table.c.part == part)
    prolonged = connection.execute(
        update(table).where(*this, table.c.reader == reader, table.c.until_ms >= now_ms).values(until_ms=until_ms)
    )
    if prolonged.rowcount:
        return True
    row = {"exam": exam, "part": part, "reader": reader, "since_ms": now_ms, "until_ms": until_ms}
    free = or_(table.c.reader == reader, table.c.until_ms < now_ms)
    if connection.execute(update(table).where(*this, free).values(**row)).rowcount:
        return True
    insert_new(connection, table, [row])
    holder = connection.execute(select(table.c.reader).where(*this)).scalar_one()
    return bool(holder == reader)


def holders(connection: Connection, exams: Sequence[uuid.UUID], now_ms: int) -> dict[uuid.UUID, list[Any]]:
    """Who has which parts of the exams now, as rows of `leases`."""
    table = schema.leases
    found: dict[uuid.UUID, list[Any]] = {}
    for row in connection.execute(select(table).where(table.c.exam.in_(exams), table.c.until_ms >= now_ms)):
        found.setdefault(row.exam, []).append(row)
    return found


def since(connection: Connection, exam: uuid.UUID, reader: str) -> int | None:
    """When the reader opened the case, if they have it."""
    table = schema.leases
    return (
        connection.execute(
            select(table.c.since_ms).where(table.c.exam == exam, table.c.reader == reader).order_by(table.c.since_ms)
        )
        .scalars()
        .first()
    )


def give_back(connection: Connection, exam: uuid.UUID, reader: str) -> None:
    """Lets others have the case."""
    table = schema.leases
    connection.execute(delete(table).where(table.c.exam == exam, table.c.reader == reader))
