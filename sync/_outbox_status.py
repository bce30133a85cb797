"""What people are told of an outbox: what waits, what was refused and why, and the way to try that again."""

from __future__ import annotations

import sqlite3
import uuid

import msgspec

from aidpost.sync import ranges
from aidpost.sync._schema import COUNT, DEAD, QUEUED
from aidpost.sync._settle import hub_ranges
from aidpost.sync.envelope import RecordClass
from aidpost.sync.store import Store

_COUNTED = "SELECT cls, last, receipted, dead, gone FROM sequence JOIN tally USING (cls)"
_OLDEST = "SELECT at_ms FROM record INDEXED BY record_open WHERE state = 0 AND cls = ?"


class ClassStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One class of records: how many wait, were receipted, were refused; how long the oldest has waited."""

    cls: str
    queued: int
    receipted: int
    dead: int
    oldest_s: int | None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that the hub refused, or that does not open any more, and why."""

    cls: str
    seq: int
    kind: str
    exam: uuid.UUID | None
    code: str
    reason: str


class BlobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Photographs and waveforms: how many are not at the hub yet, and their bytes still to be sent."""

    queued: int
    bytes: int
    dead: int


def status(store: Store) -> list[ClassStatus]:
    """Every class that has records, in the order of sending. No record is read for it, whatever their number."""
    now = store.now().wall_ms
    found = []
    for cls, last, receipted, dead, gone in store.read(_COUNTED if _has_tally(store) else COUNT):
        queued = last - receipted - dead - gone
        oldest = store.read(f"{_OLDEST} ORDER BY seq LIMIT 1", (cls,)) if queued else []
        # the clock may have been set back since: an age is never negative
        oldest_s = max(0, (now - oldest[0][0]) // 1000) if oldest else None
        if queued + receipted + dead:
            found.append(ClassStatus(cls=cls, queued=queued, receipted=receipted, dead=dead, oldest_s=oldest_s))
    order = {cls.value: cls.rank for cls in RecordClass}
    return sorted(found, key=lambda one: order.get(one.cls, len(order)))


def _has_tally(store: Store) -> bool:
    """Not where the doctor looks at a store that the version before wrote."""
    return bool(store.read("SELECT 1 FROM sqlite_schema WHERE name = 'tally'"))


def queued_bytes(store: Store) -> dict[str, int]:
    """Bytes of the bodies that wait, by class. Reads every record that waits: for a person who asks, not for a page."""
    return dict(store.read("SELECT cls, sum(size) FROM record WHERE state = 0 GROUP BY cls"))


def blob_status(store: Store) -> BlobStatus:
    """What of photographs and waveforms is still to be sent."""
    counts = {
        state: (number, size)
        for state, number, size in store.read("SELECT state, count(*), sum(size) FROM blob GROUP BY state")
    }
    queued, size = counts.get(QUEUED, (0, 0))
    # of a hundred thousand that wait only the few that have begun are looked at one by one
    begun = store.read("SELECT hub_ranges FROM blob WHERE state = 0 AND hub_ranges != x''")
    held = sum(ranges.count(hub_ranges(packed)) for (packed,) in begun)
    return BlobStatus(queued=queued, bytes=size - held, dead=counts.get(DEAD, (0, 0))[0])


def dead_letters(store: Store) -> list[DeadLetter]:
    """Every refused record with its reason."""
    rows = store.read(
        "SELECT cls, seq, kind, exam, code, reason FROM record INDEXED BY record_state"
        " WHERE cls IN (SELECT cls FROM sequence) AND state = 2 ORDER BY cls, seq"
    )
    return [
        DeadLetter(cls=c, seq=s, kind=k, exam=uuid.UUID(bytes=e) if e else None, code=code, reason=reason)
        for c, s, k, e, code, reason in rows
    ]


def retry(store: Store, cls: str | None = None) -> int:
    """Put refused records and blobs back into the queue; returns how many records."""
    counted: list[int] = []

    def work(db: sqlite3.Connection) -> None:
        changed = db.execute(
            "UPDATE record SET state = 0, code = '', reason = '' WHERE state = 2 AND (? IS NULL OR cls = ?)", (cls, cls)
        )
        counted.append(changed.rowcount)
        db.execute("UPDATE blob SET state = 0, reason = '' WHERE state = 2 AND (? IS NULL OR cls = ?)", (cls, cls))

    store.write(work)
    return counted[0]
