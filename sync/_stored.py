"""Reading a store: its records as values, as they go out, and the rows for the other modules of sync."""

from __future__ import annotations

import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from aidpost import records
from aidpost.errors import StoreDamagedError
from aidpost.records import ExamReport, Patient, Record, Referral, Review, VitalSign
from aidpost.sync import _schema, seal
from aidpost.sync._lives import Lives
from aidpost.sync._patient_keys import NOBODY, PatientKeys
from aidpost.sync._writer import Writer, fetch
from aidpost.sync.blobs import BlobFiles
from aidpost.sync.bodies import Acknowledgement, Erasure
from aidpost.sync.envelope import Envelope
from aidpost.sync.inbox import Inbox

_ROWS = "SELECT kind, cls, seq, patient, body FROM record WHERE"
_NEWEST = "ORDER BY at_ms DESC, seq DESC LIMIT"


class StoredRecords:
    """The reading half of a `Store`, which makes all that is named here."""

    path: Path
    inbox: Inbox
    blobs: BlobFiles
    lives: Lives
    _keys: PatientKeys
    _reader: sqlite3.Connection
    _reading: threading.Lock
    _writer: Writer

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of the store; for the other modules of sync.

        Raises
        ------
        StoreError
            SQLite or the disk failed.
        """
        return fetch(self._reader, self._reading, self.path, query, values)

    def write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Run `work` in the writer's next transaction; for the other modules of sync."""
        self._writer.run(work)

    def reports(self, limit: int = 100) -> list[ExamReport]:
        """The newest reports, newest first."""
        rows = self.read(f"{_ROWS} kind = 'ExamReport' {_NEWEST} ?", (limit,))
        return [records.decode(ExamReport, self._open(*row)) for _, *row in rows]

    def report(self, exam: uuid.UUID) -> ExamReport | None:
        """The last report of an exam."""
        return self._last_report("exam", exam)

    def last_report_of(self, patient: uuid.UUID) -> ExamReport | None:
        """The last report of a patient."""
        return self._last_report("patient", patient)

    def sent(self, kind: type[Record], number: uuid.UUID) -> bool:
        """Whether a record of that kind and id was accepted, receipted or not."""
        query = "SELECT 1 FROM record WHERE kind = ? AND id = ? LIMIT 1"
        return bool(self.read(query, (kind.__name__, number.bytes)))

    def patient(self, patient: uuid.UUID) -> Patient | None:
        """A patient as the last report had them; None where this device knows no such patient."""
        report = self._last_report("patient", patient)
        return report.patient if report else None

    def history(self, patient: uuid.UUID, limit: int = 200) -> list[VitalSign]:
        """The vital signs of a patient's last exams on this device, and those assigned to them since, newest first."""
        query = f"{_ROWS} patient = ? AND kind IN ('ExamReport', 'VitalSign') {_NEWEST} ?"
        return self._vitals(self.read(query, (patient.bytes, limit)))

    def measured(self, limit: int = 200) -> list[VitalSign]:
        """The vital signs of this device's last exams, whoever's, and what was kept outside of any exam."""
        last = self.read(f"{_ROWS} kind = 'ExamReport' {_NEWEST} ?", (limit,))
        outside = self.read(f"{_ROWS} exam IS NULL AND kind = 'VitalSign'")
        return self._vitals([*last, *outside])

    def _vitals(self, rows: Iterable[tuple[Any, ...]]) -> list[VitalSign]:
        out: dict[uuid.UUID, VitalSign] = {}
        for kind, *row in rows:
            try:
                body = self._open(*row)
            except StoreDamagedError:  # one damaged record of last year keeps nobody from being examined today
                continue
            found = (
                records.decode(ExamReport, body).vitals if kind == "ExamReport" else (records.decode(VitalSign, body),)
            )
            out |= {one.id: one for one in found if one.id not in out}
        return list(out.values())

    def reviews(self, exam: uuid.UUID) -> list[Review]:
        """What clinicians at the hub said of an exam, the last word last."""
        return self.inbox.records(Review, exam)

    def acknowledgements(self, exam: uuid.UUID | None = None) -> list[Acknowledgement]:
        """Who answers for an alert of this device at the hub, oldest first: of one exam, or all."""
        return self.inbox.records(Acknowledgement, exam)

    def referrals(self, exam: uuid.UUID | None = None) -> list[Referral]:
        """Referrals that the hub made or changed, oldest first: of one exam, or all."""
        return self.inbox.records(Referral, exam)

    def _last_report(self, column: str, of: uuid.UUID) -> ExamReport | None:
        rows = self.read(f"{_ROWS} kind = 'ExamReport' AND {column} = ? {_NEWEST} 1", (of.bytes,))
        return records.decode(ExamReport, self._open(*rows[0][1:])) if rows else None

    def envelopes(self, cls: str, seqs: Sequence[int]) -> list[Envelope]:
        """These records as they go out. One that does not open any more is left out, and becomes a dead letter."""
        out, damaged = [], []
        marks = ",".join("?" * len(seqs))
        query = f"SELECT cls, seq, patient, body, kind, exam, epoch FROM record WHERE cls = ? AND seq IN ({marks})"
        ids: dict[bytes, uuid.UUID] = {}
        openers: dict[bytes | None, Callable[[bytes, bytes], bytes]] = {}
        for row in self.read(f"{query} ORDER BY seq", (cls, *seqs)):
            patient, exam = _uuid(row[2], ids), _uuid(row[5], ids)
            try:
                body = self._open(row[0], row[1], row[2], row[3], openers)
                if row[4] == Erasure.__name__:
                    patient = records.decode(Erasure, body).patient
                out.append(Envelope(row[6] or self.lives.first, cls, row[1], row[4], patient, exam, body))
            except StoreDamagedError:
                damaged.append(row[1])
        for seq in damaged:
            self.write(lambda db, seq=seq: _kill(db, cls, seq, "damaged", "it does not open any more"))  # type: ignore[misc]
        return out

    def read_blob(self, sha256: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes [start, stop) of a photograph, waveform or heatmap.

        Raises
        ------
        StoreDamagedError
            There is none, or it does not open.
        """
        rows = self.read("SELECT patient FROM blob WHERE sha256 = ?", (bytes.fromhex(sha256),))
        if not rows:
            raise StoreDamagedError(operation="reading a stored body", target=sha256[:16], cause="there is none")
        patient = uuid.UUID(bytes=rows[0][0])
        return self.blobs.read(self._keys.find(self.read, patient), bytes.fromhex(sha256), patient, start, stop)

    def _open(
        self,
        cls: str,
        seq: int,
        patient: bytes | None,
        body: bytes,
        openers: dict[bytes | None, Callable[[bytes, bytes], bytes]] | None = None,
    ) -> bytes:
        """`openers` keeps a patient's from one of many records to the next."""
        opened = openers.get(patient) if openers is not None else None
        if opened is None:
            opened = seal.opener(self._keys.find(self.read, uuid.UUID(bytes=patient) if patient else NOBODY))
            if openers is not None:
                openers[patient] = opened
        try:
            return opened(body, self._place(cls, seq))
        except seal.SealBrokenError:
            raise StoreDamagedError(
                operation="opening a record", target=f"{cls}/{seq}", cause="it does not open: damaged or moved"
            ) from None

    def _place(self, cls: str, seq: int) -> bytes:
        # the first epoch whatever the record's is on the wire: that may change, and the row stays where it is
        return f"record {self.lives.first.hex()}/{cls}/{seq}".encode()


def _uuid(raw: bytes | None, made: dict[bytes, uuid.UUID]) -> uuid.UUID | None:
    """One of the few patients and exams of many records."""
    if raw and raw not in made:
        made[raw] = uuid.UUID(bytes=raw)
    return made[raw] if raw else None


def _kill(db: sqlite3.Connection, cls: str, seq: int, code: str, reason: str) -> None:
    db.execute(
        "UPDATE record SET state = ?, code = ?, reason = ? WHERE cls = ? AND seq = ? AND state = ?",
        (_schema.DEAD, code, reason, cls, seq, _schema.QUEUED),
    )
