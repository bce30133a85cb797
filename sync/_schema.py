"""The store's tables, and how an older store becomes a newer one: additive steps, each one transaction."""

from __future__ import annotations

import sqlite3

from aidpost.errors import SchemaError, StoreDamagedError

QUEUED, RECEIPTED, DEAD = 0, 1, 2
"""States of a record: the hub has not said anything, has it, or refused it."""

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


def check(connection: sqlite3.Connection, target: str) -> None:
    """Nothing, where SQLite finds its file well.

    Raises
    ------
    StoreDamagedError
        It does not.
    """
    try:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        verdict = str(error)
    if verdict != "ok":
        raise StoreDamagedError(
            operation="opening the store",
            target=target,
            cause=verdict,
            remedy="Keep the folder as it is and restore a backup, or send it in for recovery.",
        )


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
    while version < VERSION:
        connection.execute("BEGIN IMMEDIATE")
        try:
            # read again under the lock: another process may have opened the same store and been faster
            version = _version(connection)
            if version < VERSION:
                for statement in filter(str.strip, _STEPS[version].split(";")):
                    connection.execute(statement)
                version += 1
                connection.execute(f"PRAGMA user_version = {version}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
