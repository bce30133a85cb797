"""Photographs: what is whole, what is not, and what the header claims. No pixel is decoded here."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.errors import UnreadableInputError, UnsupportedFormatError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.inputs import read_photo_file
from aidpost.firmware_bridge.formats.photograph import inspect_photo
from aidpost.records import Eye, Origin


def picture(suffix: str = ".jpg", *options: int) -> bytes:
    rng = np.random.default_rng(1)
    image = cv2.GaussianBlur(rng.integers(0, 255, (120, 160, 3), np.uint8), (0, 0), 3)
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def with_exif(jpeg: bytes, *, order: str = "<") -> bytes:
    make, model = b"Kowa\0", b"VX-10 alpha\0"
    entries = [(0x010F, 2, len(make), 50), (0x0110, 2, len(model), 60)]
    ifd = struct.pack(f"{order}H", 3)
    ifd += b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    ifd += struct.pack(f"{order}HHIHH", 0x0112, 3, 1, 6, 0)
    tiff = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + ifd
    tiff = tiff.ljust(50, b"\0") + make.ljust(10, b"\0") + model
    # a thumbnail with its own end: it must not be taken for the photograph's
    segment = b"Exif\0\0" + tiff + b"\xff\xd8\xff\xd9"
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_whole_photograph_is_kept_byte_for_byte(suffix: str, tmp_path: Path, clock: Clock) -> None:
    data = picture(suffix)
    path = tmp_path / "left"
    path.write_bytes(data)
    photo = read_photo_file(path, at=clock.now(), eye=Eye.LEFT)
    assert photo.encoded == data
    assert photo.media_type == {".jpg": "image/jpeg", ".png": "image/png"}[suffix]
    assert (photo.eye, photo.origin, photo.source) == (Eye.LEFT, Origin.FILE, "left")
    info = inspect_photo(data, source="left")
    assert (info.width, info.height, info.orientation) == (160, 120, 1)


def test_a_progressive_jpeg_with_restarts_is_walked_scan_by_scan() -> None:
    data = picture(".jpg", cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)
    assert inspect_photo(data, source="x").width == 160
    assert inspect_photo(data + b"trailing bytes of a camera", source="x").width == 160


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_gives_the_camera_and_the_orientation(order: str) -> None:
    info = inspect_photo(with_exif(picture(), order=order), source="x")
    assert (info.camera.manufacturer, info.camera.model, info.orientation) == ("Kowa", "VX-10 alpha", 6)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_photograph_cut_off_anywhere_is_refused(suffix: str) -> None:
    data = with_exif(picture(suffix)) if suffix == ".jpg" else picture(suffix)
    for length in [*range(1, 40), *range(40, len(data), 97), len(data) - 2, len(data) - 1]:
        with pytest.raises(UnreadableInputError):
            inspect_photo(data[:length], source="x")


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "empty"),
        (b"Dear doctor, this is the photograph.", "text"),
        (bytes(range(256)), "not a JPEG"),
        (png_header(30_000, 30_000), "30000 x 30000"),
        (png_header(0, 10), "cut off"),
        (b"\xff\xd8\xff\xd9", "holds no image"),
    ],
)
def test_what_is_no_photograph_says_why(data: bytes, cause: str, tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(UnreadableInputError, match=cause) as caught:
        read_photo_file(path, at=clock.now())
    assert caught.value.exit_code == 3
    assert caught.value.remedy


def test_a_jpeg_header_of_30000_x_30000_is_refused_without_decoding() -> None:
    data = bytearray(picture())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 30_000, 30_000)
    with pytest.raises(UnreadableInputError, match="100 million"):
        inspect_photo(bytes(data), source="x")


def test_a_damaged_png_chunk_is_found_by_its_crc() -> None:
    data = bytearray(picture(".png"))
    data[200] ^= 1
    with pytest.raises(UnreadableInputError, match="damaged"):
        inspect_photo(bytes(data), source="x")


def test_other_image_formats_are_named() -> None:
    with pytest.raises(UnsupportedFormatError, match="TIFF"):
        inspect_photo(b"II*\0" + bytes(100), source="x")


def test_a_missing_file_is_unreadable(tmp_path: Path, clock: Clock) -> None:
    with pytest.raises(UnreadableInputError, match="cannot be opened"):
        read_photo_file(tmp_path / "no.jpg", at=clock.now())


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1\x00\x40Exif\0\0II*\0"]),
)
def test_arbitrary_bytes_never_do_more_than_be_refused(tail: bytes, head: bytes) -> None:
    try:
        info = inspect_photo(head + tail, source="x")
    except UnreadableInputError:
        return
    assert info.width > 0
