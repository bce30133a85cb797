"""The write itself. Its order is what makes a card that was pulled, or whose power was cut, never look finished: the
old first block is wiped before anything else, and the new one (with the partition table) is written when all the rest,
the first boot's files too, is on the card and has been read back."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from aidpost.board.flash.bmap import Bmap, read_bmap
from aidpost.board.flash.card import Card
from aidpost.board.flash.fat import BootFiles
from aidpost.board.flash.image import PIECE, Image, pieces
from aidpost.errors import DeviceError, UnreadableInputError, UnsupportedFormatError

FIRST = 4096
"""The bytes that come last: partition table, and the head of a GPT whatever the sector size."""

Step = Literal["wipe", "write", "compare", "first-boot", "first-block", "done"]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Where the write is: bytes of the step done, of how many; bytes a second and seconds left, once they are known."""

    step: Step
    done: int
    total: int
    rate: float | None = None
    left_s: float | None = None


class Meter:
    """Makes `Progress` of counts, at most ten a second, and the first and last of each step."""

    def __init__(self, report: Callable[[Progress], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._report, self._clock = report, clock
        self._step: Step = "wipe"
        self._start = self._last = 0.0

    def __call__(self, step: Step, done: int, total: int) -> None:
        """The step and how far it is."""
        now = self._clock()
        if step != self._step or done == 0:
            self._step, self._start, self._last = step, now, float("-inf")
        if now - self._last < 0.1 and done < total:
            return
        self._last = now
        took = now - self._start
        rate = done / took if took > 0.05 and done else None
        left = (total - done) / rate if rate else None
        self._report(Progress(step=step, done=done, total=total, rate=rate, left_s=left))


def write(
    image: Image,
    card: Card,
    files: Mapping[str, bytes],
    report: Callable[[Progress], None] = lambda progress: None,
    boot_files: Callable[[Path, int], BootFiles] = BootFiles,
) -> None:
    """Write the image and the files of its first boot to the card, and prove both by reading them back.

    Parameters
    ----------
    image
        What `inspect` found; the content must still be the same.
    files
        Name -> content, for the boot partition.

    Raises
    ------
    UnreadableInputError
        The image file is not what was inspected any more. The card has no partition table then.
    DeviceError
        The card cannot be written, or does not give back what was written; the offset is named.
    """
    blocks = read_bmap(Path(image.bmap)) if image.bmap else None
    meter = Meter(report)
    meter("wipe", 0, FIRST)
    card.write(0, bytes(FIRST))
    card.sync()
    meter("wipe", FIRST, FIRST)
    first, sums = _write_body(image, blocks, card, meter)
    card.sync()
    _compare(image, blocks, card, sums, meter)
    if files:
        _first_boot(image, card, files, meter, boot_files)
    meter("first-block", 0, FIRST)
    card.write(0, first)
    card.sync()
    if card.read(0, FIRST) != first:
        raise _differs(card, 0)
    meter("done", image.size, image.size)


def _parts(piece_at: int, size: int, blocks: Bmap | None) -> Iterator[tuple[int, int]]:
    """What of a piece at `piece_at` lies beyond the first block, and is mapped: offsets in the image."""
    start, end = max(piece_at, FIRST), piece_at + size
    if blocks is None:
        if start < end:
            yield start, end
        return
    for one in blocks.ranges:
        if one.start < end and one.end > start:
            yield max(one.start, start), min(one.end, end)


def _write_body(image: Image, blocks: Bmap | None, card: Card, meter: Meter) -> tuple[bytes, list[bytes]]:
    """Everything but the first block; gives that, and a sum of each piece, for the comparison."""
    first, sums, at, whole = b"", [], 0, hashlib.sha256()
    meter("write", 0, image.size)
    with contextlib.closing(pieces(Path(image.path), image.kind)) as stream:
        for piece in stream:
            if at == 0:
                first = piece[:FIRST]
            whole.update(piece)
            state = hashlib.blake2b(digest_size=16)
            for start, end in _parts(at, len(piece), blocks):
                part = memoryview(piece)[start - at : end - at]
                if end > image.size:
                    break  # longer than it was: the hash below says so
                card.write(start, part)
                state.update(part)
            sums.append(state.digest())
            at += len(piece)
            meter("write", min(at, image.size), image.size)
    if whole.hexdigest() != image.sha256:
        raise UnreadableInputError(
            operation="writing the card",
            target=image.path,
            cause="the image file changed since it was checked; the card was left without a partition table",
            remedy="Check the image again, then write again.",
        )
    return first, sums


def _compare(image: Image, blocks: Bmap | None, card: Card, sums: list[bytes], meter: Meter) -> None:
    meter("compare", 0, image.size)
    for number, wanted in enumerate(sums):
        at, state = number * PIECE, hashlib.blake2b(digest_size=16)
        for start, end in _parts(at, min(PIECE, image.size - at), blocks):
            state.update(card.read(start, end - start))
        if state.digest() != wanted:
            raise _differs(card, at)
        meter("compare", min(at + PIECE, image.size), image.size)


def _first_boot(
    image: Image,
    card: Card,
    files: Mapping[str, bytes],
    meter: Meter,
    boot_files: Callable[[Path, int], BootFiles],
) -> None:
    if image.boot_start is None:
        raise UnsupportedFormatError(
            operation="preparing the first boot",
            target=image.path,
            cause="the image has no boot partition that files could be put on",
            remedy="Write it without settings, or use an image for this board.",
        )
    boot = boot_files(card.path, image.boot_start)
    meter("first-boot", 0, len(files))
    for number, (name, content) in enumerate(files.items(), 1):
        boot.write(name, content)
        meter("first-boot", number, len(files))
    card.sync()
    for name, content in files.items():
        if boot.read(name) != content:
            raise DeviceError(
                operation="reading the first boot's files back",
                target=f"{card.path}: {name}",
                cause="the card gives back something else than was written",
                remedy="Use another card or reader.",
            )


def _differs(card: Card, at: int) -> DeviceError:
    return DeviceError(
        operation="comparing the card with the image",
        target=str(card.path),
        cause=f"it does not give back what was written near byte {at}: the card or the reader is worn or forged",
        remedy="Use another card; if that fails at the same place too, another reader.",
    )
