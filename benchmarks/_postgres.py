"""A private PostgreSQL server on a free loopback port, durable as it comes (fsync on), for the hub's benchmarks."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
"""Where Debian's package `postgresql` has them."""


@contextmanager
def server() -> Iterator[str | None]:
    """A function's worth of server: the SQLAlchemy URL of an empty database, or None where PostgreSQL is not
    installed."""
    if not _BINARIES:
        print("PostgreSQL is not installed here (apt-get install postgresql): not measured")
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="aidpost-benchmark-"))
    # it refuses to run as root
    user = "nobody" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])

    def run(program: str, *arguments: str) -> None:
        # never a pipe: the server would inherit it, and the call wait for its end
        subprocess.run(
            [_BINARIES[-1] / program, *arguments],
            user=user,
            cwd="/",
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "aidpost", "-A", "trust", "-E", "UTF8", "--locale=C")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
    run("pg_ctl", "-D", data, "-l", str(folder / "log"), "-o", options, "-w", "start")
    try:
        yield f"postgresql+psycopg://aidpost@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder)
