"""A private PostgreSQL server on a free loopback port, with what Debian's package `postgresql` installs."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ports import free_port
from sqlalchemy import create_engine


class Postgres:
    """One server for a test session; `database` gives each test a database of its own.

    Parameters
    ----------
    settings
        Other than the server's defaults, or than the small and forgetful ones that suit tests.
    """

    def __init__(self, **settings: str) -> None:
        self._binaries = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
        if self._binaries is None:
            pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
        self._unused: list[str] = []
        self._folder = Path(tempfile.mkdtemp(prefix="aidpost-postgres-"))
        # it refuses to run as root, as which tests run in a container
        self._user = "nobody" if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._folder, self._user)
        self._port = free_port()
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "aidpost", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        chosen = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "shared_buffers": "32MB"}
        chosen |= {"fsync": "off"} | settings
        options = " ".join([f"-p {self._port}", *(f"-c {name}={value}" for name, value in chosen.items())])
        # waits until it answers
        self._run("pg_ctl", "-D", data, "-l", str(self._folder / "log"), "-o", options, "-w", "start")

    @contextmanager
    def database(self) -> Iterator[str]:
        """The SQLAlchemy URL of an empty database. Used ones are emptied: a new one costs three hundred files."""
        name = self._unused.pop() if self._unused else self._create()
        yield self._url(name)
        self._execute(name, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        self._unused.append(name)

    def cpu_s(self) -> float:
        """Processor time of the server and of all its processes since it was started."""
        head = int((self._folder / "data/postmaster.pid").read_text().split()[0])
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                number, rest = path.read_text().split(" ", 1)
            except OSError:
                continue  # it has just ended, and counts below
            fields = rest[rest.rindex(")") + 2 :].split()
            if int(number) == head:
                ticks += sum(map(int, fields[11:15]))  # its own, and of children that have ended
            elif int(fields[1]) == head:
                ticks += sum(map(int, fields[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def _create(self) -> str:
        name = f"hub_{uuid.uuid4().hex}"
        self._execute("postgres", f"CREATE DATABASE {name}")
        return name

    def _execute(self, database: str, *statements: str) -> None:
        engine = create_engine(self._url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)
        engine.dispose()

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._folder)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://aidpost@127.0.0.1:{self._port}/{database}"

    def _run(self, program: str, *arguments: str) -> None:
        assert self._binaries is not None
        # never a pipe: the server would inherit it, and the call wait for its end
        with (self._folder.parent / f"{self._folder.name}.out").open("w+b") as out:
            done = subprocess.run(
                [self._binaries.with_name(program), *arguments],
                user=self._user,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
            out.seek(0)
            assert done.returncode == 0, out.read().decode()
        Path(out.name).unlink()
