"""The writer thread answers everybody, whatever a job does and however many wait."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from aidpost.errors import StorageFullError
from aidpost.sync._writer import Writer


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    one = Writer(tmp_path / "x.sqlite3")
    one.run(lambda db: db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)") and None)
    yield one
    one.close()


def numbers(writer: Writer) -> list[int]:
    return writer.run(lambda db: [row[0] for row in db.execute("SELECT n FROM t ORDER BY n")])


def insert(db: sqlite3.Connection, number: int) -> int:
    db.execute("INSERT INTO t (n) VALUES (?)", (number,))
    return number


def test_more_jobs_than_a_group_takes_are_all_answered(writer: Writer) -> None:
    futures = [writer.submit(lambda db, n=n: insert(db, n)) for n in range(1_700)]  # type: ignore[misc]
    assert [future.result(30) for future in futures] == list(range(1_700))
    assert numbers(writer) == list(range(1_700))


def test_a_job_that_raises_takes_no_other_with_it(writer: Writer) -> None:
    def bad(db: sqlite3.Connection) -> None:
        insert(db, 2)
        raise KeyError("nobody expected this")

    futures = [writer.submit(lambda db: insert(db, 1)), writer.submit(bad), writer.submit(lambda db: insert(db, 3))]
    assert futures[0].result(30) == 1
    with pytest.raises(KeyError):
        futures[1].result(30)
    assert futures[2].result(30) == 3
    assert numbers(writer) == [1, 3]


def test_a_full_disk_refuses_the_group_and_the_writer_goes_on(writer: Writer) -> None:
    (pages,) = writer.run(lambda db: db.execute("PRAGMA page_count").fetchone())
    writer._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StorageFullError) as caught:
        writer.run(lambda db: db.execute("INSERT INTO t (n, b) VALUES (1, zeroblob(100000))") and None)
    assert caught.value.remedy
    assert writer.run(lambda db: insert(db, 2)) == 2
    assert numbers(writer) == [2]


def test_closing_answers_what_was_asked_for(tmp_path: Path) -> None:
    one = Writer(tmp_path / "y.sqlite3")
    one.run(lambda db: db.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)") and None)
    futures = [one.submit(lambda db, n=n: insert(db, n)) for n in range(600)]  # type: ignore[misc]
    one.close()
    assert all(future.result(0) == number for number, future in enumerate(futures))
