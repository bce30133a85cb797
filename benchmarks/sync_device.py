"""The device's side of sync: durable accepts a second.

    python benchmarks/sync_device.py [--records 5000]

The peers of the first table have the record as JSON and nothing sealed, hashed or numbered, at the same durability
(WAL, synchronous=FULL, told after the commit). `gateway` is the pattern of thingsboard-gateway's SQLite storage
(storage/sqlite/database.py: a table without a key, one insert and one commit a message; there the message is
acknowledged before, from a queue in memory). `plain` is the same with one commit a group, the most that SQLite can do.
CPU is of this process. Fsyncs are counted from outside by strace, where it is installed.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aidpost import records
from aidpost.records import Device, Origin, Timestamp, VitalKind, VitalSign
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import RecordClass
from aidpost.sync.keys import DeviceKey
from aidpost.sync.store import Item, Store

PATIENT = uuid.UUID(int=1)
KEY = DeviceKey(bytes(32), "benchmark")


def vital(number: int) -> VitalSign:
    """A pulse rate as a sensor gives it."""
    at = Timestamp(wall_ms=1_760_000_000_000 + number, monotonic_ms=number, boot=1, synced=True)
    return VitalSign(
        id=uuid.uuid4(),
        kind=VitalKind.PULSE_RATE,
        value=60.0 + number % 40,
        unit="/min",
        at=at,
        origin=Origin.SIMULATED,
        device=Device(name="oximeter", manufacturer="x", model="y"),
    )


def items(count: int) -> list[Item]:
    """Vital signs of one patient, ready to be accepted."""
    return [Item(RecordClass.VITALS, vital(number), PATIENT) for number in range(count)]


def open_store(folder: Path) -> Store:
    """A store with the system's clock."""
    return Store.open(folder, KEY, clock=SystemClock(), name="unit-1")


class Speed(NamedTuple):
    """Records a second, and microseconds of this process's CPU for each."""

    per_second: float
    cpu_us: float


def timed(work: Callable[[], None], count: int) -> Speed:
    """`work`, which is of `count` records."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return Speed(count / (time.perf_counter() - start), (time.process_time() - cpu) / count * 1e6)


def accept_ours(folder: Path, group: int, count: int) -> Speed:
    """Records that `append_many` accepts."""
    ready = items(count)
    with open_store(folder) as store:
        store.append(ready[0])

        def work() -> None:
            for first in range(0, count, group):
                store.append_many(ready[first : first + group])

        return timed(work, count)


def accept_plain(folder: Path, group: int, count: int) -> Speed:
    """The same of plain SQLite."""
    ready = [item.record for item in items(count)]
    folder.mkdir()
    db = sqlite3.connect(folder / "plain.sqlite3", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE messages (timestamp INTEGER, message TEXT)")

    def work() -> None:
        for first in range(0, count, group):
            db.execute("BEGIN IMMEDIATE")
            rows = [(0, records.to_json(record).decode()) for record in ready[first : first + group]]
            db.executemany("INSERT INTO messages (timestamp, message) VALUES (?, ?)", rows)
            db.execute("COMMIT")

    speed = timed(work, count)
    db.close()
    return speed


def accept_gateway(folder: Path, group: int, count: int) -> Speed:
    """The same by the gateway's pattern: a commit a message, whatever the group."""
    del group
    return accept_plain(folder, 1, count)


ACCEPTS = {"ours": accept_ours, "plain": accept_plain, "gateway": accept_gateway}


def fsyncs(which: str, group: int, count: int) -> str:
    """Fsyncs a group, counted from outside; '-' without strace."""
    if shutil.which("strace") is None:
        return "-"
    with tempfile.TemporaryDirectory() as folder:
        counts = []
        for groups in (0, count // group):
            log = Path(folder) / f"log{groups}"
            command = [sys.executable, __file__, "--only", which, str(group), str(groups * group)]
            subprocess.run(["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", log, *command], check=True)
            counts.append(sum("sync(" in line for line in log.read_text().splitlines()))
    return f"{(counts[1] - counts[0]) / (count // group):.2f}"


def table_of_accepts(count: int) -> None:
    """Accepts a second by group size."""
    print(f"{'group':>6} {'by':>8} {'records/s':>10} {'CPU us':>7} {'fsyncs/group':>13} {'ours/it':>8}")
    for group in (1, 10, 100):
        number = min(count, 500 * group)
        with tempfile.TemporaryDirectory() as name:
            found = {which: accept(Path(name) / which, group, number) for which, accept in ACCEPTS.items()}
        for which, speed in found.items():
            ratio = found["ours"].per_second / speed.per_second
            counted = fsyncs(which, group, 20 * group)
            print(f"{group:6} {which:>8} {speed.per_second:10.0f} {speed.cpu_us:7.1f} {counted:>13} {ratio:8.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=5_000)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        which, group, count = arguments.only[0], int(arguments.only[1]), int(arguments.only[2])
        with tempfile.TemporaryDirectory() as name:
            ACCEPTS[which](Path(name) / "state", group, max(count, 1))
        return
    table_of_accepts(arguments.records)


if __name__ == "__main__":
    main()
