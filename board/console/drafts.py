"""Open exams. Each step is saved whole, as a new version of the draft, before the worker sees it done: after a power
cut an exam goes on where it was, and undo is the version before."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Iterable

import msgspec

from aidpost import records
from aidpost.board.console.database import ConsoleDatabase
from aidpost.board.console.words import N_
from aidpost.board.exam import Body
from aidpost.errors import StoreDamagedError, UsageError
from aidpost.records import (
    Answer,
    BlobRef,
    Consent,
    EcgResult,
    Exam,
    Eye,
    FundusResult,
    Patient,
    Record,
    TriageLevel,
    VitalSign,
)
from aidpost.sync.store import Store

ATTEMPTS = 3
"""Photographs of an eye, after which it is ungradable and the patient is referred."""


class Draft(Record, frozen=True, kw_only=True):
    """An exam under way. `done` are the steps that the worker closed, `watched` whether the
    sensors are read on and on. `alarm` is a level that nobody has acknowledged
    yet, `acknowledged` the gravest that somebody has, `acknowledged_by` who."""

    exam: Exam
    patient: Patient
    consents: tuple[Consent, ...] = ()
    answers: tuple[Answer, ...] = ()
    vitals: tuple[VitalSign, ...] = ()
    ecg: tuple[EcgResult, ...] = ()
    fundus: tuple[FundusResult, ...] = ()
    done: tuple[str, ...] = ()
    watched: bool = False
    problems: tuple[str, ...] = ()
    alarm: TriageLevel | None = None
    acknowledged: TriageLevel | None = None
    acknowledged_by: str = ""

    def photos(self, eye: Eye) -> list[FundusResult]:
        """The attempts at an eye, the last one last."""
        return [one for one in self.fundus if one.eye is eye]

    def ungradable(self, eye: Eye) -> bool:
        """Whether the eye was tried often enough without a usable photograph."""
        tried = self.photos(eye)
        return len(tried) >= ATTEMPTS and not any(one.quality.usable for one in tried)

    def answer(self, question: str) -> str:
        """What was answered; empty where it was not."""
        return next((one.answer for one in self.answers if one.question == question), "")

    def blobs(self) -> list[BlobRef]:
        """The large bodies that the draft refers to."""
        found = [one.body for one in self.ecg] + [ref for one in self.fundus for ref in (one.body, one.heatmap)]
        return [ref for ref in found if ref is not None]


class Drafts:
    """The open exams of one workspace, newest version of each in memory and on the disk."""

    def __init__(self, database: ConsoleDatabase, store: Store) -> None:
        self._database, self._store = database, store
        self._lock = threading.RLock()
        self._open: dict[uuid.UUID, tuple[int, Draft]] = {}
        self._seen = -1
        rows = database.read("SELECT exam, max(version), patient, sealed FROM draft GROUP BY exam")
        for exam, version, patient, sealed in rows:
            number = uuid.UUID(bytes=exam)
            if store.report(number) is not None:
                self._drop(number)  # it was queued, and the power went before the draft could go
                continue
            try:
                self._open[number] = (version, self._unseal(number, version, patient, sealed))
            except StoreDamagedError:
                continue  # its patient was erased, or the row is damaged: it keeps no other exam from going on

    def all(self) -> list[Draft]:
        """The open exams, oldest first."""
        with self._lock:
            self._let_go_of_erased()
            return sorted((draft for _, draft in self._open.values()), key=lambda one: one.exam.started.wall_ms)

    def find(self, exam: uuid.UUID) -> Draft | None:
        """An open exam."""
        with self._lock:
            self._let_go_of_erased()
            return self._open[exam][1] if exam in self._open else None

    def get(self, exam: uuid.UUID) -> Draft:
        """An open exam.

        Raises
        ------
        UsageError
            It is not open.
        """
        draft = self.find(exam)
        if draft is None:
            raise UsageError(
                operation="opening an exam",
                target=str(exam),
                cause=N_("it is finished or unknown"),
                remedy=N_("Go to the list."),
            )
        return draft

    def save(self, draft: Draft, bodies: Iterable[Body] = ()) -> Draft:
        """Keep a new version; on the disk when this returns.

        Raises
        ------
        StoreError
            The disk failed or is full; the version before stands.
        """
        exam, patient = draft.exam.id, draft.patient.id
        with self._lock:
            version = self._open[exam][0] + 1 if exam in self._open else 1
            sealed = self._store.seal_for(patient, records.encode(draft), _place(exam, str(version)))
            kept = [(exam.bytes, one.ref.sha256, patient.bytes, self._seal_body(exam, patient, one)) for one in bodies]

            def work(db: sqlite3.Connection) -> None:
                db.executemany("INSERT OR IGNORE INTO body VALUES (?, ?, ?, ?)", kept)
                row = (exam.bytes, version, patient.bytes, sealed)
                db.execute("INSERT INTO draft VALUES (?, ?, ?, ?)", row)

            self._database.write(work)
            self._open[exam] = (version, draft)
        return draft

    def before(self, exam: uuid.UUID) -> Draft:
        """The version before the last; the first one where there is no other."""
        with self._lock:
            version, draft = self._open[exam]
            if version == 1:
                return draft
            query = "SELECT patient, sealed FROM draft WHERE exam = ? AND version = ?"
            rows = self._database.read(query, (exam.bytes, version - 1))
            return self._unseal(exam, version - 1, *rows[0])

    def undo(self, exam: uuid.UUID) -> Draft:
        """Back to the version before the last; the first one stays."""
        with self._lock:
            version, before = self._open[exam][0], self.before(exam)
            if version == 1:
                return before
            self._database.write(
                lambda db: db.execute("DELETE FROM draft WHERE exam = ? AND version = ?", (exam.bytes, version))
            )
            self._open[exam] = (version - 1, before)
            return before

    def body(self, exam: uuid.UUID, sha256: str) -> Body:
        """A photograph, waveform or heatmap of an open exam.

        Raises
        ------
        StoreDamagedError
            There is none, or it does not open.
        """
        rows = self._database.read(
            "SELECT patient, sealed FROM body WHERE exam = ? AND sha256 = ?", (exam.bytes, sha256)
        )
        if not rows:
            raise StoreDamagedError(operation="opening a draft", target=sha256[:16], cause="there is no such body")
        patient, sealed = rows[0]
        plain = self._store.open_for(uuid.UUID(bytes=patient), sealed, _place(exam, sha256))
        return msgspec.msgpack.decode(plain, type=Body)

    def bodies(self, draft: Draft) -> list[Body]:
        """All that the draft refers to."""
        return [self.body(draft.exam.id, ref.sha256) for ref in draft.blobs()]

    def close(self, exam: uuid.UUID) -> None:
        """Forget an exam that is in the store now, or that was given up."""
        with self._lock:
            self._open.pop(exam, None)
            self._drop(exam)

    def _let_go_of_erased(self) -> None:
        """Patients who were erased since, by the hub's word or by another process, have no open exam any longer."""
        if (version := self._store.version()) == self._seen:
            return
        self._seen = version
        erased = self._store.erased() if self._open else set()
        for exam in [exam for exam, (_, draft) in self._open.items() if draft.patient.id in erased]:
            self.close(exam)

    def _drop(self, exam: uuid.UUID) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM body WHERE exam = ?", (exam.bytes,))
            db.execute("DELETE FROM draft WHERE exam = ?", (exam.bytes,))

        self._database.write(work)

    def _seal_body(self, exam: uuid.UUID, patient: uuid.UUID, body: Body) -> bytes:
        plain = msgspec.msgpack.encode(body)
        return self._store.seal_for(patient, plain, _place(exam, body.ref.sha256))

    def _unseal(self, exam: uuid.UUID, version: int, patient: bytes, sealed: bytes) -> Draft:
        plain = self._store.open_for(uuid.UUID(bytes=patient), sealed, _place(exam, str(version)))
        return records.decode(Draft, plain)


def _place(exam: uuid.UUID, what: str) -> bytes:
    return f"draft {exam} {what}".encode()
