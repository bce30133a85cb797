"""Photographs, waveforms and heatmaps as sealed files, named by what they hold and for whom.

The content is on the disk before the name, and the name before the row that refers to it: a power cut leaves either a
whole blob or a temporary file that the next start removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from aidpost.errors import StoreDamagedError, StoreError
from aidpost.sync import seal
from aidpost.sync._durable import make_folder, sync_folder, write_file

_LOST = {errno.ENOENT, errno.EIO, errno.EUCLEAN, errno.EBADMSG}
"""What says that a file is gone, or its place on the card is bad: the next time will be no better."""


class BlobFiles:
    """The folder of sealed blobs. One file a (content, patient), so that erasing a patient's key erases just theirs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        make_folder(folder)
        with contextlib.suppress(BlockingIOError), self._writing(fcntl.LOCK_EX | fcntl.LOCK_NB):
            for leftover in folder.glob("*/*.tmp"):
                with contextlib.suppress(OSError):
                    leftover.unlink()

    @contextlib.contextmanager
    def _writing(self, how: int) -> Iterator[None]:
        """Held (shared) by whoever is writing a blob, in any process, so that its temporary file is no leftover."""
        descriptor = os.open(self._folder.with_name("blobs.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, how)
            yield
        finally:
            os.close(descriptor)

    def path(self, sha256: bytes, patient: uuid.UUID) -> Path:
        """Where that blob lies; the name tells neither content nor patient to whoever lacks both."""
        name = hashlib.sha256(b"blob" + patient.bytes + sha256).hexdigest()
        return self._folder / name[:2] / name

    def write(self, key: bytes, sha256: bytes, patient: uuid.UUID, data: bytes) -> None:
        """Seal `data` into its file; returns when content and name are on the disk. Writing it twice is harmless."""
        path = self.path(sha256, patient)
        make_folder(path.parent)
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        with self._writing(fcntl.LOCK_SH):
            try:
                write_file(temporary, seal.seal_file(key, data, patient.bytes + sha256))
                temporary.replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
        sync_folder(path.parent)

    def read(self, key: bytes, sha256: bytes, patient: uuid.UUID, start: int = 0, stop: int | None = None) -> bytes:
        """Plain bytes [start, stop) of a blob.

        Raises
        ------
        StoreDamagedError
            The file is gone, cut off, damaged, on a bad place of the card, or sealed with another key.
        StoreError
            It cannot be read now.
        """
        out = b"".join(self._segments(key, sha256, patient, start // seal.SEGMENT, stop))
        offset = start % seal.SEGMENT
        return out[offset:] if stop is None else out[offset : offset + stop - start]

    def _segments(self, key: bytes, sha256: bytes, patient: uuid.UUID, first: int, stop: int | None) -> Iterator[bytes]:
        path = self.path(sha256, patient)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise _unreadable(sha256, error) from None
        try:
            index = first
            while stop is None or index * seal.SEGMENT < stop:
                piece = seal.unseal_segment(key, descriptor, index, patient.bytes + sha256)
                if not piece:
                    return
                yield piece
                index += 1
        except seal.SealBrokenError:
            raise _damaged(sha256, "it does not open: damaged, cut off, or the wrong key") from None
        except OSError as error:
            raise _unreadable(sha256, error) from None
        finally:
            os.close(descriptor)

    def remove(self, sha256: bytes, patient: uuid.UUID) -> None:
        """Delete the file, if it is there."""
        path = self.path(sha256, patient)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)


def _damaged(sha256: bytes, cause: str) -> StoreDamagedError:
    return StoreDamagedError(operation="reading a stored body", target=sha256.hex()[:16], cause=cause)


def _unreadable(sha256: bytes, error: OSError) -> StoreError:
    if error.errno in _LOST:
        return _damaged(sha256, str(error.strerror))
    return StoreError(operation="reading a stored body", target=sha256.hex()[:16], cause=str(error.strerror))
