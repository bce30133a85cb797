"""What every table's writer needs: rows that may be there already, and text that every database takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Inserts the rows whose keys are not there yet, and leaves the others alone."""
    if rows:
        connection.execute(insert(connection, table).on_conflict_do_nothing(), rows)


def insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insertion that may say what is to happen where a key is there already."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def clean(text: str, limit: int) -> str:
    """Text as every database takes it: within the column, and without NUL, which PostgreSQL refuses."""
    return text.replace("\0", "")[:limit]
