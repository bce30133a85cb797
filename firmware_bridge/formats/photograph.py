"""Photographs: is this JPEG or PNG whole, how large is it, which camera took it. Reads headers, decodes no pixel.

The bytes are kept as the camera wrote them. What they are is told by their first bytes, never by the file's name.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from aidpost.errors import UnreadableInputError, UnsupportedFormatError
from aidpost.records import Device

MAX_PIXELS = 100_000_000
"""Larger than any retinal camera's sensor; a header may claim more to exhaust a decoder's memory."""

JPEG_MAGIC = b"\xff\xd8\xff"
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
RETAKE = "Take or copy the photograph again."


@dataclass(frozen=True)
class PhotoInfo:
    """What the headers say. `orientation` is EXIF's 1 to 8 (1: as stored), `camera` is empty where EXIF names none."""

    media_type: str
    width: int
    height: int
    orientation: int = 1
    camera: Device = Device(name="camera")  # noqa: RUF009 (a frozen value)


def media_type(data: bytes) -> str | None:
    """The media type that the first bytes show: image/jpeg, image/png, application/dicom, or None."""
    if data[:3] == JPEG_MAGIC:
        return "image/jpeg"
    if data[:8] == PNG_MAGIC:
        return "image/png"
    return "application/dicom" if data[128:132] == b"DICM" else None


def inspect_photo(data: bytes, *, source: str) -> PhotoInfo:
    """Check that a JPEG or PNG is complete and of a possible size, from its headers alone.

    Raises
    ------
    UnreadableInputError
        It is empty, no image, cut off, damaged, or larger than `MAX_PIXELS`.
    UnsupportedFormatError
        It is an image of another kind.
    """
    kind = media_type(data)
    if kind == "image/jpeg":
        info = _inspect_jpeg(data, source)
    elif kind == "image/png":
        info = _inspect_png(data, source)
    else:
        raise _not_a_photo(data, source)
    if info.width == 0 or info.height == 0:
        raise _unreadable(source, f"its header says {info.width} x {info.height} pixels")
    if info.width * info.height > MAX_PIXELS:
        cause = f"its header says {info.width} x {info.height} pixels, more than {MAX_PIXELS // 1_000_000} million"
        raise _unreadable(source, cause, "Check the file: no retinal camera takes such a photograph.")
    return info


def _unreadable(source: str, cause: str, remedy: str = RETAKE) -> UnreadableInputError:
    return UnreadableInputError(operation="reading the photograph", target=source, cause=cause, remedy=remedy)


def _not_a_photo(data: bytes, source: str) -> UnreadableInputError:
    if not data:
        return _unreadable(source, "the file is empty")
    others = {
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
        b"GIF8": "GIF",
        b"BM": "BMP",
        b"RIFF": "WebP",
        b"\0\0\0\x0cjP": "JPEG 2000",
    }
    for magic, name in others.items():
        if data.startswith(magic):
            return UnsupportedFormatError(
                operation="reading the photograph",
                target=source,
                cause=f"it is a {name} image",
                remedy="Save it as JPEG or PNG.",
            )
    if data[:4096].isascii():
        return _unreadable(source, "it holds text, not a photograph")
    return _unreadable(source, "it is not a JPEG, PNG or DICOM photograph")


# T.81 table B.1: SOF0-15 without DHT (C4), JPG (C8) and DAC (CC)
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset(range(0xD0, 0xD8)) | {0x01}
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # T.81 B.1.1.5: inside a scan FF00 and RSTn are data


def _inspect_jpeg(data: bytes, source: str) -> PhotoInfo:
    """Walk the marker segments of T.81 annex B up to EOI. A thumbnail's EOI, inside EXIF, is not taken for it."""
    size: tuple[int, int] | None = None
    orientation, camera, scans, position = 1, Device(name="camera"), 0, 2
    while True:
        position = data.find(b"\xff", position)
        while data[position + 1 : position + 2] == b"\xff":  # fill bytes
            position += 1
        if position < 0 or position + 1 >= len(data):
            raise _unreadable(source, "the photograph is cut off: its JPEG data has no end")
        marker, position = data[position + 1], position + 2
        if marker == 0xD9:
            break
        if marker in _STANDALONE:
            continue
        length = int.from_bytes(data[position : position + 2], "big")
        segment = data[position + 2 : position + length]
        if length < 2 or len(segment) != length - 2:
            raise _unreadable(source, "the photograph is cut off or damaged inside its JPEG header")
        position += length
        if marker in _SOF and len(segment) >= 5:
            size = (int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[1:3], "big"))
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0"):
            orientation, camera = _read_exif(segment[6:])
        elif marker == 0xDA:
            scans += 1
            found = _NEXT_MARKER.search(data, position)
            if found is None:
                raise _unreadable(source, "the photograph is cut off: its JPEG data has no end")
            position = found.start()
    if size is None or not scans:
        raise _unreadable(source, "its JPEG data holds no image")
    return PhotoInfo("image/jpeg", *size, orientation, camera)


def _inspect_png(data: bytes, source: str) -> PhotoInfo:
    """Walk the chunks of PNG (ISO/IEC 15948) up to IEND, checking each CRC."""
    position, size, seen = 8, (0, 0), False
    while True:
        header = data[position : position + 8]
        if len(header) < 8:
            raise _unreadable(source, "the photograph is cut off: its PNG data has no end")
        length, name = struct.unpack(">I4s", header)
        if name == b"IHDR" and length == 13:
            size = struct.unpack_from(">II", data.ljust(position + 16, b"\0"), position + 8)
            if size[0] * size[1] > MAX_PIXELS:  # refused by size before its data is looked at
                return PhotoInfo("image/png", *size)
        stored = data[position + 8 + length : position + 12 + length]
        if len(stored) < 4:
            raise _unreadable(source, "the photograph is cut off: its PNG data has no end")
        body = memoryview(data)[position + 4 : position + 8 + length]
        if zlib.crc32(body) != int.from_bytes(stored, "big"):
            raise _unreadable(source, f"its PNG data is damaged (chunk {name.decode('latin-1')})")
        seen = seen or name == b"IDAT"
        position += 12 + length
        if name == b"IEND":
            break
    if not seen:
        raise _unreadable(source, "its PNG data holds no image")
    return PhotoInfo("image/png", *size)


_MAKE, _MODEL, _ORIENTATION = 0x010F, 0x0110, 0x0112


def _read_exif(tiff: bytes) -> tuple[int, Device]:
    """Orientation and camera from IFD0 (EXIF 2.32, TIFF 6.0). Damaged EXIF says nothing, and spoils no photograph."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    found: dict[int, str | int] = {}
    try:
        if order is not None:
            (offset,) = struct.unpack_from(f"{order}I", tiff, 4)
            (count,) = struct.unpack_from(f"{order}H", tiff, offset)
            for entry in range(offset + 2, offset + 2 + 12 * min(count, 256), 12):
                tag, kind, items = struct.unpack_from(f"{order}HHI", tiff, entry)
                if tag == _ORIENTATION and kind == 3:
                    found[tag] = struct.unpack_from(f"{order}H", tiff, entry + 8)[0]
                elif tag in (_MAKE, _MODEL) and kind == 2:
                    start = entry + 8 if items <= 4 else struct.unpack_from(f"{order}I", tiff, entry + 8)[0]
                    found[tag] = (
                        tiff[start : start + min(items, 256)].split(b"\0")[0].decode("utf-8", "replace").strip()
                    )
    except struct.error:
        found.clear()
    orientation = found.get(_ORIENTATION, 1)
    make, model = str(found.get(_MAKE, "")), str(found.get(_MODEL, ""))
    camera = Device(name=model or make or "camera", manufacturer=make, model=model)
    return (orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1), camera
