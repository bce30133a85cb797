"""Which worker takes which device, where several share one broker that cannot share a subscription.

Every worker gets everything that devices send and takes what is its own: the device is the worker's with the highest
hash of both names (rendezvous hashing), so that a worker that comes or goes moves only its own devices. Who works is in
the database: each worker counts a beat up, and one whose beat has stood still is taken for gone. No clocks are
compared. Where two views differ for a moment, a record is taken twice, which counts once, or not at all, and the device
sends it again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from sqlalchemy import delete, insert, select, update

from aidpost.sync.hub import schema
from aidpost.sync.hub.database import Database

SILENT_S = 10.0
"""So long a worker's beat may stand still."""
_FORGOTTEN_S = 3600.0
"""The name of a worker that has been silent so long is removed."""


class Shares:
    """One worker's view of who works.

    Parameters
    ----------
    name
        The worker's own; unlike any other's on this database.
    clock
        Seconds that only go up.
    """

    def __init__(self, database: Database, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._database, self._name, self._clock = database, name, clock
        self._beats: dict[str, tuple[int, float]] = {}
        self._alive: tuple[str, ...] = (name,)
        self._owners: dict[str, str] = {}

    @property
    def alive(self) -> tuple[str, ...]:
        """Who works, as far as this worker knows; itself always."""
        return self._alive

    def is_mine(self, device: str) -> bool:
        """Whether this worker takes what the device sends."""
        owners = self._owners  # replaced as a whole by `beat`, on another thread
        owner = owners.get(device)
        if owner is None:
            owner = owners[device] = max(self._alive, key=lambda name: _weight(name, device))
        return owner == self._name

    def beat(self) -> bool:
        """Says that this worker is there and looks who else is. True: the shares have changed.

        Raises
        ------
        sqlalchemy.exc.SQLAlchemyError
            The database is away: the shares stay as they were.
        """
        table, now = schema.workers, self._clock()
        with self._database.write() as connection:
            mine = table.c.name == self._name
            if connection.execute(update(table).where(mine).values(beat=table.c.beat + 1)).rowcount == 0:
                connection.execute(insert(table).values(name=self._name, beat=1))
            beats = {row.name: row.beat for row in connection.execute(select(table))}
            for name, (beat, at) in self._beats.items():
                if now - at > _FORGOTTEN_S:
                    connection.execute(delete(table).where(table.c.name == name, table.c.beat == beat))
        known = self._beats
        self._beats = {
            name: known[name] if name in known and known[name][0] == beat else (beat, now)
            for name, beat in beats.items()
        }
        alive = tuple(sorted({self._name} | {name for name, (_, at) in self._beats.items() if now - at < SILENT_S}))
        changed = alive != self._alive
        if changed:
            self._alive, self._owners = alive, {}
        return changed

    def leave(self) -> None:
        """Gives the share to the others at once."""
        with self._database.write() as connection:
            connection.execute(delete(schema.workers).where(schema.workers.c.name == self._name))


def _weight(name: str, device: str) -> bytes:
    return hashlib.sha256(f"{name}\0{device}".encode()).digest()
