"""The one thread that writes: what many callers ask for shares one transaction, and one fsync."""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from aidpost.errors import StorageFullError, StoreError

T = TypeVar("T")

_GROUP = 500
_BUSY_S = 30.0


def connect(path: Path) -> sqlite3.Connection:
    """A connection whose commits are on the disk when they return (WAL, synchronous=FULL)."""
    connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        # what is deleted is overwritten: an erased patient's wrapped key must not lie on in a free page
        connection.execute("PRAGMA secure_delete = ON")
        # the log is folded back before it grows large; a reader that holds it up delays that, and loses nothing
        connection.execute("PRAGMA wal_autocheckpoint = 1000")
    except BaseException:  # a damaged file: nobody else will close it
        connection.close()
        raise
    return connection


class _Job(NamedTuple):
    work: Callable[[sqlite3.Connection], Any]
    done: Future[Any]


class Writer:
    """Runs jobs in groups: each group one `BEGIN IMMEDIATE … COMMIT`; a job's future resolves after the commit.

    A job that raises is undone by itself (a savepoint) and takes no other with it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect(path)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], T]) -> Future[T]:
        """Ask for `work`; the future has its answer when that is durable, or its error."""
        done: Future[T] = Future()
        self._jobs.put(_Job(work, done))
        return done

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`submit` and wait."""
        return self.submit(work).result()

    def fold_log(self) -> None:
        """Bring the write-ahead log into the database and empty it; a reader in between leaves it for the next time."""
        other = connect(self._path)
        try:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            other.close()

    def close(self) -> None:
        """Finish what was asked for, then end."""
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        ending = False
        while not ending:
            group: list[_Job] = []
            job = self._jobs.get()
            while job is not None:
                group.append(job)
                if len(group) == _GROUP or self._jobs.empty():
                    break
                job = self._jobs.get()
            ending = job is None
            if group:
                self._commit(group)

    def _commit(self, group: list[_Job]) -> None:
        settled: list[tuple[_Job, Any, BaseException | None]] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in group:
                settled.append(self._one(job))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            for job in group:
                job.done.set_exception(store_error(error, self._path))
            return
        for job, answer, failure in settled:
            if failure is None:
                job.done.set_result(answer)
            else:
                job.done.set_exception(failure)

    def _one(self, job: _Job) -> tuple[_Job, Any, BaseException | None]:
        self._connection.execute("SAVEPOINT job")
        try:
            answer = job.work(self._connection)
        except Exception as error:
            if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
                raise  # the disk, not the job: the whole group fails
            self._connection.execute("ROLLBACK TO job")
            self._connection.execute("RELEASE job")
            failure = store_error(error, self._path) if isinstance(error, sqlite3.Error) else error
            return job, None, failure
        self._connection.execute("RELEASE job")
        return job, answer, None


def fetch(
    connection: sqlite3.Connection, lock: threading.Lock, path: Path, query: str, values: Sequence[object]
) -> list[tuple[Any, ...]]:
    """What a query on the connection that reads gives, one at a time.

    Raises
    ------
    StoreError
        SQLite or the disk failed.
    """
    try:
        with lock:
            return connection.execute(query, values).fetchall()
    except sqlite3.Error as error:
        raise store_error(error, path, "reading the store") from None


def store_error(error: sqlite3.Error, path: Path, operation: str = "writing to the store") -> StoreError:
    """What a failure of SQLite means to an operator."""
    full = "full" in str(error)
    kind = StorageFullError if full else StoreError
    remedy = "Free space on the disk; what was stored before is safe." if full else "Run `aidpost outbox status`."
    return kind(operation=operation, target=str(path), cause=str(error), remedy=remedy)
