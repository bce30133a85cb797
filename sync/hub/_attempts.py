"""How often somebody may guess."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_TRIES = 5
_WINDOW_S = 300.0
_REMEMBERED = 10_000


class Attempts:
    """Failures of the last minutes by name and by address."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._failures: dict[str, list[float]] = {}

    def blocked(self, *keys: str) -> bool:
        """Whether one of the keys failed too often."""
        with self._lock:
            return any(len(self._recent(key)) >= _TRIES for key in keys)

    def failed(self, *keys: str) -> None:
        """Counts a failure."""
        with self._lock:
            if len(self._failures) > _REMEMBERED:
                self._failures = {key: recent for key in self._failures if (recent := self._recent(key))}
            for key in keys:
                self._failures[key] = [*self._recent(key), self._clock()]

    def succeeded(self, *keys: str) -> None:
        """Forgets the failures."""
        with self._lock:
            for key in keys:
                self._failures.pop(key, None)

    def _recent(self, key: str) -> list[float]:
        return [at for at in self._failures.get(key, ()) if self._clock() - at < _WINDOW_S]
