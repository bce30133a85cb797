"""A stick at the hub: a device's file taken in, and the receipts and what waits for the device written beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from aidpost.errors import EnvelopeError
from aidpost.sync import _stick_file, proofs, ranges
from aidpost.sync.envelope import MAX_ENVELOPES, Envelope, Receipt, Records, pack_message, unpack_message
from aidpost.sync.hub import identity, operations
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.stick import MESSAGE_BYTES

_BATCH_MESSAGES = 64
_BATCH_BYTES = 8 << 20
"""What shares one commit; the memory that an import takes hangs on it."""


class Imported(NamedTuple):
    """What came from the stick: distinct records that the hub has now, here before or not; records refused; and how
    many records for the device were written to `receipts` beside the receipts."""

    device: str
    held: int
    refused: int
    down: int
    receipts: Path


def import_stick(config: HubConfig, path: Path) -> Imported:
    """Take in the file of `aidpost outbox export`, and write `NAME.receipts` beside it for the way back.

    What also came by MQTT, or by an earlier stick, counts once. A running hub is not disturbed.

    Raises
    ------
    UnreadableInputError
        The file is cut off, damaged or something else; nothing of it was taken.
    EnvelopeError
        It is for another hub, from a device that is not enrolled, or forged.
    StoreError
        The database failed, or the stick cannot be written. What was taken stays; import the stick again.
    """
    known, before = (
        {name: Ed25519PublicKey.from_public_bytes(raw) for name, raw in found.items()}
        for found in operations.device_keys(config)
    )
    key = identity.signing_key(config.state)
    try:
        device, messages = _stick_file.read(path, name=config.name, key=key, key_of=known.get)
    except EnvelopeError as error:
        # written before the device changed its key
        try:
            device, messages = _stick_file.read(path, name=config.name, key=key, key_of=before.get)
        except EnvelopeError:
            raise error from None
    receipts = path.with_name(path.name + ".receipts")
    work = _Import(config, device)
    _stick_file.write(
        receipts, work.answers(messages), sender=config.name, key=key, recipient=device, recipient_key=known[device]
    )
    held = sum(ranges.count(one) for one in work.held.values())
    return Imported(device, held, len(work.refused), work.down, receipts)


class _Import:
    """Ingests while the answer is being written: each receipt exists only after its commit."""

    def __init__(self, config: HubConfig, device: str) -> None:
        self._config, self._device = config, device
        self._key = identity.signing_key(config.state)
        self.held: dict[tuple[bytes, str], ranges.Ranges] = {}
        self.refused: set[tuple[bytes, str, int]] = set()
        self.down = 0

    def answers(self, messages: Iterator[bytes]) -> Iterator[bytes]:
        for batch in _batches(messages):
            for answer in operations.take_messages(self._config, batch):
                if self._count(answer):
                    yield answer
        for records in _grouped(operations.waiting_for(self._config, self._device)):
            self.down += len(records.envelopes)
            proven = proofs.prove(self._key, self._device, records.envelopes)
            records = Records(records.envelopes, proven)
            yield pack_message(records, sender=self._config.name, key=self._key, recipient=self._device)
        for chunks in operations.delivery_chunks(self._config, self._device):
            yield pack_message(chunks, sender=self._config.name, key=self._key, recipient=self._device)

    def _count(self, answer: bytes) -> bool:
        """Whether it is for this stick's device: a stick may hold another's messages, whose receipts go by MQTT."""
        message = unpack_message(answer, {self._config.name: self._key.public_key()}.get)
        if message.recipient != self._device or not isinstance(message.content, Receipt):
            return False
        if message.content.answers:
            return True  # names all that ever came, not what this stick brought
        for one in message.content.held:
            stream = (one.epoch, one.cls)
            self.held[stream] = ranges.merge([*self.held.get(stream, ()), *one.ranges])
        self.refused |= {(one.epoch, one.cls, one.seq) for one in message.content.rejected}
        return True


def _batches(messages: Iterator[bytes]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for message in messages:
        batch.append(message)
        size += len(message)
        if len(batch) == _BATCH_MESSAGES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _grouped(envelopes: Iterator[Envelope]) -> Iterator[Records]:
    group: list[Envelope] = []
    size = 0
    for envelope in envelopes:
        same = not group or group[0].cls == envelope.cls
        if group and (not same or len(group) == MAX_ENVELOPES or size + len(envelope.body) > MESSAGE_BYTES):
            yield Records(tuple(group))
            group, size = [], 0
        group.append(envelope)
        size += len(envelope.body)
    if group:
        yield Records(tuple(group))
