"""What a photograph says of itself before a pixel of it is decoded: format, size, channels, and whether its end is
there."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from aidpost.errors import UnreadableInputError, UnsupportedFormatError

MAX_PIXELS = 100_000_000
_OPERATION = "reading the photograph"
_PNG = b"\x89PNG\r\n\x1a\n"
# Start-of-frame markers, except DHT, JPG and DAC, which share their range (ITU T.81 table B.1).
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class PhotoHeader(NamedTuple):
    """`width` and `height` in pixels as stored, before any EXIF rotation."""

    kind: str
    width: int
    height: int


def unreadable(
    cause: str, remedy: str = "Take the photograph again, or copy the file again from where it came."
) -> UnreadableInputError:
    """The error for a photograph that cannot be used."""
    return UnreadableInputError(operation=_OPERATION, target="photograph", cause=cause, remedy=remedy)


def read_header(encoded: bytes) -> PhotoHeader:
    """Format and size of a JPEG or PNG, which must be whole.

    Raises
    ------
    UnreadableInputError
        It is empty, cut off, damaged, neither JPEG nor PNG, or larger than 100 megapixels.
    UnsupportedFormatError
        A JPEG with other than 8 bits, or with the four inks of a printer (CMYK).
    """
    if not encoded:
        raise unreadable("the file is empty")
    if encoded[:2] == b"\xff\xd8":
        header = _read_jpeg(encoded)
    elif encoded[:8] == _PNG:
        header = _read_png(encoded)
    else:
        raise unreadable("it is neither a JPEG nor a PNG image")
    if header.width == 0 or header.height == 0:
        raise unreadable("its header says that it has no pixels")
    if header.width * header.height > MAX_PIXELS:
        size = f"{header.width} x {header.height}"
        raise unreadable(
            f"it claims {size} pixels, more than {MAX_PIXELS // 1_000_000} megapixels", "Export it at a smaller size."
        )
    return header


def _read_jpeg(encoded: bytes) -> PhotoHeader:
    position, header = 2, None
    while True:
        position = encoded.find(b"\xff", position)
        if position < 0 or position + 4 > len(encoded):
            raise unreadable("the JPEG is cut off before its picture starts")
        marker = encoded[position + 1]
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            position += 1 if marker == 0xFF else 2
            continue
        if marker == 0xD9:
            raise unreadable("the JPEG ends without a picture")
        (length,) = struct.unpack_from(">H", encoded, position + 2)
        if length < 2 or position + 2 + length > len(encoded):
            raise unreadable("the JPEG is cut off in its header")
        if marker in _SOF:
            header = _read_frame(encoded[position + 4 : position + 2 + length])
        position += 2 + length
        if marker == 0xDA:
            break
    if header is None:
        raise unreadable("the JPEG has a scan but no frame header")
    if not encoded.endswith(b"\xff\xd9") and _scan_end(encoded, position) < 0:
        raise unreadable("the JPEG is cut off: its end is missing")
    return header


def _read_frame(body: bytes) -> PhotoHeader:
    if len(body) < 6:
        raise unreadable("the JPEG's frame header is too short")
    precision, height, width, components = struct.unpack_from(">BHHB", body)
    if precision != 8 or components not in (1, 3):
        raise UnsupportedFormatError(
            operation=_OPERATION,
            target="photograph",
            cause=f"JPEG with {components} components of {precision} bits; the camera's own have 1 or 3 of 8 bits",
            remedy="Export it as an RGB JPEG or PNG.",
        )
    return PhotoHeader("jpeg", width, height)


def _scan_end(encoded: bytes, position: int) -> int:
    """Position of the end-of-image marker after `position`, past scans and the segments between them, or -1."""
    while True:
        position = encoded.find(b"\xff", position)
        if position < 0 or position + 1 >= len(encoded):
            return -1
        marker = encoded[position + 1]
        if marker == 0xD9:
            return position
        if marker == 0xFF:
            position += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8 or position + 4 > len(encoded):
            position += 2
        else:
            position += 2 + struct.unpack_from(">H", encoded, position + 2)[0]


def _read_png(encoded: bytes) -> PhotoHeader:
    position, header = 8, None
    while position + 12 <= len(encoded):
        length, kind = struct.unpack_from(">I4s", encoded, position)
        end = position + 12 + length
        if end > len(encoded):
            break
        (checksum,) = struct.unpack_from(">I", encoded, end - 4)
        if zlib.crc32(memoryview(encoded)[position + 4 : end - 4]) != checksum:
            raise unreadable("the PNG is damaged: a checksum does not match")
        if kind == b"IHDR" and length >= 8:
            header = PhotoHeader("png", *struct.unpack_from(">II", encoded, position + 8))
        if kind == b"IEND":
            if header is None:
                raise unreadable("the PNG has no header")
            return header
        position = end
    raise unreadable("the PNG is cut off")
