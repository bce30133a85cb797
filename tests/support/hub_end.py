"""The hub as a test looks at it: started in this process or its own, and what it has committed."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import msgspec
from sqlalchemy import select

from aidpost.records import ExamReport, Review, ReviewDecision, decode
from aidpost.sync import keys
from aidpost.sync.hub import operations, readings, reviews, schema
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.link import Link
from aidpost.sync.store import Store

HUB_PROCESS = """
import sys, threading
import msgspec
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.service import HubService
config = msgspec.json.decode(sys.argv[1], type=HubConfig)
HubService(config, Database(config.url), BlobFiles(config.blobs)).start()
print("started", flush=True)
threading.Event().wait()
"""
"""`python -c HUB_PROCESS CONFIG`: a hub without pages, to be killed."""


def sign_review(database: Database, report: ExamReport, decision: ReviewDecision, text: str = "") -> Review:
    """A reader at the hub signs every part of a report that is there."""
    signature = reviews.Signature("okoro", "dr.okoro", decision, None, text, {})
    with database.write() as connection:
        row = connection.execute(select(schema.exams).where(schema.exams.c.report == report.id)).one_or_none()
        # a report that the hub has not seen yet has no parts to its name
        parts = readings.parts(connection, row) if row else (readings.Part(readings.GENERAL),)
        [review] = reviews.sign(
            connection, database.epoch, report, "unit-1", signature, parts, readings.Rules(), now_ms()
        )
    return review


class HubEnd:
    """A hub's folder and broker, with devices enrolled; it runs nothing by itself."""

    def __init__(self, folder: Path, broker_port: int, **more: object) -> None:
        self.config = HubConfig(
            state_dir=str(folder),
            broker_port=broker_port,
            listen_port=0,
            accept_simulated=True,
            **more,  # type: ignore[arg-type]
        )

    def enroll(self, store: Store) -> Link:
        """Make the device known, and give what it needs to send here."""
        operations.enroll(self.config, store.identity.name, keys.public_bytes(store.identity.public))
        hub_key = keys.public_key(operations.public_key(self.config))
        return Link("127.0.0.1", self.config.broker_port, self.config.name, hub_key)

    @property
    def config_json(self) -> str:
        return msgspec.json.encode(self.config).decode()

    def committed(self) -> Counter[tuple[str, int]]:
        """How often each (class, sequence) was committed: once, if all is well."""
        database = Database(self.config.url)
        query = select(schema.streams.c.cls, schema.envelopes.c.seq).join(
            schema.envelopes, schema.streams.c.id == schema.envelopes.c.stream
        )
        with database.read() as connection:
            found = Counter((row.cls, row.seq) for row in connection.execute(query))
        database.close()
        return found

    def reports(self) -> list[ExamReport]:
        """Every exam report that the hub has, as it was sent."""
        database = Database(self.config.url)
        query = select(schema.envelopes.c.body).where(schema.envelopes.c.kind == "ExamReport")
        with database.read() as connection:
            found = [decode(ExamReport, bytes(row.body)) for row in connection.execute(query)]
        database.close()
        return found

    def blob(self, sha256: str) -> bytes:
        """A photograph or waveform at the hub, its hash checked here once more."""
        data = BlobFiles(self.config.blobs).path(sha256).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
        return data
