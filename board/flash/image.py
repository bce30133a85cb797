"""An image file: what it is by its first bytes, its content as a stream, and everything that is to be known of it
before a card is touched. One pass unpacks it whole, so that a damaged download never reaches a card."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import lzma
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any, cast

import msgspec
import zstandard

from aidpost.board.flash import partitions
from aidpost.board.flash.bmap import Bmap, read_bmap
from aidpost.board.flash.signature import TrustedKey, check_signature
from aidpost.errors import AidpostError, UnreadableInputError, UnsupportedFormatError, UsageError

PIECE = 1 << 20
"""Bytes in a piece of the stream; the last may be shorter."""

_MAGIC = (("xz", b"\xfd7zXZ\0"), ("zst", b"\x28\xb5\x2f\xfd"), ("gz", b"\x1f\x8b"), ("zip", b"PK\x03\x04"))
_DAMAGED = (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, zipfile.BadZipFile, zstandard.ZstdError)


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What one pass over an image found. `sha256` is the unpacked content's, `file_sha256` the file's as it lies there;
    `vouched` says what was checked against what somebody else said."""

    path: str
    kind: str
    file_sha256: str
    size: int
    sha256: str
    vouched: tuple[str, ...]
    boot_start: int | None
    boot_bytes: int
    bmap: str | None


def kind_of(path: Path) -> str:
    """`xz`, `zst`, `gz`, `zip` or `raw`, by the first bytes: names lie."""
    with path.open("rb") as file:
        head = file.read(8)
    return next((kind for kind, magic in _MAGIC if head.startswith(magic)), "raw")


@contextlib.contextmanager
def _unpacked(path: Path, kind: str) -> Iterator[IO[bytes]]:
    with path.open("rb") as file, contextlib.ExitStack() as stack:
        if kind == "xz":
            yield stack.enter_context(lzma.open(file))
        elif kind == "gz":
            yield cast(IO[bytes], stack.enter_context(gzip.open(file)))
        elif kind == "zst":
            _check_frames(file, path.stat().st_size)
            unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 30)
            yield cast(IO[bytes], stack.enter_context(unpacker.stream_reader(file, read_across_frames=True)))
        elif kind == "zip":
            archive = stack.enter_context(zipfile.ZipFile(file))
            members = [one for one in archive.infolist() if not one.is_dir()]
            if len(members) != 1:
                raise zipfile.BadZipFile(f"it holds {len(members)} files; an image is one")
            yield stack.enter_context(archive.open(members[0]))
        else:
            yield file


def _check_frames(file: IO[bytes], size: int) -> None:
    """Walk the frames of a zstd file (RFC 8878, 3.1.1): the library ends without a word where one is cut off."""
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(18)
        if 0x184D2A50 <= int.from_bytes(head[:4], "little") <= 0x184D2A5F:  # a skippable frame
            at += 8 + int.from_bytes(head[4:8], "little")
            continue
        checksum = zstandard.get_frame_parameters(head).has_checksum
        at += zstandard.frame_header_size(head)
        last = False
        while not last and at < size:
            file.seek(at)
            block = int.from_bytes(file.read(3), "little")
            last, kind = bool(block & 1), block >> 1 & 3
            at += 3 + (1 if kind == 1 else block >> 3)
        if not last:
            raise EOFError("it is cut off")
        at += 4 if checksum else 0
    if at != size:
        raise EOFError("it is cut off")
    file.seek(0)


def pieces(path: Path, kind: str) -> Generator[bytes, None, None]:
    """The unpacked content in pieces of `PIECE` bytes.

    Raises
    ------
    UnreadableInputError
        It cannot be read, or is cut off or damaged: maybe only after many pieces.
    """
    try:
        with _unpacked(path, kind) as stream:
            while True:
                parts, wanted = [], PIECE
                while wanted and (part := stream.read(wanted)):
                    parts.append(part)
                    wanted -= len(part)
                if parts:
                    yield b"".join(parts)
                if wanted:
                    return
    except (OSError, *_DAMAGED) as error:
        raise _unreadable(path, str(error) or type(error).__name__) from None


def inspect(
    path: Path,
    *,
    file_sha256: str = "",
    sha256: str = "",
    signature: tuple[Path, TrustedKey] | None = None,
    bmap: Path | None = None,
    boot_copy: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Image:
    """Prove the image: what vouches for the file first, then all of its content, in one pass.

    Parameters
    ----------
    file_sha256, sha256
        What is published of the file and of the unpacked content; either may be empty.
    signature
        A detached signature and the key that it must be of.
    bmap
        The block map; each of its ranges is compared.
    boot_copy
        Where to put the image up to the end of its boot partition (sparse), to look at how its first boot is set.
    progress
        Called with the bytes unpacked so far.

    Raises
    ------
    UsageError
        Nothing vouches for it.
    UnreadableInputError
        A hash, the signature or the block map does not match; the file is damaged, or no image of a disk.
    """
    if not (file_sha256 or sha256 or signature):
        raise UsageError(
            operation="checking the image",
            target=str(path),
            cause="nothing vouches for it: neither a SHA-256 nor a signature was given",
            remedy="Give --sha256 (of the file, as published), or --signature and --key.",
        )
    try:
        kind = kind_of(path)
        found_file = hash_file(path)
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from None
    vouched = []
    if signature:
        check_signature(path, *signature)
        vouched.append("signature")
    if file_sha256:
        _compare(path, "the file", file_sha256, found_file)
        vouched.append("SHA-256 of the file")
    blocks = read_bmap(bmap) if bmap else None
    scan = _Scan(path, blocks, boot_copy)
    with contextlib.closing(scan):
        for piece in pieces(path, kind):
            scan.take(piece)
            progress(scan.size)
        scan.finish()
    if sha256:
        _compare(path, "the unpacked content", sha256, scan.hash.hexdigest())
        vouched.append("SHA-256 of the content")
    boot = scan.boot
    return Image(
        path=str(path.absolute()),
        kind=kind,
        file_sha256=found_file,
        size=scan.size,
        sha256=scan.hash.hexdigest(),
        vouched=tuple(vouched),
        boot_start=boot.start if boot else None,
        boot_bytes=boot.bytes if boot else 0,
        bmap=str(bmap.absolute()) if bmap else None,
    )


class _Scan:
    """The one pass: hash and size, the partition table, the block map's ranges, and a copy of the boot partition."""

    def __init__(self, path: Path, blocks: Bmap | None, boot_copy: Path | None) -> None:
        self.path, self.size, self.hash = path, 0, hashlib.sha256()
        self.boot: partitions.Partition | None = None
        self._blocks, self._ranges = blocks, RangeHashes(blocks) if blocks else None
        self._copy = boot_copy.open("wb") if boot_copy else None

    def take(self, piece: bytes) -> None:
        if self.size == 0:
            if len(piece) < 512 or piece[510:512] != b"\x55\xaa":
                cause = "it does not begin with a partition table: this is no image of a disk"
                raise UnsupportedFormatError(
                    operation="reading the image",
                    target=str(self.path),
                    cause=cause,
                    remedy="Check that the download is the image itself, and not a page or a list about it.",
                )
            self.boot = partitions.boot_partition(piece)
        if self._copy and self.boot and self.size < self.boot.start + self.boot.bytes and piece.strip(b"\0"):
            self._copy.seek(self.size)
            self._copy.write(piece)
        self.hash.update(piece)
        if self._ranges:
            self._ranges.take(piece)
        self.size += len(piece)

    def finish(self) -> None:
        if self._copy and self.boot:
            self._copy.truncate(self.boot.start + self.boot.bytes)
        if self.boot and self.boot.start + self.boot.bytes > self.size:
            raise _unreadable(self.path, "its boot partition reaches beyond its end: it is cut off")
        if self._blocks and self._ranges:
            if self._blocks.size != self.size:
                raise _unreadable(self.path, f"it has {self.size} bytes, and the block map is for {self._blocks.size}")
            if wrong := self._ranges.wrong():
                raise _unreadable(self.path, f"bytes {wrong.start} to {wrong.end} are not those of the block map")

    def close(self) -> None:
        if self._copy:
            self._copy.close()


class RangeHashes:
    """The SHA-256 of each range of a block map, of a stream that is given in order."""

    def __init__(self, blocks: Bmap) -> None:
        self._ranges, self._at, self._index = blocks.ranges, 0, 0
        self._hashes: list[Any] = [hashlib.sha256() for _ in blocks.ranges]

    def take(self, piece: bytes) -> None:
        """The next bytes of the stream."""
        view, start, end = memoryview(piece), self._at, self._at + len(piece)
        while self._index < len(self._ranges) and self._ranges[self._index].start < end:
            one = self._ranges[self._index]
            self._hashes[self._index].update(view[max(one.start - start, 0) : one.end - start])
            if one.end > end:
                break
            self._index += 1
        self._at = end

    def wrong(self) -> Any:
        """The first range whose hash is another, or None."""
        pairs = zip(self._ranges, self._hashes, strict=True)
        return next((one for one, made in pairs if made.hexdigest() != one.sha256), None)


def hash_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    state = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            state.update(piece)
    return state.hexdigest()


def _compare(path: Path, what: str, wanted: str, found: str) -> None:
    if found != wanted.strip().lower():
        raise _unreadable(path, f"the SHA-256 of {what} is {found}, not {wanted}")


def _unreadable(path: Path, cause: str) -> AidpostError:
    remedy = "Download it again, and compare with what its publisher says. No card was touched."
    return UnreadableInputError(operation="reading the image", target=str(path), cause=cause, remedy=remedy)
