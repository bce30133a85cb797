"""Processor time of the hub's pages with many exams: worklist, exam, patient, quality and the others.

    python benchmarks/hub_pages.py [EXAMS] [--postgresql] [--count EXAMS]

On PostgreSQL a server of its own is started (fsync off, 512 MB of shared buffers); its processor time has a column of
its own. Exams are rows copied from one real one, spread over clinics, days, patients and states; a twentieth is open.
CPU time is of the whole process, server and client in one, so that the pages' own share is a little less than what is
printed. Wall time is of a machine that may be doing other things.
The quality page's counts are kept, and its figures remembered for half a minute: its first request has a row of its
own. What it takes to count all exams once, as after an update, is printed before; `--count` counts so many only, which
is enough to have as many different counts as there are.
"""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

from postgres import Postgres
from sqlalchemy import Table, create_engine, func, insert, select

from aidpost.sync.hub import operations, schema, search, tally
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer
from tests.sync.hub.conftest import FakeDevice
from tests.sync.hub.web_client import Client, logged_in, password_hash, whole_report

REPEATS = 9
WHOLE = 9
"""Exams with photograph, trace and all: what is opened is not always the same."""
CHUNK = 5000
NAMES = [f"{first}{middle}{last}" for first in ("Ak", "Nab", "Wan", "Ot") for middle in ("i", "u", "e") for last in
         ("nyi", "lya", "jiru", "eno", "kello")]  # fmt: skip
"""Sixty words; a full name has two of them, so that each stands in one of thirty."""


def fill(server: HubServer, device: FakeDevice, number: int) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    """Returns exams and patients that exist whole."""
    whole = [whole_report(server, device) for _ in range(WHOLE)]
    chance, now = random.Random(1), now_ms()
    tables = (schema.exams, schema.calls, schema.reports, schema.envelopes, schema.vitals)
    with server.database.read() as connection:
        mine = [
            table.select().where(table.c["id" if table is schema.exams else "exam"] == whole[0].exam.id)
            for table in tables
        ]
        templates = Templates(*([row._asdict() for row in connection.execute(query)] for query in mine))
    with bulk_loading(server) as load:
        for start in range(0, number, CHUNK):
            rows = make_rows(templates, chance, now, start, min(CHUNK, number - start), max(number // 3, 1))
            for table, some in rows.items():
                load(table, some)
    return [report.exam.id for report in whole], [report.patient.id for report in whole]


class Templates(NamedTuple):
    """The rows of one real exam."""

    exams: list[dict[str, Any]]
    calls: list[dict[str, Any]]
    reports: list[dict[str, Any]]
    envelopes: list[dict[str, Any]]
    vitals: list[dict[str, Any]]


def make_rows(
    of: Templates, chance: random.Random, now: int, first: int, count: int, patients: int
) -> dict[Table, list[dict[str, Any]]]:
    """Rows of `count` more exams, by table."""
    made: dict[Table, list[dict[str, Any]]] = {}
    for index in range(first, first + count):
        ids = {"exam": uuid.UUID(int=chance.getrandbits(128)), "report": uuid.UUID(int=chance.getrandbits(128))}
        patient, is_open = uuid.UUID(int=chance.randrange(patients) + 1), chance.random() < 0.05
        name = " ".join(NAMES[patient.int // step % len(NAMES)] for step in (1, len(NAMES)))
        at, about = now - chance.randrange(700 * 86_400_000), {"exam": ids["exam"], "patient": patient}
        exam = of.exams[0] | {"id": ids["exam"], "report": ids["report"], "patient": patient, "patient_name": name}
        exam |= {"started_ms": at, "received_ms": at, "triage": chance.randrange(4), "sampled": chance.random() < 0.1}
        exam |= {"clinic": f"clinic {chance.randrange(40)}", "state": "open" if is_open else "reviewed"}
        exam["waits"] = exam["waits"] if is_open else ""
        made.setdefault(schema.exams, []).append(exam)
        place = {"seq": 1_000_000 + index}
        made.setdefault(schema.envelopes, []).append(of.envelopes[-1] | about | place | {"received_ms": at})
        made.setdefault(schema.reports, []).append(of.reports[0] | about | place | {"id": ids["report"]})
        for vital in of.vitals:
            value = {"id": uuid.UUID(int=chance.getrandbits(128)), "at_ms": at}
            made.setdefault(schema.vitals, []).append(vital | about | place | value)
        for call in of.calls:
            value = {"call": chance.random() < 0.2, "score": chance.random(), "at_ms": at}
            made.setdefault(schema.calls, []).append(call | ids | value | {"patient": patient})
        for part in () if is_open else ("eyes", "heart"):
            reading = {"part": part, "number": 1, "patient": patient, "review": ids["report"], "at_ms": at}
            reading |= {"reader": "okoro", "state": "signed", "call": chance.random() < 0.2}
            made.setdefault(schema.readings, []).append(ids | reading)
        waiting = {"target": "fhir", "change": 0, "attempts": 0, "error": ""}
        made.setdefault(schema.exports, []).append(about | waiting)
        words = [{"word": word, "patient": patient} for word in search.words_of(name)]
        made.setdefault(schema.patient_words, []).extend(words)
    return made


Load = Callable[[Table, list[dict[str, Any]]], None]


@contextmanager
def bulk_loading(server: HubServer) -> Iterator[Load]:
    """Takes rows as fast as the database can: by COPY on PostgreSQL, and with the indexes made at the end."""
    words: set[tuple[str, uuid.UUID]] = set()
    copies = not server.database.is_sqlite
    filled = (schema.exams, schema.envelopes, schema.reports, schema.vitals, schema.calls, schema.readings,
              schema.exports, schema.patient_words)  # fmt: skip
    indexes = [index for table in filled for index in table.indexes] if copies else []
    with server.database.write() as connection:
        for index in indexes:
            index.drop(connection)

    def load(table: Table, rows: list[dict[str, Any]]) -> None:
        if table is schema.patient_words:  # a patient has several exams
            rows = [row for row in rows if (row["word"], row["patient"]) not in words]
            rows = list({(row["word"], row["patient"]): row for row in rows}.values())
            words.update((row["word"], row["patient"]) for row in rows)
        with server.database.write() as connection:
            if not copies:
                connection.execute(insert(table), rows)
                return
            columns = ", ".join(f'"{name}"' for name in rows[0])
            driver = connection.connection.driver_connection
            with driver.cursor() as cursor, cursor.copy(f'COPY "{table.name}" ({columns}) FROM STDIN') as copy:
                for row in rows:
                    copy.write_row(tuple(row.values()))

    yield load
    with server.database.write() as connection:
        for index in indexes:
            index.create(connection)
    if copies:
        engine = create_engine(server.config.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
        engine.dispose()


def count(server: HubServer, database_s: Callable[[], float], most: int) -> None:
    """Exams are counted for the quality page, as after an update from a hub that did not keep counts."""
    exams = schema.exams
    with server.database.write() as connection:
        tally.changed_where(connection, exams.c.id.in_(select(exams.c.id).limit(most)))
    began, cpu, of_database = time.perf_counter(), time.process_time(), database_s()
    while server.tally.turn():
        pass
    spent = time.perf_counter() - began, time.process_time() - cpu, database_s() - of_database
    with server.database.read() as connection:
        kept = connection.execute(select(func.count()).select_from(schema.quality_counts)).scalar_one()
    text = "{} counted in {:.0f} s: CPU of the hub {:.0f} s, of the database {:.0f} s; {} counts"
    print(text.format(most, *spent, kept), flush=True)


def measure(client: Client, paths: Sequence[str], database_s: Callable[[], float]) -> tuple[float, float, float, float]:
    """Processor time of the hub (median) and of the database (mean), median and longest wall time, in milliseconds."""
    cpu, wall = [], []
    first = database_s()
    for path in (paths[turn % len(paths)] for turn in range(REPEATS)):
        began = time.process_time(), time.perf_counter()
        assert client.get(path) == 200, path
        cpu.append(1000 * (time.process_time() - began[0]))
        wall.append(1000 * (time.perf_counter() - began[1]))
    database = 1000 * (database_s() - first) / REPEATS
    return statistics.median(cpu), database, statistics.median(wall), max(wall)


def main() -> None:
    """Fills a hub and prints a row for each page."""
    numbers = [int(argument) for argument in sys.argv[1:2] if argument.isdigit()]
    number = numbers[0] if numbers else 100_000
    with ExitStack() as stack:
        folder, url = stack.enter_context(tempfile.TemporaryDirectory()), ""
        database_s: Callable[[], float] = lambda: 0.0  # noqa: E731
        if "--postgresql" in sys.argv:
            postgres = Postgres(shared_buffers="512MB")
            stack.callback(postgres.stop)
            url, database_s = stack.enter_context(postgres.database()), postgres.cpu_s
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
        began = time.perf_counter()
        exams, patients = fill(server, device, number)
        print(f"filled in {time.perf_counter() - began:.0f} s", flush=True)
        count(server, database_s, int(sys.argv[sys.argv.index("--count") + 1]) if "--count" in sys.argv else number)
        server.start()
        server.notifier.stop()
        client, eye_reader = (logged_in(server, name, 600) for name in ("okoro", "eyes"))
        print(f"{number} exams, {'PostgreSQL' if url else 'SQLite'}, {REPEATS} requests each, milliseconds:")
        print(f"{'':28} {'CPU hub':>8} {'database':>8} {'wall':>8} {'longest':>8}")
        for name, who, *paths in (
            ("worklist", client, "/"),
            ("worklist of an eye reader", eye_reader, "/"),
            ("quality sample", client, "/?show=sample"),
            ("all exams", client, "/?show=all"),
            ("what waits, as JSON", client, "/waiting.json"),
            ("exam", client, *(f"/exams/{exam}" for exam in exams)),
            ("patient", client, *(f"/patients/{patient}" for patient in patients)),
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
                began, of_database = time.process_time(), database_s()
                assert who.get(paths[0]) == 200
                anew = time.process_time() - began, database_s() - of_database
                print(f"{'quality, the first time':28}", *(f"{1000 * value:8.1f}" for value in anew), flush=True)
            print(f"{name:28}", *(f"{value:8.1f}" for value in measure(who, paths, database_s)), flush=True)
        server.stop()


if __name__ == "__main__":
    main()
