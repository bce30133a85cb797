"""No network at all: the outbox on a USB stick, and the hub's receipts back from it.

Exporting changes nothing in the store: a record leaves the outbox by the hub's receipt alone, so a lost stick loses
nothing, and a record that also goes by MQTT counts once. The file is sealed to the hub; see `docs/stick.md`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from aidpost.errors import EnvelopeError, StoreDamagedError
from aidpost.sync import _stick_file, ranges, returns
from aidpost.sync._greeting import carried_gone, carried_hello, carried_nonces, known_hub, note_gone
from aidpost.sync.envelope import CHUNK, Chunk, Chunks, Content, Receipt, RecordClass, Records, pack_message
from aidpost.sync.envelope import unpack_message as unpack
from aidpost.sync.outbox import Outbox, hub_ranges
from aidpost.sync.store import Store

_log = logging.getLogger(__name__)

MESSAGE_BYTES = 256 * 1024
"""Bodies of one message on a stick; one record larger than that goes alone."""
_PAGE = 200


class Exported(NamedTuple):
    """What lies on the stick. `unreadable` photographs and waveforms do not open any more and were left out."""

    records: int
    blobs: int
    unreadable: int


class Applied(NamedTuple):
    """What a receipts file said: messages with receipts, and records from the hub that are kept now."""

    receipts: int
    received: int
    refused: int


def export_stick(store: Store, path: Path, *, hub_name: str, hub_key: Ed25519PublicKey) -> Exported:
    """Write every record that the hub has not receipted, and what it lacks of photographs and waveforms, to one file.

    The file is there whole and on the disk, or not at all.

    Parameters
    ----------
    hub_key
        The hub's public signing key; the file is sealed to the X25519 key that belongs to it.

    Raises
    ------
    StoreError
        The stick cannot be written.
    """
    export = _Export(store)
    sender = store.identity
    messages = (pack_message(one, sender=sender.name, key=sender.private, recipient=hub_name) for one in export)
    _stick_file.write(path, messages, sender=sender.name, key=sender.private, recipient=hub_name, recipient_key=hub_key)
    return Exported(export.records, export.blobs, export.unreadable)


class _Export:
    """The contents in the order of the wire: what is urgent first, photographs last; and how many there were."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.records = self.blobs = self.unreadable = 0

    def __iter__(self) -> Iterator[Content]:
        if held := self._store.inbox.held():
            # what came down on an earlier stick: the hub then stops sending it
            yield Receipt(held[0].epoch, held=held, blobs=self._store.deliveries.complete())
        order = {cls.value: cls.rank for cls in RecordClass}
        classes = [row[0] for row in self._store.read("SELECT cls FROM sequence")]
        for cls in sorted(classes, key=lambda cls: order.get(cls, len(order))):
            yield from self._class(cls)
        yield from self._blobs()
        if gone := carried_gone(self._store):
            yield gone
        # behind all that it would otherwise call missing
        yield carried_hello(self._store)

    def _class(self, cls: str) -> Iterator[Records]:
        last = 0
        while page := self._page(cls, last):
            last = page[-1]
            # one that does not open any more is a dead letter now
            if envelopes := self._store.envelopes(cls, page):
                self.records += len(envelopes)
                yield Records(tuple(envelopes))

    def _page(self, cls: str, after: int) -> list[int]:
        rows = self._store.read(
            "SELECT seq, size FROM record WHERE state = 0 AND cls = ? AND seq > ? ORDER BY seq LIMIT ?",
            (cls, after, _PAGE),
        )
        page: list[int] = []
        room = MESSAGE_BYTES
        for seq, size in rows:
            if page and size > room:
                break
            page.append(seq)
            room -= size
        return page

    def _blobs(self) -> Iterator[Chunks]:
        rows = self._store.read("SELECT sha256, size, hub_ranges FROM blob WHERE state = 0 ORDER BY cls DESC, at_ms")
        for sha256, size, packed in rows:
            try:
                for start, stop in ranges.missing(hub_ranges(packed), 0, size):
                    for offset in range(start - start % CHUNK, stop, MESSAGE_BYTES):
                        yield self._chunks(sha256, size, offset, min(stop, offset + MESSAGE_BYTES))
                self.blobs += 1
            except StoreDamagedError:
                self.unreadable += 1

    def _chunks(self, sha256: bytes, size: int, start: int, stop: int) -> Chunks:
        data = self._store.read_blob(sha256.hex(), start, stop)
        return Chunks(
            tuple(Chunk(sha256, size, start + at, data[at : at + CHUNK]) for at in range(0, len(data), CHUNK))
        )


def import_receipts(store: Store, path: Path, *, hub_name: str, hub_key: Ed25519PublicKey) -> Applied:
    """Take in what the hub wrote beside the exported file: its receipts, and its records for this device. Taking the
    same file twice is harmless.

    Raises
    ------
    UnreadableInputError
        The file is cut off, damaged or something else; nothing of it was taken.
    EnvelopeError
        It is for another device, from another hub, forged, or from the time before the hub was restored from a backup.
    StoreError
        The disk failed. What was taken stays; take the file again.
    """
    name = store.identity.name
    known = {hub_name: hub_key}

    def contents() -> Iterator[Content]:
        _, messages = _stick_file.read(path, name=name, key=store.identity.private, key_of=known.get)
        return (unpack(data, known.get, sender=hub_name, recipient=name).content for data in messages)

    box, receipts, received, refused = Outbox(store), 0, 0, 0
    for content in contents():
        if isinstance(content, Receipt):
            _require_epoch(store, path, content, contents)
            returns.give_back(store, [content], hub_key)
            if content.answers:
                note_gone(store, box.gone(content))
            box.receive(content)
            receipts += 1
        elif isinstance(content, Records):
            answer = store.inbox.keep(content.envelopes, store.now().wall_ms, content.proofs)
            refused += len(answer.rejected)
            for reject in answer.rejected:
                _log.warning("%s/%d from the hub was refused: %s", reject.cls, reject.seq, reject.reason)
            received += len(content.envelopes) - len(answer.rejected)
        elif isinstance(content, Chunks):
            store.deliveries.keep_chunks(content.chunks)
    return Applied(receipts, received, refused)


def _require_epoch(store: Store, path: Path, receipt: Receipt, contents: Callable[[], Iterator[Content]]) -> None:
    """A receipt of before the hub's restoration names what the hub has lost. That it is one of after it shows where the
    file answers what was exported since the hub's epoch was noted last; who never heard of one takes any."""
    if (noted := known_hub(store)) in (b"", receipt.hub_epoch):
        return
    nonces = carried_nonces(store)
    if not any(
        isinstance(one, Receipt) and one.answers in nonces and one.hub_epoch == receipt.hub_epoch for one in contents()
    ):
        raise EnvelopeError(
            operation="reading the stick",
            target=str(path),
            cause=f"its receipts are of another life of the hub than {noted.hex()}, which was restored from a backup",
            remedy="Export again, let the hub import that, and import its answer; nothing is lost.",
        )
