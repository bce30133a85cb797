"""Records a second from a device's accept to the hub's receipt, through Mosquitto, beside the pattern of a peer.

    python benchmarks/sync_receipt.py [--records 20000] [--repeats 3]

Every row is one device, one Mosquitto and one hub in a process of its own, on this machine. `accepted` is until the
last record is durable at the device, `at the hub` until the last is durable there, and for ours until the device has
its receipt on the disk. CPU is of device and hub alone, without their start. The best of the repeats counts.

`gateway` is the pattern of thingsboard-gateway at equal durability: JSON in a plain SQLite table (WAL,
synchronous=FULL), one commit a message, packed into publications of 8 kB at QoS 1, deleted on the broker's
acknowledgement; the other end commits what waits into a plain table (a tenth of the records: each waits for the disk).
`grouped` is the same with one commit for a hundred messages. Neither seals, signs, hashes, numbers, validates or lists
anything, and neither gets a receipt.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sync_device import items, open_store

from aidpost import records
from aidpost.sync import keys
from aidpost.sync.link import Link
from aidpost.sync.publisher import Publisher

GROUP = 100
PAYLOAD = 8196
"""Bytes of a publication: `maxPayloadSizeBytes` of the gateway."""

HUB = """
import sys, threading
import msgspec
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.service import HubService
config = msgspec.json.decode(sys.argv[1], type=HubConfig)
HubService(config, Database(config.url), BlobFiles(config.blobs)).start()
print("started", flush=True)
threading.Event().wait()
"""
_PLAIN = "CREATE TABLE messages (id INTEGER PRIMARY KEY, timestamp INTEGER, message TEXT)"


class Run(NamedTuple):
    """Records a second until accepted and until at the hub, and microseconds of CPU a record at either end."""

    accepted: float
    at_hub: float
    device_us: float
    hub_us: float


class Ends(NamedTuple):
    """A broker that answers, and a folder for everything."""

    folder: Path
    port: int


@contextmanager
def broker(binary: str) -> Iterator[Ends]:
    """Mosquitto on a free port."""
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        conf = Path(name) / "conf"
        conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nlog_dest none\n")
        running = subprocess.Popen([binary, "-c", conf], stderr=subprocess.DEVNULL)
        try:
            yield Ends(Path(name), port)
        finally:
            running.terminate()
            running.wait()


@contextmanager
def other_end(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that says a line when it is ready."""
    running = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    running.stdout.readline()
    try:
        yield running
    finally:
        running.terminate()
        running.wait()


def cpu_s(process: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(count: int, hub: int, accept: Callable[[], None], wait: Callable[[], None]) -> Run:
    """What accepting and waiting took."""
    start, cpu, hub_cpu = time.perf_counter(), time.process_time(), cpu_s(hub)
    accept()
    accepted = time.perf_counter() - start
    wait()
    taken = time.perf_counter() - start
    device_us = (time.process_time() - cpu) / count * 1e6
    return Run(count / accepted, count / taken, device_us, (cpu_s(hub) - hub_cpu) / count * 1e6)


def ours(ends: Ends, count: int) -> Run:
    """Store, publisher, hub on SQLite."""
    # the hub is measured where it is installed; the accepting side needs none of its dependencies
    from aidpost.sync.hub import operations
    from aidpost.sync.hub.config import HubConfig

    folder = str(ends.folder / "hub")
    config = HubConfig(state_dir=folder, broker_port=ends.port, listen_port=0, accept_simulated=True)
    with open_store(ends.folder / "state") as store:
        operations.enroll(config, "unit-1", keys.public_bytes(store.identity.public))
        hub_key = keys.public_key(operations.public_key(config))
        link = Link("127.0.0.1", ends.port, config.name, hub_key)
        with other_end("-c", HUB, msgspec.json.encode(config).decode()) as hub, Publisher(store, link) as sender:
            while not sender.connected:
                time.sleep(0.05)
            ready = items(count)

            def accept() -> None:
                for first in range(0, count, GROUP):
                    store.append_many(ready[first : first + GROUP])

            def wait() -> None:
                if not sender.wait_until_empty(600):
                    raise SystemExit(f"not all records were receipted: {sender.last_error}")

            return timed(count, hub.pid, accept, wait)


def plain_table(path: Path) -> sqlite3.Connection:
    """SQLite as durable as ours."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute(_PLAIN)
    return db


def client(port: int) -> mqtt.Client:
    """A connection to the broker, with a thread of its own."""
    made = mqtt.Client(CallbackAPIVersion.VERSION2)
    made.max_inflight_messages_set(100)
    made.max_queued_messages_set(0)
    made.connect("127.0.0.1", port)
    return made


def gateway(ends: Ends, count: int, *, group: int) -> Run:
    """The peer's pattern."""
    db = plain_table(ends.folder / "device.sqlite3")
    ready = [item.record for item in items(count)]
    with other_end(__file__, "--subscribe", str(ends.port), str(ends.folder / "hub.sqlite3"), str(count)) as hub:
        sender = client(ends.port)
        sender.loop_start()

        def accept() -> None:
            for first in range(0, count, group):
                db.execute("BEGIN IMMEDIATE")
                rows = [(0, records.to_json(record).decode()) for record in ready[first : first + group]]
                db.executemany("INSERT INTO messages (timestamp, message) VALUES (?, ?)", rows)
                db.execute("COMMIT")

        def wait() -> None:
            while rows := db.execute("SELECT id, message FROM messages ORDER BY id LIMIT 1000").fetchall():
                for sent in [sender.publish("v1/gateway", pack, qos=1) for pack in packs(row[1] for row in rows)]:
                    sent.wait_for_publish()
                db.execute("DELETE FROM messages WHERE id <= ?", (rows[-1][0],))
            assert hub.stdout is not None
            hub.stdout.readline()

        found = timed(count, hub.pid, accept, wait)
        sender.loop_stop()
        sender.disconnect()
    db.close()
    return found


def packs(messages: Iterator[str]) -> Iterator[str]:
    """JSON arrays of at most the gateway's payload."""
    pack: list[str] = []
    size = 0
    for message in messages:
        if pack and size + len(message) + 1 > PAYLOAD:
            yield f"[{','.join(pack)}]"
            pack, size = [], 0
        pack.append(message)
        size += len(message) + 1
    yield f"[{','.join(pack)}]"


def subscribe(port: int, path: Path, count: int) -> None:
    """The peer's other end: commits what has come, and says a line when it has `count` messages."""
    db, waiting, got = plain_table(path), [], 0
    receiver = client(port)
    receiver.on_subscribe = lambda *_: print("subscribed", flush=True)
    receiver.on_message = lambda _client, _data, message: waiting.append(message.payload)
    receiver.subscribe("v1/gateway", qos=1)
    while True:
        receiver.loop(0.05)
        if waiting:
            rows = [(0, msgspec.json.encode(one).decode()) for pack in waiting for one in msgspec.json.decode(pack)]
            waiting.clear()
            db.execute("BEGIN IMMEDIATE")
            db.executemany("INSERT INTO messages (timestamp, message) VALUES (?, ?)", rows)
            db.execute("COMMIT")
            got += len(rows)
            if got == count:
                print("all", flush=True)


ROWS: dict[str, Callable[[Ends, int], Run]] = {
    "ours": ours,
    "gateway": lambda ends, count: gateway(ends, max(1, count // 10), group=1),
    "grouped": lambda ends, count: gateway(ends, count, group=GROUP),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--subscribe", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.subscribe:
        port, path, count = arguments.subscribe
        subscribe(int(port), Path(path), int(count))
        return
    binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(binary).exists():
        print("no Mosquitto here (apt-get install mosquitto): accept to receipt was not measured")
        return
    found: dict[str, Run] = {}
    for _ in range(arguments.repeats):
        for name, work in ROWS.items():
            with broker(binary) as ends:
                run = work(ends, arguments.records)
            found[name] = max(run, found.get(name, run), key=lambda one: one.at_hub)
    print(f"{'':8} {'accepted/s':>11} {'at the hub/s':>13} {'device CPU us':>14} {'hub CPU us':>11} {'ours/it':>8}")
    for name, run in found.items():
        ratio = found["ours"].at_hub / run.at_hub
        print(f"{name:8} {run.accepted:11.0f} {run.at_hub:13.0f} {run.device_us:14.1f} {run.hub_us:11.1f} {ratio:8.2f}")
    print(f"load of this machine over the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
