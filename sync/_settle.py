"""What a receipt changes in the store's rows. `epoch` is as a row has it (`Lives.column`)."""

from __future__ import annotations

import sqlite3

import msgspec

from aidpost.sync._lives import Lives
from aidpost.sync._schema import DEAD, QUEUED, RECEIPTED
from aidpost.sync.envelope import BlobHeld, Held, Reject
from aidpost.sync.ranges import Ranges


def mark_held(db: sqlite3.Connection, held: Held, epoch: bytes | None, now: int) -> None:
    """The hub has committed these."""
    for start, stop in held.ranges:
        db.execute(
            "UPDATE record SET state = ?, settled_ms = ?, code = '', reason = ''"
            " WHERE cls = ? AND seq >= ? AND seq < ? AND epoch IS ? AND state != ?",
            (RECEIPTED, now, held.cls, start, stop, epoch, RECEIPTED),
        )


def mark_rejected(db: sqlite3.Connection, reject: Reject, lives: Lives, now: int) -> None:
    """The hub will not take this: a dead letter; where a copy of this store has the key, it goes under another."""
    if reject.code == "conflict":
        lives.settle_conflict(db, reject.epoch, reject.cls, reject.seq, now)
        return
    db.execute(
        "UPDATE record SET state = ?, settled_ms = ?, code = ?, reason = ?"
        " WHERE cls = ? AND seq = ? AND epoch IS ? AND state = ?",
        (DEAD, now, reject.code, reject.reason, reject.cls, reject.seq, lives.column(reject.epoch), QUEUED),
    )


def queue_again(db: sqlite3.Connection, wanted: Held, epoch: bytes | None) -> None:
    """What the hub has lost (it was restored from an older backup) and the device still has."""
    for start, stop in wanted.ranges:
        # by the index of what was receipted: of a backlog of a million, which the hub wants too, nothing is read
        db.execute(
            "UPDATE record INDEXED BY record_state SET state = 0, settled_ms = NULL"
            " WHERE cls = ? AND seq >= ? AND seq < ? AND epoch IS ? AND state = 1",
            (wanted.cls, start, stop, epoch),
        )


def mark_blob(db: sqlite3.Connection, blob: BlobHeld, now: int) -> None:
    """So much of a photograph or waveform is at the hub."""
    state = DEAD if blob.refused else RECEIPTED if blob.complete else QUEUED
    db.execute(
        "UPDATE blob SET state = ?, hub_ranges = ?, reason = ?, settled_ms = ? WHERE sha256 = ?",
        (state, msgspec.msgpack.encode(blob.ranges), blob.refused, None if state == QUEUED else now, blob.sha256),
    )


def hub_ranges(packed: bytes) -> Ranges:
    """The bytes of a blob that the hub has, from the store's column."""
    return msgspec.msgpack.decode(packed, type=tuple[tuple[int, int], ...]) if packed else ()
