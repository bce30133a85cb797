"""The answer to a hello: everything that this hub has from the device, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sqlalchemy import Connection, select

from aidpost.sync.envelope import BlobHeld, Held, Hello, Life, Receipt, records_check
from aidpost.sync.hub import schema
from aidpost.sync.hub._blob_intake import BlobIntake
from aidpost.sync.hub._streams import Stream, stream_ranges
from aidpost.sync.ranges import Range, from_numbers

_RANGES = 5000
"""Ranges of one message: about 100 kB at most."""
_BLOBS = 200
_WANTED_RANGES = 1000
_CHECKED = 5000
"""Records of one (epoch, class) of which a full receipt proves that it means the device's own."""
_BLOCK = 256
"""Records under one proof: where one of them is another's, so many are sent again."""


def answers(
    connection: Connection, intake: BlobIntake, device: str, hello: Hello, hub_epoch: bytes
) -> list[tuple[str, Receipt]]:
    """Full receipts, all with the hello's nonce; the last one says what is wanted. It is one message unless thousands
    of gaps make it large."""
    table = schema.streams
    rows = connection.execute(select(table).where(table.c.device == device).order_by(table.c.id)).all()
    held = [Held(bytes(row.epoch), row.cls, ranges) for row in rows if (ranges := stream_ranges(row)[0])]
    streams = {
        (bytes(row.epoch), row.cls): Stream(row.id, device, bytes(row.epoch), row.cls, stream_ranges(row))
        for row in rows
    }
    lives = hello.lives or tuple(Life(hello.epoch, cls, 1, last) for cls, last in hello.last.items())
    wanted = []
    for life in lives:
        stream = streams.get((life.epoch, life.cls))
        if stream is not None and life.waiting:
            held += _proven(connection, stream, life.waiting)
        stream = stream or Stream(0, device, life.epoch, life.cls, ((), (), ()))
        if lacking := stream.lacking(life.first, life.last):
            wanted.append(Held(lacking.epoch, lacking.cls, lacking.ranges[:_WANTED_RANGES]))
    blobs = _waiting(connection, intake, device)
    pages = _pages(held)
    receipts = [Receipt(hub_epoch=hub_epoch, held=page, answers=hello.nonce) for page in pages[:-1]]
    receipts.append(
        Receipt(hub_epoch=hub_epoch, held=pages[-1], blobs=blobs, wanted=tuple(wanted), answers=hello.nonce)
    )
    return [(device, receipt) for receipt in receipts]


def _proven(connection: Connection, stream: Stream, first: int) -> Iterator[Held]:
    table = schema.envelopes
    query = select(table.c.seq, table.c.hash).where(table.c.stream == stream.id, table.c.seq >= first)
    rows = connection.execute(query.order_by(table.c.seq).limit(_CHECKED)).all()
    return held_blocks(stream.epoch, stream.cls, {row.seq: bytes(row.hash) for row in rows})


def held_blocks(epoch: bytes, cls: str, hashes: Mapping[int, bytes]) -> Iterator[Held]:
    """Records by sequence as the receipt names them, each block with the proof of which records are meant."""
    numbers = sorted(hashes)
    # a receipt has at most a thousand blocks: a stick may bring a year in one batch
    size = max(_BLOCK, -(-len(numbers) // 500))
    for start in range(0, len(numbers), size):
        block = numbers[start : start + size]
        yield Held(epoch, cls, from_numbers(block), records_check(hashes[number] for number in block))


def _pages(held: list[Held]) -> list[tuple[Held, ...]]:
    pages: list[list[Held]] = [[]]
    room = _RANGES
    for whole in held:
        ranges: tuple[Range, ...] = whole.ranges
        while ranges:
            if room == 0:
                pages.append([])
                room = _RANGES
            # a proof is of all its ranges, so its block is never divided
            part, ranges = (ranges, ()) if whole.check else (ranges[:room], ranges[room:])
            pages[-1].append(Held(whole.epoch, whole.cls, part, whole.check))
            room = max(0, room - len(part))
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
