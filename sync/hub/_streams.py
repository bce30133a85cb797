"""One stream is the records of one (device, epoch, class); which of its sequences are held is one row of ranges."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, insert, select, update

from aidpost.sync.envelope import Held
from aidpost.sync.hub import schema
from aidpost.sync.hub.database import pack_ranges, unpack_ranges
from aidpost.sync.ranges import Ranges, contains, from_numbers, merge, missing


class Stream:
    """A stream's row while a batch works on it, locked against other workers."""

    def __init__(self, number: int, device: str, epoch: bytes, cls: str, ranges: tuple[Ranges, Ranges, Ranges]) -> None:
        self.id, self.device, self.epoch, self.cls = number, device, epoch, cls
        self.held, self.dropped, self.rejected = ranges
        self._committed: set[int] = set()
        self._rejected: set[int] = set()
        self._hashes: dict[int, bytes] = {}

    @classmethod
    def open(cls, connection: Connection, device: str, epoch: bytes, name: str) -> Stream:
        """The stream, made if this is its first record."""
        table = schema.streams
        where = (table.c.device == device, table.c.epoch == epoch, table.c.cls == name)
        row = connection.execute(select(table).where(*where).with_for_update()).one_or_none()
        if row is not None:
            return cls(row.id, device, epoch, name, stream_ranges(row))
        none = pack_ranges(())
        values = {"device": device, "epoch": epoch, "cls": name, "held": none, "dropped": none, "rejected": none}
        number = connection.execute(insert(table).values(**values).returning(table.c.id)).scalar_one()
        return cls(number, device, epoch, name, ((), (), ()))

    def load_hashes(self, connection: Connection, sequences: Iterable[int]) -> None:
        """Reads the hashes of those of the sequences that are held: only those can be repeats or conflicts."""
        known = [seq for seq in sequences if seq not in self._hashes and contains(self.held, seq)]
        table = schema.envelopes
        for start in range(0, len(known), 500):
            page = known[start : start + 500]
            rows = connection.execute(
                select(table.c.seq, table.c.hash).where(table.c.stream == self.id, table.c.seq.in_(page))
            )
            self._hashes.update((row.seq, bytes(row.hash)) for row in rows)

    def hash_of(self, seq: int) -> bytes | None:
        """The hash of the record with that sequence, if the hub has one."""
        return self._hashes.get(seq)

    def commit(self, seq: int, content_hash: bytes) -> None:
        """Notes a new record of this batch."""
        self._committed.add(seq)
        self._rejected.discard(seq)
        self._hashes[seq] = content_hash

    def reject(self, seq: int) -> None:
        """Notes a record that was not taken."""
        self._rejected.add(seq)

    def drop(self, ranges: Ranges) -> None:
        """Notes sequences that will never come."""
        gone = merge(gap for start, stop in ranges for gap in missing(self.held, start, stop))
        self.dropped = merge((*self.dropped, *gone))
        self.held = merge((*self.held, *ranges))

    def save(self, connection: Connection) -> None:
        """Writes the ranges back."""
        new = from_numbers(self._committed)
        self.held = merge((*self.held, *new))
        rejected = merge((*self.rejected, *from_numbers(self._rejected)))
        # a dead letter that was sent again and taken is no longer a reject, nor is what came after all still dropped
        self.rejected = _without(rejected, self.held)
        self.dropped = _without(self.dropped, new)
        connection.execute(
            update(schema.streams)
            .where(schema.streams.c.id == self.id)
            .values(held=pack_ranges(self.held), dropped=pack_ranges(self.dropped), rejected=pack_ranges(self.rejected))
        )

    def lacking(self, first: int, last: int) -> Held | None:
        """What of `first` to `last` the hub has neither taken nor refused."""
        gaps = missing(merge((*self.held, *self.rejected)), first, last + 1)
        return Held(self.epoch, self.cls, gaps) if gaps else None


def stream_ranges(row: object) -> tuple[Ranges, Ranges, Ranges]:
    """Held, dropped and rejected sequences of a row of `streams`."""
    held, dropped, rejected = (unpack_ranges(getattr(row, name)) for name in ("held", "dropped", "rejected"))
    return held, dropped, rejected


def _without(ranges: Ranges, removed: Ranges) -> Ranges:
    return merge(gap for start, stop in ranges for gap in missing(removed, start, stop))
