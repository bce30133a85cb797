"""When it really was: a device's time corrected by its clock anchors; what the device said is kept beside it.

A hello carries the device's boot counter and its milliseconds since boot. The hub's clock minus those is when that boot
began, plus the time the hello travelled; so of all hellos of a boot, the earliest answer is the nearest. It needs no
trust in the device's wall clock and no order of arrival.
"""

from __future__ import annotations

import enum
import time

from sqlalchemy import Connection, func, insert, select, update

from aidpost.records import Timestamp
from aidpost.sync.hub import schema, tally


class TimeBasis(enum.Enum):
    """How a time is known."""

    SYNCED = "synced"
    """The device's clock had been set by a trusted source."""
    ANCHORED = "anchored"
    """The clock was not trusted; the time was counted from a hello of the same boot."""
    UNCONFIRMED = "unconfirmed"
    """Neither: it was before it was received, and that is all."""


def note_anchor(connection: Connection, device: str, at: Timestamp, received_ms: int) -> None:
    """Takes the clock of a hello, and corrects the exams of that boot which lacked one."""
    began = received_ms - at.monotonic_ms
    table = schema.anchors
    row = connection.execute(
        select(table).where(table.c.device == device, table.c.boot == at.boot).with_for_update()
    ).one_or_none()
    if row is None:
        connection.execute(
            insert(table).values(
                device=device, boot=at.boot, boot_began_ms=began, first_ms=received_ms, last_ms=received_ms
            )
        )
    else:
        connection.execute(
            update(table)
            .where(table.c.device == device, table.c.boot == at.boot)
            .values(
                boot_began_ms=min(row.boot_began_ms, began),
                first_ms=min(row.first_ms, received_ms),
                last_ms=max(row.last_ms, received_ms),
            )
        )
        if row.boot_began_ms <= began:
            return
    exams = schema.exams
    theirs = (exams.c.device == device) & (exams.c.device_boot == at.boot) & exams.c.device_synced.is_(False)
    tally.changed_where(connection, theirs)
    connection.execute(
        update(exams)
        .where(theirs)
        .values(started_ms=exams.c.device_monotonic_ms + began, time_basis=TimeBasis.ANCHORED.value)
    )


class Clock:
    """Corrects times within one transaction, asking for each boot once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._began: dict[tuple[str, int], int | None] = {}

    def best_time(self, device: str, at: Timestamp, received_ms: int) -> tuple[int, TimeBasis]:
        """Milliseconds of Unix time and how they are known. Of an unconfirmed time, the latest that it can have been:
        when the hub had it."""
        if at.synced:
            return at.wall_ms, TimeBasis.SYNCED
        began = self._boot_began(device, at.boot)
        if began is not None:
            return began + at.monotonic_ms, TimeBasis.ANCHORED
        return received_ms, TimeBasis.UNCONFIRMED

    def _boot_began(self, device: str, boot: int) -> int | None:
        if (device, boot) not in self._began:
            table = schema.anchors
            self._began[device, boot] = self._connection.execute(
                select(table.c.boot_began_ms).where(table.c.device == device, table.c.boot == boot)
            ).scalar_one_or_none()
        return self._began[device, boot]


def bounds(connection: Connection, device: str, boot: int, received_ms: int) -> tuple[int | None, int]:
    """Between which two moments something of an unanchored boot happened: after the last anchor of any earlier boot
    (None: no earlier boot is known), before the first of any later one and before it was received."""
    table = schema.anchors
    after = connection.execute(
        select(func.max(table.c.boot_began_ms)).where(table.c.device == device, table.c.boot < boot)
    ).scalar_one()
    before = connection.execute(
        select(func.min(table.c.boot_began_ms)).where(table.c.device == device, table.c.boot > boot)
    ).scalar_one()
    return after, min(received_ms, before) if before is not None else received_ms


def hub_time(now_ms: int) -> Timestamp:
    """The hub's own time as a Timestamp: its clock is kept by the system, and it counts no boots."""
    return Timestamp(wall_ms=now_ms, monotonic_ms=time.monotonic_ns() // 1_000_000, boot=0, synced=True)


def day(milliseconds: int) -> str:
    """The date in UTC, YYYY-MM-DD."""
    return time.strftime("%Y-%m-%d", time.gmtime(milliseconds / 1000))
