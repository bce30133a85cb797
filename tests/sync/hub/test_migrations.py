"""An older hub's database becomes this version's, whole, on SQLite and PostgreSQL, whatever happens on the way."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, Insert, MetaData, Table, column, create_engine, inspect, select, text
from sqlalchemy import table as table_of

from aidpost.errors import SchemaError
from aidpost.sync.hub import migrations, schema
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database

SCHEMAS = Path(__file__).parent / "schemas"
EARLIER = [f"{version:04d}" for version in range(1, schema.SCHEMA_VERSION)]

pytestmark = pytest.mark.both_databases


@pytest.fixture
def engine(config: HubConfig) -> Iterator[Engine]:
    config.state.mkdir(parents=True)
    made = create_engine(config.url)
    yield made
    made.dispose()


@pytest.fixture
def wanted(database_url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A database made new from the schema, on the same kind of server."""
    with ExitStack() as stack:
        postgres = request.getfixturevalue("postgres") if database_url else None
        made = create_engine(stack.enter_context(postgres.database()) if postgres else "sqlite://")
        schema.metadata.create_all(made)
        yield made
        made.dispose()


def build(engine: Engine, revision: str) -> None:
    """The database as the hub of that revision made it, with rows in it."""
    ddl = (SCHEMAS / f"{revision}.{engine.dialect.name}.sql").read_text()
    with engine.begin() as connection:
        for statement in filter(str.strip, ddl.split(";")):
            connection.execute(text(statement))
        connection.execute(
            text("INSERT INTO hub (id, schema_version, epoch, created_ms) VALUES (1, :version, :epoch, 5)"),
            {"version": int(revision), "epoch": b"12345678"},
        )
        connection.execute(
            text(
                "INSERT INTO devices (name, public_key, clinic, enrolled_ms, software, online, queued, oldest_s,"
                " dead_letters) VALUES ('unit-1', :key, 'north', 7, '', false, 0, 0, 0)"
            ),
            {"key": bytes(32)},
        )
        if revision != "0001":
            migrations.stamp(connection, revision)


def structure(engine: Engine) -> dict[str, Any]:
    """Columns, keys and indexes by table, in no order; defaults are left out, since the hub always gives all values."""
    found: dict[str, Any] = {}
    known = inspect(engine)
    for table in sorted(set(known.get_table_names()) - {"alembic_version"}):
        columns = {one["name"]: (str(one["type"]), one["nullable"]) for one in known.get_columns(table)}
        foreign = sorted(
            str((key["constrained_columns"], key["referred_table"])) for key in known.get_foreign_keys(table)
        )
        unique = sorted(str(one["column_names"]) for one in known.get_unique_constraints(table))
        found[table] = columns, known.get_pk_constraint(table)["constrained_columns"], foreign, unique
    # SQLAlchemy does not read descending indexes of SQLite
    query = {
        "sqlite": "SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL",
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename != 'alembic_version'",
    }[engine.dialect.name]
    with engine.connect() as connection:
        found["indexes"] = sorted(connection.execute(text(query)).scalars())
    return found


def differences(engine: Engine, wanted: Engine) -> dict[str, Any]:
    """What is otherwise than in a new database."""
    old, new = structure(engine), structure(wanted)
    return {name: (old.get(name), new.get(name)) for name in {*old, *new} if old.get(name) != new.get(name)}


def revision_of(engine: Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one())


@pytest.mark.parametrize("revision", EARLIER)
def test_every_earlier_schema_becomes_exactly_this_one_and_keeps_its_rows(
    config: HubConfig, engine: Engine, wanted: Engine, revision: str
) -> None:
    build(engine, revision)
    database = Database(config.url)
    assert database.epoch == b"12345678"
    with database.read() as connection:
        assert connection.execute(select(schema.devices.c.clinic)).scalars().all() == ["north"]
        assert connection.execute(select(schema.hub.c.schema_version)).scalar_one() == schema.SCHEMA_VERSION
    database.close()
    assert differences(engine, wanted) == {}
    assert revision_of(engine) == schema.REVISION


def test_a_new_database_is_at_the_last_revision(config: HubConfig, engine: Engine, wanted: Engine) -> None:
    Database(config.url).close()
    assert differences(engine, wanted) == {}
    assert revision_of(engine) == schema.REVISION


def test_a_kill_within_the_migration_leaves_the_older_schema_whole(
    config: HubConfig, engine: Engine, wanted: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(engine, "0001")
    before = structure(engine)
    steps = migrations.upgrade

    def cut_off(*arguments: Any) -> None:
        steps(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(migrations, "upgrade", cut_off)
    with pytest.raises(KeyboardInterrupt):
        Database(config.url)
    assert structure(engine) == before
    monkeypatch.undo()
    Database(config.url).close()
    assert differences(engine, wanted) == {}


def test_workers_that_start_at_once_migrate_once(config: HubConfig, engine: Engine, wanted: Engine) -> None:
    build(engine, "0001")
    with ThreadPoolExecutor(4) as pool:
        for database in pool.map(Database, [config.url] * 4):
            database.close()
    assert differences(engine, wanted) == {}


def test_a_newer_database_is_refused_and_untouched(config: HubConfig, engine: Engine) -> None:
    Database(config.url).close()
    with engine.begin() as connection:
        connection.execute(text("UPDATE hub SET schema_version = 999"))
    with pytest.raises(SchemaError, match="999"):
        Database(config.url)


def test_the_steps_are_one_line_numbered_as_the_schema_is(config: HubConfig) -> None:
    scripts = ScriptDirectory(str(Path(migrations.__file__).parent))
    numbers = [script.revision for script in scripts.walk_revisions()]
    assert numbers == [schema.REVISION, *reversed(EARLIER)]
    for number in numbers:
        for dialect in ("sqlite", "postgresql"):
            assert (SCHEMAS / f"{number}.{dialect}.sql").exists(), "run scripts/hub-schema"


def test_the_written_schema_is_the_one_in_use(engine: Engine, wanted: Engine) -> None:
    build(engine, schema.REVISION)
    assert differences(engine, wanted) == {}, "the tables changed: add a migration (sync/hub/migrations/README.md)"


def test_open_exams_wait_for_the_parts_that_nobody_has_settled(config: HubConfig, engine: Engine) -> None:
    build(engine, "0009")
    exams = {
        "none read": ("eyes ecg vitals", "open", {}, "eyes heart"),
        "eyes read": ("eyes ecg", "open", {"eyes": ["waiting", "signed"]}, "heart"),
        "eyes read once": ("eyes", "open", {"eyes": ["waiting"]}, "eyes"),
        "vital signs": ("vitals", "open", {}, "general"),
        "done": ("ecg", "reviewed", {"heart": ["signed"]}, ""),
    }
    ids = {name: uuid.uuid4() for name in exams}
    with engine.begin() as connection:
        old = MetaData()
        old.reflect(connection)
        for name, (modalities, state, read, _) in exams.items():
            about = {"id": ids[name], "report": ids[name], "patient": ids[name], "modalities": modalities}
            connection.execute(filled(old.tables["exams"], about | {"state": state}))
            for part, states in read.items():
                for number, standing in enumerate(states, 1):
                    about = {"report": ids[name], "part": part, "number": number, "state": standing}
                    about |= dict.fromkeys(("exam", "patient", "review"), ids[name])
                    connection.execute(filled(old.tables["readings"], about))
    database = Database(config.url)
    with database.read() as connection:
        found = {row.id: row.waits for row in connection.execute(select(schema.exams))}
    database.close()
    assert {name: found[ids[name]] for name in exams} == {name: waits for name, (*_, waits) in exams.items()}


def filled(table: Table, values: dict[str, Any]) -> Insert:
    """A row with something in every column that must have something."""
    row: dict[str, Any] = {}
    for one in table.columns:
        known = schema.metadata.tables[table.name].columns[one.name]
        kind = known.type.python_type
        row[one.name] = None if known.nullable else False if kind is bool else 0 if kind is int else ""
    types = schema.metadata.tables[table.name].columns
    return table_of(table.name, *(column(name, types[name].type) for name in row)).insert().values(row | values)
