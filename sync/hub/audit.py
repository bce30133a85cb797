"""Who did what: an append-only log in which each row's hash covers the row before it.

Removing or altering a row breaks every hash after it. Cutting off the end is seen only by comparing with a hash kept
elsewhere, which is why `verify` returns the last one.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection, insert, select

from aidpost.sync.hub import schema
from aidpost.sync.hub.database import now_ms

_GENESIS = bytes(32)
_PAGE = 1000


class AuditState(NamedTuple):
    """What `verify` found. `broken_at` is the first row that does not fit, or None; `head` the last hash that fits."""

    rows: int
    head: bytes
    broken_at: int | None


def append(connection: Connection, actor: str, action: str, target: str, detail: str = "") -> None:
    """Adds a row in the caller's transaction. `target` and `detail` name no patient: ids only."""
    # one row at a time over all connections: on PostgreSQL the lock on the hub's row, on SQLite the writer's lock
    connection.execute(select(schema.hub.c.id).with_for_update())
    last = connection.execute(
        select(schema.audit.c.id, schema.audit.c.hash).order_by(schema.audit.c.id.desc()).limit(1)
    ).one_or_none()
    number, previous = (last.id + 1, bytes(last.hash)) if last else (1, _GENESIS)
    row = (number, now_ms(), actor[:100], action[:64], target[:200], detail[:1000])
    names = ("id", "at_ms", "actor", "action", "target", "detail")
    connection.execute(insert(schema.audit).values(**dict(zip(names, row, strict=True)), hash=_hash(previous, row)))


def verify(connection: Connection) -> AuditState:
    """Reads the whole log and recomputes each hash."""
    head, expected = _GENESIS, 1
    while True:
        page = connection.execute(
            select(schema.audit).where(schema.audit.c.id >= expected).order_by(schema.audit.c.id).limit(_PAGE)
        ).all()
        for row in page:
            fields = (row.id, row.at_ms, row.actor, row.action, row.target, row.detail)
            if row.id != expected or _hash(head, fields) != bytes(row.hash):
                return AuditState(expected - 1, head, expected)
            head, expected = bytes(row.hash), expected + 1
        if len(page) < _PAGE:
            return AuditState(expected - 1, head, None)


def _hash(previous: bytes, row: tuple[int, int, str, str, str, str]) -> bytes:
    return hashlib.sha256(previous + msgspec.msgpack.encode(row)).digest()
