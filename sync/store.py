"""The durable store of a device: every record that it accepted, sealed, and what the hub has said of each.

Accepted means on the disk: `append` returns after the commit that holds the record (SQLite, WAL, synchronous=FULL, many
callers to a commit), and after its photographs and waveforms were put on the disk before it. A record's body is sealed
with its patient's key, which is sealed with the device's; erasing a patient erases that key.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from aidpost import records
from aidpost.errors import KeyUnavailableError, StorageFullError, StoreDamagedError, StoreError
from aidpost.records import BlobRef, ExamReport, Origin, Patient, Record, Referral, Review, Timestamp, VitalSign
from aidpost.sync import _schema, seal
from aidpost.sync._durable import make_folder
from aidpost.sync._patient_keys import NOBODY, PatientKeys
from aidpost.sync._writer import Writer, connect
from aidpost.sync.blobs import BlobFiles
from aidpost.sync.bodies import Acknowledgement, BlobManifest, Erasure
from aidpost.sync.clock import Clock
from aidpost.sync.envelope import Envelope, RecordClass, RecordKey, content_hash
from aidpost.sync.inbox import Inbox
from aidpost.sync.keys import DeviceKey, Identity

R = TypeVar("R", bound=Record)

_REPORTS = "SELECT cls, seq, patient, body FROM record WHERE kind = 'ExamReport'"
_OF_PATIENT = (
    "SELECT kind, cls, seq, patient, body FROM record WHERE patient = ? AND kind IN ('ExamReport', 'VitalSign')"
)
_SEND = "Send the records on (check the network), or make room; nothing stored was touched."


class Blob(NamedTuple):
    """A large body that a record refers to by its SHA-256."""

    ref: BlobRef
    data: bytes
    origin: Origin
    preview: bytes = b""


class Item(NamedTuple):
    """A record to be accepted, and the blobs it refers to."""

    cls: RecordClass
    record: Record
    patient: uuid.UUID | None
    exam: uuid.UUID | None = None
    blobs: Sequence[Blob] = ()


class Budget(NamedTuple):
    """How much disk the store may use, and how much must stay free besides."""

    bytes: int = 8 << 30
    reserve: int = 64 << 20


class Store:
    """Open with `Store.open`; close when done. Every method may be called from any thread."""

    def __init__(self, folder: Path, key: DeviceKey, clock: Clock, budget: Budget) -> None:
        self.folder, self.key, self._clock, self._budget = folder, key, clock, budget
        self.path = folder / "store.sqlite3"
        self.blobs = BlobFiles(folder / "blobs")
        self._reader = connect(self.path)
        self._reading = threading.Lock()
        self._writer = Writer(self.path)
        self._keys = PatientKeys(key)
        self.inbox = Inbox(self._writer, self._keys, self.read)

    @classmethod
    def open(
        cls, folder: Path, key: DeviceKey, *, clock: Clock, name: str | None = None, budget: Budget | None = None
    ) -> Store:
        """Open the store in `folder`, or make one there.

        Parameters
        ----------
        name
            The device's name at the hub, for a new store; by default one is made from its public key.

        Raises
        ------
        KeyUnavailableError
            The store was sealed with another device key.
        StoreDamagedError
            The database does not pass SQLite's check.
        SchemaError
            It was written by a newer version.
        """
        make_folder(folder)
        # the database's name is on the disk with SQLite's own sync of the folder, before its first page is written
        store = cls(folder, key, clock, budget or Budget())
        try:
            _schema.check(store._reader, str(store.path))
            _schema.migrate(store._reader, str(store.path))
            store._begin(name)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Finish what was accepted and let go of the files."""
        self._writer.close()
        self._reader.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- who and when

    def now(self) -> Timestamp:
        """The present moment by the device's clock, with its boot counter."""
        return Timestamp(
            wall_ms=self._clock.wall_ms(),
            monotonic_ms=self._clock.monotonic_ms(),
            boot=self.boot,
            synced=self._clock.synced(),
        )

    def _begin(self, name: str | None) -> None:
        self._writer.run(lambda db: self._first_start(db, name))
        meta = dict(self.read("SELECT name, value FROM meta"))
        self.epoch: bytes = meta["epoch"]
        self.boot = int(meta["boot"])
        try:
            self.identity = Identity.from_bytes(seal.unseal(self.key.secret, meta["identity"], b"identity"))
        except seal.SealBrokenError:
            raise KeyUnavailableError(
                operation="opening the store",
                target=str(self.path),
                cause=f"it was sealed with another device key than the {self.key.source}",
                remedy="Give the right passphrase, or restore the key.",
            ) from None

    def _first_start(self, db: sqlite3.Connection, name: str | None) -> None:
        boot_id = self._clock.boot_id()
        meta = dict(db.execute("SELECT name, value FROM meta"))
        if "epoch" not in meta:
            identity = seal.seal(self.key.secret, Identity.create(name).to_bytes(), b"identity")
            rows = [("epoch", os.urandom(8)), ("identity", identity), ("boot", b"1"), ("boot_id", boot_id)]
            db.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        elif meta["boot_id"] != boot_id:
            db.execute("UPDATE meta SET value = ? WHERE name = 'boot'", (str(int(meta["boot"]) + 1).encode(),))
            db.execute("UPDATE meta SET value = ? WHERE name = 'boot_id'", (boot_id,))

    # -- accepting

    def append(self, item: Item) -> RecordKey:
        """Accept one record; it is on the disk when this returns. Raises as `append_many`."""
        return self.append_many([item])[0]

    def append_many(self, items: Sequence[Item]) -> list[RecordKey]:
        """Accept records together, all or none; they are on the disk when this returns.

        Raises
        ------
        StorageFullError
            There is no room; nothing was accepted and nothing stored was touched.
        StoreError
            A patient among them was erased, or the disk failed.
        """
        self._require_room(sum(len(blob.data) for item in items for blob in item.blobs))
        patients = {item.patient or NOBODY for item in items}
        keys = {patient: self._patient_key(patient) for patient in patients}
        for item in items:
            for blob in item.blobs:
                self._write_blob(keys[item.patient or NOBODY], item.patient or NOBODY, blob)

        def work(db: sqlite3.Connection) -> list[RecordKey]:
            for patient in patients:
                self._keys.require(db, patient)
            return [key for item in items for key in self._insert(db, item, keys)]

        return self._writer.run(work)

    def _require_room(self, size: int) -> None:
        """The policy for a full disk: photographs and waveforms that the hub has go first, the oldest first; then new
        captures are refused. What the hub lacks is never dropped."""
        used = sum(part.stat().st_size for part in self.folder.glob("store.sqlite3*"))
        used += int(self.read("SELECT coalesce(sum(size), 0) FROM blob")[0][0])
        free = shutil.disk_usage(self.folder).free
        lacking = max(used + size - self._budget.bytes, self._budget.reserve + size - free)
        if lacking > 0:
            freed = self._drop_receipted_blobs(lacking)
            lacking, used, free = lacking - freed, used - freed, free + freed
        if lacking > 0:
            raise StorageFullError(
                operation="accepting a recording",
                target=str(self.folder),
                cause=f"{free >> 20} MB are free and {used >> 20} of {self._budget.bytes >> 20} MB in use",
                remedy=_SEND,
            )

    def _drop_receipted_blobs(self, lacking: int) -> int:
        """Remove files that the hub has until `lacking` bytes are free, or none is left; the bytes freed."""

        def work(db: sqlite3.Connection) -> list[tuple[bytes, bytes, int]]:
            chosen: list[tuple[bytes, bytes, int]] = []
            query = "SELECT sha256, patient, size FROM blob WHERE state = ? ORDER BY at_ms"
            for row in db.execute(query, (_schema.RECEIPTED,)):
                if sum(one[2] for one in chosen) >= lacking:
                    break
                chosen.append(row)
            db.executemany("DELETE FROM blob WHERE sha256 = ? AND patient = ?", [row[:2] for row in chosen])
            return chosen

        dropped = self._writer.run(work)
        for sha256, patient, _ in dropped:
            self.blobs.remove(sha256, uuid.UUID(bytes=patient))
        return sum(row[2] for row in dropped)

    def _write_blob(self, key: bytes, patient: uuid.UUID, blob: Blob) -> None:
        sha256 = hashlib.sha256(blob.data).digest()
        if sha256.hex() != blob.ref.sha256 or len(blob.data) != blob.ref.size:
            raise StoreError(
                operation="accepting a recording", target=blob.ref.sha256[:16], cause="its bytes are not the ones named"
            )
        try:
            self.blobs.write(key, sha256, patient, blob.data)
        except OSError as error:
            raise StorageFullError(
                operation="accepting a recording", target=str(self.folder), cause=str(error.strerror), remedy=_SEND
            ) from error

    def _insert(self, db: sqlite3.Connection, item: Item, keys: dict[uuid.UUID, bytes]) -> Iterator[RecordKey]:
        key = keys[item.patient or NOBODY]
        yield self._insert_record(db, item.cls.value, item.record, item.patient, item.exam, key)
        for blob in item.blobs:
            cls = RecordClass.IMAGE if blob.ref.media_type.startswith("image/") else RecordClass.WAVEFORM
            manifest = BlobManifest(blob=blob.ref, origin=blob.origin, at=self.now(), preview=blob.preview)
            self._insert_record(db, cls.value, manifest, item.patient, item.exam, key)
            row = (bytes.fromhex(blob.ref.sha256), (item.patient or NOBODY).bytes, blob.ref.size, blob.ref.media_type)
            # the same photograph twice for one patient: one file, sent once
            db.execute(
                "INSERT OR IGNORE INTO blob (sha256, patient, size, media_type, cls, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
                (*row, cls.value, self._clock.wall_ms()),
            )

    def _insert_record(
        self,
        db: sqlite3.Connection,
        cls: str,
        record: Record,
        patient: uuid.UUID | None,
        exam: uuid.UUID | None,
        key: bytes,
    ) -> RecordKey:
        db.execute("INSERT INTO sequence VALUES (?, 1) ON CONFLICT DO UPDATE SET last = last + 1", (cls,))
        (seq,) = db.execute("SELECT last FROM sequence WHERE cls = ?", (cls,)).fetchone()
        body, kind = records.encode(record), type(record).__name__
        name = RecordKey(self.epoch, cls, seq)
        identity = getattr(record, "id", None)
        db.execute(
            "INSERT INTO record (cls, seq, kind, id, patient, exam, body, hash, size, at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                cls,
                seq,
                kind,
                identity.bytes if identity else None,
                patient.bytes if patient else None,
                exam.bytes if exam else None,
                seal.seal(key, body, _place(name)),
                content_hash(kind, patient, exam, body),
                len(body),
                self._clock.wall_ms(),
            ),
        )
        return name

    def _patient_key(self, patient: uuid.UUID) -> bytes:
        known = self._keys.opened(patient)
        return known or self._keys.keep(patient, self._writer.run(lambda db: self._keys.make(db, patient)))

    def seal_for(self, patient: uuid.UUID, plain: bytes, belongs_to: bytes) -> bytes:
        """Bytes about a patient that are kept outside this store (a draft), sealed with the patient's key: erasing the
        patient erases them too."""
        return seal.seal(self._patient_key(patient), plain, belongs_to)

    def open_for(self, patient: uuid.UUID, sealed: bytes, belongs_to: bytes) -> bytes:
        """What `seal_for` sealed.

        Raises
        ------
        StoreDamagedError
            It does not open: damaged, moved, or the patient was erased.
        """
        try:
            return seal.unseal(self._keys.find(self.read, patient), sealed, belongs_to)
        except seal.SealBrokenError:
            raise StoreDamagedError(
                operation="opening a draft", target=str(patient), cause="it does not open: damaged or moved"
            ) from None

    def erase_patient(self, patient: uuid.UUID, operator: str = "") -> None:
        """Erase a patient: the key first, so that nothing of them opens any more, then rows and files; a tombstone goes
        to the hub, so that no stick and no backup brings them back."""

        def work(db: sqlite3.Connection) -> list[bytes]:
            if not self._keys.erase(db, patient, self._clock.wall_ms()):
                return []
            files = [bytes(row[0]) for row in db.execute("SELECT sha256 FROM blob WHERE patient = ?", (patient.bytes,))]
            db.execute("DELETE FROM blob WHERE patient = ?", (patient.bytes,))
            db.execute("DELETE FROM record WHERE patient = ?", (patient.bytes,))
            db.execute("DELETE FROM received WHERE patient = ?", (patient.bytes,))
            nobody = self._keys.make(db, NOBODY)
            tombstone = Erasure(patient=patient, at=self.now(), operator=operator)
            self._insert_record(db, RecordClass.ALERT.value, tombstone, None, None, nobody)
            return files

        for sha256 in self._writer.run(work):
            self.blobs.remove(sha256, patient)
        # the log still has the page with the wrapped key as it was
        self._writer.fold_log()

    # -- reading

    def read(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Rows of the store; for the other modules of sync."""
        with self._reading:
            return self._reader.execute(query, values).fetchall()

    def write(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` in the writer's next transaction; for the other modules of sync."""
        self._writer.run(work)

    def reports(self, limit: int = 100) -> list[ExamReport]:
        """The newest reports, newest first."""
        rows = self.read(f"{_REPORTS} ORDER BY at_ms DESC, seq DESC LIMIT ?", (limit,))
        return [records.decode(ExamReport, self._open(*row)) for row in rows]

    def report(self, exam: uuid.UUID) -> ExamReport | None:
        """The last report of an exam."""
        return self._last_report("exam", exam)

    def last_report_of(self, patient: uuid.UUID) -> ExamReport | None:
        """The last report of a patient."""
        return self._last_report("patient", patient)

    def patient(self, patient: uuid.UUID) -> Patient | None:
        """A patient as the last report had them; None where this device knows no such patient."""
        report = self._last_report("patient", patient)
        return report.patient if report else None

    def history(self, patient: uuid.UUID, limit: int = 200) -> list[VitalSign]:
        """The vital signs of a patient's last exams on this device, and those assigned to them since, newest first."""
        rows = self.read(f"{_OF_PATIENT} ORDER BY at_ms DESC, seq DESC LIMIT ?", (patient.bytes, limit))
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
        rows = self.read(f"{_REPORTS} AND {column} = ? ORDER BY at_ms DESC, seq DESC LIMIT 1", (of.bytes,))
        return records.decode(ExamReport, self._open(*rows[0])) if rows else None

    def envelopes(self, cls: str, seqs: Sequence[int]) -> list[Envelope]:
        """These records as they go out. One that does not open any more is left out, and becomes a dead letter."""
        out, damaged = [], []
        marks = ",".join("?" * len(seqs))
        query = f"SELECT cls, seq, patient, body, kind, exam FROM record WHERE cls = ? AND seq IN ({marks})"
        for row in self.read(f"{query} ORDER BY seq", (cls, *seqs)):
            patient = uuid.UUID(bytes=row[2]) if row[2] else None
            exam = uuid.UUID(bytes=row[5]) if row[5] else None
            try:
                body = self._open(*row[:4])
                if row[4] == Erasure.__name__:
                    # its row is nobody's, since the patient's key is gone; the wire's envelope names whom its body does
                    patient = records.decode(Erasure, body).patient
                out.append(Envelope(self.epoch, cls, row[1], row[4], patient, exam, body))
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

    def _open(self, cls: str, seq: int, patient: bytes | None, body: bytes) -> bytes:
        name = RecordKey(self.epoch, cls, seq)
        owner = uuid.UUID(bytes=patient) if patient else NOBODY
        try:
            return seal.unseal(self._keys.find(self.read, owner), body, _place(name))
        except seal.SealBrokenError:
            raise StoreDamagedError(
                operation="opening a record", target=str(name), cause="it does not open: damaged or moved"
            ) from None


def _place(name: RecordKey) -> bytes:
    return f"record {name}".encode()


def _kill(db: sqlite3.Connection, cls: str, seq: int, code: str, reason: str) -> None:
    db.execute(
        "UPDATE record SET state = ?, code = ?, reason = ? WHERE cls = ? AND seq = ? AND state = ?",
        (_schema.DEAD, code, reason, cls, seq, _schema.QUEUED),
    )
