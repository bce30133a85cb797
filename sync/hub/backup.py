"""A hub's backup as one tar, taken while the hub runs, and the way back.

    backup.json               what it is, first
    hub.key, authority.*      the hub's keys
    hub.sqlite3 | hub.pgdump  one moment of the database
    blobs/<sha256>            every blob that the database knew at that moment
    end.json                  last: without it the backup is not whole

The database is read first and the blobs after it, so that no blob is missing that the database knows. The keys are in
it: keep it as safe as the hub. Restoring checks everything before it replaces anything.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import msgspec
from sqlalchemy import Connection, delete, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from aidpost.errors import AidpostError, NotPossibleError, StoreError, UnreadableInputError
from aidpost.sync._durable import make_folder, sync_folder
from aidpost.sync.hub import _erasure, audit, schema
from aidpost.sync.hub.blobs import BlobFiles, file_sha256
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.lock import StateLock

_KEYS = ("hub.key", "authority.key", "authority.pem")
_SQLITE, _PGDUMP = "hub.sqlite3", "hub.pgdump"
_MEMBERS = (*_KEYS, _SQLITE, _PGDUMP, "backup.json", "end.json")
_BLOB = re.compile(r"blobs/([0-9a-f]{64})")
_FORM = 1
_PAGE = 500


class Saved(NamedTuple):
    """What a backup holds: blobs, those that were erased meanwhile left out, and the bytes of the tar's members."""

    blobs: int
    bytes: int


class Restored(NamedTuple):
    """What a restore did: blobs that are here, blobs that devices are asked for again, patients erased since the
    backup who were erased again, and the folder with what was here before (None: nothing was)."""

    blobs: int
    missing: int
    erased: int
    replaced: Path | None


def back_up(config: HubConfig, out: IO[bytes], *, blobs: bool = True) -> Saved:
    """Writes a backup to `out`, once and in order: a file, or a pipe to a program that encrypts it.

    Parameters
    ----------
    blobs
        False: without photographs and traces, for those who copy that folder by other means.

    Raises
    ------
    StoreError
        The database, a blob or `out` failed. What was written has no end and will be refused.
    NotPossibleError
        The database is PostgreSQL, and `pg_dump` is not installed.
    """
    files = BlobFiles(config.blobs)
    make_folder(config.state)
    with tempfile.TemporaryDirectory(prefix="backup-", dir=config.state) as folder, _faults("writing a backup", config):
        snapshot = _snapshot(config, Path(folder))
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            writer = _Tar(tar)
            writer.add_json("backup.json", {"form": _FORM, "hub": config.name, "at_ms": now_ms(), "blobs": blobs})
            for name in _KEYS:
                if (config.state / name).exists():
                    writer.add(name, config.state / name)
            known = list(_known_blobs(snapshot, config)) if blobs else []
            writer.add(snapshot.name, snapshot)
            for sha256 in known:
                with contextlib.suppress(FileNotFoundError):  # erased since
                    writer.add(f"blobs/{sha256}", files.path(sha256))
            writer.add_json("end.json", {"members": writer.members})
        out.flush()
    with _open(config) as database, database.write() as connection:
        audit.append(connection, "command-line", "backed-up", config.name, f"{writer.blobs} blobs")
    return Saved(writer.blobs, writer.bytes)


def restore(config: HubConfig, source: IO[bytes]) -> Restored:
    """Puts a backup in the place of what is here, which is kept beside it; then devices are asked for what it lacks.

    Patients erased since the backup are erased from it, as far as the database that is here still says who they are.

    Raises
    ------
    UnreadableInputError
        The backup is cut off, damaged or something else. Nothing was touched.
    StoreLockedError
        The hub is running.
    StoreError
        The disk or the database server failed.
    """
    make_folder(config.state)
    files = BlobFiles(config.blobs)
    with StateLock(config.state).alone("restoring a backup"), _faults("restoring a backup", config):
        folders = [tempfile.TemporaryDirectory(prefix="restoring-", dir=at) for at in (config.state, config.blobs)]
        with folders[0] as folder, folders[1] as blob_folder:
            _unpack(source, Path(folder), Path(blob_folder))
            _check_database(Path(folder))
            erased = _tombstones(config)
            replaced = _replace(config, Path(folder))
            for path in Path(blob_folder).iterdir():
                target = files.path(path.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                path.replace(target)
                sync_folder(target.parent)
            sync_folder(config.blobs)
        return _settle(config, files, erased, replaced)


class _Tar:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar, self.members, self.blobs, self.bytes = tar, 0, 0, 0

    def add(self, name: str, path: Path) -> None:
        with path.open("rb") as file:
            self._member(name, file, os.fstat(file.fileno()).st_size)
        self.blobs += name.startswith("blobs/")

    def add_json(self, name: str, value: dict[str, Any]) -> None:
        data = msgspec.json.encode(value)
        self._member(name, io.BytesIO(data), len(data))

    def _member(self, name: str, file: IO[bytes], size: int) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime = size, 0o600, now_ms() // 1000
        self._tar.addfile(info, file)
        self.members += 1
        self.bytes += size


def _snapshot(config: HubConfig, folder: Path) -> Path:
    """One moment of the database, without what erased rows left in its pages. The hub goes on writing."""
    with _open(config) as database:
        if database.is_sqlite:
            path = folder / _SQLITE
            source = sqlite3.connect(f"file:{make_url(config.url).database}?mode=ro", uri=True, timeout=60)
            try:
                source.execute("VACUUM INTO ?", (str(path),))
            finally:
                source.close()
            return path
    path = folder / _PGDUMP
    _postgres(config, "pg_dump", "--format=custom", "--no-owner", "--file", str(path))
    return path


def _postgres(config: HubConfig, program: str, *arguments: str) -> None:
    url = make_url(config.url)
    if shutil.which(program) is None:
        raise NotPossibleError(
            operation="reaching the hub's database",
            target=program,
            cause="it is not installed",
            remedy="Install PostgreSQL's client programs (Debian: postgresql-client).",
        )
    libpq = url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)
    environment = os.environ | ({"PGPASSWORD": str(url.password)} if url.password else {})  # not where `ps` shows it
    done = subprocess.run([program, *arguments, "--dbname", libpq], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{program}: {done.stderr.strip()[-500:]}")


def _known_blobs(snapshot: Path, config: HubConfig) -> Iterator[str]:
    if snapshot.name == _SQLITE:
        database = sqlite3.connect(snapshot)
        try:
            yield from [row[0] for row in database.execute("SELECT sha256 FROM blobs ORDER BY sha256")]
        finally:
            database.close()
        return
    with _open(config) as hub, hub.read() as connection:  # after the dump: at least what it knows
        yield from connection.execute(select(schema.blobs.c.sha256).order_by(schema.blobs.c.sha256)).scalars().all()


def _unpack(source: IO[bytes], folder: Path, blob_folder: Path) -> None:
    members, end = 0, None
    try:
        with tarfile.open(fileobj=source, mode="r|") as tar:
            for member in tar:
                if end is not None:
                    raise _unreadable("there is more after its end")
                blob = _BLOB.fullmatch(member.name)
                if not member.isreg() or not (blob or member.name in _MEMBERS):
                    raise _unreadable(f"it holds {member.name[:80]!r}")
                path = blob_folder / blob[1] if blob else folder / member.name
                _write(tar, member, path)
                if blob and file_sha256(path) != blob[1]:
                    raise _unreadable(f"the blob {blob[1][:16]} is damaged")
                if member.name == "end.json":
                    end = msgspec.json.decode(path.read_bytes())
                    continue
                members += 1
    except (tarfile.TarError, EOFError, msgspec.DecodeError) as error:
        raise _unreadable(str(error) or "it is cut off") from None
    if end is None or end.get("members") != members:
        raise _unreadable("it is cut off")
    if msgspec.json.decode((folder / "backup.json").read_bytes()).get("form") != _FORM:
        raise _unreadable("a newer hub wrote it")


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    file = tar.extractfile(member)
    assert file is not None
    with path.open("xb") as out:
        os.fchmod(out.fileno(), 0o600)
        shutil.copyfileobj(file, out, 1 << 20)
        out.flush()
        os.fsync(out.fileno())


def _check_database(folder: Path) -> None:
    if not (folder / _SQLITE).exists():
        if not (folder / _PGDUMP).exists():
            raise _unreadable("it has no database")
        return
    database = sqlite3.connect(folder / _SQLITE)
    try:
        (found,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        found = str(error)
    finally:
        database.close()
    if found != "ok":
        raise _unreadable(f"its database is damaged: {found[:200]}")


def _tombstones(config: HubConfig) -> set[uuid.UUID]:
    """Who was erased, as far as the database that is about to be replaced can still be read."""
    url = make_url(config.url)
    if url.drivername.startswith("sqlite") and not Path(url.database or "").exists():
        return set()
    try:
        with _open(config) as database, database.read() as connection:
            return set(connection.execute(select(schema.tombstones.c.patient)).scalars())
    except (AidpostError, SQLAlchemyError):
        return set()


def _replace(config: HubConfig, folder: Path) -> Path | None:
    replaced = config.state / f"replaced-{now_ms()}"
    old = [config.state / name for name in _KEYS]
    url = make_url(config.url)
    if (dump := folder / _PGDUMP).exists():
        if url.drivername.startswith("sqlite"):
            raise _unreadable("it is of a PostgreSQL database, and hub.database_url names none")
        options = ("--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error")
        _postgres(config, "pg_restore", *options, str(dump))
    else:
        if not url.drivername.startswith("sqlite"):
            raise _unreadable("it is of an SQLite database, and hub.database_url names another")
        path = Path(url.database or "")
        # the log goes with its database: beside another one it would be read as that one's
        old += [path.with_name(path.name + ending) for ending in ("", "-wal", "-shm")]
    moved = [one for one in old if one.exists()]
    if moved:
        replaced.mkdir(mode=0o700)
        for one in moved:
            one.replace(replaced / one.name)
    if (folder / _SQLITE).exists():
        (folder / _SQLITE).replace(Path(url.database or ""))
        sync_folder(Path(url.database or "").parent)
    for name in _KEYS:
        if (folder / name).exists():
            (folder / name).replace(config.state / name)
    sync_folder(config.state)
    return replaced if moved else None


def _settle(config: HubConfig, files: BlobFiles, erased: set[uuid.UUID], replaced: Path | None) -> Restored:
    """Database and files agree again, and devices are asked for what is missing."""
    shutil.rmtree(config.blobs / "partial", ignore_errors=True)  # the database no longer knows what they hold
    BlobFiles(config.blobs)
    with _open(config) as database:
        with database.write() as connection:
            connection.execute(delete(schema.partials).where(schema.partials.c.refused == ""))
            known = connection.execute(select(schema.blobs.c.sha256)).scalars().all()
            missing = [sha256 for sha256 in known if not files.is_complete(sha256)]
            _ask_again(connection, missing)
            table = schema.tombstones
            here = set(connection.execute(select(table.c.patient)).scalars())
            again = sorted(erased - here)
            unwanted = [name for one in again for name in _erasure.erase(connection, one, "command-line", now_ms())]
        for sha256 in unwanted:
            files.erase(sha256)
        epoch = database.renew_epoch()
        with database.write() as connection:
            detail = f"{epoch.hex()}, {len(missing)} blobs missing, {len(again)} patients erased again"
            audit.append(connection, "command-line", "restored", config.name, detail)
    return Restored(len(known) - len(missing), len(missing), len(again), replaced)


def _ask_again(connection: Connection, missing: list[str]) -> None:
    for start in range(0, len(missing), _PAGE):
        page = missing[start : start + _PAGE]
        connection.execute(delete(schema.blobs).where(schema.blobs.c.sha256.in_(page)))
        connection.execute(update(schema.manifests).where(schema.manifests.c.sha256.in_(page)).values(waiting=True))


@contextlib.contextmanager
def _open(config: HubConfig) -> Iterator[Database]:
    database = Database(config.url)
    try:
        yield database
    finally:
        database.close()


@contextlib.contextmanager
def _faults(operation: str, config: HubConfig) -> Iterator[None]:
    try:
        yield
    except (OSError, sqlite3.Error, SQLAlchemyError) as error:
        raise StoreError(
            operation=operation,
            target=str(config.state),
            cause=str(getattr(error, "orig", error)),
            remedy="Make room, check the disk and the database, and try again.",
        ) from None


def _unreadable(cause: str) -> UnreadableInputError:
    return UnreadableInputError(
        operation="restoring a backup",
        target="the backup",
        cause=cause,
        remedy="Take another one; nothing was touched.",
    )
