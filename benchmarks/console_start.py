"""How long `aidpost run` takes from the start of its process to the first page, and what of it is processor time.

    python benchmarks/console_start.py [--times 5] [--imports]

Each run is a process of its own on the state folder of a device that somebody set up (so that it has a store, a worker
and a language), simulated sensors and models included: they load in a process of their own beside it. The clock starts
before the process does and stops when the whole locked page has come. CPU seconds are those of the main process until
then, from /proc, and so is how long its main thread stood ready while other programs had the processors: without that
is what a machine with nothing else to do would take. `--imports` lists what the imports cost (`python -X importtime`).
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

PROGRAM = "from aidpost.board.cli import main\nif __name__ == '__main__': main()"
LIMIT_S = 2.0
"""Issue and documentation: the screen starts in less."""


class Start(NamedTuple):
    """Seconds until the first page: on the wall, of the processor, and without what the main thread waited for one."""

    wall_s: float
    cpu_s: float
    alone_s: float


def begin(state: Path, *python: str, errors: int = subprocess.DEVNULL) -> tuple[subprocess.Popen[str], str]:
    """The device and its address."""
    command = [sys.executable, *python, "-c", PROGRAM, "--state-dir", str(state), "run", "--simulate", "--port", "0"]
    device = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    assert device.stdout is not None
    line = device.stdout.readline()
    assert line.startswith("screen at"), line
    return device, urlsplit(line.split()[-1]).netloc


def ask(address: str, method: str, path: str, **fields: str) -> bytes:
    """A page, whole."""
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request(method, path, urlencode(fields), {"Content-Type": "application/x-www-form-urlencoded"})
    page = connection.getresponse().read()
    connection.close()
    return page


def cpu_seconds(process: int) -> float:
    """User and system time of a process and its threads."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waited_seconds(process: int) -> float:
    """How long the main thread was ready to run and did not (Documentation/scheduler/sched-stats.rst)."""
    return int(Path(f"/proc/{process}/task/{process}/schedstat").read_text().split()[1]) / 1e9


def measure(state: Path) -> Start:
    """One start."""
    began = time.monotonic()
    device, address = begin(state)
    try:
        page = ask(address, "GET", "/lock")
        wall = time.monotonic() - began
        done = Start(wall, cpu_seconds(device.pid), wall - waited_seconds(device.pid))
        assert b"Rose" in page
        return done
    finally:
        end(device)


def end(device: subprocess.Popen[str]) -> None:
    """As systemd ends it."""
    device.terminate()
    device.wait(60)
    assert device.stdout is not None
    device.stdout.close()


def imports(state: Path) -> list[tuple[float, str]]:
    """Milliseconds that the costliest imports take with all below them, where they are the first to ask for it."""
    with tempfile.TemporaryFile("w+") as out:
        device, address = begin(state, "-X", "importtime", errors=out.fileno())
        ask(address, "GET", "/lock")
        end(device)
        out.seek(0)
        rows = re.findall(r"import time:\s+\d+ \|\s+(\d+) \|( +)(\S+)", out.read())
    return sorted(((int(us) / 1000, name) for us, _, name in rows), reverse=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--imports", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / "state"
        device, address = begin(state)
        ask(address, "POST", "/setup", name="Rose", pin="2580", again="2580")
        end(device)
        if chosen.imports:
            for milliseconds, name in imports(state)[:40]:
                print(f"{milliseconds:8.1f} ms  {name}")
            return
        starts = [measure(state) for _ in range(chosen.times)]
    wall, cpu, alone = ([getattr(one, name) for one in starts] for name in Start._fields)
    print(
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, {chosen.times} starts, load {os.getloadavg()[0]:.1f}"
    )
    print(f"first page after {statistics.median(wall):.2f} s (median; {min(wall):.2f} to {max(wall):.2f})")
    print(f"processor time until then {statistics.median(cpu):.2f} s ({min(cpu):.2f} to {max(cpu):.2f})")
    print(f"without waiting for a processor {statistics.median(alone):.2f} s ({min(alone):.2f} to {max(alone):.2f})")
    print(f"limit {LIMIT_S:g} s: {'kept' if statistics.median(alone) < LIMIT_S else 'missed'} on a machine of its own")


if __name__ == "__main__":
    main()
