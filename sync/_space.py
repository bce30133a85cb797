"""The disk: how much the store may use, what goes when it is full, and for how many days it will do.

The policy, in order: (1) photographs and waveforms that the hub has, the oldest first; (2) records that the hub has,
the longest settled first; (3) new captures are refused, with the reason and what to do. What the hub has not receipted
is never dropped. Without need, photographs and waveforms that the hub has had for `keep_days` go, and reports and vital
signs stay, for the patient's next exam is compared with them; a clock that nobody has set lets nothing grow old.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import threading
import time
import uuid
from pathlib import Path
from typing import NamedTuple

from aidpost.errors import StorageFullError
from aidpost.records import Timestamp
from aidpost.sync._patient_keys import Reads
from aidpost.sync._schema import RECEIPTED
from aidpost.sync._writer import Writer
from aidpost.sync.blobs import BlobFiles

DAY_MS = 86_400_000
SEND = "Send the records on (check the network), or make room; nothing stored was touched."
PAGE_DAYS = 14
"""Days of work that the mean of a day is taken over."""
_EXAM_BYTES = 3 << 20
_EXAMS_A_DAY = 30
"""A day of work where this device has no history of its own to tell: thirty exams with two photographs."""
_NEAR = 64 << 20
"""With more than this to spare the disk is looked at once a second, not with each record."""
_ROWS = 500
_PRUNE_EVERY_S = 3600.0


class Budget(NamedTuple):
    """How much disk the store may use, how much must stay free besides, and how long what the hub has is kept."""

    bytes: int = 8 << 30
    reserve: int = 64 << 20
    keep_days: int = 30


class Space:
    """The room of one store. Any thread may ask."""

    def __init__(self, folder: Path, budget: Budget, read: Reads, writer: Writer, blobs: BlobFiles) -> None:
        self._folder, self._budget, self._read, self._writer, self._blobs = folder, budget, read, writer, blobs
        self._lock = threading.Lock()
        self._spare, self._looked, self._pruned = 0, float("-inf"), float("-inf")

    def require(self, size: int) -> None:
        """Room for `size` more bytes, made by the policy above where it must be.

        Raises
        ------
        StorageFullError
            There is none, and nothing is left that may go.
        """
        with self._lock:
            if self._spare - size < _NEAR or time.monotonic() - self._looked > 1:
                self._spare, self._looked = self.spare(), time.monotonic()
            self._spare -= size
            lacking = -self._spare
            if lacking <= 0:
                return
            freed = self._drop_blobs(lacking)
            freed += self._drop_records(lacking - freed) if freed < lacking else 0
            self._spare += freed
        if freed < lacking:
            raise StorageFullError(
                operation="accepting a recording",
                target=str(self._folder),
                cause=f"{shutil.disk_usage(self._folder).free >> 20} MB are free and {self.used() >> 20} of "
                f"{self._budget.bytes >> 20} MB in use, all of it not at the hub yet",
                remedy=SEND,
            )

    def used(self) -> int:
        """Bytes that the store has on the disk."""
        return used(self._folder, self._read)

    def spare(self) -> int:
        """Bytes until something must go; negative where it should have gone."""
        return spare(self._folder, self._budget, self._read, shutil.disk_usage(self._folder).free)

    def days_left(self) -> int:
        """For how many more days of work there is room if the hub stays away."""
        return days_left(self._folder, self._budget, self._read, shutil.disk_usage(self._folder).free)

    def prune(self, now: Timestamp) -> int:
        """Let photographs and waveforms go that the hub has had for `keep_days`; bytes freed. Looks once an hour."""
        if not now.synced or time.monotonic() - self._pruned < _PRUNE_EVERY_S:
            return 0
        self._pruned = time.monotonic()
        before = now.wall_ms - self._budget.keep_days * DAY_MS
        return self._drop_blobs(1 << 62, before_ms=before)

    def _drop_blobs(self, lacking: int, before_ms: int = 1 << 62) -> int:
        """Remove files that the hub has until `lacking` bytes are free, or none is left; the bytes freed."""

        def work(db: sqlite3.Connection) -> list[tuple[bytes, bytes, int]]:
            chosen: list[tuple[bytes, bytes, int]] = []
            freed = 0
            settled = "state = ? AND coalesce(settled_ms, at_ms) < ? ORDER BY at_ms"
            for row in db.execute(f"SELECT sha256, patient, size FROM blob WHERE {settled}", (RECEIPTED, before_ms)):
                if freed >= lacking:
                    break
                chosen.append(row)
                freed += row[2]
            db.executemany("DELETE FROM blob WHERE sha256 = ? AND patient = ?", [row[:2] for row in chosen])
            return chosen

        dropped = self._writer.run(work)
        for sha256, patient, _ in dropped:
            self._blobs.remove(sha256, uuid.UUID(bytes=patient))
        return sum(row[2] for row in dropped)

    def _drop_records(self, lacking: int) -> int:
        """Remove rows that the hub has, the longest settled first; the bytes that new rows can use."""

        def work(db: sqlite3.Connection) -> int:
            freed = 0
            query = (
                "SELECT cls, seq, length(body) FROM record INDEXED BY record_settled WHERE state = 1"
                " ORDER BY settled_ms LIMIT ?"
            )
            while freed < lacking and (rows := db.execute(query, (_ROWS,)).fetchall()):
                # no more than must go: a hub that is restored from a backup may want the rest
                sizes = itertools.accumulate((row[2] for row in rows), initial=freed)
                going = [row for row, before in zip(rows, sizes, strict=False) if before < lacking]
                db.executemany("DELETE FROM record WHERE cls = ? AND seq = ?", [row[:2] for row in going])
                freed += sum(row[2] for row in going)
            return freed

        return self._writer.run(work)


def used(folder: Path, read: Reads) -> int:
    """Bytes that a store has on the disk, without the database's free pages, which are used again."""
    ((pages,),), ((free,),) = read("PRAGMA page_count"), read("PRAGMA freelist_count")
    ((page,),), ((blobs,),) = read("PRAGMA page_size"), read("SELECT coalesce(sum(size), 0) FROM blob")
    log = folder / "store.sqlite3-wal"
    return int((pages - free) * page + blobs) + (log.stat().st_size if log.exists() else 0)


def spare(folder: Path, budget: Budget, read: Reads, free: int) -> int:
    """Bytes until something must go, with `free` on the disk; negative where it should have gone."""
    return min(budget.bytes - used(folder, read), free - budget.reserve)


def days_left(folder: Path, budget: Budget, read: Reads, free: int) -> int:
    """For how many more days of work there is room if the hub stays away, by this device's own last days. Only reads,
    so that the doctor may ask while the device runs."""
    ((droppable,),) = read("SELECT coalesce(sum(size), 0) FROM blob WHERE state = ?", (RECEIPTED,))
    days = read("SELECT bytes FROM intake ORDER BY day DESC LIMIT ?", (PAGE_DAYS,))
    mean = sum(row[0] for row in days) / len(days) if days else 0
    # a device's first exams say little: a day of practice is not a day of work
    mean = max(mean, _EXAM_BYTES) if len(days) >= 3 else max(mean, _EXAM_BYTES * _EXAMS_A_DAY)
    return max(0, int((spare(folder, budget, read, free) + droppable) / mean))


def note_intake(db: sqlite3.Connection, wall_ms: int, size: int) -> None:
    """Count what was accepted today, for `days_left`."""
    db.execute(
        "INSERT INTO intake VALUES (?, ?) ON CONFLICT DO UPDATE SET bytes = bytes + excluded.bytes",
        (wall_ms // DAY_MS, size),
    )
