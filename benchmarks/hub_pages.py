"""Processor time of the hub's pages with many exams: worklist, exam, patient, quality and the others.

    python benchmarks/hub_pages.py [EXAMS] [--postgresql]

On PostgreSQL a server of its own is started, whose processor time is not in the figures: look at the wall time there.
Exams are rows copied from one real one, spread over clinics, days, patients and states; a twentieth is open. CPU time
is of the whole process, server and client in one, so that the pages' own share is a little less than what is printed.
The quality page and the metrics are counted once in five minutes: the median of several requests is of a remembered
count, and the counting itself has a row of its own.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
import uuid
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

from postgres import Postgres
from sqlalchemy import insert

from aidpost.sync.hub import operations, schema, search
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer
from tests.sync.hub.conftest import FakeDevice
from tests.sync.hub.web_client import Client, logged_in, password_hash, whole_report

REPEATS = 9
NAMES = [f"{first}{middle}{last}" for first in ("Ak", "Nab", "Wan", "Ot") for middle in ("i", "u", "e") for last in
         ("nyi", "lya", "jiru", "eno", "kello")]  # fmt: skip
"""Sixty words; a full name has two of them, so that each stands in one of thirty."""


def fill(server: HubServer, device: FakeDevice, number: int) -> tuple[uuid.UUID, uuid.UUID]:
    """Returns an exam and a patient that exist whole."""
    report = whole_report(server, device)
    chance, now = random.Random(1), now_ms()
    with server.database.write() as connection:
        exam = connection.execute(schema.exams.select()).one()._asdict()
        calls = [row._asdict() for row in connection.execute(schema.calls.select())]
        for start in range(0, number, 5000):
            exams, all_calls, read, queue = [], [], [], []
            for _ in range(min(5000, number - start)):
                ids = {"exam": uuid.UUID(int=chance.getrandbits(128)), "report": uuid.UUID(int=chance.getrandbits(128))}
                patient, is_open = uuid.UUID(int=chance.randrange(number // 3) + 1), chance.random() < 0.05
                name = " ".join(NAMES[patient.int // step % len(NAMES)] for step in (1, len(NAMES)))
                at = now - chance.randrange(700 * 86_400_000)
                exams.append(
                    exam
                    | {"id": ids["exam"], "report": ids["report"], "patient": patient, "started_ms": at}
                    | {"received_ms": at, "state": "open" if is_open else "reviewed", "triage": chance.randrange(4)}
                    | {"patient_name": name}
                    | {"clinic": f"clinic {chance.randrange(40)}", "sampled": chance.random() < 0.1}
                )
                for call in calls:
                    value = {"call": chance.random() < 0.2, "score": chance.random(), "at_ms": at}
                    all_calls.append(call | ids | value | {"patient": patient})
                if not is_open:
                    for part in ("eyes", "heart"):
                        reading = {"part": part, "number": 1, "patient": patient, "review": uuid.uuid4(), "at_ms": at}
                        reading |= {"reader": "okoro", "state": "signed", "call": chance.random() < 0.2}
                        read.append(ids | reading)
                queue.append({"exam": ids["exam"], "target": "fhir", "patient": patient, "change": 0, "attempts": 0})
            connection.execute(insert(schema.exams), exams)
            search.note(connection, [(row["patient"], row["patient_name"]) for row in exams])
            connection.execute(insert(schema.calls), all_calls)
            connection.execute(insert(schema.readings), read)
            connection.execute(insert(schema.exports), [row | {"error": ""} for row in queue])
    return report.exam.id, report.patient.id


def measure(client: Client, path: str) -> tuple[float, float]:
    """Median processor and wall time in milliseconds."""
    cpu, wall = [], []
    for _ in range(REPEATS):
        began = time.process_time(), time.perf_counter()
        assert client.get(path) == 200, path
        cpu.append(1000 * (time.process_time() - began[0]))
        wall.append(1000 * (time.perf_counter() - began[1]))
    return statistics.median(cpu), statistics.median(wall)


def main() -> None:
    """Fills a hub and prints a row for each page."""
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    number = numbers[0] if numbers else 100_000
    with ExitStack() as stack:
        folder, url = stack.enter_context(tempfile.TemporaryDirectory()), ""
        if "--postgresql" in sys.argv:
            postgres = Postgres()
            stack.callback(postgres.stop)
            url = stack.enter_context(postgres.database())
        config = HubConfig(state_dir=folder, database_url=url, broker_host="", listen_port=0)
        device = FakeDevice()
        operations.enroll(config, device.name, device.public_key)
        server = HubServer(config)
        with server.database.write() as connection:
            row = {"name": "okoro", "full_name": "Dr Okoro", "role": "administrator", "password": password_hash()}
            connection.execute(schema.users.insert().values(**row, created_ms=now_ms()))
            limited = row | {"name": "eyes", "role": "clinician"}
            connection.execute(schema.users.insert().values(**limited, created_ms=now_ms()))
            connection.execute(schema.user_scopes.insert().values(user="eyes", kind="part", value="eyes"))
        exam, patient = fill(server, device, number)
        server.start()
        server.notifier.stop()
        client, eye_reader = logged_in(server, "okoro"), logged_in(server, "eyes")
        print(f"{number} exams, {'PostgreSQL' if url else 'SQLite'}; median of {REPEATS}: CPU ms, wall ms")
        for name, who, path in (
            ("worklist", client, "/"),
            ("worklist of an eye reader", eye_reader, "/"),
            ("quality sample", client, "/?show=sample"),
            ("all exams", client, "/?show=all"),
            ("what waits, as JSON", client, "/waiting.json"),
            ("exam", client, f"/exams/{exam}"),
            ("patient", client, f"/patients/{patient}"),
            ("search of a common name", client, "/patients?q=akinyi"),
            ("search of a full name", client, "/patients?q=akinyi+otulya"),
            ("search of nobody", client, "/patients?q=amadou"),
            ("alerts", client, "/alerts"),
            ("referrals", client, "/referrals"),
            ("devices", client, "/devices"),
            ("quality", client, "/quality"),
            ("metrics", client, "/metrics"),
        ):
            if name == "quality":
                began = time.process_time()
                assert who.get(path) == 200
                print(f"{'quality, counted anew':28} {1000 * (time.process_time() - began):8.1f}", flush=True)
            cpu, wall = measure(who, path)
            print(f"{name:28} {cpu:8.1f} {wall:8.1f}", flush=True)
        server.stop()


if __name__ == "__main__":
    main()
