"""Whether the store is well when it is opened; what is not is set aside, and the rest serves."""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import uuid
from pathlib import Path

from aidpost.errors import StoreDamagedError
from aidpost.sync import _recovery, _schema, seal
from aidpost.sync._durable import make_folder
from aidpost.sync._patient_keys import Reads
from aidpost.sync._writer import Writer, connect, store_error
from aidpost.sync.blobs import BlobFiles
from aidpost.sync.clock import Clock
from aidpost.sync.keys import DeviceKey

NAME = "store.sqlite3"


def make_whole(folder: Path, key: DeviceKey, clock: Clock) -> int:
    """Check the database before anything is read of it, and recover it where it is damaged. Gives the lock that every
    process holds (shared) while it has the store open, so that nobody's database is exchanged under them."""
    path = folder / NAME
    lock = os.open(folder / "store.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        fault = fault_of(path)
        if fault or path.with_name(f"{NAME}.recovered").exists():
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreDamagedError(
                    operation="opening the store",
                    target=str(path),
                    cause=f"{fault}, and another process has it open",
                    remedy="Stop the device's program and start it again: it recovers what is whole.",
                ) from None
            _recovery.finish(path)
            if fault := fault_of(path):
                _recovery.recover(path, key, fault, clock.wall_ms())
            fcntl.flock(lock, fcntl.LOCK_SH)
    except BaseException:
        os.close(lock)
        raise
    return lock


def fault_of(path: Path) -> str:
    """What is wrong with a database; empty where it is well, or not there.

    Raises
    ------
    StoreError
        It is locked, or the disk fails for now.
    """
    if not path.exists():
        return ""
    try:
        with contextlib.closing(connect(path)) as connection:
            return _schema.fault(connection)
    except sqlite3.DatabaseError as error:
        if not _schema.tells_of_data(error):
            raise store_error(error, path, "opening the store") from None
        return str(error)


def set_damaged_files_aside(read: Reads, writer: Writer, files: BlobFiles, clock: Clock) -> None:
    """Photographs and waveforms that are cut off or gone: a dead letter each; where the hub has it, nothing."""
    rows = read("SELECT sha256, patient, size FROM blob WHERE state != ?", (_schema.DEAD,))
    found = [row[:2] for row in rows if not _is_whole(files.path(row[0], uuid.UUID(bytes=row[1])), row[2])]
    if not found:
        return

    def work(db: sqlite3.Connection) -> None:
        mine = "WHERE sha256 = ? AND patient = ? AND state = ?"
        db.executemany(f"DELETE FROM blob {mine}", [(*one, _schema.RECEIPTED) for one in found])
        lost = db.executemany(
            f"UPDATE blob SET state = {_schema.DEAD}, reason = 'its file is damaged or gone' {mine}",
            [(*one, _schema.QUEUED) for one in found],
        ).rowcount
        detail = f"{len(found)} photographs or waveforms are damaged or gone; the hub has not got {lost} of them"
        row = (clock.wall_ms(), _recovery.DAMAGED, detail)
        db.execute("INSERT INTO note (at_ms, what, detail) VALUES (?, ?, ?)", row)

    writer.run(work)


def _is_whole(path: Path, size: int) -> bool:
    """By its length; what was altered within does not open when it is read. One that is cut off is set aside."""
    if not path.exists():
        return False
    if path.stat().st_size == seal.sealed_file_size(size):
        return True
    quarantine = path.parents[2] / _recovery.QUARANTINE
    make_folder(quarantine)
    path.replace(quarantine / path.name)
    return False
