"""A device and a hub that nothing but sticks connects, and a hub that is restored from its backups."""

from __future__ import annotations

import io
import shutil
import uuid
from pathlib import Path
from typing import NamedTuple

import msgspec
from device_records import make_item
from hub_end import HubEnd
from sqlalchemy import select

from aidpost.records import ExamReport, Review, ReviewDecision, TriageLevel, encode
from aidpost.sync import keys, stick
from aidpost.sync.bodies import Returned
from aidpost.sync.envelope import Envelope, Receipt, RecordClass, Records, pack_message, unpack_message
from aidpost.sync.hub import backup, operations, readings, reviews, schema
from aidpost.sync.hub import stick as hub_stick
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.store import Store


class Ends(NamedTuple):
    """A device and a hub that nothing but sticks connects."""

    store: Store
    hub: HubEnd
    folder: Path

    @property
    def hub_key(self) -> bytes:
        return operations.public_key(self.hub.config)

    def carry(self, *, back: bool = True) -> Path:
        """The outbox to the hub, and the hub's answer to the device."""
        known = {"hub_name": "hub", "hub_key": keys.public_key(self.hub_key)}
        path = self.folder / f"{uuid.uuid4()}.aidpost"
        stick.export_stick(self.store, path, **known)  # type: ignore[arg-type]
        answer = hub_stick.import_stick(self.hub.config, path).receipts
        if back:
            stick.import_receipts(self.store, answer, **known)  # type: ignore[arg-type]
        return answer

    def take(self, path: Path) -> None:
        stick.import_receipts(self.store, path, hub_name="hub", hub_key=keys.public_key(self.hub_key))

    def exam(self, level: TriageLevel = TriageLevel.SOON) -> ExamReport:
        """An exam that the hub has."""
        item = make_item(RecordClass.REPORT)
        report = item.record
        assert isinstance(report, ExamReport)
        report = msgspec.structs.replace(report, triage=msgspec.structs.replace(report.triage, level=level))
        self.store.append(item._replace(record=report))
        self.carry()
        return report

    def sign(self, report: ExamReport, text: str = "", triage: TriageLevel | None = None) -> Review:
        database = Database(self.hub.config.url)
        said = reviews.Signature("okoro", "dr.okoro", ReviewDecision.CORRECTED, triage, text, {"rhythm": "af"})
        with database.write() as connection:
            row = connection.execute(select(schema.exams).where(schema.exams.c.report == report.id)).one()
            parts = readings.parts(connection, row)
            made = reviews.sign(connection, database.epoch, report, "unit-1", said, parts, readings.Rules(), now_ms())
        database.close()
        return made[0]

    def keep(self) -> io.BytesIO:
        kept = io.BytesIO()
        backup.back_up(self.hub.config, kept)
        return kept

    def restore(self, kept: io.BytesIO) -> None:
        """The hub's disk is lost, with all that a restore could read of it."""
        shutil.rmtree(self.hub.config.state)
        backup.restore(self.hub.config, io.BytesIO(kept.getvalue()))

    def rows(self, query: object) -> list[tuple[object, ...]]:
        database = Database(self.hub.config.url)
        with database.read() as connection:
            found = [tuple(row) for row in connection.execute(query)]  # type: ignore[call-overload]
        database.close()
        return found

    def audited(self, *actions: str) -> list[tuple[object, ...]]:
        table = schema.audit
        return self.rows(select(table.c.action).where(table.c.action.in_(actions)).order_by(table.c.id))

    def signed(self) -> list[uuid.UUID]:
        table = schema.readings
        return [row[0] for row in self.rows(select(table.c.review).order_by(table.c.number))]  # type: ignore[misc]

    def send(self, returned: Returned, report: ExamReport, *, sender: Store | None = None, seq: int = 900) -> Receipt:
        """As a device that says what it likes: the receipt of it."""
        identity_ = (sender or self.store).identity
        about = (report.patient.id, report.exam.id)
        one = Envelope(b"whatever", "returned", seq, "Returned", *about, encode(returned))
        message = pack_message(Records((one,)), sender=identity_.name, key=identity_.private)
        [answer] = operations.take_messages(self.hub.config, [message])
        content = unpack_message(answer, {"hub": keys.public_key(self.hub_key)}.get).content
        assert isinstance(content, Receipt)
        return content
