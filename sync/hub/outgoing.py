"""What goes down to devices, by the contract that brings records up: kept, sent again until the device's receipt."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, func, insert, or_, select, update

from aidpost.records import Record, encode
from aidpost.sync.envelope import Envelope, Receipt
from aidpost.sync.hub import audit, schema
from aidpost.sync.hub._rows import clean

RESEND_AFTER_MS = 10_000
"""The first wait for a device's receipt; it doubles with each attempt."""
RESEND_AT_MOST_MS = 300_000
_WINDOW = 16
"""Records of one device that may be under way."""


class Waiting(NamedTuple):
    """Envelopes for one device and topic, due to be sent."""

    device: str
    cls: str
    envelopes: tuple[Envelope, ...]


def put(
    connection: Connection,
    hub_epoch: bytes,
    device: str,
    cls: str,
    record: Record,
    *,
    patient: uuid.UUID | None,
    exam: uuid.UUID | None,
    now_ms: int,
) -> int:
    """Keeps a record for a device; it goes out with the caller's commit. Gives its sequence."""
    table = schema.outgoing
    # the lock on the device's row keeps two workers from taking one number
    connection.execute(select(schema.devices.c.name).where(schema.devices.c.name == device).with_for_update())
    last = connection.execute(
        select(func.max(table.c.seq)).where(table.c.device == device, table.c.cls == cls, table.c.epoch == hub_epoch)
    ).scalar_one()
    connection.execute(
        insert(table).values(
            device=device,
            cls=cls,
            seq=(last or 0) + 1,
            epoch=hub_epoch,
            kind=type(record).__name__,
            patient=patient,
            exam=exam,
            body=encode(record),
            created_ms=now_ms,
        )
    )
    return (last or 0) + 1


def put_all(
    connection: Connection,
    hub_epoch: bytes,
    cls: str,
    records: Sequence[tuple[str, uuid.UUID, Record]],
    now_ms: int,
) -> None:
    """Keeps many records of one class, as (device, patient, record), as `put` does one."""
    table, devices = schema.outgoing, schema.devices
    names = sorted({device for device, _, _ in records})
    locked = select(devices.c.name).where(devices.c.name.in_(names)).order_by(devices.c.name)
    connection.execute(locked.with_for_update())
    query = select(table.c.device, func.max(table.c.seq).label("last")).group_by(table.c.device)
    query = query.where(table.c.device.in_(names), table.c.cls == cls, table.c.epoch == hub_epoch)
    last = {row.device: row.last for row in connection.execute(query)}
    about = {"cls": cls, "epoch": hub_epoch, "exam": None, "created_ms": now_ms}
    rows = []
    for device, patient, record in records:
        last[device] = last.get(device, 0) + 1
        rows.append(
            about
            | {"device": device, "seq": last[device], "kind": type(record).__name__, "patient": patient}
            | {"body": encode(record)}
        )
    connection.execute(insert(table), rows)


def anything(connection: Connection) -> bool:
    """Whether anything waits at all."""
    table = schema.outgoing
    query = select(table.c.seq).where(table.c.received_ms.is_(None), table.c.refused == "").limit(1)
    return connection.execute(query).one_or_none() is not None


def waiting_count() -> Select[Any]:
    """How many records wait for a device's receipt."""
    table = schema.outgoing
    return select(func.count()).where(table.c.received_ms.is_(None), table.c.refused == "")


def take_due(connection: Connection, now_ms: int, only: str | None = None) -> list[Waiting]:
    """What is to be sent now, marked as sent. With `only`, all that waits for that device, which has just come back."""
    table = schema.outgoing
    query = select(table).where(table.c.received_ms.is_(None), table.c.refused == "")
    if only is not None:
        query = query.where(table.c.device == only)
    # of each device and class the first few that may be due: one that is away must not keep others waiting
    if only is None:
        query = query.where(or_(table.c.sent_ms.is_(None), table.c.sent_ms <= now_ms - RESEND_AFTER_MS))
    place = func.row_number().over(partition_by=(table.c.device, table.c.cls), order_by=(table.c.epoch, table.c.seq))
    first = query.add_columns(place.label("place")).subquery()
    chosen = select(first).where(first.c.place <= _WINDOW)
    rows = connection.execute(chosen.order_by(first.c.device, first.c.cls, first.c.place)).all()
    groups: dict[tuple[str, str], list[Envelope]] = {}
    for row in rows:
        group = groups.setdefault((row.device, row.cls), [])
        wait = min(RESEND_AFTER_MS << min(row.attempts, 10), RESEND_AT_MOST_MS)
        due = only is not None or row.sent_ms is None or now_ms - row.sent_ms >= wait
        if not due or len(group) >= _WINDOW:
            continue
        group.append(_envelope(row))
        connection.execute(
            update(table)
            .where(
                table.c.device == row.device,
                table.c.cls == row.cls,
                table.c.epoch == row.epoch,
                table.c.seq == row.seq,
            )
            .values(sent_ms=now_ms, attempts=table.c.attempts + 1)
        )
    return [Waiting(device, cls, tuple(group)) for (device, cls), group in groups.items() if group]


def waiting_for(connection: Connection, device: str) -> Iterator[Envelope]:
    """All that waits for a device's receipt, to be carried there; not marked as sent, since a stick may be lost."""
    table = schema.outgoing
    query = select(table).where(table.c.device == device, table.c.received_ms.is_(None), table.c.refused == "")
    for row in connection.execute(query.order_by(table.c.cls, table.c.epoch, table.c.seq)):
        yield _envelope(row)


def _envelope(row: Any) -> Envelope:
    return Envelope(bytes(row.epoch), row.cls, row.seq, row.kind, row.patient, row.exam, bytes(row.body))


def note_receipt(connection: Connection, device: str, receipt: Receipt, now_ms: int) -> None:
    """Takes a device's receipt for what was sent down."""
    table = schema.outgoing
    for held in receipt.held:
        for start, stop in held.ranges:
            connection.execute(
                update(table)
                .where(
                    table.c.device == device,
                    table.c.cls == held.cls,
                    table.c.epoch == held.epoch,
                    table.c.seq >= start,
                    table.c.seq < stop,
                    table.c.received_ms.is_(None),
                )
                .values(received_ms=now_ms)
            )
    for reject in receipt.rejected:
        changed = connection.execute(
            update(table)
            .where(
                table.c.device == device,
                table.c.cls == reject.cls,
                table.c.epoch == reject.epoch,
                table.c.seq == reject.seq,
                table.c.refused == "",
            )
            .values(refused=clean(reject.reason or reject.code, 500))
        )
        if changed.rowcount:
            audit.append(connection, device, "refused-by-device", f"{reject.cls}/{reject.seq}", reject.code)
