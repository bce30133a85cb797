"""One transaction of the ingest: judges records, keeps them, and gathers what the receipts will say."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, insert, select, update

from aidpost.records import ExamReport, Referral, Review, VitalSign
from aidpost.sync import rounds as wire
from aidpost.sync.bodies import Acknowledgement, BlobManifest, Delivery, Erasure, Outcome, Returned
from aidpost.sync.envelope import (
    MAX_BLOB,
    BlobHeld,
    Chunks,
    Content,
    Dropped,
    Envelope,
    Held,
    Hello,
    Receipt,
    Records,
    Reject,
    Status,
)
from aidpost.sync.hub import (
    _erasure,
    _full_receipt,
    _views,
    alerts,
    audit,
    deliveries,
    device_settings,
    index,
    outgoing,
    referrals,
    returned,
    rounds,
    rules,
    schema,
    updates,
)
from aidpost.sync.hub._blob_intake import BlobIntake, Collected
from aidpost.sync.hub._judge import Refusal, judge
from aidpost.sync.hub._rows import clean
from aidpost.sync.hub._streams import Stream
from aidpost.sync.hub._views import Stored
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.clocks import note_anchor
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms

_INT32_MAX = (1 << 31) - 1
_PAGE = 500
"""Values of one SQL `IN`."""


class DevicePolicy(NamedTuple):
    """An enrolled device: its key, whether it may send simulated exams, and the key before, while that is taken."""

    name: str
    public_key: bytes
    accept_simulated: bool
    previous_key: bytes | None = None


class Batch:
    """What one transaction does. Used once: `blob` and `take`, `finish`, commit, `after_commit`, `receipts`."""

    def __init__(
        self, connection: Connection, hub_epoch: bytes, files: BlobFiles, blobs: BlobIntake, config: HubConfig
    ) -> None:
        self._config = config
        self._connection, self._hub_epoch, self._files, self._intake = connection, hub_epoch, files, blobs
        self._streams: dict[tuple[str, bytes, str], Stream] = {}
        self._stored: list[Stored] = []
        self._held: dict[str, dict[tuple[bytes, str], dict[int, bytes]]] = {}
        self._dropped: dict[str, list[Held]] = {}
        self._rejected: dict[str, dict[tuple[bytes, str, int], Reject]] = {}
        self._blobs: dict[str, dict[bytes, BlobHeld]] = {}
        self._wanted: dict[str, list[Held]] = {}
        self._manifests: dict[tuple[str, str], int] = {}
        self._hellos: list[tuple[str, Hello]] = []
        self._full: list[tuple[str, Receipt]] = []
        self._seen: dict[str, dict[str, Any]] = {}
        self._unwanted: list[str] = []
        self._erased: dict[uuid.UUID, bool] = {}
        self._owners: dict[uuid.UUID, str] = {}
        self.asked: list[tuple[str, BlobHeld]] = []
        """Bodies of which a device lacks something and asks for it."""

    def blob(self, blob: Collected, now_ms: int) -> None:
        """Notes chunks that are on disk."""
        self._intake.note(self._connection, blob, now_ms)
        self._answer_blob(blob.device, blob.held)

    def take(self, device: DevicePolicy, content: Content, received_ms: int) -> None:
        """Takes one message, whatever it is."""
        seen = self._seen.setdefault(device.name, {})
        seen["seen_ms"] = max(received_ms, seen.get("seen_ms", 0))
        match content:
            case Records():
                self._records(device, content.envelopes, received_ms)
            case Dropped():
                self._drop(device.name, content)
            case Hello():
                seen["software"] = content.software
                if not content.carried:
                    note_anchor(self._connection, device.name, content.at, received_ms)
                    seen["clock_synced"] = content.at.synced
                    seen["clock_error_ms"] = max(-(1 << 62), min(1 << 62, content.at.wall_ms - received_ms))
                self._hellos.append((device.name, content))
            case Status():
                seen |= _status(content)
                if content.online:  # a last will was written before, and says nothing of updates
                    updates.note(self._connection, self._config, device.name, content.installed, received_ms)
            case Receipt():
                outgoing.note_receipt(self._connection, device.name, content, received_ms)
                for blob in content.blobs:
                    self._ask(device.name, blob, received_ms)
                lost = returned.lacking(self._connection, device.name, content, self._hub_epoch)
                if lost:
                    self._wanted[device.name] = lost
            case Chunks():
                pass  # on disk already: `blob`

    def finish(self) -> None:
        """Writes everything; what is left is the commit."""
        connection = self._connection
        rows = [_envelope_row(item) for item in self._stored]
        if rows:
            connection.execute(insert(schema.envelopes), rows)
        _views.add_reports(connection, self._of(ExamReport))
        _views.add_vitals(connection, self._of(VitalSign))
        _views.add_manifests(connection, self._of(BlobManifest))
        for item in self._of(Referral):
            referrals.add(connection, item.record, item.device)
        for item in self._of(Acknowledgement):
            alerts.from_device(connection, item.device, item.record, item.received_ms)
        for item in self._of(Outcome):
            deliveries.note_outcome(connection, item.device, item.record, item.received_ms)
        self._unwanted += returned.take(connection, self._stored, now_ms())
        for item in self._of(Erasure):
            self._unwanted += _erasure.erase(connection, item.record.patient, item.device, item.received_ms)
        for item in self._stored:
            if isinstance(item.record, wire.UP):
                rounds.take(connection, item.device, item.record, item.received_ms)
        for stream in self._streams.values():
            stream.save(connection)
        for (device, sha256), size in self._manifests.items():
            self._answer_blob(device, self._intake.answer(connection, device, sha256, size))
        for device, values in sorted(self._seen.items()):  # in one order, so that two workers never wait for each other
            connection.execute(update(schema.devices).where(schema.devices.c.name == device).values(**values))
        for device in {device for device, _ in self._hellos}:
            # a device that is new, or was given to another clinic
            device_settings.send_due(connection, self._hub_epoch, device, "hub", now_ms())
            rules.send_due(connection, self._hub_epoch, device, now_ms())
            index.begin(connection, device)
        for device, hello in self._hellos:
            self._full += _full_receipt.answers(connection, self._intake, device, hello, self._hub_epoch)

    def after_commit(self) -> None:
        """Removes files of patients who were erased: only once nothing names them any longer."""
        for sha256 in self._unwanted:
            self._files.erase(sha256)

    def receipts(self) -> Iterator[tuple[str, Receipt]]:
        """What to tell each device."""
        for device in {*self._held, *self._dropped, *self._rejected, *self._blobs, *self._wanted}:
            held = [
                block
                for (epoch, cls), hashes in self._held.get(device, {}).items()
                for block in _full_receipt.held_blocks(epoch, cls, hashes)
            ]
            yield (
                device,
                Receipt(
                    hub_epoch=self._hub_epoch,
                    held=(*held, *self._dropped.get(device, ())),
                    rejected=tuple(self._rejected.get(device, {}).values()),
                    blobs=tuple(self._blobs.get(device, {}).values()),
                    wanted=tuple(self._wanted.get(device, ())),
                ),
            )
        yield from self._full

    def _ask(self, device: str, blob: BlobHeld, received_ms: int) -> None:
        refused = deliveries.note_held(self._connection, device, blob, received_ms)
        if refused == "":
            self.asked.append((device, blob))
        elif refused is not None:
            self._answer_blob(device, BlobHeld(blob.sha256, (), False, refused))

    def _of(self, kind: type) -> list[Stored]:
        return [item for item in self._stored if isinstance(item.record, kind)]

    def _stream(self, device: str, epoch: bytes, cls: str) -> Stream:
        key = (device, epoch, cls)
        if key not in self._streams:
            self._streams[key] = Stream.open(self._connection, *key)
        return self._streams[key]

    def _records(self, device: DevicePolicy, envelopes: tuple[Envelope, ...], received_ms: int) -> None:
        by_stream: dict[tuple[bytes, str], list[Envelope]] = {}
        for envelope in envelopes:
            by_stream.setdefault((envelope.epoch, envelope.cls), []).append(envelope)
        for (epoch, cls), group in by_stream.items():
            stream = self._stream(device.name, epoch, cls)
            stream.load_hashes(self._connection, [envelope.seq for envelope in group])
            self._load_erased({envelope.patient for envelope in group if envelope.patient})
            self._load_owners({e.exam for e in group if e.exam and e.kind == ExamReport.__name__})
            for envelope in group:
                self._record(device, stream, envelope, received_ms)

    def _record(self, device: DevicePolicy, stream: Stream, envelope: Envelope, received_ms: int) -> None:
        content_hash = envelope.hash
        known = stream.hash_of(envelope.seq)
        if known is not None and known != content_hash:
            self._conflict(stream, envelope, content_hash, received_ms)
            return
        if known is None:
            verdict = judge(envelope, device.accept_simulated, self._intake.max_bytes)
            if not isinstance(verdict, Refusal):
                verdict = self._forbidden(device.name, envelope, verdict.record) or verdict
            if isinstance(verdict, Refusal):
                self._refuse(stream, envelope, content_hash, verdict, received_ms)
                return
            stream.commit(envelope.seq, content_hash)
            kept = Stored(device.name, stream.id, envelope, content_hash, verdict.record, verdict.origin, received_ms)
            self._stored.append(kept)
            if isinstance(verdict.record, BlobManifest):
                self._intake.allow(self._connection, device.name, verdict.record.blob.sha256)
        self._rejected.get(device.name, {}).pop((envelope.epoch, envelope.cls, envelope.seq), None)
        held = self._held.setdefault(device.name, {}).setdefault((envelope.epoch, envelope.cls), {})
        held[envelope.seq] = content_hash
        if envelope.kind == BlobManifest.__name__:
            blob = msgspec.msgpack.decode(envelope.body, type=BlobManifest).blob
            self._manifests[device.name, blob.sha256] = blob.size

    def _forbidden(self, device: str, envelope: Envelope, record: object) -> Refusal | None:
        if envelope.patient is not None and self._erased[envelope.patient] and not isinstance(record, Erasure):
            return Refusal("erased", "this patient was erased")
        if isinstance(record, Review | Delivery):
            return Refusal("foreign", "reviews and deliveries come from the hub, not from devices")
        if isinstance(record, Returned):
            return returned.refusal(self._config.state, device, envelope, record)
        if isinstance(record, ExamReport) and self._owners.setdefault(record.exam.id, device) != device:
            return Refusal("foreign", "this exam was made on another device")
        return None

    def _load_erased(self, patients: set[uuid.UUID]) -> None:
        unknown = list(patients - self._erased.keys())
        for page in _pages(unknown):
            erased = set(self._connection.execute(_erasure.tombstones_of(page)).scalars())
            self._erased.update((patient, patient in erased) for patient in page)

    def _load_owners(self, exams: set[uuid.UUID]) -> None:
        table = schema.exams
        for page in _pages(list(exams - self._owners.keys())):
            rows = self._connection.execute(select(table.c.id, table.c.device).where(table.c.id.in_(page)))
            self._owners.update((row.id, row.device) for row in rows)

    def _conflict(self, stream: Stream, envelope: Envelope, content_hash: bytes, received_ms: int) -> None:
        table = schema.conflicts
        known = _is_known(self._connection, table, stream.id, envelope.seq, content_hash)
        if not known:
            row = _row(stream.id, envelope, content_hash, received_ms)
            self._connection.execute(insert(table).values(**row))
            detail = f"kept {(stream.hash_of(envelope.seq) or b'').hex()[:16]}, came {content_hash.hex()[:16]}"
            audit.append(self._connection, stream.device, "conflict", str(envelope.key), detail)
        reason = "another record with this key is here already: was the device's store copied?"
        self._answer_reject(stream.device, envelope, Refusal("conflict", reason))

    def _refuse(
        self, stream: Stream, envelope: Envelope, content_hash: bytes, refusal: Refusal, received_ms: int
    ) -> None:
        table = schema.rejects
        if not _is_known(self._connection, table, stream.id, envelope.seq, content_hash):
            self._connection.execute(
                insert(table).values(
                    stream=stream.id,
                    seq=envelope.seq,
                    hash=content_hash,
                    code=refusal.code,
                    reason=clean(refusal.reason, 500),
                    received_ms=received_ms,
                )
            )
            audit.append(self._connection, stream.device, "rejected", str(envelope.key), refusal.code)
        stream.reject(envelope.seq)
        self._answer_reject(stream.device, envelope, refusal)
        if envelope.kind == BlobManifest.__name__ and refusal.code != "invalid":
            blob = msgspec.msgpack.decode(envelope.body, type=BlobManifest).blob
            held = self._intake.refuse(
                self._connection, stream.device, blob.sha256, min(blob.size, MAX_BLOB), refusal.reason, received_ms
            )
            self._answer_blob(stream.device, held)

    def _drop(self, device: str, content: Dropped) -> None:
        for held in content.dropped:
            self._stream(device, held.epoch, held.cls).drop(held.ranges)
            audit.append(
                self._connection,
                device,
                "dropped",
                f"{held.epoch.hex()}/{held.cls}",
                f"{content.reason}: {held.ranges}",
            )
            self._dropped.setdefault(device, []).append(held)

    def _answer_reject(self, device: str, envelope: Envelope, refusal: Refusal) -> None:
        key = (envelope.epoch, envelope.cls, envelope.seq)
        self._rejected.setdefault(device, {})[key] = Reject(*key, refusal.code, refusal.reason)

    def _answer_blob(self, device: str, held: BlobHeld) -> None:
        self._blobs.setdefault(device, {})[held.sha256] = held


def _pages(ids: list[uuid.UUID]) -> Iterator[list[uuid.UUID]]:
    for start in range(0, len(ids), _PAGE):
        yield ids[start : start + _PAGE]


def _is_known(connection: Connection, table: Any, stream: int, seq: int, content_hash: bytes) -> bool:
    """Whether a conflict or reject is known already, so that it is audited once."""
    found = select(table.c.seq).where(table.c.stream == stream, table.c.seq == seq, table.c.hash == content_hash)
    return connection.execute(found).one_or_none() is not None


def _envelope_row(item: Stored) -> dict[str, Any]:
    row = _row(item.stream, item.envelope, item.hash, item.received_ms)
    return row | {"origin": item.origin.value if item.origin else None}


def _row(stream: int, envelope: Envelope, content_hash: bytes, received_ms: int) -> dict[str, Any]:
    return {
        "stream": stream,
        "seq": envelope.seq,
        "hash": content_hash,
        "kind": envelope.kind,
        "patient": envelope.patient,
        "exam": envelope.exam,
        "body": envelope.body,
        "received_ms": received_ms,
    }


def _status(status: Status) -> dict[str, Any]:
    return {
        "online": status.online,
        "queued": min(sum(status.queued.values()), _INT32_MAX),
        "oldest_s": status.oldest_s,
        "dead_letters": min(status.dead_letters, _INT32_MAX),
        "software": status.software,
    }
