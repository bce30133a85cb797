"""What the hub wants this device to take up: large bodies collected chunk by chunk, each delivery taken up once.

A delivery is a record in the inbox like any other; its large body comes in chunks, which are rows of the same database,
sealed, so that a power cut leaves what was committed and nothing else. What came of a delivery is noted in the
transaction that puts its `Outcome` into the outbox. `aidpost.sync.applier` calls who takes it up.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from aidpost.errors import StoreDamagedError, StoreError
from aidpost.records import Timestamp, decode
from aidpost.sync import ranges, seal
from aidpost.sync._durable import sync_folder, write_file
from aidpost.sync.bodies import Delivery, Outcome
from aidpost.sync.envelope import CHUNK, BlobHeld, Chunk, RecordClass, RecordKey

if TYPE_CHECKING:
    from aidpost.sync.store import Item, Store

State = Literal["applied", "refused", "superseded", "rolled-back"]
"""How a delivery may end. `rolled-back` follows `applied`."""

MOST_ATTEMPTS = 3
"""A body that has another hash than was named is asked for so often, and a delivery whose taking up does not end (the
process dies in it) is begun so often; then it is refused."""
_OPEN = "state IN ('waiting', 'held')"


class Ready(NamedTuple):
    """A delivery. `state` is "held" where its content is all here and nobody has taken it up yet; `attempts` counts how
    often somebody began to."""

    store: Store
    key: RecordKey
    id: uuid.UUID
    subject: str
    version: str
    serial: int
    at: Timestamp
    size: int
    sha256: bytes | None
    attempts: int
    state: str
    body: bytes

    def read(self) -> bytes:
        """The content, in memory.

        Raises
        ------
        StoreDamagedError
            It does not open any more.
        """
        return self.body if self.sha256 is None else b"".join(self.store.deliveries.pieces(self.sha256, self.size))

    def copy_to(self, path: Path) -> None:
        """The content as a new file, on the disk when this returns. Raises as `read`, and OSError."""
        pieces = [self.body] if self.sha256 is None else self.store.deliveries.pieces(self.sha256, self.size)
        write_file(path, pieces)
        sync_folder(path.parent)


class Deliveries:
    """The tables `delivery` and `delivery_chunk`. Part of a `Store`; any thread and any process may call."""

    def __init__(self, store: Store) -> None:
        self._store = store

    # -- coming in

    def adopt(self) -> None:
        """Note the deliveries that the inbox has and this table lacks: new ones, those that an older version of this
        program kept as bytes, and those that a recovery brought back."""
        rows = self._store.read(
            "SELECT epoch, cls, seq, patient, body FROM received WHERE exam IS NULL AND kind = 'Delivery'"
            " AND NOT EXISTS (SELECT 1 FROM delivery AS d WHERE d.epoch = received.epoch AND d.cls = received.cls"
            " AND d.seq = received.seq)"
        )
        new = []
        for *key, patient, body in rows:
            try:
                found = decode(Delivery, self._store.inbox.open(RecordKey(*key), patient, body))
            except StoreDamagedError:
                continue  # one damaged row keeps no other from being taken up
            sha256, size = (
                (bytes.fromhex(found.blob.sha256), found.blob.size) if found.blob else (None, len(found.body))
            )
            state = "held" if found.blob is None else "waiting"
            new.append((*key, found.id.bytes, found.version, found.serial, sha256, size, state, 0))
        if new:
            insert = "INSERT OR IGNORE INTO delivery VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
            self._store.write(lambda db: db.executemany(insert, new))

    def keep_chunks(self, chunks: Sequence[Chunk]) -> bool:
        """Keep pieces of bodies that deliveries wait for; others, and what is here, are left. Durable on return.

        Returns
        -------
        bool
            Whether any was new. When nothing of a body is missing any longer, its hash is checked.

        Raises
        ------
        StoreError
            The disk is full or failed; the hub sends it again when it is asked again.
        """
        self.adopt()
        named = {(one.sha256, one.size) for one in chunks}.intersection(self._waiting())
        here = {body: self._starts(*body) for body in named}
        new = [one for one in chunks if (body := (one.sha256, one.size)) in named and one.offset not in here[body]]
        if new:
            self._store.space.require(sum(len(one.data) for one in new))
            key = self._store.nobodys_key()
            rows = [
                (one.sha256, one.offset, one.size, seal.seal(key, one.data, _place(one.sha256, one.size, one.offset)))
                for one in new
            ]
            insert = "INSERT OR IGNORE INTO delivery_chunk (sha256, start, size, data) VALUES (?, ?, ?, ?)"
            self._store.write(lambda db: db.executemany(insert, rows))
        for sha256, size in named:  # of which nothing may be new: killed between the last chunk and the check
            if self.held(sha256, size) == ((0, size),):
                self._check(sha256, size)
        return bool(new)

    def held(self, sha256: bytes, size: int) -> ranges.Ranges:
        """The bytes of a body that are here."""
        return ranges.merge((start, min(start + CHUNK, size)) for start in self._starts(sha256, size))

    def _starts(self, sha256: bytes, size: int) -> set[int]:
        """Where the chunks of a body begin that are here."""
        rows = self._store.read("SELECT start FROM delivery_chunk WHERE sha256 = ? AND size = ?", (sha256, size))
        return {start for (start,) in rows}

    def wanted(self, room: int) -> BlobHeld | None:
        """The body to ask for next, the oldest delivery first; None where nothing is missing."""
        self.adopt()
        for sha256, size in self._waiting():
            held = self.held(sha256, size)
            if held == ((0, size),):
                self._check(sha256, size)  # killed between the last chunk and the check
                continue
            return BlobHeld(sha256, held, False, room=room)
        return None

    def complete(self) -> tuple[BlobHeld, ...]:
        """The bodies that are here whole and not taken up yet: told to the hub, which shows what the device has."""
        rows = self._store.read(
            "SELECT DISTINCT sha256, size FROM delivery WHERE state = 'held' AND sha256 IS NOT NULL"
        )
        return tuple(BlobHeld(sha256, ((0, size),), True) for sha256, size in rows)

    def pieces(self, sha256: bytes, size: int) -> Iterator[bytes]:
        """A body, chunk by chunk.

        Raises
        ------
        StoreDamagedError
            One is gone, or does not open.
        """
        query, key = (
            "SELECT data FROM delivery_chunk WHERE sha256 = ? AND start = ? AND size = ?",
            self._store.nobodys_key(),
        )
        for start in range(0, size, CHUNK):
            rows = self._store.read(query, (sha256, start, size))
            try:
                yield seal.unseal(key, rows[0][0] if rows else b"", _place(sha256, size, start))
            except seal.SealBrokenError:
                raise StoreDamagedError(
                    operation="reading what the hub sent", target=sha256.hex()[:16], cause="it does not open: damaged"
                ) from None

    def _waiting(self) -> list[tuple[bytes, int]]:
        rows = self._store.read(
            "SELECT sha256, size FROM delivery WHERE state = 'waiting' AND sha256 IS NOT NULL ORDER BY serial, cls"
        )
        return list(dict.fromkeys((bytes(sha256), size) for sha256, size in rows))

    def _check(self, sha256: bytes, size: int) -> None:
        """The whole is here: take it for what was named, or ask for it again from the beginning."""
        digest = hashlib.sha256()
        try:
            for piece in self.pieces(sha256, size):
                digest.update(piece)
        except StoreDamagedError:
            digest.update(b"damaged")
        of = "sha256 = ? AND size = ? AND state = 'waiting'"

        def work(db: sqlite3.Connection) -> None:
            if digest.digest() == sha256:
                db.execute(f"UPDATE delivery SET state = 'held', attempts = 0 WHERE {of}", (sha256, size))
            else:
                db.execute("DELETE FROM delivery_chunk WHERE sha256 = ? AND size = ?", (sha256, size))
                db.execute(f"UPDATE delivery SET attempts = attempts + 1 WHERE {of}", (sha256, size))

        self._store.write(work)
        why = f"what the hub sends does not have the hash that it names ({MOST_ATTEMPTS} times)"
        for one in self._rows("state = 'waiting' AND attempts >= ?", MOST_ATTEMPTS):
            self.settle(one, "refused", why)

    def give_up(self, sha256: bytes, why: str) -> None:
        """The hub will not send that body."""
        self.adopt()
        for one in self._rows("state = 'waiting' AND sha256 = ?", sha256):
            self.settle(one, "superseded", why)

    # -- being taken up

    def ready(self) -> list[Ready]:
        """What can be taken up, oldest first."""
        self.adopt()
        return self._rows("state = 'held'")

    def last_applied(self, subject: str) -> int:
        """The highest serial of a subject that was taken up here; 0 where none was."""
        query = "SELECT max(serial) FROM delivery WHERE cls = ? AND state IN ('applied', 'rolled-back')"
        return int(self._store.read(query, (subject,))[0][0] or 0)

    def begin(self, one: Ready) -> None:
        """Count, on the disk, that somebody begins to take it up: what kills the process is not begun for ever."""
        self._store.write(
            lambda db: db.execute(
                "UPDATE delivery SET attempts = attempts + 1 WHERE epoch = ? AND cls = ? AND seq = ?", one.key
            )
        )

    def postpone(self, one: Ready) -> None:
        """Nothing was begun after all: it stays."""
        self._store.write(
            lambda db: db.execute("UPDATE delivery SET attempts = 0 WHERE epoch = ? AND cls = ? AND seq = ?", one.key)
        )

    def ask_again(self, one: Ready) -> None:
        """Its chunks do not open any more: they go, and the hub is asked for them anew."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM delivery_chunk WHERE sha256 = ?", (one.sha256,))
            db.execute(
                "UPDATE delivery SET state = 'waiting', attempts = 0 WHERE sha256 = ? AND state = 'held'", (one.sha256,)
            )

        self._store.write(work)

    def settle(self, one: Ready, state: State, why: str = "", items: Sequence[Item] = ()) -> bool:
        """How it ended, for good: noted, its `Outcome` and `items` in the outbox, its chunks gone, in one transaction.
        False, and nothing happens, where another process settled it meanwhile.

        Raises
        ------
        StorageFullError
            There is no room for the outcome; it stays as it is.
        """
        from aidpost.sync.store import Item

        said = Outcome(
            id=uuid.uuid4(),
            delivery=one.id,
            subject=one.subject,
            version=one.version,
            state=state,
            at=self._store.now(),
            why=why[:500],
        )
        before = "state = 'applied'" if state == "rolled-back" else _OPEN

        def work(db: sqlite3.Connection) -> None:
            changed = db.execute(
                f"UPDATE delivery SET state = ? WHERE epoch = ? AND cls = ? AND seq = ? AND {before}", (state, *one.key)
            )
            if not changed.rowcount:
                raise _SettledError
            needed = f"SELECT 1 FROM delivery WHERE sha256 = ? AND {_OPEN}"
            if one.sha256 is not None and not db.execute(needed, (one.sha256,)).fetchone():
                db.execute("DELETE FROM delivery_chunk WHERE sha256 = ?", (one.sha256,))

        try:
            self._store.append_many([Item(RecordClass.REVIEW_ACK, said, None), *items], also=work)
        except _SettledError:
            return False
        return True

    def of(self, delivery: uuid.UUID) -> Ready | None:
        """A delivery by its number, whatever became of it."""
        found = self._rows("id = ?", delivery.bytes)
        return found[0] if found else None

    def _rows(self, where: str, *values: object) -> list[Ready]:
        rows = self._store.read(
            "SELECT d.epoch, d.cls, d.seq, d.sha256, d.size, d.attempts, d.state, r.patient, r.body FROM delivery AS d"
            f" JOIN received AS r USING (epoch, cls, seq) WHERE {where} ORDER BY serial, d.cls",
            values,
        )
        found = []
        for *key, sha256, size, attempts, state, patient, body in rows:
            named = RecordKey(*key)
            try:
                record = decode(Delivery, self._store.inbox.open(named, patient, body))
            except StoreDamagedError:
                continue
            found.append(
                Ready(
                    store=self._store,
                    key=named,
                    id=record.id,
                    subject=record.subject,
                    version=record.version,
                    serial=record.serial,
                    at=record.at,
                    size=size,
                    sha256=sha256,
                    attempts=attempts,
                    state=state,
                    body=record.body,
                )
            )
        return found


class _SettledError(StoreError):
    def __init__(self) -> None:
        super().__init__(operation="settling a delivery", target="delivery", cause="another process settled it")


def _place(sha256: bytes, size: int, start: int) -> bytes:
    return b"delivery" + sha256 + f"{size}/{start}".encode()
