"""The answer to a hello: everything that this hub has from the device, and what it lacks."""

from __future__ import annotations

from sqlalchemy import Connection, select

from aidpost.sync.envelope import BlobHeld, Held, Hello, Receipt
from aidpost.sync.hub import schema
from aidpost.sync.hub._blob_intake import BlobIntake
from aidpost.sync.hub._streams import Stream, stream_ranges
from aidpost.sync.ranges import Range

_RANGES = 5000
"""Ranges of one message: about 100 kB at most."""
_BLOBS = 200
_WANTED_RANGES = 1000


def answers(
    connection: Connection, intake: BlobIntake, device: str, hello: Hello, hub_epoch: bytes
) -> list[tuple[str, Receipt]]:
    """Full receipts, all with the hello's nonce; the last one says what is wanted. It is one message unless thousands
    of gaps make it large."""
    table = schema.streams
    rows = connection.execute(select(table).where(table.c.device == device).order_by(table.c.id)).all()
    held = [Held(bytes(row.epoch), row.cls, ranges) for row in rows if (ranges := stream_ranges(row)[0])]
    streams = {
        row.cls: Stream(row.id, device, hello.epoch, row.cls, stream_ranges(row))
        for row in rows
        if bytes(row.epoch) == hello.epoch
    }
    wanted = []
    for cls, last in hello.last.items():
        stream = streams.get(cls) or Stream(0, device, hello.epoch, cls, ((), (), ()))
        if lacking := stream.lacking(last):
            wanted.append(Held(lacking.epoch, lacking.cls, lacking.ranges[:_WANTED_RANGES]))
    blobs = _waiting(connection, intake, device)
    pages = _pages(held)
    receipts = [Receipt(hub_epoch=hub_epoch, held=page, answers=hello.nonce) for page in pages[:-1]]
    receipts.append(
        Receipt(hub_epoch=hub_epoch, held=pages[-1], blobs=blobs, wanted=tuple(wanted), answers=hello.nonce)
    )
    return [(device, receipt) for receipt in receipts]


def _pages(held: list[Held]) -> list[tuple[Held, ...]]:
    pages: list[list[Held]] = [[]]
    room = _RANGES
    for whole in held:
        ranges: tuple[Range, ...] = whole.ranges
        while ranges:
            if room == 0:
                pages.append([])
                room = _RANGES
            part, ranges = ranges[:room], ranges[room:]
            pages[-1].append(Held(whole.epoch, whole.cls, part))
            room -= len(part)
    return [tuple(page) for page in pages]


def _waiting(connection: Connection, intake: BlobIntake, device: str) -> tuple[BlobHeld, ...]:
    table = schema.manifests
    rows = connection.execute(
        select(table.c.sha256, table.c.size)
        .where(table.c.device == device, table.c.waiting.is_(True))
        .distinct()
        .limit(_BLOBS)
    ).all()
    return tuple(intake.answer(connection, device, row.sha256, row.size) for row in rows)
