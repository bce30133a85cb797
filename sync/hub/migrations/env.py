"""Alembic runs this for each command; `upgrade` in this package has put the connection into the configuration."""

from alembic import context

from aidpost.sync.hub import schema

connection = context.config.attributes["connection"]
# SQLite too rolls DDL back here: the hub begins its transactions itself (database.py), not Python's driver
context.configure(connection=connection, target_metadata=schema.metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
