"""What the hub sent down: kept durably and once, sealed like the device's own records, before the receipt says so."""

from __future__ import annotations

import contextlib
import sqlite3
import uuid
from collections.abc import Sequence
from typing import Protocol, TypeVar

from aidpost.errors import InvalidRecordError, StoreDamagedError
from aidpost.records import Record, Referral, Review, decode, encode
from aidpost.sync import ranges, rounds, seal
from aidpost.sync._patient_keys import NOBODY, PatientKeys, Reads
from aidpost.sync._writer import Writer
from aidpost.sync.bodies import Acknowledgement, Delivery, Erasure, IndexEntry, Shadow
from aidpost.sync.envelope import MAX_BLOB, Envelope, Held, Receipt, RecordKey, Reject

D = TypeVar(
    "D",
    Review,
    Referral,
    Acknowledgement,
    Shadow,
    rounds.RoundCall,
    rounds.RoundEnd,
    rounds.RoundRoster,
    rounds.RoundPeers,
    rounds.RoundUnmask,
)

_RANGES = 5_000
"""Ranges of one `Held`, which takes twice as many: a large clinic's index has a gap where an entry was replaced."""

_TAKEN = (Review, Referral, Acknowledgement, Delivery, IndexEntry, Erasure, Shadow, *rounds.DOWN)
_KINDS: dict[str, type[Record]] = {kind.__name__: kind for kind in _TAKEN}


class Erasing(Protocol):
    """What of a store erases a patient."""

    def erase_rows(self, db: sqlite3.Connection, patient: uuid.UUID) -> list[bytes]:
        """The key, so that nothing opens any more, and the rows; gives the blobs whose files go then."""

    def erase_files(self, patient: uuid.UUID, blobs: Sequence[bytes]) -> None:
        """After the commit: files, and what is left of the rows in the log."""


class Inbox:
    """The table `received`, by the hub's epoch, class and sequence. Part of a `Store`."""

    def __init__(self, writer: Writer, keys: PatientKeys, read: Reads, erasing: Erasing) -> None:
        self._writer, self._keys, self._read, self._erasing = writer, keys, read, erasing

    def keep(self, envelopes: Sequence[Envelope], now_ms: int, proofs: Sequence[bytes] = ()) -> Receipt:
        """Keep records in one transaction; what the returned receipt calls held is on the disk.

        The same record again is held again. Another record under a known key, one that contradicts its envelope, and
        one of a patient erased here are rejected with the wire's codes; unknown classes and kinds are kept as bytes.

        Parameters
        ----------
        proofs
            The hub's proof of each, empty where there is none; or nothing at all. They are kept with the records.

        Raises
        ------
        StoreError
            The disk failed; nothing was kept, and the hub sends it again.
        """

        erased: dict[uuid.UUID, list[bytes]] = {}
        given = proofs if len(proofs) == len(envelopes) else [b""] * len(envelopes)

        def work(db: sqlite3.Connection) -> list[Reject]:
            rejected = []
            for one, proof in zip(envelopes, given, strict=True):
                if (reject := self._keep(db, one, now_ms, erased)) is not None:
                    rejected.append(reject)
                elif proof:
                    db.execute(
                        "UPDATE received SET proof = ? WHERE epoch = ? AND cls = ? AND seq = ?", (proof, *one.key)
                    )
            return rejected

        rejected = self._writer.run(work)
        for patient, blobs in erased.items():
            self._erasing.erase_files(patient, blobs)
        refused = {(one.epoch, one.cls, one.seq) for one in rejected}
        kept = [one.key for one in envelopes if tuple(one.key) not in refused]
        return Receipt(hub_epoch=envelopes[0].epoch, held=_held(kept), rejected=tuple(rejected))

    def _keep(
        self, db: sqlite3.Connection, envelope: Envelope, now_ms: int, erased: dict[uuid.UUID, list[bytes]]
    ) -> Reject | None:
        key = envelope.key
        known = db.execute("SELECT hash FROM received WHERE epoch = ? AND cls = ? AND seq = ?", key).fetchone()
        if known is not None:
            return None if known[0] == envelope.hash else Reject(*key, "conflict", "another record has this key here")
        if fault := _fault(envelope):
            return Reject(*key, "invalid", fault[:500])
        if envelope.kind == Erasure.__name__ and envelope.patient is not None:
            erased[envelope.patient] = self._erasing.erase_rows(db, envelope.patient)
            # the row that says so is nobody's, since the patient's key is gone; its hash is that of what came
            self._insert(db, envelope, NOBODY, now_ms)
            return None
        owner = envelope.patient or NOBODY
        if self._keys.is_erased(db, owner):
            return Reject(*key, "erased", "this patient was erased")
        if envelope.kind == IndexEntry.__name__ and self._is_older(db, envelope):
            return None
        self._insert(db, envelope, owner, now_ms)
        return None

    def _insert(self, db: sqlite3.Connection, envelope: Envelope, owner: uuid.UUID, now_ms: int) -> None:
        key, patient = envelope.key, envelope.patient if owner != NOBODY else None
        db.execute(
            "INSERT INTO received (epoch, cls, seq, kind, patient, exam, body, hash, at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *key,
                envelope.kind,
                patient.bytes if patient else None,
                envelope.exam.bytes if envelope.exam else None,
                seal.seal(self._keys.make(db, owner), envelope.body, _place(key)),
                envelope.hash,
                now_ms,
            ),
        )

    def _is_older(self, db: sqlite3.Connection, envelope: Envelope) -> bool:
        """Whether the entry of that patient that is here is the newer one; if not, the one that is here goes."""
        assert envelope.patient is not None
        mine = (envelope.patient.bytes, IndexEntry.__name__)
        rows = db.execute("SELECT epoch, cls, seq, body FROM received WHERE patient = ? AND kind = ?", mine).fetchall()
        new = decode(IndexEntry, envelope.body).at.wall_ms
        for epoch, cls, seq, body in rows:
            if epoch == envelope.epoch:
                newer = seq > envelope.seq
            else:  # of before the hub was restored from a backup, or after
                known = self.open(RecordKey(epoch, cls, seq), envelope.patient.bytes, body, db)
                newer = decode(IndexEntry, known).at.wall_ms > new
            if newer:
                return True
        db.execute("DELETE FROM received WHERE patient = ? AND kind = ?", mine)
        return False

    def index(self) -> list[IndexEntry]:
        """The clinic's patients as the hub sent them; those that do not open any more are left out."""
        rows = self._read(
            "SELECT epoch, cls, seq, patient, body FROM received WHERE exam IS NULL AND kind = ?",
            (IndexEntry.__name__,),
        )
        found = []
        for *key, patient, body in rows:
            with contextlib.suppress(StoreDamagedError):
                found.append(decode(IndexEntry, self.open(RecordKey(*key), patient, body)))
        return [one for one in found if not one.removed]

    def index_state(self) -> tuple[object, ...]:
        """Changes whenever the index does."""
        query = "SELECT count(*), max(at_ms), max(seq), max(hash) FROM received WHERE exam IS NULL AND kind = ?"
        erased = self._read("SELECT count(*) FROM patient_key WHERE wrapped IS NULL")
        return (*self._read(query, (IndexEntry.__name__,))[0], erased[0][0])

    def held(self) -> tuple[Held, ...]:
        """Every record that was kept, for a receipt that says all of it."""
        return _held([RecordKey(*row) for row in self._read("SELECT epoch, cls, seq FROM received")])

    def proven(self, but: bytes) -> tuple[Held, ...]:
        """Every record that was kept with the hub's proof, of other lives of the hub than `but`."""
        query = "SELECT epoch, cls, seq FROM received INDEXED BY received_proof WHERE proof IS NOT NULL AND epoch != ?"
        return _held([RecordKey(*row) for row in self._read(query, (but,))])

    def records(self, kind: type[D], exam: uuid.UUID | None) -> list[D]:
        """The records of a kind, of one exam or all, oldest first by the hub's clock.

        Raises
        ------
        StoreDamagedError
            One of them does not open.
        """
        rows = self._read(
            "SELECT epoch, cls, seq, patient, body FROM received WHERE kind = ? AND (? IS NULL OR exam = ?)",
            (kind.__name__, *[exam.bytes if exam else None] * 2),
        )
        found = [decode(kind, self.open(RecordKey(*row[:3]), row[3], row[4])) for row in rows]
        return sorted(found, key=lambda one: (one.at.wall_ms, encode(one)))

    def open(self, key: RecordKey, patient: bytes | None, body: bytes, db: sqlite3.Connection | None = None) -> bytes:
        """The body of a row of `received`; raises StoreDamagedError where it does not open."""
        owner = uuid.UUID(bytes=patient) if patient else NOBODY
        try:
            secret = self._keys.make(db, owner) if db is not None else self._keys.find(self._read, owner)
            return seal.unseal(secret, body, _place(key))
        except seal.SealBrokenError:
            raise StoreDamagedError(
                operation="opening a record from the hub", target=str(key), cause="it does not open: damaged or moved"
            ) from None


def _fault(envelope: Envelope) -> str:
    kind = _KINDS.get(envelope.kind)
    if kind is None:
        return ""
    try:
        record = decode(kind, envelope.body)
    except (InvalidRecordError, RecursionError) as error:
        return f"{envelope.kind}: {getattr(error, 'cause', error)}"
    about = (envelope.patient, envelope.exam)
    if isinstance(record, Review | Referral | Acknowledgement) and (record.patient, record.exam) != about:
        return f"{envelope.kind}: the envelope names another patient or exam than the record"
    if isinstance(record, IndexEntry) and (record.patient.id, None) != about:
        return f"{envelope.kind}: the envelope names another patient than the record"
    if isinstance(record, Erasure) and (record.patient, None) != about:
        return f"{envelope.kind}: the envelope names another patient than the record"
    if isinstance(record, Delivery):
        if (record.subject, None, None) != (envelope.cls, *about):
            return f"{envelope.kind}: the envelope names another subject than the record, or somebody"
        if record.blob is not None and record.blob.size > MAX_BLOB:
            return f"{envelope.kind}: its blob is larger than {MAX_BLOB} bytes"
    return ""


def _held(keys: Sequence[RecordKey]) -> tuple[Held, ...]:
    numbers: dict[tuple[bytes, str], list[int]] = {}
    for epoch, cls, seq in keys:
        numbers.setdefault((epoch, cls), []).append(seq)
    whole = [(epoch, cls, ranges.from_numbers(found)) for (epoch, cls), found in numbers.items()]
    return tuple(
        Held(epoch, cls, found[start : start + _RANGES])
        for epoch, cls, found in whole
        for start in range(0, len(found), _RANGES)
    )


def _place(key: RecordKey) -> bytes:
    return f"received {key}".encode()
