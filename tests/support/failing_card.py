"""A memory card of which nothing can be read for a while."""

from __future__ import annotations

import sqlite3
import time
from typing import Any


class FailingCard:
    """Stands in for the connection by which a database is read."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.broken, self.failed = False, 0

    def execute(self, *asked: Any) -> sqlite3.Cursor:
        if self.broken:
            self.failed += 1
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(*asked)

    def close(self) -> None:
        self._connection.close()

    def fails(self, times: int) -> None:
        """Nothing can be read until that has been tried so often."""
        self.broken, wanted, end = True, self.failed + times, time.monotonic() + 30
        while self.failed < wanted:
            assert time.monotonic() < end, "nobody tries any more"
            time.sleep(0.01)
        self.broken = False
