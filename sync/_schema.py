"""The store's tables, and how an older store becomes a newer one: steps, each one transaction.

`user_version` is the oldest version of this program that can work with the store; a higher one than ours is refused.
An addition (a table, an index, a column with a default) leaves it as it is: until an update is confirmed, the version
before must be able to come back, read everything and go on writing. What cannot be added takes two releases, of which
the first one only reads it (docs/update.md).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence

from aidpost.errors import SchemaError

QUEUED, RECEIPTED, DEAD = 0, 1, 2
"""States of a record: the hub has not said anything, has it, or refused it."""

COUNT = """
    SELECT cls, last, coalesce(sum(state = 1), 0) AS receipted, coalesce(sum(state = 2), 0) AS dead,
        last - count(state) AS gone FROM sequence LEFT JOIN record USING (cls) GROUP BY cls
"""
"""What `tally` says, by reading every record."""
TALLY = f"INSERT OR REPLACE INTO tally SELECT cls, receipted, dead, gone FROM ({COUNT});"

_STEPS: tuple[str, ...] = (
    """
    CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE patient_key (patient BLOB PRIMARY KEY, wrapped BLOB, erased_ms INTEGER) WITHOUT ROWID;
    CREATE TABLE sequence (cls TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE record (
        cls TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, id BLOB, patient BLOB, exam BLOB,
        body BLOB NOT NULL, hash BLOB NOT NULL, size INTEGER NOT NULL, at_ms INTEGER NOT NULL,
        state INTEGER NOT NULL DEFAULT 0, settled_ms INTEGER,
        code TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (cls, seq)
    ) WITHOUT ROWID;
    CREATE INDEX record_open ON record (cls, seq) WHERE state = 0;
    CREATE INDEX record_exam ON record (exam, kind);
    CREATE TABLE blob (
        sha256 BLOB NOT NULL, patient BLOB NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL, cls TEXT NOT NULL,
        at_ms INTEGER NOT NULL, state INTEGER NOT NULL DEFAULT 0,
        hub_ranges BLOB NOT NULL DEFAULT x'', reason TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (sha256, patient)
    ) WITHOUT ROWID;
    CREATE INDEX blob_open ON blob (cls, at_ms) WHERE state = 0;
    """,
    """
    CREATE TABLE received (
        epoch BLOB NOT NULL, cls TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, patient BLOB, exam BLOB,
        body BLOB NOT NULL, hash BLOB NOT NULL, at_ms INTEGER NOT NULL,
        PRIMARY KEY (epoch, cls, seq)
    ) WITHOUT ROWID;
    CREATE INDEX received_exam ON received (exam, kind);
    """,
)
VERSION = len(_STEPS)

_ADDITIONS: tuple[str, ...] = (
    # the wire's epoch of a record where it is not the store's first; what an older version writes belongs to the first
    """
    ALTER TABLE record ADD COLUMN epoch BLOB;
    CREATE TABLE life (number INTEGER PRIMARY KEY, epoch BLOB NOT NULL UNIQUE, before BLOB NOT NULL);
    CREATE INDEX record_life ON record (epoch, cls, seq) WHERE epoch IS NOT NULL;
    """,
    """
    CREATE TABLE intake (day INTEGER PRIMARY KEY, bytes INTEGER NOT NULL);
    CREATE TABLE note (number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, what TEXT NOT NULL, detail TEXT NOT NULL);
    CREATE INDEX record_settled ON record (settled_ms) WHERE state = 1;
    ALTER TABLE blob ADD COLUMN settled_ms INTEGER;
    CREATE TABLE spare_key (patient BLOB PRIMARY KEY, wrapped BLOB NOT NULL) WITHOUT ROWID;
    """,
    # what came of each delivery of the hub's, and of large ones the chunks that are here, sealed
    """
    CREATE TABLE delivery (
        epoch BLOB NOT NULL, cls TEXT NOT NULL, seq INTEGER NOT NULL, id BLOB NOT NULL, version TEXT NOT NULL,
        serial INTEGER NOT NULL, sha256 BLOB, size INTEGER NOT NULL, state TEXT NOT NULL, attempts INTEGER NOT NULL,
        PRIMARY KEY (epoch, cls, seq)
    ) WITHOUT ROWID;
    CREATE INDEX delivery_open ON delivery (cls, serial) WHERE state IN ('waiting', 'held');
    CREATE TABLE delivery_chunk (
        number INTEGER PRIMARY KEY, sha256 BLOB NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL,
        data BLOB NOT NULL
    );
    CREATE UNIQUE INDEX delivery_chunk_place ON delivery_chunk (sha256, start, size);
    """,
    # what of a million records is asked for again and again, so that neither they nor their bodies are read for it.
    # `tally` counts all but what waits: that is the rest of `sequence`, and accepting costs nothing more
    """
    CREATE TABLE tally (
        cls TEXT PRIMARY KEY, receipted INTEGER NOT NULL, dead INTEGER NOT NULL, gone INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TRIGGER class_came AFTER INSERT ON sequence BEGIN
        INSERT OR IGNORE INTO tally VALUES (new.cls, 0, 0, 0);
    END;
    CREATE TRIGGER record_moved AFTER UPDATE OF state ON record WHEN new.state != old.state BEGIN
        UPDATE tally SET receipted = receipted + (new.state = 1) - (old.state = 1),
            dead = dead + (new.state = 2) - (old.state = 2) WHERE cls = new.cls;
    END;
    CREATE TRIGGER record_went AFTER DELETE ON record BEGIN
        UPDATE tally SET receipted = receipted - (old.state = 1), dead = dead - (old.state = 2), gone = gone + 1
            WHERE cls = old.cls;
    END;
    CREATE INDEX record_state ON record (cls, state, seq);
    CREATE INDEX record_patient ON record (patient, kind, at_ms) WHERE patient IS NOT NULL;
    CREATE INDEX record_report ON record (at_ms, seq) WHERE kind = 'ExamReport';
    CREATE INDEX blob_state ON blob (state, size);
    """
    + TALLY,
    # the patient index: who of it is here already
    "CREATE INDEX received_patient ON received (patient, kind);",
    # the hub's signature over one record of its own, which it knows again after it was restored from an older backup
    """
    ALTER TABLE received ADD COLUMN proof BLOB;
    CREATE INDEX received_proof ON received (epoch, cls, seq) WHERE proof IS NOT NULL;
    """,
)


_BAD_PLACE = {266, 522, 8458}
"""SQLITE_IOERR_READ, _SHORT_READ and _CORRUPTFS: the medium has no more to give there."""


def tells_of_data(error: sqlite3.DatabaseError) -> bool:
    """Whether an error says that the file is damaged, and not that it is locked or that the disk failed for now."""
    return not isinstance(error, sqlite3.OperationalError) or getattr(error, "sqlite_errorcode", 0) in _BAD_PLACE


def fault(connection: sqlite3.Connection) -> str:
    """What SQLite finds wrong with its file; empty where it is well.

    Raises
    ------
    sqlite3.OperationalError
        It is locked, or the disk failed: that says nothing of the data.
    """
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if not tells_of_data(error):
            raise
        return str(error)
    return "" if verdict == "ok" else str(verdict)


def migrate(connection: sqlite3.Connection, target: str) -> None:
    """Bring the store to this version; a kill between or within steps leaves a whole older version.

    Raises
    ------
    SchemaError
        It was written by a newer version.
    """
    version = _version(connection)
    if version > VERSION:
        raise SchemaError(
            operation="opening the store",
            target=target,
            cause=f"it has schema {version}, this version reads up to {VERSION}",
            remedy="Update Aidpost on this device.",
        )
    while _version(connection) < VERSION:
        _step(connection, _version, _STEPS[:VERSION], "PRAGMA user_version = {}")
    while _added(connection) < len(_ADDITIONS):
        _step(connection, _added, _ADDITIONS, "INSERT OR REPLACE INTO meta VALUES ('additions', '{}')")


def _step(
    connection: sqlite3.Connection, done: Callable[[sqlite3.Connection], int], steps: Sequence[str], note: str
) -> None:
    """Do the next step: its statements and the note that it was done are one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        # read under the lock: another process may have opened the same store and been faster
        number = done(connection)
        if number < len(steps):
            for statement in _statements(steps[number]):
                connection.execute(statement)
            connection.execute(note.format(number + 1))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _statements(script: str) -> Iterator[str]:
    """One by one: `executescript` would commit in between, and a trigger has semicolons of its own."""
    statement = ""
    for piece in script.split(";")[:-1]:
        statement += piece + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _added(connection: sqlite3.Connection) -> int:
    row = connection.execute("SELECT value FROM meta WHERE name = 'additions'").fetchone()
    return int(row[0]) if row else 0
