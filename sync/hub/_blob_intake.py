"""Chunks into blobs: files first, fsynced, and then what the database says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select, update

from aidpost.sync.envelope import BlobHeld, Chunk
from aidpost.sync.hub import exports, schema
from aidpost.sync.hub._rows import insert_new
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.database import Database, pack_ranges, unpack_ranges
from aidpost.sync.ranges import Ranges, merge


class Collected(NamedTuple):
    """What is on disk of one blob after its chunks were written, not yet noted in the database."""

    device: str
    sha256: str
    size: int
    ranges: Ranges
    complete: bool
    refused: str = ""
    restarted: bool = False

    @property
    def held(self) -> BlobHeld:
        """The answer to the device."""
        return BlobHeld(bytes.fromhex(self.sha256), self.ranges, self.complete, self.refused)


class BlobIntake:
    """Collects blobs for the ingest."""

    def __init__(self, database: Database, files: BlobFiles, max_bytes: int, reserve_bytes: int) -> None:
        self._database, self._files, self.max_bytes = database, files, max_bytes
        self._reserve_bytes = reserve_bytes

    @property
    def is_short(self) -> bool:
        """Whether what is free on the disk is kept for records."""
        return self._files.free_bytes() < self._reserve_bytes

    def may_take(self, sha256: str) -> bool:
        """Whether there is room for chunks of it; without an answer the device sends them again later."""
        return not self.is_short or self._files.is_complete(sha256)

    def collect(self, device: str, sha256: str, chunks: Sequence[Chunk]) -> Collected:
        """Writes chunks of one blob; the whole is checked as soon as nothing is missing."""
        size = chunks[0].size
        if self._files.is_complete(sha256):
            return self._whole(device, sha256, size)
        if size > self.max_bytes:
            return Collected(device, sha256, size, (), False, f"larger than {self.max_bytes} bytes")
        with self._database.read() as connection:
            row = partial_row(connection, device, sha256)
        if row is not None and row.refused:
            return Collected(device, sha256, size, (), False, row.refused)
        chunks = [chunk for chunk in chunks if chunk.size == size]
        held: Ranges = ()
        if row is not None and row.size == size and self._files.has_partial(device, sha256):
            held = unpack_ranges(row.ranges)
        elif row is not None:
            self._files.discard(device, sha256)
        ranges = merge((*held, *self._files.write_chunks(device, sha256, chunks)))
        if ranges != ((0, size),):
            return Collected(device, sha256, size, ranges, False)
        if self._files.finish(device, sha256):
            return self._whole(device, sha256, size)
        return Collected(device, sha256, size, (), False, restarted=True)

    def note(self, connection: Connection, blob: Collected, received_ms: int) -> None:
        """Writes down what `collect` put on disk, in the caller's transaction."""
        partials = schema.partials
        here = (partials.c.device == blob.device, partials.c.sha256 == blob.sha256)
        if blob.complete:
            connection.execute(delete(partials).where(*here))
            note_complete(connection, blob.sha256, blob.size, received_ms)
            return
        values = {"size": blob.size, "ranges": pack_ranges(blob.ranges), "updated_ms": received_ms}
        if connection.execute(update(partials).where(*here).values(**values)).rowcount == 0:
            connection.execute(
                insert(partials).values(device=blob.device, sha256=blob.sha256, refused=blob.refused, **values)
            )

    def answer(self, connection: Connection, device: str, sha256: str, size: int) -> BlobHeld:
        """What is held of a blob that a manifest names."""
        if self._files.is_complete(sha256):
            note_complete(connection, sha256, size, 0)
            return self._whole(device, sha256, size).held
        row = partial_row(connection, device, sha256)
        if row is None or not (row.refused or self._files.has_partial(device, sha256)):
            return BlobHeld(bytes.fromhex(sha256), (), False)
        return BlobHeld(bytes.fromhex(sha256), unpack_ranges(row.ranges), False, row.refused)

    def refuse(self, connection: Connection, device: str, sha256: str, size: int, reason: str, now: int) -> BlobHeld:
        """Marks a blob as one that will not be taken from this device, and drops what came of it."""
        refused = Collected(device, sha256, size, (), False, reason)
        self.note(connection, refused, now)
        here = (schema.partials.c.device == device, schema.partials.c.sha256 == sha256)
        connection.execute(update(schema.partials).where(*here).values(refused=reason))
        self._files.discard(device, sha256)
        return refused.held

    def allow(self, connection: Connection, device: str, sha256: str) -> None:
        """Takes a refusal back: a manifest of that blob was accepted."""
        table = schema.partials
        connection.execute(
            delete(table).where(table.c.device == device, table.c.sha256 == sha256, table.c.refused != "")
        )

    def _whole(self, device: str, sha256: str, size: int) -> Collected:
        return Collected(device, sha256, size, ((0, size),), True)


def partial_row(connection: Connection, device: str, sha256: str) -> Any:
    """The row of a blob that is being collected, or None."""
    table = schema.partials
    return connection.execute(select(table).where(table.c.device == device, table.c.sha256 == sha256)).one_or_none()


def note_complete(connection: Connection, sha256: str, size: int, received_ms: int) -> None:
    """Lists a whole blob, and lets nothing wait for it any longer."""
    insert_new(connection, schema.blobs, [{"sha256": sha256, "size": size, "completed_ms": received_ms}])
    table = schema.manifests
    waited = (table.c.sha256 == sha256, table.c.waiting.is_(True))
    of_exams = select(table.c.exam, table.c.patient).where(*waited, table.c.exam.is_not(None)).distinct()
    exports.changed(connection, [(row.exam, row.patient) for row in connection.execute(of_exams)])
    connection.execute(update(table).where(*waited).values(waiting=False))
