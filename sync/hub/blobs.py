"""Photographs and waveforms as files named by their SHA-256, put together from chunks that come in any order.

    <root>/partial/<device>/<sha256>    chunks at their places, while some are missing
    <root>/<first two digits>/<sha256>  whole, its hash checked, never written again

What a device is told the hub holds has been fsynced, the file's name included. Which byte ranges of a partial file are
held stands in the database, written after the file: after a power cut, the file has at least what the database says.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from aidpost.sync.envelope import Chunk
from aidpost.sync.hub.identity import sync_folder
from aidpost.sync.ranges import Range

_READ = 1 << 20


class BlobFiles:
    """The files. Knows nothing of the database; every write is durable when the method returns."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "partial").mkdir(parents=True, exist_ok=True)

    def free_bytes(self) -> int:
        """What is free where they lie."""
        return shutil.disk_usage(self.root).free

    def path(self, sha256: str) -> Path:
        """Where the whole blob is, or will be."""
        return self.root / sha256[:2] / sha256

    def is_complete(self, sha256: str) -> bool:
        """Whether the whole blob is here."""
        return self.path(sha256).is_file()

    def partial_path(self, device: str, sha256: str) -> Path:
        """Where a device's chunks are collected."""
        return self.root / "partial" / device / sha256

    def has_partial(self, device: str, sha256: str) -> bool:
        """Whether chunks of that blob are here."""
        return self.partial_path(device, sha256).is_file()

    def write_chunks(self, device: str, sha256: str, chunks: Iterable[Chunk]) -> list[Range]:
        """Puts chunks of one blob at their places; the byte ranges written."""
        path = self.partial_path(device, sha256)
        new = not path.exists()
        if new:
            made = not path.parent.exists()
            path.parent.mkdir(parents=True, exist_ok=True)
            if made:
                sync_folder(path.parent.parent)
        written: list[Range] = []
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for chunk in chunks:
                _write_all(descriptor, chunk.data, chunk.offset)
                written.append((chunk.offset, chunk.offset + len(chunk.data)))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if new:
            sync_folder(path.parent)
        return written

    def finish(self, device: str, sha256: str) -> bool:
        """Checks the hash of a collected file and gives it its name. False: the hash is wrong, the file is gone and the
        device must send it again."""
        partial = self.partial_path(device, sha256)
        if file_sha256(partial) != sha256:
            partial.unlink()
            return False
        final = self.path(sha256)
        if not final.parent.exists():
            final.parent.mkdir(parents=True, exist_ok=True)
            sync_folder(self.root)
        partial.rename(final)
        sync_folder(final.parent)
        return True

    def discard(self, device: str, sha256: str) -> None:
        """Drops what was collected of a blob."""
        self.partial_path(device, sha256).unlink(missing_ok=True)

    def erase(self, sha256: str) -> None:
        """Removes a whole blob and makes its absence durable."""
        path = self.path(sha256)
        if path.exists():
            path.unlink()
            sync_folder(path.parent)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ):
            digest.update(piece)
    return digest.hexdigest()


def _write_all(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count
