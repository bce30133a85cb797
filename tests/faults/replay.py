"""A power cut, replayed: from a trace of file operations (see shim.c) to a folder that holds what a disk may hold.

The model is POSIX at its strictest, which no file system promises more than: a file's bytes are on the disk when that
file was fsynced, a name when its folder was. What was not synced may be there or not; the variants below choose.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

ACKNOWLEDGED = "acknowledged"
"""Writes to this file are the workload's word that something was accepted; it is no part of the folder."""

VARIANTS = ("nothing more", "names survive", "bytes survive", "everything", "some")
"""What of the unsynced survives the cut."""


class Operation(NamedTuple):
    """One record of the trace."""

    op: str
    a: int
    b: int
    path: str
    data: bytes


def read_trace(path: Path) -> list[Operation]:
    """The operations in order; a record cut off at the end (the process was killed) is left out."""
    raw, at, out = path.read_bytes(), 0, []
    while at + 25 <= len(raw):
        a, b, name, size = struct.unpack_from("<qqII", raw, at + 1)
        end = at + 25 + name + size
        if end > len(raw):
            break
        out.append(Operation(chr(raw[at]), a, b, raw[at + 25 : at + 25 + name].decode(), raw[at + 25 + name : end]))
        at = end
    return out


@dataclass(eq=False)
class File:
    """Bytes as the process sees them, as they are on the disk, and the writes between."""

    now: bytearray = field(default_factory=bytearray)
    disk: bytes = b""
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)

    def write(self, at: int, data: bytes) -> None:
        _put(self.now, at, data)
        self.unsynced.append((at, data))

    def truncate(self, size: int) -> None:
        self.now = bytearray(self.now[:size].ljust(size, b"\0"))
        self.unsynced.append((size, b""))

    def sync(self) -> None:
        self.disk, self.unsynced = bytes(self.now), []

    def some(self, chance: random.Random) -> bytes:
        """The disk's bytes and a random part of the unsynced writes, one of them torn at a sector."""
        out = bytearray(self.disk)
        for at, data in self.unsynced:
            if chance.random() < 0.5:
                torn = data if chance.random() < 0.7 else data[: chance.randrange(0, len(data) + 1, 512)]
                _put(out, at, torn)
        return bytes(out)


def _put(buffer: bytearray, at: int, data: bytes) -> None:
    if len(buffer) < at:
        buffer.extend(bytes(at - len(buffer)))
    buffer[at : at + len(data)] = data


class Link(NamedTuple):
    """A symbolic link: there as a whole or not at all."""

    target: str


@dataclass(eq=False)
class Folder:
    """Names as the process sees them, and as they are on the disk."""

    now: dict[str, File | Folder | Link] = field(default_factory=dict)
    disk: dict[str, File | Folder | Link] = field(default_factory=dict)

    def sync_all(self) -> None:
        """What sync(2) does."""
        self.disk = dict(self.now)
        for found in self.now.values():
            if isinstance(found, Folder):
                found.sync_all()
            elif isinstance(found, File):
                found.sync()

    def at(self, path: str) -> tuple[Folder, str]:
        """The folder that holds `path`, and the last name."""
        folder, parts = self, path.split("/")
        for part in parts[:-1]:
            found = folder.now[part]
            assert isinstance(found, Folder)
            folder = found
        return folder, parts[-1]


class Disk:
    """Replays operations one by one; `image` writes what a cut at this moment may leave."""

    def __init__(self, skip: Callable[[Operation], bool] = lambda _: False) -> None:
        self._root, self._skip = Folder(), skip
        self.acknowledged: list[bytes] = []

    def do(self, one: Operation) -> None:
        if one.path == ACKNOWLEDGED:
            if one.op == "w":
                self.acknowledged.append(one.data)
        elif one.op in "sS":
            self._sync(one)
        else:
            self._change(one)

    def _sync(self, one: Operation) -> None:
        if self._skip(one):
            return
        if one.op == "S":
            self._root.sync_all()
            return
        folder, name = self._root.at(one.path)
        found = folder.now.get(name) if one.path else self._root
        if isinstance(found, Folder):
            found.disk = dict(found.now)
        elif isinstance(found, File):
            found.sync()

    def _change(self, one: Operation) -> None:
        folder, name = self._root.at(one.path)
        if one.op == "d":
            folder.now[name] = Folder()
        elif one.op == "l":
            folder.now[name] = Link(one.data.decode())
        elif one.op == "u":
            folder.now.pop(name, None)
        elif one.op == "r":
            target, new_name = self._root.at(one.data.decode())
            target.now[new_name] = folder.now.pop(name)
        else:
            file = folder.now.get(name)
            if file is None:
                file = folder.now[name] = File()
            assert isinstance(file, File)
            if one.op == "w":
                file.write(one.a, one.data)
            elif one.op == "t" or (one.op == "o" and one.b):
                file.truncate(one.a if one.op == "t" else 0)

    def image(self, target: Path, variant: str, seed: int = 0) -> None:
        """Write what may be on the disk after a cut now into the empty folder `target`."""
        chance = random.Random(seed)
        _write(self._root, target, variant, chance)


def _write(folder: Folder, target: Path, variant: str, chance: random.Random) -> None:
    names = folder.now if variant in ("names survive", "everything") else folder.disk
    if variant == "some":
        both = {**folder.disk, **folder.now}
        names = {
            name: found
            for name, found in both.items()
            if (name in folder.disk and name in folder.now) or chance.random() < 0.5
        }
    for name, found in names.items():
        if isinstance(found, Link):
            (target / name).symlink_to(found.target)
        elif isinstance(found, Folder):
            (target / name).mkdir()
            _write(found, target / name, variant, chance)
        else:
            content = found.some(chance) if variant == "some" else found.disk
            if variant in ("bytes survive", "everything"):
                content = bytes(found.now)
            (target / name).write_bytes(content)


def cuts(trace: list[Operation]) -> Iterator[int]:
    """The moments worth cutting at: before each sync, and after each acknowledgement (what lies between only adds to
    what is unsynced)."""
    for index, one in enumerate(trace):
        if one.op in "sS":
            yield index
        elif one.path == ACKNOWLEDGED:
            yield index + 1
    yield len(trace)
