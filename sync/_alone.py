"""One process at a time: a lock file that the kernel lets go of however its holder ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aidpost.errors import StoreLockedError


def lock(path: Path, *, operation: str, cause: str, remedy: str = "", mode: int = 0o600) -> int:
    """Become the one process that holds `path`; closing the descriptor lets go.

    Raises
    ------
    StoreLockedError
        Another one holds it, told in these words about the file's folder.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StoreLockedError(operation=operation, target=str(path.parent), cause=cause, remedy=remedy) from None
    return descriptor


@contextmanager
def alone(path: Path, *, operation: str, cause: str, remedy: str = "", mode: int = 0o600) -> Iterator[None]:
    """While this process holds `path`. Raises as `lock`."""
    descriptor = lock(path, operation=operation, cause=cause, remedy=remedy, mode=mode)
    try:
        yield
    finally:
        os.close(descriptor)
