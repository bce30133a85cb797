"""The device's end of a code by telephone: what a locked-out worker reads out, and what lets them try again."""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable

from aidpost.board.console.database import ConsoleDatabase
from aidpost.board.console.people import TRIES, Workers
from aidpost.sync.telephone import Line, digits

PAUSE_S = 300.0
"""After as many wrong codes as wrong PINs, there is no new challenge for so long; counted anew from a start."""


class Telephone:
    """One open challenge a worker, on the disk from when it is shown. It ends with the first right code, with `TRIES`
    wrong ones, or when the worker's own PIN opens the screen: never by the clock, which may be wrong."""

    def __init__(
        self, database: ConsoleDatabase, workers: Workers, line: Line, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database, self._workers, self._line, self._clock = database, workers, line, clock
        self._lock = threading.Lock()
        self._spent: dict[str, float] = dict.fromkeys(
            (row[0] for row in database.read("SELECT worker FROM challenge WHERE wrong >= ?", (TRIES,))), clock()
        )

    def use(self, line: Line) -> None:
        """Go on by another line: this device or its hub has another key now. What was read out before is void."""
        with self._lock:
            self._line = line

    def paused_s(self, worker: str) -> float:
        """Seconds until there is a new challenge after too many wrong codes."""
        if worker not in self._spent:
            return 0.0
        return max(0.0, self._spent[worker] + PAUSE_S - self._clock())

    def challenge(self, worker: str) -> str:
        """The digits to read out; empty for somebody who is not locked out, or while there is a pause."""
        with self._lock:
            if self._workers.locked_s(worker) <= 0 or self.paused_s(worker) > 0:
                return ""
            rows = self._database.read("SELECT digits, wrong FROM challenge WHERE worker = ?", (worker,))
            # one that the line does not know is of another enrolment, or another worker's row
            if rows and rows[0][1] < TRIES and self._line.heard(rows[0][0]) and self._mine(worker, rows[0][0]):
                return str(rows[0][0])
            return self._renew(worker, rows[0][0] if rows else "")

    def answer(self, worker: str, code: str) -> bool:
        """Whether the code answers the worker's challenge; then they may try their PIN again, and the code is spent."""
        with self._lock:
            rows = self._database.read("SELECT digits, wrong FROM challenge WHERE worker = ?", (worker,))
            if not rows or rows[0][1] >= TRIES or self._workers.locked_s(worker) <= 0:
                return False
            challenge = str(rows[0][0])
            # counted before it is looked at, so that pulling the plug does not undo a try
            self._write("UPDATE challenge SET wrong = wrong + 1 WHERE worker = ?", worker)
            expected = self._line.code(challenge)
            mine = self._line.heard(challenge) and self._mine(worker, challenge)
            if mine and hmac.compare_digest(expected.encode(), digits(code).encode()):
                self._workers.unlock(worker)  # ends the challenge in the same transaction
                return True
            if rows[0][1] + 1 >= TRIES:
                self._spent[worker] = self._clock()
            return False

    def _mine(self, worker: str, challenge: str) -> bool:
        return bool(self._line.workers(challenge, [worker]))

    def _renew(self, worker: str, before: str) -> str:
        """A challenge that no worker here has open, and not the one before."""
        taken = {row[0] for row in self._database.read("SELECT digits FROM challenge")} | {before}
        made = self._line.challenge(worker)
        while made in taken:
            made = self._line.challenge(worker)
        self._write("INSERT OR REPLACE INTO challenge VALUES (?, ?, 0)", worker, made)
        self._spent.pop(worker, None)
        return made

    def _write(self, statement: str, *values: str) -> None:
        self._database.write(lambda db: db.execute(statement, values))
