"""Where an image's boot partition lies: MBR, or GPT (UEFI 2.10, chapter 5)."""

from __future__ import annotations

import struct
import uuid
from typing import NamedTuple

SECTOR = 512
_FAT_TYPES = {0x01, 0x04, 0x06, 0x0B, 0x0C, 0x0E, 0xEF}
_FAT_GUIDS = {
    uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b"),  # EFI system
    uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"),  # basic data
}


class Partition(NamedTuple):
    """Offset and length in bytes."""

    start: int
    bytes: int


def boot_partition(head: bytes) -> Partition | None:
    """The first partition that a FAT file system may lie in, from an image's first kilobytes; None if there is none."""
    if head[SECTOR : SECTOR + 8] == b"EFI PART":
        return _from_gpt(head)
    for entry in range(446, 510, 16):
        kind, start, count = head[entry + 4], *struct.unpack_from("<II", head, entry + 8)
        if kind in _FAT_TYPES and start and count:
            return Partition(start * SECTOR, count * SECTOR)
    return None


def _from_gpt(head: bytes) -> Partition | None:
    first, count, size = struct.unpack_from("<QII", head, SECTOR + 72)
    for index in range(min(count, 128)):
        at = first * SECTOR + index * size
        if size < 128 or at + 48 > len(head):
            return None
        start, last = struct.unpack_from("<QQ", head, at + 32)
        if uuid.UUID(bytes_le=head[at : at + 16]) in _FAT_GUIDS and 0 < start <= last:
            return Partition(start * SECTOR, (last - start + 1) * SECTOR)
    return None
