"""Rows of a damaged database, read page by page without SQLite, which gives up a whole branch where one page is bad.

The file format is SQLite's (https://sqlite.org/fileformat2.html): every page of a tree says what it is, and each of its
cells is a record. So each whole page gives its rows whatever happened to the others. What a row says of itself is not
believed here: a record's body, a patient's key and the identity open only in their own place under their own key, so
`recovery` knows a true row from debris.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PAGE = 4096
"""SQLite's default page size, where the file's own header does not say."""
_LEAF, _INTERIOR, _TABLE_LEAF = 0x0A, 0x02, 0x0D
_MOST_COLUMNS = 32
_AT_ONCE, _BLOCK = 1 << 16, 1 << 12
_MOST_PAYLOAD = 1 << 24

Row = tuple[Any, ...]
"""Integers, floats, bytes, text or None."""


class Pages:
    """The pages of a database as the last commit left them: the file's, and over them the write-ahead log's."""

    def __init__(self, database: Path, log: Path) -> None:
        self._file = _read(database)
        size = struct.unpack_from(">H", self._file, 16)[0] if self._file.startswith(b"SQLite format 3\0") else 0
        self.size = 65536 if size == 1 else size if size >= 512 and size & (size - 1) == 0 else _PAGE
        self._log = _committed(_read(log) if log.exists() else b"", self.size)

    def __len__(self) -> int:
        return max(-(-len(self._file) // self.size), max(self._log, default=0))

    def page(self, number: int) -> bytes:
        """Page `number`, from 1; short or empty where the file is cut off."""
        return self._log.get(number) or self._file[(number - 1) * self.size : number * self.size]

    def rows(self) -> Iterator[Row]:
        """Every record of every page that can be read, of all tables and indexes, in no order."""
        for number in range(1, len(self) + 1):
            page = self.page(number)
            header = 100 if number == 1 else 0
            if len(page) == self.size and page[header] in (_LEAF, _INTERIOR, _TABLE_LEAF):
                yield from self._cells(page, header)

    def _cells(self, page: bytes, header: int) -> Iterator[Row]:
        kind = page[header]
        (count,) = struct.unpack_from(">H", page, header + 3)
        pointers = header + (12 if kind == _INTERIOR else 8)
        for index in range(count):
            if pointers + 2 * index + 2 > self.size:
                return
            (at,) = struct.unpack_from(">H", page, pointers + 2 * index)
            try:
                yield _record(self._payload(page, at, kind))
            except (IndexError, ValueError, struct.error):
                continue

    def _payload(self, page: bytes, at: int, kind: int) -> bytes:
        """A cell's record, put together from its overflow pages (section 1.6)."""
        at += 4 if kind == _INTERIOR else 0
        total, at = _varint(page, at)
        if kind == _TABLE_LEAF:
            _rowid, at = _varint(page, at)
        if not 0 < total <= _MOST_PAYLOAD:
            raise ValueError(total)
        most = self.size - 35 if kind == _TABLE_LEAF else (self.size - 12) * 64 // 255 - 23
        least = (self.size - 12) * 32 // 255 - 23
        local = total
        if total > most:
            surplus = least + (total - least) % (self.size - 4)
            local = surplus if surplus <= most else least
        out = page[at : at + local]
        (following,) = struct.unpack_from(">I", page, at + local) if local < total else (0,)
        while len(out) < total and following:
            overflow = self.page(following)
            (following,) = struct.unpack_from(">I", overflow, 0)
            out += overflow[4 : 4 + total - len(out)]
        if len(out) < total:
            raise ValueError("cut off")
        return out


def _read(path: Path) -> bytes:
    """All of a file, with zeros where the medium gives no more than an error: for no more than the block around it."""
    out, step = bytearray(), _AT_ONCE
    with path.open("rb", buffering=0) as file:
        size = path.stat().st_size
        while len(out) < size:
            try:
                file.seek(len(out))
                piece = file.read(step)
            except OSError:
                if step > _BLOCK:
                    step = _BLOCK
                    continue
                piece = bytes(min(step, size - len(out)))
            if not piece:
                break
            out += piece
            if len(out) % _AT_ONCE == 0:
                step = _AT_ONCE
    return bytes(out)


def _committed(log: bytes, size: int) -> dict[int, bytes]:
    """The last committed content of each page in a write-ahead log (section 4.1): its frames up to the last commit."""
    if len(log) < 32 or struct.unpack_from(">I", log, 0)[0] not in (0x377F0682, 0x377F0683):
        return {}
    salts, pages, committed = log[16:24], {}, {}
    for at in range(32, len(log) - size - 23, size + 24):
        number, commit = struct.unpack_from(">II", log, at)
        if log[at + 8 : at + 16] != salts:
            break  # of an earlier round of the log
        pages[number] = log[at + 24 : at + 24 + size]
        if commit:
            committed.update(pages)
            pages = {}
    return committed


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(8):
        byte = data[at + index]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + index + 1
    return value << 8 | data[at + 8], at + 9


def _record(payload: bytes) -> Row:
    """The columns of a record (section 2.1)."""
    size, at = _varint(payload, 0)
    kinds = []
    while at < size:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    if len(kinds) > _MOST_COLUMNS or at != size:
        raise ValueError("no record")
    return tuple(value for value, at in _columns(payload, kinds, at))


def _columns(payload: bytes, kinds: list[int], at: int) -> Iterator[tuple[Any, int]]:
    for kind in kinds:
        if kind == 0 or kind in (8, 9):
            yield (None if kind == 0 else kind - 8), at
            continue
        size = {5: 6, 6: 8, 7: 8}.get(kind, kind) if kind < 8 else (kind - 12) // 2
        piece = payload[at : at + size]
        if len(piece) < size or kind in (10, 11):
            raise ValueError("cut off")
        at += size
        if kind < 7:
            yield int.from_bytes(piece, "big", signed=True), at
        elif kind == 7:
            yield struct.unpack(">d", piece)[0], at
        else:
            yield (piece if kind % 2 == 0 else piece.decode("utf-8")), at
