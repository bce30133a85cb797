"""Block maps (bmap 2.0, as bmaptool makes them): which blocks of an image hold anything, each range with a SHA-256."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from aidpost.errors import UnreadableInputError

BMAP_MAX_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Range:
    """Bytes `start` to `end` (not included) of the image, and their SHA-256 in hexadecimal."""

    start: int
    end: int
    sha256: str


@dataclass(frozen=True)
class Bmap:
    """The image's size in bytes and its mapped ranges in order; what lies between is empty and need not be written."""

    size: int
    ranges: tuple[Range, ...]


def read_bmap(path: Path) -> Bmap:
    """The block map in a file.

    Raises
    ------
    UnreadableInputError
        It is damaged, altered (its own checksum), or of another version or kind of checksum.
    """
    try:
        if path.stat().st_size > BMAP_MAX_BYTES:
            raise ValueError("too large for a block map")
        return _parse(path.read_bytes())
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise UnreadableInputError(
            operation="reading the block map",
            target=str(path),
            cause=str(error),
            remedy="Get the .bmap file again, or write without it.",
        ) from None


def _parse(content: bytes) -> Bmap:
    # entities may unfold to gigabytes, and no block map has any
    if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
        raise ValueError("it declares a document type")
    top = ElementTree.fromstring(content)

    def field(name: str) -> str:
        found = (top.findtext(name) or "").strip()
        if not found:
            raise ValueError(f"{name} is missing")
        return found

    if top.tag != "bmap" or not top.get("version", "").startswith("2."):
        raise ValueError(f"version {top.get('version')} of a block map; 2.x is read")
    if field("ChecksumType") != "sha256":
        raise ValueError(f"its checksums are {field('ChecksumType')}, not sha256")
    own = field("BmapFileChecksum")
    if hashlib.sha256(content.replace(own.encode(), b"0" * len(own))).hexdigest() != own:
        raise ValueError("its own checksum does not match: it is damaged or was altered")
    size, block = int(field("ImageSize")), int(field("BlockSize"))
    ranges = [_range(one, size, block) for one in top.iterfind("BlockMap/Range")]
    if block <= 0 or any(a.end > b.start for a, b in itertools.pairwise(ranges)):
        raise ValueError("its ranges overlap")
    return Bmap(size, tuple(ranges))


def _range(element: ElementTree.Element, size: int, block: int) -> Range:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", (element.text or "").strip())
    if found is None or not element.get("chksum"):
        raise ValueError("a range without numbers or checksum")
    first, last = int(found[1]), int(found[2] or found[1])
    # the last block of an image may be cut off
    start, end = first * block, min((last + 1) * block, size)
    if last < first or start >= end:
        raise ValueError(f"range {first}-{last} lies outside the image")
    return Range(start, end, element.get("chksum", ""))
