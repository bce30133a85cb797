"""What the screen keeps beside the store: open exams, known patients, workers, and who did what. All of it sealed.

Every write is on the disk when it returns (the store's own writer: WAL, synchronous=FULL), so a step is acknowledged to
the worker only after it would survive a power cut.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aidpost.board.console import _recovery
from aidpost.errors import SchemaError
from aidpost.sync._durable import make_folder
from aidpost.sync._integrity import fault_of
from aidpost.sync._recovery import finish
from aidpost.sync._writer import Writer, connect, fetch

T = TypeVar("T")

DATABASE = "console.sqlite3"
VERSION = 1
_TABLES = """
CREATE TABLE draft (exam BLOB NOT NULL, version INTEGER NOT NULL, patient BLOB NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (exam, version)) WITHOUT ROWID;
CREATE TABLE body (exam BLOB NOT NULL, sha256 TEXT NOT NULL, patient BLOB NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (exam, sha256));
CREATE TABLE patient (id BLOB PRIMARY KEY, sealed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE unassigned (id BLOB PRIMARY KEY, patient BLOB NOT NULL, sealed BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE worker (id TEXT PRIMARY KEY, sealed BLOB NOT NULL, failures INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE TABLE audit (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, worker TEXT NOT NULL, what TEXT NOT NULL,
    about TEXT NOT NULL);
"""


# what came later: additions, so that the version before can still open it while an update is on trial
_ADDITIONS = """
CREATE TABLE IF NOT EXISTS challenge (worker TEXT PRIMARY KEY, digits TEXT NOT NULL, wrong INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS read_review (review BLOB PRIMARY KEY, worker TEXT NOT NULL, at_ms INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS settled (mark BLOB PRIMARY KEY, moment BLOB NOT NULL, turn INTEGER NOT NULL,
    at_ms INTEGER NOT NULL, worker TEXT NOT NULL, sealed BLOB, again INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS settled_moment ON settled (moment);
CREATE INDEX IF NOT EXISTS settled_turn ON settled (turn);
"""


class ConsoleDatabase:
    """`console.sqlite3` in a folder. Every method may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        make_folder(folder)
        self.path = folder / DATABASE
        finish(self.path)
        if fault := fault_of(self.path):
            _recovery.recover(self.path, fault, self._make)
        self._reader = connect(self.path)
        self._reading = threading.Lock()
        try:
            self._make(self._reader)
            self._writer = Writer(self.path)
        except BaseException:
            self._reader.close()
            raise

    def _make(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > VERSION:
            raise SchemaError(
                operation="opening the screen's own records",
                target=str(self.path),
                cause=f"they have schema {version}, this version reads up to {VERSION}",
                remedy="Update Aidpost on this device.",
            )
        if version < VERSION:
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        connection.executescript(_ADDITIONS)

    def close(self) -> None:
        """Finish what was asked for."""
        self._writer.close()
        self._reader.close()

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows. Raises StoreError."""
        return fetch(self._reader, self._reading, self.path, query, values)

    def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction; durable when this returns. Raises StoreError, StorageFullError."""
        return self._writer.run(work)

    def audit(self, at_ms: int, worker: str, what: str, about: str = "") -> None:
        """Note who did what; `about` is an id, never a name."""
        row = (at_ms, worker, what, about)
        self.write(lambda db: db.execute("INSERT INTO audit (at_ms, worker, what, about) VALUES (?, ?, ?, ?)", row))
