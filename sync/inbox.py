"""What the hub sent down: kept durably and once, sealed like the device's own records, before the receipt says so."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from typing import TypeVar

from aidpost.errors import InvalidRecordError, StoreDamagedError
from aidpost.records import Record, Referral, Review, decode, encode
from aidpost.sync import ranges, seal
from aidpost.sync._patient_keys import NOBODY, PatientKeys, Reads
from aidpost.sync._writer import Writer
from aidpost.sync.bodies import Acknowledgement, Delivery, Shadow
from aidpost.sync.envelope import MAX_BLOB, Envelope, Held, Receipt, RecordKey, Reject

D = TypeVar("D", Review, Referral, Acknowledgement, Shadow)

_KINDS: dict[str, type[Record]] = {
    kind.__name__: kind for kind in (Review, Referral, Acknowledgement, Delivery, Shadow)
}


class Inbox:
    """The table `received`, by the hub's epoch, class and sequence. Part of a `Store`."""

    def __init__(self, writer: Writer, keys: PatientKeys, read: Reads) -> None:
        self._writer, self._keys, self._read = writer, keys, read

    def keep(self, envelopes: Sequence[Envelope], now_ms: int) -> Receipt:
        """Keep records in one transaction; what the returned receipt calls held is on the disk.

        The same record again is held again. Another record under a known key, one that contradicts its envelope, and
        one of a patient erased here are rejected with the wire's codes; unknown classes and kinds are kept as bytes.

        Raises
        ------
        StoreError
            The disk failed; nothing was kept, and the hub sends it again.
        """

        def work(db: sqlite3.Connection) -> list[Reject]:
            return [reject for one in envelopes if (reject := self._keep(db, one, now_ms)) is not None]

        rejected = self._writer.run(work)
        refused = {(one.epoch, one.cls, one.seq) for one in rejected}
        kept = [one.key for one in envelopes if tuple(one.key) not in refused]
        return Receipt(hub_epoch=envelopes[0].epoch, held=_held(kept), rejected=tuple(rejected))

    def _keep(self, db: sqlite3.Connection, envelope: Envelope, now_ms: int) -> Reject | None:
        key = envelope.key
        known = db.execute("SELECT hash FROM received WHERE epoch = ? AND cls = ? AND seq = ?", key).fetchone()
        if known is not None:
            return None if known[0] == envelope.hash else Reject(*key, "conflict", "another record has this key here")
        owner = envelope.patient or NOBODY
        if self._keys.is_erased(db, owner):
            return Reject(*key, "erased", "this patient was erased")
        if fault := _fault(envelope):
            return Reject(*key, "invalid", fault[:500])
        db.execute(
            "INSERT INTO received (epoch, cls, seq, kind, patient, exam, body, hash, at_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *key,
                envelope.kind,
                envelope.patient.bytes if envelope.patient else None,
                envelope.exam.bytes if envelope.exam else None,
                seal.seal(self._keys.make(db, owner), envelope.body, _place(key)),
                envelope.hash,
                now_ms,
            ),
        )
        return None

    def held(self) -> tuple[Held, ...]:
        """Every record that was kept, for a receipt that says all of it."""
        return _held([RecordKey(*row) for row in self._read("SELECT epoch, cls, seq FROM received")])

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

    def open(self, key: RecordKey, patient: bytes | None, body: bytes) -> bytes:
        """The body of a row of `received`; raises StoreDamagedError where it does not open."""
        owner = uuid.UUID(bytes=patient) if patient else NOBODY
        try:
            return seal.unseal(self._keys.find(self._read, owner), body, _place(key))
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
    return tuple(Held(epoch, cls, ranges.from_numbers(found)) for (epoch, cls), found in numbers.items())


def _place(key: RecordKey) -> bytes:
    return f"received {key}".encode()
