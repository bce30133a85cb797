"""Who uses a hub's state folder: any number of running hubs, or one restore."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from aidpost.errors import StoreLockedError

_FILE = "lock"


class StateLock:
    """A lock that ends with its process, however that ends."""

    def __init__(self, state: Path) -> None:
        self._path = state / _FILE
        self._descriptor: int | None = None

    def share(self) -> None:
        """Takes the folder for a running hub, until `release`. Raises StoreLockedError while a backup is restored."""
        self._take(fcntl.LOCK_SH, "starting the hub", "Wait until the backup is restored.")

    def release(self) -> None:
        """Gives it back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextlib.contextmanager
    def alone(self, operation: str) -> Iterator[None]:
        """Has the folder for itself. Raises StoreLockedError while a hub runs."""
        self._take(fcntl.LOCK_EX, operation, "Stop the hub first.")
        try:
            yield
        finally:
            self.release()

    def _take(self, how: int, operation: str, remedy: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StoreLockedError(
                operation=operation, target=str(self._path.parent), cause="it is in use", remedy=remedy
            ) from None
        self._descriptor = descriptor
