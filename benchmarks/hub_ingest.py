"""How fast the hub commits what devices send, and how its pages stand up to a full database.

    python benchmarks/hub_ingest.py [--records 20000] [--exams 100000] [--url postgresql+psycopg://…]

Ingest is measured from signed messages to durable rows and receipts: signature, decoding and validation of each
record, duplicate check, listing, commit. Beside it, in the same run: the same bodies into one SQLite table by sqlite3
alone, with no signature, no validation and no listing, committed as often: the ceiling of the disk and of SQLite.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import sys
import tempfile
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import insert

from aidpost.records import (
    Clinic,
    Device,
    Exam,
    ExamReport,
    Finding,
    Operator,
    Origin,
    Patient,
    Record,
    Timestamp,
    Triage,
    TriageLevel,
    VitalKind,
    VitalSign,
    encode,
)
from aidpost.sync.envelope import Envelope, Records, pack_message
from aidpost.sync.hub import operations, schema, users
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.ingest import Incoming, Ingest
from aidpost.sync.hub.server import HubServer

PER_MESSAGE = 64
AT = Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=1, boot=1, synced=True)


def vital() -> VitalSign:
    return VitalSign(
        id=uuid.uuid4(),
        kind=VitalKind.SPO2,
        value=97.0,
        unit="%",
        at=AT,
        origin=Origin.LIVE,
        device=Device(name="oximeter"),
    )


def report() -> ExamReport:
    patient = Patient(id=uuid.uuid4(), name="Amina Yusuf", birth_date="1961")
    exam = Exam(
        id=uuid.uuid4(),
        patient=patient.id,
        device=Device(name="handheld"),
        clinic=Clinic(id="c1", name="North clinic"),
        operator=Operator(id="op7"),
        started=AT,
    )
    finding = Finding(code="bp-high", text="Raised blood pressure", severity=TriageLevel.SOON)
    return ExamReport(
        id=uuid.uuid4(),
        exam=exam,
        patient=patient,
        triage=Triage(level=TriageLevel.SOON),
        findings=(finding,),
        vitals=(vital(), vital()),
    )


class Sender:
    """Signs messages of 64 records as a device does."""

    def __init__(self, config: HubConfig, name: str = "bench") -> None:
        self.name, self.key = name, Ed25519PrivateKey.generate()
        self.epoch, self.seq = os.urandom(8), 0
        operations.enroll(config, name, self.key.public_key().public_bytes_raw())

    def messages(self, records: list[Record]) -> list[Incoming]:
        made = []
        for start in range(0, len(records), PER_MESSAGE):
            envelopes = tuple(self._envelope(record) for record in records[start : start + PER_MESSAGE])
            message = pack_message(Records(envelopes), sender=self.name, key=self.key)
            made.append(Incoming(self.name, message, now_ms()))
        return made

    def _envelope(self, record: Record) -> Envelope:
        self.seq += 1
        about = (record.patient.id, record.exam.id) if isinstance(record, ExamReport) else (None, None)
        return Envelope(self.epoch, "report", self.seq, type(record).__name__, *about, encode(record))


def ceiling(folder: Path, bodies: list[bytes], per_commit: int) -> float:
    """Records a second of sqlite3 alone."""
    connection = sqlite3.connect(folder / f"plain-{per_commit}.sqlite3", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE t (stream INTEGER, seq INTEGER, body BLOB, PRIMARY KEY (stream, seq))")
    start = time.perf_counter()
    for first in range(0, len(bodies), per_commit):
        connection.execute("BEGIN IMMEDIATE")
        rows = [(1, first + i, body) for i, body in enumerate(bodies[first : first + per_commit])]
        connection.executemany("INSERT OR IGNORE INTO t VALUES (?, ?, ?)", rows)
        connection.execute("COMMIT")
    elapsed = time.perf_counter() - start
    connection.close()
    return len(bodies) / elapsed


def ingest_rate(ingest: Ingest, messages: list[Incoming], records: int, per_commit: int) -> tuple[float, float]:
    """Records a second, and a second of this process's own CPU: the second figure stands on a busy machine too."""
    start, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(messages), per_commit):
        ingest.ingest(messages[first : first + per_commit])
    return records / (time.perf_counter() - start), records / (time.process_time() - cpu)


def measure_ingest(config: HubConfig, folder: Path, count: int) -> None:
    database = Database(config.url)
    ingest = Ingest(database, BlobFiles(config.blobs), config)
    sender = Sender(config)
    print(f"\nIngest into {config.url.split(':')[0]}, {count} records, messages of {PER_MESSAGE}, records a second")
    print(
        f"{'':16}{'messages a commit':>20}{'ingest':>10}{'a CPU s':>10}{'again':>10}{'sqlite3 alone':>16}{'ratio':>8}"
    )
    for name, make in (("vital signs", vital), ("exam reports", report)):
        for per_commit in (1, 8, 64):
            records: list[Record] = [make() for _ in range(count)]
            messages = sender.messages(records)
            rate, per_cpu = ingest_rate(ingest, messages, count, per_commit)
            again, _ = ingest_rate(ingest, messages, count, per_commit)
            plain = ceiling(folder, [encode(record) for record in records], per_commit * PER_MESSAGE)
            (folder / f"plain-{per_commit * PER_MESSAGE}.sqlite3").unlink()
            print(f"{name:16}{per_commit:20}{rate:10.0f}{per_cpu:10.0f}{again:10.0f}{plain:16.0f}{rate / plain:8.2f}")
    database.close()


def fill(config: HubConfig, count: int) -> uuid.UUID:
    """Lists `count` exams, all from copies of one report, and returns one of them."""
    database = Database(config.url)
    ingest = Ingest(database, BlobFiles(config.blobs), config)
    sender = Sender(config)
    first = report()
    ingest.ingest(sender.messages([first]))
    with database.write() as connection:
        row = connection.execute(schema.exams.select().where(schema.exams.c.id == first.exam.id)).one()._asdict()
        users.add(connection, "bench", "a long enough password", users.Role.VIEWER, "Bench", now_ms())
        for start in range(0, count, 5000):
            rows = [
                row
                | {"id": uuid.uuid4(), "patient": uuid.uuid4(), "triage": i % 4, "started_ms": row["started_ms"] + i}
                for i in range(start, min(start + 5000, count))
            ]
            connection.execute(insert(schema.exams), rows)
    database.close()
    return first.exam.id


def measure_pages(config: HubConfig, count: int) -> None:
    import http.client

    exam = fill(config, count)
    server = HubServer(config)
    server.start()
    with server.database.write() as connection:
        cookie = {"Cookie": f"session={users.log_in(connection, 'bench', now_ms())}"}
    print(f"\nPages at {count} exams on {config.url.split(':')[0]}, milliseconds, median and worst of 20")
    for name, path in (
        ("worklist", "/"),
        ("worklist, page 20", "/?page=20"),
        ("all, newest", "/?show=all"),
        ("exam", f"/exams/{exam}"),
    ):
        times = []
        for _ in range(20):
            web = http.client.HTTPConnection(server.url.split("/")[2])
            start = time.perf_counter()
            web.request("GET", path, headers=cookie)
            status = web.getresponse()
            status.read()
            times.append((time.perf_counter() - start) * 1000)
            assert status.status == 200, (path, status.status)
            web.close()
        print(f"{name:20}{sorted(times)[10]:8.1f}{max(times):8.1f}")
    server.stop()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    arguments.add_argument("--records", type=int, default=20_000)
    arguments.add_argument("--exams", type=int, default=100_000)
    arguments.add_argument("--url", default="", help="an empty database to measure in place of SQLite")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = HubConfig(state_dir=str(folder / "hub"), database_url=chosen.url, broker_host="", listen_port=0)
        measure_ingest(config, folder, chosen.records)
        pages = HubConfig(state_dir=str(folder / "pages"), database_url=chosen.url, broker_host="", listen_port=0)
        measure_pages(pages, chosen.exams)


if __name__ == "__main__":
    main()
