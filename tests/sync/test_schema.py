"""The store's migrations: killed at any statement, and readable by the version before until an update is confirmed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from device_records import KEY, make_item

from aidpost.sync import _schema, seal
from aidpost.sync.store import Store

MIGRATE = """
import os, signal, sys
from pathlib import Path
from aidpost.sync import _schema
from aidpost.sync._writer import connect
path = Path(sys.argv[1])
for statement in range(1, 200):
    child = os.fork()
    if child == 0:
        connection, left = connect(path), statement
        def count(sql):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        connection.set_trace_callback(count)
        _schema.migrate(connection, str(path))
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(statement, code, flush=True)
    if code == 0:
        break
"""
"""Migrates until it is killed at its first statement, then at the second, and so on, on what the last one left."""

EACH_ALONE = MIGRATE.replace(
    "    child = os.fork()", "    __import__('shutil').copyfile(sys.argv[2], path)\n    child = os.fork()"
)


def columns(path: Path) -> set[tuple[str, ...]]:
    with sqlite3.connect(path) as db:
        found = {tuple(map(str, row)) for row in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema")}
        found |= {("additions", str(row[0])) for row in db.execute("SELECT value FROM meta WHERE name = 'additions'")}
        found.add(("user_version", str(db.execute("PRAGMA user_version").fetchone()[0])))
    db.close()
    return found


def of_version(path: Path, version: int, additions: int = 0) -> None:
    """A store's database as that version made it, with one row."""
    db = sqlite3.connect(path)
    for steps in (_schema._STEPS[:version], _schema._ADDITIONS[:additions]):
        for step in steps:
            db.executescript(step)
    if additions:
        db.execute("INSERT INTO meta VALUES ('additions', ?)", (str(additions),))
    db.execute(f"PRAGMA user_version = {version}")
    if version:
        db.execute("INSERT INTO sequence VALUES ('report', 7)")
    db.commit()
    db.close()


@pytest.mark.parametrize(("version", "additions"), [(0, 0), (1, 0), (2, 0), (2, 1)])
def test_killed_at_every_statement_it_is_a_whole_older_version_and_is_then_finished(
    tmp_path: Path, version: int, additions: int
) -> None:
    fresh, old, path = tmp_path / "fresh.sqlite3", tmp_path / "old.sqlite3", tmp_path / "store.sqlite3"
    of_version(old, version, additions)
    db = sqlite3.connect(fresh, isolation_level=None)
    _schema.migrate(db, "fresh")
    db.close()
    command = [sys.executable, "-c", EACH_ALONE, str(path), str(old)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["-9"] * (len(lines) - 1) + ["0"]
    assert len(lines) > 8
    assert columns(path) == columns(fresh)
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT last FROM sequence").fetchall() == ([(7,)] if version else [])
    db.close()
    path.write_bytes(old.read_bytes())
    subprocess.run([sys.executable, "-c", MIGRATE, str(path)], check=True, capture_output=True)
    assert columns(path) == columns(fresh)


def test_additions_only_add(tmp_path: Path) -> None:
    """What the version before has, tables, columns and indexes, is there afterwards as it was."""
    path = tmp_path / "store.sqlite3"
    of_version(path, _schema.VERSION)
    db = sqlite3.connect(path, isolation_level=None)

    def shape() -> dict[str, list[tuple[object, ...]]]:
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: db.execute(f"PRAGMA table_info({name})").fetchall() for name in names}

    before = shape()
    _schema.migrate(db, "store")
    after = shape()
    for name, shown in before.items():
        assert after[name][: len(shown)] == shown
        # what the version before does not name when it inserts
        assert all(column[3] == 0 or column[4] is not None for column in after[name][len(shown) :])
    db.close()


def test_the_version_before_reads_all_and_goes_on_writing_until_the_update_is_confirmed(
    open_store: Callable[..., Store], tmp_path: Path
) -> None:
    """Its statements as they stood, on a store that this version has made, used and begun a new epoch in."""
    store = open_store()
    items = [make_item() for _ in range(3)]
    store.append_many(items)
    store.write(lambda db: store.lives.settle_conflict(db, store.lives.first, "report", 2, 1))
    key = store.append(make_item())
    store.close()
    db = sqlite3.connect(tmp_path / "state/store.sqlite3", isolation_level=None)
    assert db.execute("PRAGMA user_version").fetchone() == (2,), "else it would refuse"
    meta = dict(db.execute("SELECT name, value FROM meta"))
    for seq, patient, body in db.execute(
        "SELECT seq, patient, body FROM record WHERE kind = 'ExamReport' ORDER BY at_ms DESC, seq DESC LIMIT 100"
    ).fetchall():
        ((wrapped,),) = db.execute("SELECT wrapped FROM patient_key WHERE patient = ?", (patient,))
        opened = seal.unseal(KEY.secret, wrapped, b"patient" + patient)
        assert seal.unseal(opened, body, f"record {meta['epoch'].hex()}/report/{seq}".encode())
    # accepting, as it did it
    patient, new = uuid.uuid4(), seal.new_key()
    wrapped = seal.seal(KEY.secret, new, b"patient" + patient.bytes)
    db.execute("INSERT INTO patient_key (patient, wrapped) VALUES (?, ?)", (patient.bytes, wrapped))
    db.execute("INSERT INTO sequence VALUES ('report', 1) ON CONFLICT DO UPDATE SET last = last + 1")
    (seq,) = db.execute("SELECT last FROM sequence WHERE cls = 'report'").fetchone()
    body = seal.seal(new, b"x", f"record {meta['epoch'].hex()}/report/{seq}".encode())
    db.execute(
        "INSERT INTO record (cls, seq, kind, id, patient, exam, body, hash, size, at_ms)"
        " VALUES ('report', ?, 'Later', NULL, ?, NULL, ?, ?, 1, 5)",
        (seq, patient.bytes, body, os.urandom(32)),
    )
    db.execute("UPDATE record SET state = 1, settled_ms = 9 WHERE cls = 'report' AND seq >= 1 AND seq < 2")
    erased = items[0].record.patient.id  # type: ignore[attr-defined]
    db.execute("UPDATE patient_key SET wrapped = NULL, erased_ms = 1 WHERE patient = ?", (erased.bytes,))
    db.close()
    again = open_store()
    written = again.envelopes("report", [seq])
    assert [(one.epoch, one.seq, one.body) for one in written] == [(again.lives.first, key.seq + 1, b"x")]
    assert again.epoch == key.epoch
    # the spares follow: there is one of the patient it made, and none of the one it erased
    spares = {row[0] for row in again.read("SELECT patient FROM spare_key")}
    assert patient.bytes in spares
    assert erased.bytes not in spares
