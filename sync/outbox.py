"""What the hub has not receipted yet: which records go next, and what a receipt changes.

A record leaves the outbox by the hub's receipt or as a dead letter with the hub's reason, by nothing else. The window
counts what is under way without a receipt, so that memory and sockets stay small whatever the backlog is.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from aidpost.errors import StoreDamagedError
from aidpost.sync import ranges
from aidpost.sync._greeting import note_hub
from aidpost.sync._outbox_status import (
    BlobStatus,
    ClassStatus,
    DeadLetter,
    blob_status,
    dead_letters,
    queued_bytes,
    retry,
    status,
)
from aidpost.sync._schema import DEAD, QUEUED, RECEIPTED
from aidpost.sync._settle import hub_ranges, mark_blob, mark_held, mark_rejected, queue_again
from aidpost.sync.bodies import Erasure
from aidpost.sync.envelope import (
    CHUNK,
    MAX_ENVELOPES,
    Chunk,
    Chunks,
    Dropped,
    Envelope,
    Held,
    Receipt,
    RecordClass,
    Records,
    records_check,
)
from aidpost.sync.ranges import Ranges
from aidpost.sync.store import Store

__all__ = [
    "BlobStatus",
    "ClassStatus",
    "DeadLetter",
    "Outbox",
    "Piece",
    "blob_status",
    "dead_letters",
    "hub_ranges",
    "queued_bytes",
    "retry",
    "status",
]

_MESSAGE_BYTES = 16 * 1024
"""Bodies in one message: what a 2G link carries in about a second, so that an alert never waits longer."""
_WIDER = 4
"""A message may grow to so many times that with a window that has grown: fewer signatures, fewer commits at the hub."""

_PAGE = 10_000
_SPAN = "FROM record WHERE cls = ? AND seq >= ? AND seq < ?"
_STATES = (QUEUED, RECEIPTED, DEAD)
_AT_ONCE_S = 0.25
"""A receipt within this says that the link is no bottleneck."""


class Piece(NamedTuple):
    """A message to be published: its topic's leaf and its content."""

    leaf: str
    content: Records | Chunks


class _Sent(NamedTuple):
    epoch: bytes
    size: int
    at: float


@dataclass
class _Flight:
    """What is under way without a receipt."""

    records: dict[tuple[str, int], _Sent] = field(default_factory=dict)
    chunks: dict[tuple[bytes, int], int] = field(default_factory=dict)
    record_bytes: int = 0
    sent_to: dict[tuple[str, bool], int] = field(default_factory=dict)
    """The last sequence chosen of a class's live part or backlog."""

    @property
    def chunk_bytes(self) -> int:
        return sum(self.chunks.values())


class Outbox:
    """Chooses what goes next and takes receipts in. Not thread-safe: the publisher's thread owns it.

    Parameters
    ----------
    window_records, window_bytes
        The most that may be under way without a receipt. Chunks have a window of their own, of `window_bytes` too: an
        alert waits for the bytes already written, never for the hub's word on a photograph.
    widen
        How many times the records' window may grow while receipts come at once. A slow link never sees more than the
        window itself, and a time-out or a new connection begins with it again.
    backlog_bytes_s
        The most of the backlog that goes in a second; 0 for no bound. Alerts and what is live are not bounded.
    """

    def __init__(
        self,
        store: Store,
        *,
        window_records: int = 64,
        window_bytes: int = 32 * 1024,
        widen: int = 1,
        backlog_bytes_s: int = 0,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._records, self._bytes = store, window_records, window_bytes
        self._flight = _Flight()
        self._widest, self._wide = widen, 1
        self._rate, self._seconds = backlog_bytes_s, seconds
        self._allowance, self._counted_at = 0.0, seconds()
        # what is live: sequences after these, blobs accepted since; without a `begin` all of it is backlog
        self._live_after: dict[str, int] | None = None
        self._live_since = 1 << 62
        self.held_back = False
        """Whether `next` gave nothing only because the backlog has had its share of this second."""

    def begin(self) -> None:
        """A conversation begins: what is accepted from now on is live and goes before what has waited."""
        self._live_after = dict(self._store.read("SELECT cls, last FROM sequence"))
        self._live_since = self._store.now().wall_ms

    @property
    def in_flight(self) -> int:
        """Records and chunks under way without a receipt."""
        return len(self._flight.records) + len(self._flight.chunks)

    def forget_flight(self) -> None:
        """After a new connection, or a time-out: nothing counts as under way, all of it may go again."""
        self._flight = _Flight()
        self._wide = 1

    def alert_waits(self) -> bool:
        """Whether an alert is not at the hub yet."""
        query = "SELECT 1 FROM record INDEXED BY record_open WHERE state = 0 AND cls = ? LIMIT 1"
        return bool(self._store.read(query, (RecordClass.ALERT.value,)))

    def next(self) -> Piece | None:
        """The next message, or None where the window is full, nothing waits or the backlog has had its share.

        Alerts go before all, then live records, then the backlog's, by class; then live chunks, then the backlog's.
        """
        self.held_back = False
        few = len(self._flight.records) < self._records * self._wide
        records_fit = few and self._flight.record_bytes < self._bytes * self._wide
        if records_fit and (piece := self._next_records()):
            return piece
        # records that wait for a full window go before any chunk: chunks fill what the records leave
        if not records_fit or self.held_back or self._flight.chunk_bytes >= self._bytes:
            return None
        return self._next_chunk()

    def _next_records(self) -> Piece | None:
        waiting = self._waiting_classes()
        turns = [(cls, live) for live in (True, False) for cls in waiting]
        alert = RecordClass.ALERT.value
        for cls, live in sorted(turns, key=lambda turn: turn[0] != alert):
            if not live and cls != alert and not self._may_send_backlog():
                self.held_back = True
                return None
            if envelopes := self._fitting(cls, live):
                for one in envelopes:
                    self._flight.record_bytes += len(one.body)
                    self._flight.records[cls, one.seq] = _Sent(one.epoch, len(one.body), self._seconds())
                if not live:
                    self._allowance -= sum(len(one.body) for one in envelopes)
                return Piece(cls, Records(tuple(envelopes)))
        return None

    def _may_send_backlog(self) -> bool:
        if not self._rate:
            return True
        now = self._seconds()
        self._allowance = min(self._rate, self._allowance + self._rate * (now - self._counted_at))
        self._counted_at = now
        return self._allowance >= 0

    def _waiting_classes(self) -> list[str]:
        # not DISTINCT over the queue, which would read all of a backlog for each message
        rows = self._store.read(
            "SELECT cls FROM sequence WHERE EXISTS (SELECT 1 FROM record INDEXED BY record_open"
            " WHERE record.state = 0 AND record.cls = sequence.cls)"
        )
        order = {cls.value: cls.rank for cls in RecordClass}
        return sorted((row[0] for row in rows), key=lambda cls: order.get(cls, len(order)))

    def _fitting(self, cls: str, live: bool) -> list[Envelope]:
        """Records of a class that are not under way, as many as one message and the window take; at least one."""
        limit = self._records * self._wide
        room = min(limit - len(self._flight.records), MAX_ENVELOPES)
        while chosen := self._choose(cls, live, limit, room):
            # none where each of them no longer opens: they are dead letters now, and others take their place
            if envelopes := self._store.envelopes(cls, chosen):
                return envelopes
        return []

    def _choose(self, cls: str, live: bool, limit: int, room: int) -> list[int]:
        # a class that was not there at the beginning is live from its first record
        mark = (1 << 62) if self._live_after is None else self._live_after.get(cls, 0)
        first, last = (mark, 1 << 62) if live else (0, mark)
        query = (
            "SELECT seq, size FROM record INDEXED BY record_open"
            " WHERE state = 0 AND cls = ? AND seq > ? AND seq <= ? ORDER BY seq LIMIT ?"
        )
        # from behind what is under way; from the beginning again when nothing is left there, for what was queued again
        rows = self._store.read(query, (cls, max(first, self._flight.sent_to.get((cls, live), 0)), last, room))
        if not rows and self._flight.sent_to.pop((cls, live), 0):
            rows = self._store.read(query, (cls, first, last, limit))
        chosen: list[int] = []
        size, most = 0, _MESSAGE_BYTES * min(_WIDER, self._wide)
        for seq, body in rows:
            if (cls, seq) in self._flight.records:
                continue
            if chosen and (len(chosen) >= room or size + body > most):
                break
            chosen.append(seq)
            size += body
        if chosen:
            self._flight.sent_to[cls, live] = chosen[-1]
        return chosen

    def _next_chunk(self) -> Piece | None:
        # its manifest is at the hub, or under way before it: all records have been sent when chunks begin
        query = (
            "SELECT sha256, size, hub_ranges FROM blob INDEXED BY blob_open"
            " WHERE state = 0 AND cls = ? AND at_ms {} ? ORDER BY at_ms LIMIT 8"
        )
        for live in (True, False):
            for cls in (RecordClass.WAVEFORM.value, RecordClass.IMAGE.value):
                rows = self._store.read(query.format(">=" if live else "<"), (cls, self._live_since))
                if rows and not live and not self._may_send_backlog():
                    self.held_back = True
                    return None
                for row in rows:
                    if chunk := self._chunk_of(*row):
                        if not live:
                            self._allowance -= len(chunk.data)
                        return Piece("blob", Chunks((chunk,)))
        return None

    def _chunk_of(self, sha256: bytes, size: int, packed: bytes) -> Chunk | None:
        """The first piece of a blob that neither the hub has nor is under way."""
        under_way = [(offset, offset + CHUNK) for one, offset in self._flight.chunks if one == sha256]
        taken = ranges.merge([*hub_ranges(packed), *under_way])
        for start, _ in ranges.missing(taken, 0, size):
            offset = start - start % CHUNK
            try:
                data = self._store.read_blob(bytes(sha256).hex(), offset, min(size, offset + CHUNK))
            except StoreDamagedError as error:
                self._give_up(sha256, error.cause)
                return None
            self._flight.chunks[sha256, offset] = len(data)
            return Chunk(sha256, size, offset, data)
        return None

    def _give_up(self, sha256: bytes, reason: str) -> None:
        """A photograph that cannot be read any more must not stop the others; the reason stands in the status."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("UPDATE blob SET state = ?, reason = ? WHERE sha256 = ?", (DEAD, reason, sha256))

        self._store.write(work)

    def gone(self, receipt: Receipt) -> Dropped | None:
        """What the hub wants and this store no longer has (its patient was erased, it was pruned, or it went under
        another epoch): to be announced, so that the hub stops asking."""
        lacking, epochs = [], self._epochs()
        whole = {cls for cls, gone in self._store.read("SELECT cls, gone FROM tally") if not gone}
        for one in receipt.wanted:
            if one.epoch not in epochs or (len(epochs) == 1 and one.cls in whole):
                continue
            if gaps := self._lacking(one, alone=len(epochs) == 1):
                lacking.append(Held(one.epoch, one.cls, gaps))
        return Dropped(tuple(lacking), "erased, pruned or sent as another") if lacking else None

    def _epochs(self) -> set[bytes]:
        return {self._store.lives.first, *(bytes(row[0]) for row in self._store.read("SELECT epoch FROM life"))}

    def _lacking(self, wanted: Held, *, alone: bool) -> Ranges:
        """Page by page: a hub that was made anew wants all of a backlog. `alone`: no row has another epoch."""
        gaps: list[tuple[int, int]] = []
        mine = self._store.lives.column(wanted.epoch)
        for first, last in wanted.ranges:
            for start in range(first, last, _PAGE):
                page = (wanted.cls, start, min(last, start + _PAGE))
                if not (alone and self._count(page) == page[2] - start):
                    rows = self._store.read(f"SELECT seq {_SPAN} AND epoch IS ?", (*page, mine))
                    gaps += ranges.missing(ranges.from_numbers(row[0] for row in rows), start, page[2])
        return ranges.merge(gaps)

    def _count(self, page: tuple[str, int, int]) -> int:
        """Records of a page, counted in the indexes."""
        counted = (self._store.read(f"SELECT count(*) {_SPAN} AND state = {state}", page) for state in _STATES)
        return sum(int(rows[0][0]) for rows in counted)

    def receive(self, *receipts: Receipt) -> bool:
        """Take receipts in, durably, with one commit for all. True where they settled anything.

        Records are settled only where the receipt proves that it means these: a copy of this store sends others under
        the same keys. What is not proven goes again, and is receipted, or refused as a conflict, by itself.
        """
        if not receipts:
            return False
        store, epochs = self._store, self._epochs()
        held = [one for got in receipts for one in got.held if one.epoch in epochs and one.check and self._is_mine(one)]
        rejected = [one for got in receipts for one in got.rejected if one.epoch in epochs]
        wanted = [one for got in receipts for one in got.wanted if one.epoch in epochs]
        blobs = [one for got in receipts for one in got.blobs]
        answers = [got for got in receipts if got.answers]
        if not (held or rejected or wanted or blobs or answers):
            return False
        now = store.now().wall_ms

        def work(db: sqlite3.Connection) -> None:
            for one in held:
                mark_held(db, one, store.lives.column(one.epoch), now)
            for reject in rejected:
                mark_rejected(db, reject, store.lives, now)
            for one in wanted:
                queue_again(db, one, store.lives.column(one.epoch))
            for blob in blobs:
                mark_blob(db, blob, now)
            for got in answers:
                note_hub(db, got.hub_epoch)

        store.write(work)
        if rejected or wanted:
            self._flight.sent_to.clear()  # what goes again lies before what was sent
        self._land([*held, *(Held(one.epoch, one.cls, ((one.seq, one.seq + 1),)) for one in rejected)])
        for blob in blobs:
            for key in [key for key in self._flight.chunks if key[0] == blob.sha256]:
                if blob.complete or blob.refused or ranges.contains(blob.ranges, key[1]):
                    del self._flight.chunks[key]
        return True

    def _is_mine(self, held: Held) -> bool:
        """Whether the records that the hub has under these keys are this store's."""
        query = "SELECT seq, kind, hash FROM record WHERE cls = ? AND seq >= ? AND seq < ? AND epoch IS ? ORDER BY seq"
        mine, hashes = self._store.lives.column(held.epoch), []
        for start, stop in held.ranges:
            rows = self._store.read(query, (held.cls, start, stop, mine))
            if len(rows) != stop - start:
                return False
            # the version before hashed a tombstone without whom it names
            hashes += [self._hash(held.cls, seq) if kind == Erasure.__name__ else got for seq, kind, got in rows]
        return records_check(hashes) == held.check

    def _hash(self, cls: str, seq: int) -> bytes:
        return b"".join(one.hash for one in self._store.envelopes(cls, [seq]))

    def _land(self, settled: list[Held]) -> None:
        flight, waited, now = self._flight.records, 0.0, self._seconds()
        landed = False
        for one in settled:
            for key in [(one.cls, seq) for seq in self._under_way(one)]:
                if flight[key].epoch == one.epoch:
                    sent = flight.pop(key)
                    self._flight.record_bytes -= sent.size
                    landed, waited = True, max(waited, now - sent.at)
        if landed:
            self._wide = min(self._widest, 2 * self._wide) if waited < _AT_ONCE_S else max(1, self._wide // 2)

    def _under_way(self, one: Held) -> list[int]:
        """Those of a receipt's sequences that are under way: it names a few of them, or years."""
        flight = self._flight.records
        if ranges.count(one.ranges) <= len(flight):
            return [seq for seq in ranges.numbers(one.ranges) if (one.cls, seq) in flight]
        return [seq for cls, seq in flight if cls == one.cls and ranges.contains(one.ranges, seq)]
