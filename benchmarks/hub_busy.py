"""Whether readers disturb what devices send, and whether the hub's memory stays where it is.

    python benchmarks/hub_busy.py [EXAMS] [--seconds 40]

One process is the hub, as a district runs it: pages and ingest on SQLite, with many exams already there. Five times a
second it is given a message of eight exam reports, first alone, then with four readers in processes of their own who
ask for worklist, exam and patient as fast as they get answers. Printed is how long each commit took, how many pages
were answered, and the process's resident memory before and after.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))
sys.path.insert(0, str(Path(__file__).parent))

from hub_cluster import full_report
from hub_pages import fill

from aidpost.sync.hub import operations, schema
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.ingest import Incoming, Ingest
from aidpost.sync.hub.server import HubServer
from tests.sync.hub.conftest import FakeDevice
from tests.sync.hub.web_client import Client, logged_in, password_hash

READERS = 4
EVERY_S = 0.2


def read(
    url: str, cookies: dict[str, str], paths: list[str], stop: Event, answered: multiprocessing.Queue[int]
) -> None:
    client, count = Client(url, 60), 0
    client.cookies = cookies
    while not stop.is_set():
        assert client.get(paths[count % len(paths)]) == 200
        count += 1
    answered.put(count)


def commits(server: HubServer, device: FakeDevice, seconds: float) -> list[float]:
    """Milliseconds that each commit took; the device's messages come at their times, whatever the hub does."""
    ingest, chance, took = Ingest(server.database, server.files, server.config), random.Random(2), []
    messages = [
        device.message(*(device.envelope(full_report(chance)) for _ in range(8))) for _ in range(int(seconds / EVERY_S))
    ]
    began = time.monotonic()
    for number, message in enumerate(messages):
        time.sleep(max(0.0, began + number * EVERY_S - time.monotonic()))
        at = time.perf_counter()
        [reply] = ingest.ingest([Incoming(device.name, message, now_ms())])
        took.append(1000 * (time.perf_counter() - at))
        assert not getattr(reply.content, "rejected", ())
    return took


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def row(name: str, took: list[float], pages: int, before: float) -> None:
    ordered = sorted(took)
    tail = ordered[int(len(ordered) * 0.95)]
    figures = (statistics.median(ordered), tail, ordered[-1], pages, before, resident_mb())
    print(f"{name:12}", *(f"{value:10.1f}" for value in figures), flush=True)


def main() -> None:
    number = next((int(argument) for argument in sys.argv[1:] if argument.isdigit()), 20_000)
    seconds = float(sys.argv[sys.argv.index("--seconds") + 1]) if "--seconds" in sys.argv else 40.0
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
        cookies = logged_in(server, "okoro").cookies
        print(f"{number} exams on SQLite, 40 more a second for {seconds:.0f} s; a commit of eight, milliseconds:")
        print(f"{'':12}", *(f"{name:>10}" for name in ("median", "95 %", "longest", "pages", "MB before", "MB after")))
        commits(server, device, 5)  # warm
        for name, readers in (("alone", 0), ("4 readers", READERS), ("4 readers", READERS)):
            context = multiprocessing.get_context("spawn")
            stop, answered = context.Event(), context.Queue()
            made = [
                context.Process(target=read, args=(server.url, cookies, paths, stop, answered)) for _ in range(readers)
            ]
            for process in made:
                process.start()
            before = resident_mb()
            took = commits(server, device, seconds)
            stop.set()
            pages = sum(answered.get(timeout=120) for _ in made)
            for process in made:
                process.join()
            row(name, took, pages, before)
        server.stop()


if __name__ == "__main__":
    main()
