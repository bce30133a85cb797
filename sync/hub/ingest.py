"""What devices send, committed once, and the receipts that say so.

`Ingest.ingest` takes a batch of messages in any order, with any duplicates, and returns the receipts to send. When it
returns, everything that the receipts name is durable; when it raises, nothing of the batch was committed and the same
batch may be given again.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy import select
from sqlalchemy.exc import DataError

from aidpost.errors import EnvelopeError
from aidpost.sync.envelope import Chunk, Chunks, Message, Receipt, Records, Reject, unpack_message
from aidpost.sync.hub import audit, deliveries, schema
from aidpost.sync.hub._batch import Batch, DevicePolicy
from aidpost.sync.hub._blob_intake import BlobIntake, Collected
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.identity import previous_key

_log = logging.getLogger(__name__)

_RECORD_FAULTS = (DataError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError)
"""What a value can do to a database or to this program. Anything else is no fault of the record's: it is not receipted,
and the device sends it again."""
_REFUSAL_INTERVAL_S = 60.0
"""Of the same refusal, one row a minute goes to the audit log: a flood of forgeries must not fill the disk."""
_REFUSALS_KEPT = 1000


class Incoming(NamedTuple):
    """A message as it came. `device` is the one its topic names; None where there is no topic (a stick)."""

    device: str | None
    payload: bytes
    received_ms: int


class Reply(NamedTuple):
    """What one device is to get, to be signed and sent: a receipt, or chunks of a body that it asked for."""

    device: str
    content: Receipt | Chunks


class Ingest:
    """The one way into the hub's database.

    Parameters
    ----------
    database, files
        Where records and blobs are kept.
    config
        `name`, `accept_simulated`, `max_blob_bytes` and `reserve_mb` are used.
    """

    def __init__(self, database: Database, files: BlobFiles, config: HubConfig) -> None:
        self._database, self._files, self._config = database, files, config
        self._blobs = BlobIntake(database, files, config.max_blob_bytes, config.reserve_mb << 20)
        self._refusals: dict[tuple[str, str], float] = {}

    @property
    def is_short(self) -> bool:
        """Whether the disk has room for records only, and photographs wait on the devices."""
        return self._blobs.is_short

    def ingest(self, batch: Sequence[Incoming]) -> list[Reply]:
        """Commits a batch.

        Returns
        -------
        list of Reply
            Held and rejected records and blob ranges of this batch, full receipts for hellos, and the chunks of what
            goes down that devices asked for.

        Raises
        ------
        sqlalchemy.exc.SQLAlchemyError, OSError
            The database or the disk failed. Nothing was committed.
        """
        policies = self._policies(batch)
        opened: list[tuple[Incoming, Message]] = []
        refused: list[tuple[str, str]] = []
        for incoming in batch:
            try:
                opened.append((incoming, self._open(incoming, policies)))
            except EnvelopeError as error:
                refused.append((incoming.device or error.target, error.cause))
        return self._commit(policies, [(message, incoming.received_ms) for incoming, message in opened], refused)

    def ingest_singly(self, incoming: Incoming) -> list[Reply]:
        """Each record of a message in a transaction of its own, after a batch failed for another reason than the disk.

        A record whose values make it fail here too is rejected: it waits in the device's dead letters, with all others
        delivered, until a hub comes that can keep it.

        Raises
        ------
        sqlalchemy.exc.SQLAlchemyError, OSError
            The database or the disk failed. What is not in the replies is not receipted, and comes again.
        """
        policies = self._policies([incoming])
        try:
            message = self._open(incoming, policies)
        except EnvelopeError as error:
            return self._commit(policies, [], [(incoming.device or error.target, error.cause)])
        if not isinstance(message.content, Records):
            return self._commit(policies, [(message, incoming.received_ms)], [])
        replies: list[Reply] = []
        for envelope in message.content.envelopes:
            single = message._replace(content=Records((envelope,)))
            try:
                replies += self._commit(policies, [(single, incoming.received_ms)], [])
            except _RECORD_FAULTS:
                _log.exception("a record of %s cannot be kept: %s", message.sender, envelope.key)
                reject = Reject(*envelope.key, "invalid", "the hub cannot keep this record; its log says why")
                replies.append(Reply(message.sender, Receipt(self._database.epoch, rejected=(reject,))))
        return replies

    def _commit(
        self,
        policies: dict[str, DevicePolicy],
        opened: Sequence[tuple[Message, int]],
        refused: Sequence[tuple[str, str]],
    ) -> list[Reply]:
        collected = self._collect([message for message, _ in opened])
        with self._database.write() as connection:
            work = Batch(connection, self._database.epoch, self._files, self._blobs, self._config)
            for blob in collected:
                work.blob(blob, now_ms())
            for message, received_ms in opened:
                work.take(policies[message.sender], message.content, received_ms)
            work.finish()
            for target, cause in refused:
                if self._is_news(target, cause):
                    audit.append(connection, "hub", "refused-message", target, cause)
        work.after_commit()
        replies = [Reply(device, receipt) for device, receipt in work.receipts()]
        if work.asked:
            with self._database.read() as connection:
                found = [(device, deliveries.chunks(connection, asked)) for device, asked in work.asked]
            replies += [Reply(device, chunks) for device, chunks in found if chunks is not None]
        return replies

    def _open(self, incoming: Incoming, policies: dict[str, DevicePolicy]) -> Message:
        def key_of(name: str) -> Ed25519PublicKey | None:
            policy = policies.get(name)
            return _key(policy.public_key) if policy else None

        def previous_key_of(name: str) -> Ed25519PublicKey | None:
            policy = policies.get(name)
            return _key(policy.previous_key) if policy and policy.previous_key else None

        address = {"sender": incoming.device, "recipient": self._config.name}
        try:
            return unpack_message(incoming.payload, key_of, **address)
        except EnvelopeError as error:
            # on its way, or on a stick, since before the device changed its key
            try:
                return unpack_message(incoming.payload, previous_key_of, **address)
            except EnvelopeError:
                raise error from None

    def _policies(self, batch: Sequence[Incoming]) -> dict[str, DevicePolicy]:
        """Of the enrolled devices that may have sent these: of a country's thousands, the few of this batch."""
        table = schema.devices
        columns = (table.c.name, table.c.public_key, table.c.accept_simulated)
        query = select(*columns, table.c.previous_key, table.c.previous_until_ms).where(table.c.revoked_ms.is_(None))
        named = {incoming.device for incoming in batch}
        if None not in named:
            query = query.where(table.c.name.in_(named))
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        default = self._config.accept_simulated
        return {
            row.name: DevicePolicy(
                row.name,
                bytes(row.public_key),
                default if row.accept_simulated is None else row.accept_simulated,
                previous_key(row, now_ms()),
            )
            for row in rows
        }

    def _collect(self, messages: Sequence[Message]) -> list[Collected]:
        pieces: dict[tuple[str, bytes, int], list[Chunk]] = {}
        for message in messages:
            if isinstance(message.content, Chunks):
                for chunk in message.content.chunks:
                    pieces.setdefault((message.sender, chunk.sha256, chunk.size), []).append(chunk)
        return [
            self._blobs.collect(device, sha256.hex(), chunks)
            for (device, sha256, _size), chunks in pieces.items()
            if self._blobs.may_take(sha256.hex())
        ]

    def _is_news(self, target: str, cause: str) -> bool:
        now = time.monotonic()
        last = self._refusals.get((target, cause))
        if last is not None and now - last < _REFUSAL_INTERVAL_S:
            return False
        if len(self._refusals) >= _REFUSALS_KEPT:
            self._refusals.clear()
        self._refusals[target, cause] = now
        return True


@functools.lru_cache(maxsize=4096)
def _key(raw: bytes) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(raw)
