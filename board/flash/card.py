"""A card as the writer sees it: bytes at offsets, what is on the card for good, and what it holds when asked again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path

from aidpost.errors import DeviceBusyError, DeviceError, DeviceLostError

_BLKFLSBUF = 0x1261
_BLKRRPART = 0x125F


class Card:
    """A block device, or a file that stands for one, opened for writing by us alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # on a block device O_EXCL fails where the kernel has it mounted, whatever a table says
            self._fd = os.open(path, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceBusyError(
                operation="opening the card",
                target=str(path),
                cause=str(error.strerror),
                remedy="Unmount it, close what uses it, and check that you may write to it (sudo).",
            ) from None
        self._block = stat.S_ISBLK(os.fstat(self._fd).st_mode)

    def write(self, at: int, data: bytes | memoryview) -> None:
        """Bytes at an offset; on the card for good only after `sync`."""
        view = memoryview(data)
        with self._lost("writing to the card"):
            while view:
                done = os.pwrite(self._fd, view, at)
                view, at = view[done:], at + done

    def read(self, at: int, size: int) -> bytes:
        """Bytes at an offset; fewer at the end."""
        with self._lost("reading the card back"):
            return os.pread(self._fd, size, at)

    def sync(self) -> None:
        """Everything written is on the card, and is read from it (not from memory) from now on."""
        with self._lost("writing to the card"):
            os.fsync(self._fd)
            if self._block:
                fcntl.ioctl(self._fd, _BLKFLSBUF)
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Give it free, and have the kernel look at its partitions again."""
        if self._block:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._fd, _BLKRRPART)
        os.close(self._fd)

    @contextlib.contextmanager
    def _lost(self, operation: str):  # type: ignore[no-untyped-def]
        try:
            yield
        except OSError as error:
            kind = DeviceLostError if error.errno in {5, 6, 19} else DeviceError  # EIO, ENXIO, ENODEV
            remedy = "Put the card in again and repeat; if it happens twice, use another card or reader."
            raise kind(operation=operation, target=str(self.path), cause=str(error.strerror), remedy=remedy) from None
