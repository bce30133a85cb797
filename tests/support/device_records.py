"""Records to put into a device's store, and a clock that the test sets."""

from __future__ import annotations

import hashlib
import uuid

from aidpost.records import (
    BlobRef,
    Clinic,
    Device,
    Exam,
    ExamReport,
    Operator,
    Origin,
    Patient,
    Timestamp,
    Triage,
    TriageLevel,
)
from aidpost.sync.envelope import RecordClass
from aidpost.sync.keys import DeviceKey
from aidpost.sync.store import Blob, Item

KEY = DeviceKey(bytes(range(32)), "test")
NAME = "Wanjiru Kamau"


class FakeClock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.wall, self.boot = 1_760_000_000_000, "boot-1"

    def wall_ms(self) -> int:
        self.wall += 1
        return self.wall

    def monotonic_ms(self) -> int:
        return 5_000

    def boot_id(self) -> str:
        return self.boot

    def synced(self) -> bool:
        return False


def make_item(cls: RecordClass = RecordClass.REPORT, *photos: bytes, patient: uuid.UUID | None = None) -> Item:
    person = Patient(id=patient or uuid.uuid4(), name=NAME)
    at = Timestamp(wall_ms=1, monotonic_ms=1, boot=1, synced=False)
    exam = Exam(
        id=uuid.uuid4(),
        patient=person.id,
        device=Device(name="unit-1"),
        clinic=Clinic(id="c"),
        operator=Operator(id="o"),
        started=at,
    )
    report = ExamReport(
        id=uuid.uuid4(), exam=exam, patient=person, triage=Triage(level=TriageLevel.ROUTINE), origin=Origin.LIVE
    )
    blobs = [make_blob(photo) for photo in photos]
    return Item(cls, report, person.id, exam.id, blobs)


def make_blob(data: bytes) -> Blob:
    ref = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data), media_type="image/jpeg")
    return Blob(ref, data, Origin.LIVE)
