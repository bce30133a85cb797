"""The hub's database: SQLite in one file for a clinic, PostgreSQL by URL for a country."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, create_engine, event, func, insert, inspect, select, update
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from aidpost.errors import ConfigurationError, SchemaError, StoreError
from aidpost.sync.hub import migrations, schema
from aidpost.sync.ranges import Ranges, merge

BUSY_TIMEOUT_S = 15
_LOOK_S = 0.001
_MIGRATION_LOCK = 0x41696470  # any number that no other program on the server takes


def now_ms() -> int:
    """The hub's clock, milliseconds of Unix time."""
    return time.time_ns() // 1_000_000


class Database:
    """Connections, and the identity of this database.

    Parameters
    ----------
    url
        SQLAlchemy URL, `sqlite:///path` or `postgresql+psycopg://…`. The tables are made, or brought to this version.

    Raises
    ------
    ConfigurationError
        The URL cannot be read, or its driver is not installed.
    StoreError
        The database cannot be opened.
    SchemaError
        It was made by a newer hub.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._writer = _engine(url, write=True)
            self._reader = _engine(url, write=False) if self.is_sqlite else self._writer
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise ConfigurationError(
                operation="opening the hub's database",
                target=url.split("@")[-1],
                cause=str(error).split("\n")[0],
                remedy="Correct hub.database_url, or install its driver.",
            ) from None
        try:
            self.epoch = self._prepare()
        except (SQLAlchemyError, OSError) as error:
            raise StoreError(
                operation="opening the hub's database",
                target=url.split("@")[-1],
                cause=str(getattr(error, "orig", error)),
                remedy="Check that its folder or server is there and may be written to.",
            ) from None
        finally:
            if not hasattr(self, "epoch"):
                self.close()

    @property
    def is_sqlite(self) -> bool:
        """Whether this is one file rather than a server."""
        return self._writer.dialect.name == "sqlite"

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed, durably, when the block ends without an exception."""
        with self._writer.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view; never waits for a writer."""
        with self._reader.begin() as connection:
            yield connection

    def renew_epoch(self) -> bytes:
        """Call after a restore from a backup: devices then send again what this database lacks."""
        self.epoch = os.urandom(8)
        with self.write() as connection:
            connection.execute(update(schema.hub).values(epoch=self.epoch))
        return self.epoch

    def close(self) -> None:
        """Closes all connections."""
        self._writer.dispose()
        self._reader.dispose()

    def _prepare(self) -> bytes:
        if self.is_sqlite and (path := self._writer.url.database):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        with self.write() as connection:
            if not self.is_sqlite:
                # SQLite's writer has the lock already; here several workers may start at once
                connection.execute(select(func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            if not inspect(connection).has_table(schema.hub.name):
                schema.metadata.create_all(connection)
                migrations.stamp(connection, schema.REVISION)
                row = {"id": 1, "schema_version": schema.SCHEMA_VERSION, "epoch": os.urandom(8), "created_ms": now_ms()}
                connection.execute(insert(schema.hub).values(**row))
            version, epoch = connection.execute(select(schema.hub.c.schema_version, schema.hub.c.epoch)).one()
            if version < schema.SCHEMA_VERSION:
                migrations.upgrade(connection, version)
                connection.execute(update(schema.hub).values(schema_version=schema.SCHEMA_VERSION))
        if version > schema.SCHEMA_VERSION:
            raise SchemaError(
                operation="opening the hub's database",
                target=self.url.split("@")[-1],
                cause=f"its schema is version {version}, this hub reads up to {schema.SCHEMA_VERSION}",
                remedy="Install the newer version again, or restore the backup made before it.",
            )
        return bytes(epoch)


def _engine(url: str, *, write: bool) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    # a connection is opened in under a millisecond, and one that nobody holds cannot keep the WAL from shrinking
    engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S}, poolclass=None if write else NullPool)

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-32000"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begun(connection: Connection) -> None:
        if write:
            _begin_writing(connection)
        else:
            connection.exec_driver_sql("BEGIN")

    return engine


def _begin_writing(connection: Connection) -> None:
    """Takes SQLite's lock at once: two that first read and then write would dead-lock.

    SQLite itself waits longer each time it finds the lock taken, up to 100 ms, while others come and go.
    """
    driver: Any = connection.connection.driver_connection
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    driver.execute("PRAGMA busy_timeout=0").close()
    try:
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE").close()
            except sqlite3.OperationalError as error:
                if not str(error).startswith("database is locked") or time.monotonic() > deadline:
                    raise OperationalError("BEGIN IMMEDIATE", None, error) from error
                time.sleep(_LOOK_S)
            else:
                return
    finally:
        driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1000}").close()


_ranges_decoder = msgspec.msgpack.Decoder(tuple[tuple[int, int], ...])


def pack_ranges(ranges: Ranges) -> bytes:
    """Ranges as kept in a column."""
    return msgspec.msgpack.encode(ranges)


def unpack_ranges(column: bytes) -> Ranges:
    """Ranges as read from a column."""
    return merge(_ranges_decoder.decode(column))
