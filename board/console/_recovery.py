"""The screen's own records after the card has damaged them: what can be read of them goes into a new database.

As with the store (`sync/_recovery.py`): the damaged file goes to `quarantine/`, and killed anywhere, the next start
begins again or ends it. A row is known by its shape; whatever was sealed opens only under its own key and in its own
place, so what is debris is never taken for a draft, a patient or a worker. Unlock codes that were asked for are asked
for anew.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aidpost.sync import _recovery
from aidpost.sync._salvage import Pages, Row

_log = logging.getLogger(__name__)

_Fits = Callable[[Any], bool]
_SEAL = 28
"""Nonce and tag: anything sealed is longer; an index of marks is not."""
_EARLIEST_MS = 10**11
"""A time, and not the number of a row."""


def _number(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == 16


def _sealed(value: Any) -> bool:
    return isinstance(value, bytes) and len(value) > _SEAL


def _perhaps_sealed(value: Any) -> bool:
    return value is None or _sealed(value)


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _count(value: Any) -> bool:
    return isinstance(value, int)


def _moment(value: Any) -> bool:
    return isinstance(value, int) and value > _EARLIEST_MS


def _own_number(value: Any) -> bool:
    return value is None  # SQLite keeps an INTEGER PRIMARY KEY beside the row, not in it


_SHAPES: dict[str, tuple[_Fits, ...]] = {
    "draft": (_number, _count, _number, _sealed),
    "body": (_number, _text, _number, _sealed),
    "patient": (_number, _sealed),
    "unassigned": (_number, _number, _sealed),
    "worker": (_text, _sealed, _count),
    "audit": (_own_number, _count, _text, _text, _text),
    "read_review": (_number, _text, _moment),
    "settled": (_number, _number, _count, _count, _text, _perhaps_sealed, _count),
}
"""The columns of each table; no other table and no index has the same. `challenge` is not taken over."""


def recover(path: Path, fault: str, make: Callable[[sqlite3.Connection], None]) -> None:
    """Set the damaged database at `path` aside, and put in its place what is left of it; `make` makes the tables."""
    quarantined = _recovery.quarantine(path)
    rows = Pages(path, path.with_name(f"{path.name}-wal")).rows()

    def fill(db: sqlite3.Connection) -> None:
        for row in rows:
            if table := _table_of(row):
                places = ", ".join("?" * len(row))
                db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({places})", row)
        said = (time.time_ns() // 1_000_000, "", "recovered", f"{fault}; kept in {quarantined.name}")
        db.execute("INSERT INTO audit (at_ms, worker, what, about) VALUES (?, ?, ?, ?)", said)

    _log.error("the screen's own records are damaged (%s): what is whole is recovered", fault)
    _recovery.exchange(path, make, fill)


def _table_of(row: Row) -> str:
    for table, shape in _SHAPES.items():
        if len(row) == len(shape) and all(fits(value) for fits, value in zip(shape, row, strict=True)):
            return table
    return ""
