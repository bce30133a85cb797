"""The durable store of a device: every record that it accepted, sealed, and what the hub has said of each.

Accepted means on the disk: `append` returns after the commit that holds the record (SQLite, WAL, synchronous=FULL, many
callers to a commit), and after its photographs and waveforms were put on the disk before it. A record's body is sealed
with its patient's key, which is sealed with the device's; erasing a patient erases that key.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from aidpost import records
from aidpost.errors import KeyUnavailableError, StorageFullError, StoreDamagedError, StoreError
from aidpost.records import BlobRef, Origin, Record, Timestamp
from aidpost.sync import _integrity, _recovery, _schema, seal
from aidpost.sync._durable import make_folder
from aidpost.sync._lives import Lives
from aidpost.sync._patient_keys import NOBODY, PatientKeys
from aidpost.sync._space import SEND, Budget, Space, note_intake
from aidpost.sync._stored import StoredRecords
from aidpost.sync._writer import Writer, connect
from aidpost.sync.blobs import BlobFiles
from aidpost.sync.bodies import BlobManifest, Erasure
from aidpost.sync.clock import Clock
from aidpost.sync.deliveries import Deliveries
from aidpost.sync.envelope import RecordClass, RecordKey, content_hash
from aidpost.sync.inbox import Inbox
from aidpost.sync.keys import DeviceKey, Identity

R = TypeVar("R", bound=Record)

_FULL = {errno.ENOSPC, errno.EDQUOT}
_FAILING = "Try again. If it happens again the memory card is failing: what the hub has is safe."


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


class Note(NamedTuple):
    """When, by the device's clock; `copied` or `damaged`; and the details, which name no patient."""

    at_ms: int
    what: str
    detail: str


class _Row(NamedTuple):
    """A record ready to be numbered and sealed."""

    cls: str
    kind: str
    id: uuid.UUID | None
    patient: uuid.UUID | None
    exam: uuid.UUID | None
    body: bytes
    hash: bytes


class _SealedIdentity(NamedTuple):
    sealed: bytes
    opened: Identity


class Store(StoredRecords):
    """Open with `Store.open`; close when done. Every method may be called from any thread."""

    def __init__(self, folder: Path, key: DeviceKey, clock: Clock, budget: Budget) -> None:
        self.folder, self.key, self._clock = folder, key, clock
        self.path = folder / _integrity.NAME
        self.blobs = BlobFiles(folder / "blobs")
        self._reader = connect(self.path)
        self._reading = threading.Lock()
        self._writer = Writer(self.path)
        self._keys = PatientKeys(key)
        self.inbox = Inbox(self._writer, self._keys, self.read, self)
        self.deliveries = Deliveries(self)
        self._lock: int | None = None
        self.space = Space(folder, budget, self.read, self._writer, self.blobs)

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
            The database is damaged, and nothing can be made of it, or another process has it open.
        SchemaError
            It was written by a newer version.
        """
        make_folder(folder)
        lock = _integrity.make_whole(folder, key, clock)
        try:
            # the database's name is on the disk with SQLite's own sync of the folder, before its first page is written
            store = cls(folder, key, clock, budget or Budget())
        except BaseException:
            os.close(lock)
            raise
        store._lock = lock
        try:
            _schema.migrate(store._reader, str(store.path))
            store._begin(name)
            _integrity.set_damaged_files_aside(store.read, store._writer, store.blobs, clock)
        except BaseException:
            store.close()
            raise
        return store

    def close(self) -> None:
        """Finish what was accepted and let go of the files."""
        self._writer.close()
        self._reader.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- who and when

    @property
    def epoch(self) -> bytes:
        """The epoch of what is accepted now."""
        return self.lives.current

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
        self.lives = Lives(bytes(meta["epoch"]), self.read)
        self.boot = int(meta["boot"])
        try:
            self._identity = self._open_identity(bytes(meta["identity"]))
        except seal.SealBrokenError:
            raise KeyUnavailableError(
                operation="opening the store",
                target=str(self.path),
                cause=f"it was sealed with another device key than the {self.key.source}",
                remedy="Give the right passphrase, or restore the key.",
            ) from None
        _recovery.keep_base(self.folder, _recovery.Base(self.lives.first, bytes(meta["identity"])))

    @property
    def identity(self) -> Identity:
        """Who this device is. Another process may have changed it a moment ago (`aidpost board rotate-key`)."""
        # where the database or the device key fails, what was opened at the start is still who this is
        with contextlib.suppress(StoreError, seal.SealBrokenError):
            ((sealed,),) = self.read("SELECT value FROM meta WHERE name = 'identity'")
            if sealed != self._identity.sealed:
                self._identity = self._open_identity(bytes(sealed))
        return self._identity.opened

    def _open_identity(self, sealed: bytes) -> _SealedIdentity:
        return _SealedIdentity(sealed, Identity.from_bytes(seal.unseal(self.key.secret, sealed, b"identity")))

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
        self._keys.even_out(db)

    def next_identity(self) -> Identity:
        """The key that is to take the present one's place; made, and on the disk, before anybody hears of it."""
        place = b"identity next"

        def work(db: sqlite3.Connection) -> bytes:
            kept = db.execute("SELECT value FROM meta WHERE name = 'identity_next'").fetchone()
            if kept is None:
                kept = (seal.seal(self.key.secret, Identity.create(self.identity.name).to_bytes(), place),)
                db.execute("INSERT INTO meta VALUES ('identity_next', ?)", kept)
            return bytes(kept[0])

        try:
            return Identity.from_bytes(seal.unseal(self.key.secret, self._writer.run(work), place))
        except seal.SealBrokenError:
            raise StoreDamagedError(
                operation="changing the device's signing key", target=str(self.path), cause="the new one does not open"
            ) from None

    def take_identity(self) -> None:
        """From now on the device is who `next_identity` said."""
        following = self.next_identity()
        sealed = seal.seal(self.key.secret, following.to_bytes(), b"identity")

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE meta SET value = ? WHERE name = 'identity'", (sealed,))
            db.execute("DELETE FROM meta WHERE name = 'identity_next'")

        self._writer.run(work)
        self._identity = _SealedIdentity(sealed, following)
        _recovery.keep_base(self.folder, _recovery.Base(self.lives.first, sealed))

    # -- accepting

    def append(self, item: Item) -> RecordKey:
        """Accept one record; it is on the disk when this returns. Raises as `append_many`."""
        return self.append_many([item])[0]

    def append_many(
        self, items: Sequence[Item], also: Callable[[sqlite3.Connection], None] = lambda _: None
    ) -> list[RecordKey]:
        """Accept records together, all or none; they are on the disk when this returns.

        Parameters
        ----------
        also
            What else is to be written in the same transaction; where it raises, nothing is.

        Raises
        ------
        StorageFullError
            There is no room; nothing was accepted and nothing stored was touched.
        StoreError
            A patient among them was erased, or the disk failed.
        """
        rows = [row for item in items for row in self._rows(item)]
        size = sum(len(row.body) for row in rows)
        blobs = [(item.patient or NOBODY, blob) for item in items for blob in item.blobs]
        self.space.require(size + sum(len(blob.data) for _, blob in blobs))
        patients = {item.patient or NOBODY for item in items}
        keys = {patient: self._patient_key(patient) for patient in patients}
        for patient, blob in blobs:
            self._write_blob(keys[patient], patient, blob)

        def work(db: sqlite3.Connection) -> list[RecordKey]:
            also(db)
            for patient in patients:
                self._keys.require(db, patient)
            self._insert_blobs(db, blobs)
            note_intake(db, self._clock.wall_ms(), size + sum(len(blob.data) for _, blob in blobs))
            return self._insert(db, rows, keys)

        return self._writer.run(work)

    def _rows(self, item: Item) -> list[_Row]:
        """What an item puts into the table: its record, and a manifest for each of its blobs."""
        rows = [_row(item.cls.value, item.record, item.patient, item.exam)]
        for blob in item.blobs:
            manifest = BlobManifest(blob=blob.ref, origin=blob.origin, at=self.now(), preview=blob.preview)
            rows.append(_row(_class_of(blob).value, manifest, item.patient, item.exam))
        return rows

    def _write_blob(self, key: bytes, patient: uuid.UUID, blob: Blob) -> None:
        sha256 = hashlib.sha256(blob.data).digest()
        if sha256.hex() != blob.ref.sha256 or len(blob.data) != blob.ref.size:
            raise StoreError(
                operation="accepting a recording", target=blob.ref.sha256[:16], cause="its bytes are not the ones named"
            )
        try:
            self.blobs.write(key, sha256, patient, blob.data)
        except OSError as error:
            kind, remedy = (StorageFullError, SEND) if error.errno in _FULL else (StoreError, _FAILING)
            raise kind(
                operation="accepting a recording", target=str(self.folder), cause=str(error.strerror), remedy=remedy
            ) from error

    def _insert_blobs(self, db: sqlite3.Connection, blobs: Iterable[tuple[uuid.UUID, Blob]]) -> None:
        at = self._clock.wall_ms
        db.executemany(
            # the same photograph twice for one patient: one file, sent once
            "INSERT OR IGNORE INTO blob (sha256, patient, size, media_type, cls, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
            [
                (bytes.fromhex(ref.sha256), patient.bytes, ref.size, ref.media_type, _class_of(blob).value, at())
                for patient, blob in blobs
                for ref in [blob.ref]
            ],
        )

    def _insert(self, db: sqlite3.Connection, rows: list[_Row], keys: dict[uuid.UUID, bytes]) -> list[RecordKey]:
        """Number, seal and insert: a few statements for any number of rows."""
        begun = db.execute("SELECT value FROM meta WHERE name = 'wire_epoch'").fetchone()
        epoch, at = bytes(begun[0]) if begun else self.lives.first, self._clock.wall_ms()
        last = {cls: _reserve(db, cls, sum(row.cls == cls for row in rows)) for cls in {row.cls for row in rows}}
        sealers = {patient: seal.sealer(key) for patient, key in keys.items()}
        names, values = [], []
        for row in rows:
            last[row.cls] += 1
            seq = last[row.cls]
            names.append(RecordKey(epoch, row.cls, seq))
            body = sealers[row.patient or NOBODY](row.body, self._place(row.cls, seq))
            ids = [one.bytes if one else None for one in (row.id, row.patient, row.exam)]
            values.append((row.cls, seq, row.kind, *ids, body, row.hash, len(row.body), at, begun and epoch))
        db.executemany(
            "INSERT INTO record (cls, seq, kind, id, patient, exam, body, hash, size, at_ms, epoch)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        return names

    def _patient_key(self, patient: uuid.UUID) -> bytes:
        known = self._keys.opened(patient)
        return known or self._keys.keep(patient, self._writer.run(lambda db: self._keys.make(db, patient)))

    def nobodys_key(self) -> bytes:
        """The key of what is about no patient; for the other modules of sync."""
        return self._patient_key(NOBODY)

    def seal_for(self, patient: uuid.UUID, plain: bytes, belongs_to: bytes) -> bytes:
        """Bytes about a patient that are kept outside this store (a draft), sealed with the patient's key: erasing the
        patient erases them too.

        Raises
        ------
        StoreError
            The patient was erased, or the disk failed.
        """
        self._patient_key(patient)  # makes one for somebody new
        return seal.seal(self._keys.find(self.read, patient), plain, belongs_to)

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
            if self._keys.is_erased(db, patient) or not self._keys.has(db, patient):
                return []
            files = self.erase_rows(db, patient)
            nobody = self._keys.make(db, NOBODY)
            tombstone = Erasure(patient=patient, at=self.now(), operator=operator)
            # the envelope names whom its body does; the row is nobody's, since the patient's key is gone
            row = _row(RecordClass.ALERT.value, tombstone, patient, None)._replace(patient=None)
            self._insert(db, [row], {NOBODY: nobody})
            return files

        self.erase_files(patient, self._writer.run(work))

    def erase_rows(self, db: sqlite3.Connection, patient: uuid.UUID) -> list[bytes]:
        """The key and all rows of a patient, in the caller's transaction; a mark stays, so that nothing of them is
        taken again. Gives the blobs for `erase_files`."""
        self._keys.erase(db, patient, self._clock.wall_ms())
        files = [bytes(row[0]) for row in db.execute("SELECT sha256 FROM blob WHERE patient = ?", (patient.bytes,))]
        for table in ("blob", "record", "received"):
            db.execute(f"DELETE FROM {table} WHERE patient = ?", (patient.bytes,))
        return files

    def erase_files(self, patient: uuid.UUID, blobs: Sequence[bytes]) -> None:
        """After the commit of `erase_rows`: files, and what the log and the quarantine still have."""
        for sha256 in blobs:
            self.blobs.remove(sha256, patient)
        # the log still has the page with the wrapped key as it was, and so has a database that was set aside
        self._writer.fold_log()
        shutil.rmtree(self.folder / _recovery.QUARANTINE, ignore_errors=True)

    def notes(self) -> list[Note]:
        """What happened to this store that people should know: that it was copied, or damaged. The oldest first."""
        return [Note(*row) for row in self.read("SELECT at_ms, what, detail FROM note ORDER BY number")]

    def version(self) -> int:
        """Changes with every commit that anybody makes, this process or another."""
        return int(self.read("PRAGMA data_version")[0][0])

    def erased(self) -> set[uuid.UUID]:
        """The patients who were erased here."""
        rows = self.read("SELECT patient FROM patient_key WHERE wrapped IS NULL")
        return {uuid.UUID(bytes=row[0]) for row in rows}


def _row(cls: str, record: Record, patient: uuid.UUID | None, exam: uuid.UUID | None) -> _Row:
    body, kind = records.encode(record), type(record).__name__
    return _Row(cls, kind, getattr(record, "id", None), patient, exam, body, content_hash(kind, patient, exam, body))


def _class_of(blob: Blob) -> RecordClass:
    return RecordClass.IMAGE if blob.ref.media_type.startswith("image/") else RecordClass.WAVEFORM


def _reserve(db: sqlite3.Connection, cls: str, count: int) -> int:
    """Take `count` sequences of a class; the last one that was taken before."""
    db.execute("INSERT INTO sequence VALUES (?, ?) ON CONFLICT DO UPDATE SET last = last + excluded.last", (cls, count))
    (last,) = db.execute("SELECT last FROM sequence WHERE cls = ?", (cls,)).fetchone()
    return int(last) - count
