"""Whether readers disturb what devices send, and whether the hub's memory stays where it is.

    python benchmarks/hub_busy.py [EXAMS] [--seconds 20]

A district's hub on SQLite, with many exams already there. Five times a second it is given a message of eight exam
reports: alone; beside four programs that only compute, and have nothing to do with it; and beside four readers who ask
for worklist, exam and patient as fast as they get answers. Pages and ingest are one process, or two of the same
priority, or two of which the pages give way, which is how `aidpost hub serve` runs them. Readers and programs run at
the lowest priority (nice 19), since real readers sit at machines of their own.

Printed is how long each commit took (wall time), the pages answered a second, how much of a processor each party had,
and the resident memory of pages and ingest at the end.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))

from hub_cluster import cpu_s, full_report
from hub_pages import fill

from aidpost.sync.hub import operations, schema
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.ingest import Incoming, Ingest
from aidpost.sync.hub.server import _GIVE_WAY, HubServer
from tests.sync.hub.conftest import FakeDevice
from tests.sync.hub.web_client import Client, logged_in, password_hash

OTHERS = 4
EVERY_S = 0.2
WARM_S = 3.0
CONTEXT = multiprocessing.get_context("spawn")


class Row(NamedTuple):
    """One arrangement."""

    name: str
    apart: bool
    give_way: int
    others: str = ""
    """read, compute, or nobody."""


ROWS = (
    Row("alone, one process", False, 0),
    Row("alone, two", True, 0),
    Row("4 programs, two", True, 0, "compute"),
    Row("4 readers, one process", False, 0, "read"),
    Row("4 readers, two", True, 0, "read"),
    Row("4 readers, pages give way", True, _GIVE_WAY, "read"),
)


def read(url: str, cookies: dict[str, str], paths: list[str], stop: Event, answered: Queue[int]) -> None:
    os.nice(19)
    client, count = Client(url, 120), 0
    client.cookies = cookies
    while not stop.is_set():
        assert client.get(paths[count % len(paths)]) == 200
        count += 1
    answered.put(count)


def compute(stop: Event, answered: Queue[int]) -> None:
    os.nice(19)
    while not stop.is_set():
        sum(range(10_000))
    answered.put(0)


def commits(config: HubConfig, messages: Sequence[tuple[str, bytes]]) -> tuple[list[float], float]:
    """Milliseconds that each commit took, and the CPU seconds of all; messages come at their times, whatever the hub
    does. The first are to warm up."""
    database = Database(config.url)
    ingest, took, warm = Ingest(database, BlobFiles(config.blobs), config), [], int(WARM_S / EVERY_S)
    began, spent = time.monotonic(), 0.0
    for number, (device, message) in enumerate(messages):
        time.sleep(max(0.0, began + number * EVERY_S - time.monotonic()))
        at, cpu = time.perf_counter(), time.thread_time()
        [reply] = ingest.ingest([Incoming(device, message, now_ms())])
        if number >= warm:
            took.append(1000 * (time.perf_counter() - at))
            spent += time.thread_time() - cpu
        assert not getattr(reply.content, "rejected", ())
    database.close()
    return took, spent


def ingest(config: HubConfig, messages: Sequence[tuple[str, bytes]], done: Queue[Any], stop: Event) -> None:
    done.put(commits(config, messages))
    stop.wait()


def pages(
    config: HubConfig, nice: int, ready: Queue[str], messages: Sequence[tuple[str, bytes]], go: Event, done: Queue[Any],
    stop: Event,
) -> None:  # fmt: skip
    os.nice(nice)
    server = HubServer(config)
    server.start()
    ready.put(server.url)
    if messages:
        go.wait()
        thread = threading.Thread(target=lambda: done.put(commits(config, messages)))
        thread.start()
        thread.join()
    stop.wait()
    server.stop()


def resident_mb(process: BaseProcess) -> float:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(config: HubConfig, row: Row, messages: list[tuple[str, bytes]], paths: list[str]) -> None:
    ready, done, answered = CONTEXT.Queue(), CONTEXT.Queue(), CONTEXT.Queue()
    go, stop, ended = CONTEXT.Event(), CONTEXT.Event(), CONTEXT.Event()
    own = [] if row.apart else messages
    serving = CONTEXT.Process(target=pages, args=(config, row.give_way, ready, own, go, done, ended))
    serving.start()
    url = ready.get(timeout=120)
    others: list[Any] = []
    if row.others == "read":
        told = (url, COOKIES, paths, stop, answered)
        others = [CONTEXT.Process(target=read, args=told) for _ in range(OTHERS)]
    elif row.others:
        others = [CONTEXT.Process(target=compute, args=(stop, answered)) for _ in range(OTHERS)]
    for process in others:
        process.start()
    time.sleep(3)  # until they are under way
    apart = CONTEXT.Process(target=ingest, args=(config, messages, done, ended)) if row.apart else None
    before, began = [cpu_s([serving.pid]), cpu_s([one.pid for one in others])], time.monotonic()
    go.set()
    if apart:
        apart.start()
    took, spent = done.get(timeout=600)
    elapsed = time.monotonic() - began
    after = cpu_s([serving.pid]), cpu_s([one.pid for one in others])
    share = [now - then for now, then in zip(after, before, strict=True)]
    share[0] -= 0 if apart else spent
    memory = resident_mb(serving), resident_mb(apart) if apart else 0.0
    stop.set()
    number = sum(answered.get(timeout=120) for _ in others)
    ended.set()
    for process in (*others, serving, *([apart] if apart else [])):
        process.join()
    took.sort()
    times = (statistics.median(took), took[int(len(took) * 0.95)], took[-1])
    figures = (*times, 1000 * spent / len(took), number / elapsed, *(100 * one / elapsed for one in share), *memory)
    print(f"{row.name:26}", *(f"{value:9.1f}" for value in figures), f"{os.getloadavg()[0]:6.1f}", flush=True)


COOKIES: dict[str, str] = {}


def main() -> None:
    number = next((int(argument) for argument in sys.argv[1:] if argument.isdigit()), 20_000)
    seconds = float(sys.argv[sys.argv.index("--seconds") + 1]) if "--seconds" in sys.argv else 20.0
    with tempfile.TemporaryDirectory() as folder:
        config, device = HubConfig(state_dir=folder, broker_host="", listen_port=0), FakeDevice()
        operations.enroll(config, device.name, device.public_key)
        server = HubServer(config)
        person = {"name": "okoro", "full_name": "Dr Okoro", "role": "clinician", "password": password_hash()}
        with server.database.write() as connection:
            connection.execute(schema.users.insert().values(**person, created_ms=now_ms()))
        exams, patients = fill(server, device, number)
        server.start()
        paths = ["/", *(f"/exams/{exam}" for exam in exams), *(f"/patients/{patient}" for patient in patients)]
        COOKIES.update(logged_in(server, "okoro").cookies)
        server.stop()
        print(f"{number} exams on SQLite, 40 more a second for {seconds:.0f} s; a commit of eight, milliseconds;")
        print("then pages a second, per cent of one processor that pages and the others had, MB of pages and ingest:")
        names = ("median", "95 %", "longest", "its CPU", "pages/s", "CPU pages", "others", "MB pages", "ingest")
        print(f"{'':26}", *(f"{name:>9}" for name in names), f"{'load':>6}")
        for turn, row in enumerate(ROWS):
            sender, chance = FakeDevice(f"sender-{turn}"), random.Random(turn)
            operations.enroll(config, sender.name, sender.public_key)
            messages = [
                (sender.name, sender.message(*(sender.envelope(full_report(chance)) for _ in range(8))))
                for _ in range(int((WARM_S + seconds) / EVERY_S))
            ]
            measure(config, row, messages, paths)


if __name__ == "__main__":
    main()
