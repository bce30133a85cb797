"""The epochs of a store: its first one, made with it, and those that it began when it found that it was copied.

A copied database (a card put into a second device, a backup of the card) goes on counting where the other copy does, so
that two records have one key. The hub keeps the first that comes and refuses the second as a conflict. A store that
hears of one begins a new epoch and sends that record under it: both copies' records are counted, each once. Sequences
run on, so that (class, sequence) names a row whatever its epoch is on the wire; NULL in the column is the first epoch.
"""

from __future__ import annotations

import os
import sqlite3

import msgspec

from aidpost.sync._patient_keys import Reads
from aidpost.sync._schema import QUEUED
from aidpost.sync.envelope import Life

COPIED = "copied"
"""What the note says of a new epoch."""


_LATER = "SELECT epoch, before FROM life ORDER BY number"
_before = msgspec.msgpack.Decoder(dict[str, int])
"""`before`: the last sequence of each class when the epoch began, MessagePack."""


class Lives:
    """The epochs of one store. `first` also names the rows when they are sealed, whatever their epoch on the wire."""

    def __init__(self, first: bytes, read: Reads) -> None:
        self.first, self._read = first, read

    @property
    def current(self) -> bytes:
        """The epoch of what is accepted now; another process may have begun it."""
        rows = self._read("SELECT value FROM meta WHERE name = 'wire_epoch'")
        return bytes(rows[0][0]) if rows else self.first

    def column(self, epoch: bytes) -> bytes | None:
        """The epoch as a row has it."""
        return None if epoch == self.first else epoch

    def all(self) -> list[Life]:
        """Every (epoch, class) of this store, for a hello."""
        later = [
            (bytes(one), msgspec.msgpack.decode(before, type=dict[str, int])) for one, before in self._read(_LATER)
        ]
        out = []
        for cls, end in self._read("SELECT cls, last FROM sequence"):
            begun = [(self.first, 1), *((epoch, before.get(cls, 0) + 1) for epoch, before in later)]
            stops = [first - 1 for _, first in begun[1:]] + [end]
            for (epoch, first), last in zip(begun, stops, strict=True):
                # what was a conflict under an earlier epoch has its old sequence under this one
                moved = self._read("SELECT min(seq) FROM record WHERE epoch = ? AND cls = ?", (epoch, cls))[0][0]
                first, last = min(first, moved or first), max(last, moved or 0)
                if first <= last:
                    out.append(Life(epoch, cls, first, last, self._waiting(epoch, cls)))
        return out

    def _waiting(self, epoch: bytes, cls: str) -> int:
        rows = self._read(
            "SELECT seq FROM record INDEXED BY record_open WHERE state = 0 AND cls = ? AND epoch IS ?"
            " ORDER BY seq LIMIT 1",
            (cls, self.column(epoch)),
        )
        return int(rows[0][0]) if rows else 0

    def settle_conflict(self, db: sqlite3.Connection, epoch: bytes, cls: str, seq: int, now_ms: int) -> None:
        """The hub has another record under this key: ours goes under a new epoch, begun if it was of the current one.

        Whatever state the row is in: a receipt for the other copy's record may have been taken for ours.
        """
        mine = (cls, seq, self.column(epoch))
        if db.execute("SELECT 1 FROM record WHERE cls = ? AND seq = ? AND epoch IS ?", mine).fetchone() is None:
            return  # erased, or sent under another epoch since
        row = db.execute("SELECT value FROM meta WHERE name = 'wire_epoch'").fetchone()
        current = bytes(row[0]) if row else self.first
        if current == epoch:
            current = self.renew(db, COPIED, f"the hub has another record as {cls}/{seq}", now_ms)
        db.execute(
            "UPDATE record SET epoch = ?, state = ?, settled_ms = NULL, code = '', reason = ''"
            " WHERE cls = ? AND seq = ? AND epoch IS ?",
            (current, QUEUED, *mine),
        )

    def renew(self, db: sqlite3.Connection, what: str, detail: str, now_ms: int) -> bytes:
        """Begin a new epoch, and note why."""
        epoch = os.urandom(8)
        db.execute("INSERT OR REPLACE INTO meta VALUES ('wire_epoch', ?)", (epoch,))
        before = msgspec.msgpack.encode(dict(db.execute("SELECT cls, last FROM sequence").fetchall()))
        db.execute("INSERT INTO life (epoch, before) VALUES (?, ?)", (epoch, before))
        db.execute("INSERT INTO note (at_ms, what, detail) VALUES (?, ?, ?)", (now_ms, what, detail))
        return epoch
