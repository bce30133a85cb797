"""Brings a hub's database to the schema of this version, with Alembic. How to add a step: README.md in this folder."""

from __future__ import annotations

from sqlalchemy import Connection


def upgrade(connection: Connection, version: int) -> None:
    """Run the steps from schema `version` up, in the caller's transaction: all of them are committed, or none.

    Both databases roll DDL back. Data are kept; a step may only add tables, columns and indexes, or fill them.
    """
    # Alembic is imported only where there is something to do: the start of a hub should not wait for it
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "aidpost.sync.hub:migrations")
    config.attributes["connection"] = connection
    if version == 1:
        command.stamp(config, "0001")  # made before there were migrations
    command.upgrade(config, "head")


def stamp(connection: Connection, revision: str) -> None:
    """Note that new tables are those of `revision`; what `alembic stamp` does, without its import."""
    connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    connection.exec_driver_sql(f"INSERT INTO alembic_version VALUES ('{revision}')")
