"""Whatever is signed, carried, lost and restored in between: in the end device and hub have the same, each once."""

from __future__ import annotations

import io
import tempfile
import uuid
from pathlib import Path

from device_records import KEY, FakeClock
from hub_end import HubEnd
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select
from stick_ends import Ends

from aidpost.records import ExamReport, Review, TriageLevel
from aidpost.sync import outbox
from aidpost.sync.hub import audit, operations, schema
from aidpost.sync.hub.database import Database
from aidpost.sync.store import Store


class Lives(RuleBasedStateMachine):
    """A hub that loses its disk now and then, a device, and sticks that may be left lying."""

    exams: Bundle[ExamReport] = Bundle("exams")

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name)
        self.store = Store.open(path / "device", KEY, clock=FakeClock(), name="unit-1")
        self.ends = Ends(self.store, HubEnd(path / "hub", 1), path)
        self.ends.hub.enroll(self.store)
        self.backups: list[io.BytesIO] = [self.ends.keep()]
        self.erased: set[uuid.UUID] = set()

    @rule(target=exams, level=st.sampled_from(list(TriageLevel)), triage=st.sampled_from([None, *TriageLevel]))
    def day(self, level: TriageLevel, triage: TriageLevel | None) -> ExamReport:
        """An exam is carried to the hub, signed there, and the review carried back."""
        exam = self.ends.exam(level)
        self.sign(exam, triage)
        return exam

    @rule(exam=exams, triage=st.sampled_from([None, *TriageLevel]))
    def sign(self, exam: ExamReport, triage: TriageLevel | None) -> None:
        """Once more, by somebody who may not know of the first time."""
        if self.ends.rows(select(schema.exams.c.id).where(schema.exams.c.report == exam.id)):
            self.ends.sign(exam, "seen", triage)
            self.ends.carry()

    @rule()
    def leave_lying(self) -> None:
        """A stick whose answer never comes back."""
        self.ends.carry(back=False)

    @rule()
    def back_up(self) -> None:
        self.backups.append(self.ends.keep())

    @rule(data=st.data(), carried=st.integers(0, 2))
    def restore(self, data: st.DataObject, carried: int) -> None:
        self.ends.restore(data.draw(st.sampled_from(self.backups)))
        for _ in range(carried):
            self.ends.carry()

    @rule(exam=exams, at_hub=st.booleans())
    def erase(self, exam: ExamReport, at_hub: bool) -> None:
        if at_hub and self.ends.rows(select(schema.exams.c.id).where(schema.exams.c.report == exam.id)):
            operations.erase_patient(self.ends.hub.config, exam.patient.id)
            self.ends.carry()  # else a hub that loses its disk now has told nobody
        else:
            self.store.erase_patient(exam.patient.id)
        self.erased.add(exam.patient.id)

    @invariant()
    def nothing_counts_twice(self) -> None:
        if hasattr(self, "ends"):
            signed = self.ends.signed()
            parts = self.ends.rows(select(schema.readings.c.review, schema.readings.c.part))
            assert len(parts) == len(set(parts)) == len(signed)

    def teardown(self) -> None:
        try:
            for _ in range(4):
                self.ends.carry()
            on_device = {one.id for one in self.store.inbox.records(Review, None)}
            at_hub = {row[0] for row in self.ends.rows(select(schema.reviews.c.id))}
            assert on_device <= at_hub, "what came down once is at the hub"
            assert at_hub <= on_device, "and what is at the hub has come down"
            assert not {row[0] for row in self.ends.rows(select(schema.exams.c.patient))} & self.erased
            assert [(one.cls, one.queued) for one in outbox.status(self.store) if one.queued] == []
            database = Database(self.ends.hub.config.url)
            with database.read() as connection:
                assert audit.verify(connection).broken_at is None
            database.close()
        finally:
            self.store.close()
            self.folder.cleanup()


TestLives = Lives.TestCase
TestLives.settings = settings(max_examples=5, stateful_step_count=10, deadline=None)
