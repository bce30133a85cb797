"""Captures: the bytes a device sent, with the time each arrived. Made by `devices record`, read by `replay:`.

The file (all numbers little-endian)::

    8 bytes    89 41 49 44 43 41 50 0A   (\\x89 AIDCAP \\n)
    u32        length of the header
    header     JSON: version, device, source, wall_ms, boot, and `channels`: the names of what is numbered below
    chunks     u64 microseconds since the capture began, u16 channel, u32 length, u32 CRC-32 of all before it in the
               chunk and of the payload, payload

A serial port has one channel, "serial"; a Bluetooth capture has one for each characteristic ("2A37"). A file that ends
inside a chunk (the power went) is read up to there. Chunks are at most 64 kB.
"""

from __future__ import annotations

import json
import os
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from aidpost.errors import UnreadableInputError

MAGIC = b"\x89AIDCAP\n"
VERSION = 1
MAX_HEADER = 1 << 16
MAX_CHUNK = 1 << 16
_CHUNK = struct.Struct("<QHI")
_CRC = struct.Struct("<I")


@dataclass(frozen=True)
class CaptureHeader:
    """What was captured, and when by the clock of then."""

    device: str
    source: str = ""
    wall_ms: int = 0
    boot: int = 0
    channels: tuple[str, ...] = ("serial",)


@dataclass(frozen=True)
class Chunk:
    """Bytes that arrived together, `time_us` microseconds after the capture began."""

    time_us: int
    data: bytes
    channel: str = "serial"


@dataclass
class Capture:
    """A capture as read. `complete` is false once the chunks have ended inside one, or at a damaged one."""

    header: CaptureHeader
    path: Path
    complete: bool = True
    _offset: int = field(default=0, repr=False)

    def chunks(self) -> Iterator[Chunk]:
        """The chunks in order, up to where the file ends or is damaged; memory stays that of one chunk."""
        with self.path.open("rb") as file:
            file.seek(self._offset)
            while True:
                head = file.read(_CHUNK.size + _CRC.size)
                if not head:
                    return
                if len(head) < _CHUNK.size + _CRC.size:
                    break
                time_us, channel, length = _CHUNK.unpack_from(head)
                data = file.read(length) if length <= MAX_CHUNK else b""
                (crc,) = _CRC.unpack_from(head, _CHUNK.size)
                if len(data) != length or zlib.crc32(data, zlib.crc32(head[: _CHUNK.size])) != crc:
                    break
                if channel >= len(self.header.channels):
                    break
                yield Chunk(time_us, data, self.header.channels[channel])
        self.complete = False


def paced(chunks: Iterable[Chunk], *, real: bool) -> Iterator[Chunk]:
    """The chunks, each when its time has come; as fast as they are taken unless `real`."""
    began = time.monotonic()
    for chunk in chunks:
        if real:
            time.sleep(max(0.0, chunk.time_us / 1e6 - (time.monotonic() - began)))
        yield chunk


def open_capture(path: Path) -> Capture | None:
    """The capture in a file; None if the file is none (raw bytes of a serial port, without times).

    Raises
    ------
    UnreadableInputError
        It cannot be opened, or its header is damaged or of a newer version.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return None
            length = int.from_bytes(file.read(4), "little")
            text = file.read(length) if length <= MAX_HEADER else b""
            header = _parse_header(path, text)
            return Capture(header, path, _offset=file.tell())
    except OSError as error:
        raise _damaged(path, f"it cannot be opened ({error.strerror})") from None


def _parse_header(path: Path, text: bytes) -> CaptureHeader:
    try:
        found: dict[str, Any] = json.loads(text)
        version = int(found["version"])
        header = CaptureHeader(
            device=str(found["device"]),
            source=str(found["source"]),
            wall_ms=int(found["wall_ms"]),
            boot=int(found["boot"]),
            channels=tuple(str(name) for name in found["channels"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "its header is damaged") from error
    if version > VERSION:
        raise _damaged(path, f"it is of version {version}, newer than this program reads", "Update Aidpost.")
    return header


def _damaged(path: Path, cause: str, remedy: str = "Record it again.") -> UnreadableInputError:
    return UnreadableInputError(operation="reading the capture", target=str(path), cause=cause, remedy=remedy)


class CaptureWriter:
    """Writes a capture; used as a context manager. Each chunk is handed to the system at once, and the file is fsynced
    when it is closed: a power cut costs at most the tail, which reading tolerates."""

    def __init__(self, path: Path, header: CaptureHeader) -> None:
        self._channels = {name: number for number, name in enumerate(header.channels)}
        text = json.dumps({"version": VERSION, **vars(header)}).encode()
        self._file: BinaryIO = path.open("wb", buffering=0)
        self._file.write(MAGIC + len(text).to_bytes(4, "little") + text)

    def __enter__(self) -> CaptureWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def write(self, chunk: Chunk) -> None:
        """Append what arrived; more than `MAX_CHUNK` bytes become several chunks of the same time."""
        for start in range(0, len(chunk.data), MAX_CHUNK):
            data = chunk.data[start : start + MAX_CHUNK]
            head = _CHUNK.pack(chunk.time_us, self._channels[chunk.channel], len(data))
            self._file.write(head + _CRC.pack(zlib.crc32(data, zlib.crc32(head))) + data)

    def close(self) -> None:
        """Flush to the disk and close. May be called twice."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()
