"""What devices are to take up: settings, rules, releases, rounds of learning. `send` is the one way down for all.

Each is a record that goes down as reviews do (`outgoing`). A body beyond `INLINE` bytes lies here in pieces, and goes
in the chunks that the device asks for: it alone knows what it has, after a reboot too.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from aidpost.errors import UsageError
from aidpost.records import BlobRef
from aidpost.sync import ranges
from aidpost.sync.bodies import Delivery, Outcome
from aidpost.sync.envelope import CHUNK, MAX_BLOB, BlobHeld, Chunk, Chunks
from aidpost.sync.hub import audit, clocks, outgoing, schema
from aidpost.sync.hub._rows import clean, insert_new

INLINE = 4 * 1024
"""Bytes of a body that goes within its record."""
_PIECE = 16 * CHUNK
_AT_ONCE = 16 * CHUNK
"""The most that one ask is answered with: less than a message may have."""


class Sent(NamedTuple):
    """A delivery as the hub knows it. `state`: waiting (the device lacks it, or some of it: `held_bytes` are there),
    held, applied, refused, superseded, rolled-back, withdrawn."""

    id: uuid.UUID
    device: str
    subject: str
    version: str
    size: int
    held_bytes: int
    state: str
    why: str
    created_ms: int
    state_ms: int


def send(
    connection: Connection,
    hub_epoch: bytes,
    device: str,
    subject: str,
    version: str,
    body: bytes | Path,
    *,
    by: str,
    now_ms: int,
    latest: bool = True,
) -> uuid.UUID:
    """Keeps something for a device to take up; it goes with the caller's commit (at once after `HubService.wake`).

    Parameters
    ----------
    subject
        What it is, as a class on the wire: `config`, `rules`, … The device has a handler for it, or keeps it until a
        version that has one.
    version
        For people, 64 characters at most.
    body
        The content: bytes, or the file that has it. Of many devices' same body one copy is kept.
    latest
        Only the newest of this subject counts: what still waits of older ones is withdrawn.

    Raises
    ------
    UsageError
        The device is not enrolled, or the body is larger than the wire takes.
    """
    found = connection.execute(select(schema.devices).where(schema.devices.c.name == device)).one_or_none()
    if found is None or found.revoked_ms is not None:
        raise _refused(device, "no such device is enrolled", "See the devices page.")
    table, number = schema.deliveries, uuid.uuid4()
    content = body if isinstance(body, bytes) and len(body) <= INLINE else b""
    blob = None if content or not body else _keep(connection, body)
    mine = (table.c.device == device, table.c.subject == subject)
    last = connection.execute(select(func.max(table.c.serial)).where(*mine)).scalar_one()
    record = Delivery(
        id=number,
        subject=subject,
        version=version,
        serial=max((last or 0) + 1, now_ms),
        at=clocks.hub_time(now_ms),
        body=content,
        blob=blob,
    )
    if latest:
        waiting = connection.execute(select(table).where(*mine, table.c.state == "waiting")).all()
        for row in waiting:
            _withdraw(connection, row, "a later one was sent", now_ms)
    seq = outgoing.put(connection, hub_epoch, device, subject, record, patient=None, exam=None, now_ms=now_ms)
    values = {"id": number, "device": device, "subject": subject, "epoch": hub_epoch, "seq": seq, "version": version}
    values |= {
        "serial": record.serial,
        "sha256": blob.sha256 if blob else None,
        "by": by,
        "state": "waiting",
        "why": "",
    }
    size = blob.size if blob else len(content)
    connection.execute(insert(table).values(**values, size=size, held_bytes=0, created_ms=now_ms, state_ms=now_ms))
    audit.append(connection, by, "sent-down", f"{device} {subject} {version}"[:200], str(number))
    return number


def withdraw(connection: Connection, delivery: uuid.UUID, by: str, now_ms: int) -> None:
    """Sends it no further; a device that has it already takes it up all the same.

    Raises
    ------
    UsageError
        There is none that still waits.
    """
    table = schema.deliveries
    row = connection.execute(select(table).where(table.c.id == delivery, table.c.state == "waiting")).one_or_none()
    if row is None:
        raise _refused(str(delivery), "nothing of that number still waits", "See the devices page.")
    _withdraw(connection, row, f"withdrawn by {by}", now_ms)
    audit.append(connection, by, "delivery-withdrawn", f"{row.device} {row.subject} {row.version}"[:200], str(delivery))


def new_store(connection: Connection, device: str, now_ms: int) -> None:
    """A device has another key, so another store, with nothing in it: its settings and its index go down anew."""
    table = schema.deliveries
    had = (table.c.device == device, table.c.state.in_(("held", "applied", "superseded")))
    connection.execute(
        update(table).where(*had).values(state="withdrawn", why="the device has a new store", state_ms=now_ms)
    )
    connection.execute(delete(schema.index_entries).where(schema.index_entries.c.device == device))


def latest(connection: Connection, device: str | None = None) -> list[Sent]:
    """The last delivery of each subject to each device, or to one, and the last one applied where that is another."""
    table = schema.deliveries
    key = (table.c.device, table.c.subject)
    newest = select(*key, func.max(table.c.serial).label("serial")).group_by(*key)
    if device is not None:
        newest = newest.where(table.c.device == device)
    found = set()
    for chosen in (newest.subquery(), newest.where(table.c.state == "applied").subquery()):
        same = [table.c[name] == chosen.c[name] for name in ("device", "subject", "serial")]
        rows = connection.execute(select(*(table.c[name] for name in Sent._fields)).join(chosen, and_(*same)))
        found |= {Sent(*row) for row in rows}
    return sorted(found, key=lambda one: (one.device, one.subject, one.created_ms))


def note_held(connection: Connection, device: str, blob: BlobHeld, now_ms: int) -> str | None:
    """Notes how much of a body a device says it has. Gives why it gets no more of it; empty: it gets what it lacks, and
    None: it lacks nothing.

    A device is given what was sent to it and nothing else, whatever hash it names.
    """
    table = schema.deliveries
    mine = (table.c.device == device, table.c.sha256 == blob.sha256.hex(), table.c.state.in_(("waiting", "held")))
    row = connection.execute(select(table.c.size).where(*mine).limit(1)).one_or_none()
    if row is None:
        return None if blob.complete else "the hub has withdrawn it"
    held = ranges.count(ranges.merge((start, min(stop, row.size)) for start, stop in blob.ranges))
    values = {"held_bytes": held} | ({"state": "held", "state_ms": now_ms} if blob.complete else {})
    connection.execute(update(table).where(*mine, table.c.state == "waiting").values(**values))
    if blob.complete:
        _forget(connection, blob.sha256.hex())
        return None
    here = select(schema.delivery_bodies.c.number).where(schema.delivery_bodies.c.sha256 == blob.sha256.hex()).limit(1)
    return "" if connection.execute(here).first() is not None else "the hub has its content no longer"


def note_outcome(connection: Connection, device: str, outcome: Outcome, now_ms: int) -> None:
    """Notes what came of a delivery on its device; what another device says of it changes nothing."""
    table = schema.deliveries
    mine = (table.c.id == outcome.delivery, table.c.device == device)
    row = connection.execute(select(table).where(*mine)).one_or_none()
    # two messages may come in any order: what was rolled back was applied before
    if row is None or row.state == "rolled-back":
        return
    values: dict[str, Any] = {"state": outcome.state, "why": clean(outcome.why, 500), "state_ms": now_ms}
    if outcome.state == "applied":
        values["held_bytes"] = row.size
    connection.execute(update(table).where(*mine).values(**values))
    if row.sha256 is not None:
        _forget(connection, row.sha256)
    if outcome.state in ("refused", "rolled-back"):
        what = f"{row.subject} {row.version}"[:200]
        audit.append(connection, device, f"delivery-{outcome.state}", what, clean(outcome.why, 500))


def chunks(connection: Connection, asked: BlobHeld) -> Chunks | None:
    """The next chunks of a body of which a device has `asked.ranges`: at least one, at most what it has room for."""
    table = schema.deliveries
    size = connection.execute(select(table.c.size).where(table.c.sha256 == asked.sha256.hex()).limit(1)).scalar()
    if size is None:
        return None
    room = max(CHUNK, min(asked.room or _AT_ONCE, _AT_ONCE))
    found = []
    for chunk in _chunks(connection, asked.sha256.hex(), size, ranges.merge(asked.ranges)):
        found.append(chunk)
        room -= len(chunk.data)
        if room <= 0:
            break
    return Chunks(tuple(found)) if found else None


def lacking(connection: Connection, device: str) -> Iterator[Chunks]:
    """All that a device may lack of what waits for it, to be carried there. What it said last of what it has is a
    number of bytes, not which: a stick has the whole."""
    table = schema.deliveries
    query = select(table.c.sha256, table.c.size).where(
        table.c.device == device, table.c.state == "waiting", table.c.sha256.is_not(None)
    )
    for row in connection.execute(query.distinct()).all():
        group: list[Chunk] = []
        for chunk in _chunks(connection, row.sha256, row.size, ()):
            group.append(chunk)
            if len(group) * CHUNK >= _AT_ONCE:
                yield Chunks(tuple(group))
                group = []
        if group:
            yield Chunks(tuple(group))


def _chunks(connection: Connection, sha256: str, size: int, held: ranges.Ranges) -> Iterator[Chunk]:
    table, known, piece = schema.delivery_bodies, -1, b""
    for start in (
        start for gap in ranges.missing(held, 0, size) for start in range(gap[0] - gap[0] % CHUNK, gap[1], CHUNK)
    ):
        if start // _PIECE != known:
            known = start // _PIECE
            query = select(table.c.data).where(table.c.sha256 == sha256, table.c.number == known)
            data = connection.execute(query).scalar()
            if data is None:
                return
            piece = bytes(data)
        yield Chunk(bytes.fromhex(sha256), size, start, piece[start % _PIECE : start % _PIECE + CHUNK])


def _keep(connection: Connection, body: bytes | Path) -> BlobRef:
    """Keeps a body in pieces, if it is not there yet."""
    size = len(body) if isinstance(body, bytes) else body.stat().st_size
    if not 0 < size <= MAX_BLOB:
        raise _refused("its body", f"it has {size} bytes, the most is {MAX_BLOB}", "Send less.")
    digest = hashlib.sha256()
    for piece in _pieces(body):
        digest.update(piece)
    sha256 = digest.hexdigest()
    for number, piece in enumerate(_pieces(body)):
        insert_new(connection, schema.delivery_bodies, [{"sha256": sha256, "number": number, "data": piece}])
    return BlobRef(sha256=sha256, size=size, media_type="application/octet-stream")


def _pieces(body: bytes | Path) -> Iterator[bytes]:
    if isinstance(body, bytes):
        yield from (body[start : start + _PIECE] for start in range(0, len(body), _PIECE))
        return
    with body.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _withdraw(connection: Connection, row: Any, why: str, now_ms: int) -> None:
    table, down = schema.deliveries, schema.outgoing
    connection.execute(
        update(table).where(table.c.id == row.id).values(state="withdrawn", why=clean(why, 500), state_ms=now_ms)
    )
    key = (down.c.device == row.device, down.c.cls == row.subject, down.c.epoch == row.epoch, down.c.seq == row.seq)
    connection.execute(update(down).where(*key, down.c.received_ms.is_(None), down.c.refused == "").values(refused=why))
    if row.sha256 is not None:
        _forget(connection, row.sha256)


def _forget(connection: Connection, sha256: str) -> None:
    """Drops a body that no device lacks any longer."""
    table, bodies = schema.deliveries, schema.delivery_bodies
    needed = select(table.c.id).where(table.c.sha256 == sha256, table.c.state == "waiting").limit(1)
    if connection.execute(needed).first() is None:
        connection.execute(delete(bodies).where(bodies.c.sha256 == sha256))


def _refused(target: str, cause: str, remedy: str) -> UsageError:
    return UsageError(operation="sending something down", target=target, cause=cause, remedy=remedy)
