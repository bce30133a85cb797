"""The threads that give exams to other systems, one for each."""

from __future__ import annotations

import logging
import uuid
from typing import Protocol

from sqlalchemy.exc import DBAPIError

from aidpost.sync.hub import exports
from aidpost.sync.hub._post import FAULTS
from aidpost.sync.hub._worker import Worker
from aidpost.sync.hub.database import Database, now_ms

_log = logging.getLogger(__name__)

_EVERY_S = 1.0
_AGAIN_MS = 300_000


class Target(Protocol):
    """Another system. `send` raises one of `FAULTS` or returns."""

    name: str

    def send(self, exam: uuid.UUID) -> None:
        """Gives it one exam, whole, whatever it had of it."""


class Exporter(Worker):
    """Sends what is due to one target until `stop`."""

    def __init__(self, database: Database, target: Target) -> None:
        self._database, self._target = database, target
        super().__init__(f"hub-{target.name}")

    def _run(self) -> None:
        while not self._stopping.wait(_EVERY_S):
            try:
                while not self._stopping.is_set() and self.turn(now_ms()):
                    pass
            except (DBAPIError, OSError):
                _log.exception("what is due to %s cannot be looked for; trying again", self._target.name)

    def turn(self, now: int) -> int:
        """Sends what is due as of `now`; returns how many exams were taken in hand."""
        name = self._target.name
        with self._database.read() as connection:
            if not exports.anything_due(connection, name, now):
                return 0
        with self._database.write() as connection:
            rows = exports.claim(connection, name, now, _AGAIN_MS)
        for row in rows:
            fault = ""
            try:
                self._target.send(row.exam)
            except FAULTS as error:
                fault = str(error) or type(error).__name__
                _log.warning("exam %s does not reach %s: %s", row.exam, name, fault)
            with self._database.write() as connection:
                if fault:
                    exports.failed(connection, row, fault, now)
                else:
                    exports.done(connection, row, now)
        return len(rows)
