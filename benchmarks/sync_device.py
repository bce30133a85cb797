"""The device's side of sync: durable accepts a second, how they grow with the backlog, and accept to receipt.

    python benchmarks/sync_device.py [--records 5000] [--backlog 100000]

The peer of the first table is plain SQLite at the same durability (WAL, synchronous=FULL, one commit a group) with the
record as JSON and nothing sealed, hashed or numbered: what thingsboard-gateway's SQLite storage would do if it
acknowledged after the commit. Fsyncs are counted from outside by strace, where it is installed.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aidpost import records
from aidpost.records import Device, Origin, Timestamp, VitalKind, VitalSign
from aidpost.sync import keys
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import RecordClass
from aidpost.sync.keys import DeviceKey
from aidpost.sync.outbox import Outbox
from aidpost.sync.publisher import Publisher
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


def accept_ours(folder: Path, group: int, count: int) -> float:
    """Records a second that `append_many` accepts."""
    ready = items(count)
    with open_store(folder) as store:
        store.append(ready[0])
        start = time.perf_counter()
        for first in range(0, count, group):
            store.append_many(ready[first : first + group])
        return count / (time.perf_counter() - start)


def accept_plain(folder: Path, group: int, count: int) -> float:
    """The same of plain SQLite."""
    ready = [item.record for item in items(count)]
    folder.mkdir()
    db = sqlite3.connect(folder / "plain.sqlite3", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, timestamp INTEGER, message TEXT)")
    start = time.perf_counter()
    for first in range(0, count, group):
        db.execute("BEGIN IMMEDIATE")
        rows = [(0, records.to_json(record).decode()) for record in ready[first : first + group]]
        db.executemany("INSERT INTO messages (timestamp, message) VALUES (?, ?)", rows)
        db.execute("COMMIT")
    speed = count / (time.perf_counter() - start)
    db.close()
    return speed


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
    print(f"{'group':>6} {'ours/s':>9} {'fsyncs':>7} {'plain/s':>9} {'fsyncs':>7} {'ratio':>6}")
    for group in (1, 10, 100):
        number = min(count, 500 * group)
        with tempfile.TemporaryDirectory() as name:
            ours = accept_ours(Path(name) / "ours", group, number)
            plain = accept_plain(Path(name) / "plain", group, number)
        counted = [fsyncs(which, group, 20 * group) for which in ("ours", "plain")]
        print(f"{group:6} {ours:9.0f} {counted[0]:>7} {plain:9.0f} {counted[1]:>7} {ours / plain:6.2f}")


def table_of_backlog(largest: int) -> None:
    """What the next message and the next accept cost behind a backlog."""
    print(f"\n{'backlog':>8} {'next message ms':>16} {'accept 100 ms':>14}")
    with tempfile.TemporaryDirectory() as name, open_store(Path(name) / "state") as store:
        size = 0
        for target in (n for n in (1_000, 10_000, 100_000, 1_000_000) if n <= largest):
            while size < target:
                store.append_many(items(min(5_000, target - size)))
                size += min(5_000, target - size)
            message = best(lambda: Outbox(store).next())
            ready = items(100)
            accept = best(lambda ready=ready: store.append_many(ready))  # type: ignore[misc]
            size += 500
            print(f"{target:8} {message * 1e3:16.2f} {accept * 1e3:14.2f}")


def best(work: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of several runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def to_receipt(count: int) -> None:
    """Records a second from the first accept to the last receipt, through Mosquitto and the hub (SQLite)."""
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(binary).exists():
        print("\nno Mosquitto here: accept to receipt was not measured")
        return
    # the hub is measured where it is installed; the accepting side needs none of its dependencies
    from aidpost.sync.hub import operations
    from aidpost.sync.hub.blobs import BlobFiles
    from aidpost.sync.hub.config import HubConfig
    from aidpost.sync.hub.database import Database
    from aidpost.sync.hub.service import HubService
    from aidpost.sync.publisher import Link

    with tempfile.TemporaryDirectory() as name, open_store(Path(name) / "state") as store:
        folder = Path(name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        (folder / "conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest none\n")
        broker = subprocess.Popen([binary, "-c", folder / "conf"], stderr=subprocess.DEVNULL)
        time.sleep(1)
        config = HubConfig(state_dir=str(folder / "hub"), broker_port=port, listen_port=0, accept_simulated=True)
        operations.enroll(config, "unit-1", keys.public_bytes(store.identity.public))
        link = Link("127.0.0.1", port, config.name, keys.public_key(operations.public_key(config)))
        hub = HubService(config, Database(config.url), BlobFiles(config.blobs))
        hub.start()
        publisher = Publisher(store, link)
        publisher.start()
        ready = items(count)
        start = time.perf_counter()
        for first in range(0, count, 100):
            store.append_many(ready[first : first + 100])
        accepted = time.perf_counter() - start
        done = publisher.wait_until_empty(600)
        taken = time.perf_counter() - start
        publisher.stop()
        hub.stop()
        broker.terminate()
        broker.wait()
    print(f"\n{count} records accepted in {accepted:.1f} s; all receipted: {done}, {count / taken:.0f}/s to receipt")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=5_000)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        which, group, count = arguments.only[0], int(arguments.only[1]), int(arguments.only[2])
        with tempfile.TemporaryDirectory() as name:
            {"ours": accept_ours, "plain": accept_plain}[which](Path(name) / "state", group, max(count, 1))
        return
    table_of_accepts(arguments.records)
    table_of_backlog(arguments.backlog)
    to_receipt(arguments.records)


if __name__ == "__main__":
    main()
