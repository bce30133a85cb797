"""Tells the devices of a clinic which models' answers to hide there: those that have not shown yet that they work."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, select

from aidpost.records import Timestamp, decode
from aidpost.sync.bodies import Shadow
from aidpost.sync.hub import _quality_data, outgoing, schema
from aidpost.sync.hub._calls import TASKS

CLASS = "shadow"


def wanted(connection: Connection, bound: float) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Of each device: its clinic, and the tasks whose answers it is to hide. Counts over all exams that were read, so
    call it outside of any writing transaction.

    A clinic that the hub has no exams of is in shadow, too. With `bound` 0, shadow mode off, only devices that were
    told to hide something are told not to.
    """
    told = _told(connection)
    if not bound:
        return {device: (one.clinic, ()) for device, one in told.items() if one.tasks}
    proven = _quality_data.proven(connection, bound)
    return {
        device: (clinic, tuple(task for task in TASKS if (clinic, task) not in proven))
        for device, clinic in _clinics(connection).items()
        if clinic
    }


def announce(
    connection: Connection, hub_epoch: bytes, found: Mapping[str, tuple[str, tuple[str, ...]]], now_ms: int
) -> int:
    """Puts a `Shadow` down for each device of which something else is `wanted` than it was told last; how many."""
    told, at = _told(connection), Timestamp(wall_ms=now_ms, monotonic_ms=0, boot=0, synced=True)
    sent = 0
    for device, (clinic, tasks) in found.items():
        before = told.get(device)
        if before is None or (before.clinic, before.tasks) != (clinic, tasks):
            record = Shadow(clinic=clinic, tasks=tasks, at=at)
            outgoing.put(connection, hub_epoch, device, CLASS, record, patient=None, exam=None, now_ms=now_ms)
            sent += 1
    return sent


def _told(connection: Connection) -> dict[str, Shadow]:
    table = schema.outgoing
    query = select(table.c.device, table.c.body).where(table.c.cls == CLASS, table.c.kind == Shadow.__name__)
    rows = connection.execute(query.order_by(table.c.created_ms, table.c.seq))
    return {row.device: decode(Shadow, bytes(row.body)) for row in rows}


def _clinics(connection: Connection) -> dict[str, str]:
    """Each device and where it works: the clinic of its newest exam, or the one it was enrolled for."""
    devices, exams = schema.devices, schema.exams
    found = {}
    for row in connection.execute(select(devices.c.name, devices.c.clinic).where(devices.c.revoked_ms.is_(None))):
        # by the index of devices and boots
        newest = select(exams.c.clinic).where(exams.c.device == row.name)
        newest = newest.order_by(exams.c.device_boot.desc(), exams.c.device_monotonic_ms.desc()).limit(1)
        found[row.name] = connection.execute(newest).scalar_one_or_none() or row.clinic
    return found
