"""The fundus kernels: equal to their NumPy reference bit for bit, right about circles, and clear about bad files."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.errors import UnreadableInputError, UnsupportedFormatError
from aidpost.kernels import _fundus, _fundus_geometry, fundus, reference_fundus
from aidpost.kernels.fundus import Circle

DATA = Path(os.environ.get("AIDPOST_DATA", Path(__file__).parents[3] / "shared/data"))


def photo(height: int, width: int, cx: float, cy: float, r: float, level: int = 150, seed: int = 0) -> np.ndarray:
    """A dark frame with an orange disc that has vessels and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] + 0.5
    shade = level * (1 - 0.3 * ((x - cx) ** 2 + (y - cy) ** 2) / r**2)
    shade = np.where(np.abs(np.sin(x / 17) - (y - cy) / r) < 0.05, 0.6 * shade, shade)
    rgb = shade[..., None] * np.array([1.0, 0.55, 0.2]) + rng.normal(0, 2, (height, width, 3))
    disc = (x - cx) ** 2 + (y - cy) ** 2 < r**2
    return np.clip(np.where(disc[..., None], rgb, rng.integers(0, 4, (height, width, 3))), 0, 255).astype(np.uint8)


def jpeg(rgb: np.ndarray, *flags: int) -> bytes:
    done, data = cv2.imencode(".jpg", rgb[..., ::-1], flags or (cv2.IMWRITE_JPEG_QUALITY, 92))
    assert done
    return data.tobytes()


@pytest.mark.parametrize(
    ("height", "width", "cx", "cy", "r", "level"),
    [
        (2848, 4288, 2100, 1424, 1700, 150),  # cut off above and below
        (640, 640, 320, 320, 318, 150),
        (256, 256, 128, 128, 127, 220),
        (300, 400, 210, 145, 120, 20),  # dark, off the middle
        (100, 100, 50, 50, 45, 90),
    ],
)
def test_field_of_view_is_found(height: int, width: int, cx: float, cy: float, r: float, level: int) -> None:
    circle = fundus.field_of_view(photo(height, width, cx, cy, r, level))
    assert circle is not None
    assert abs(circle.cx - cx) < 0.015 * r + 2
    assert abs(circle.cy - cy) < 0.015 * r + 2
    assert abs(circle.r - r) < 0.015 * r + 2
    assert circle.visible == pytest.approx(0.935 if height == 2848 else 1, abs=0.03)


@pytest.mark.parametrize(
    "rgb", [np.zeros((200, 300, 3)), np.full((300, 300, 3), 130), np.zeros((15, 400, 3)), np.zeros((1, 1, 3))]
)
def test_no_field_of_view_in_what_is_not_a_fundus(rgb: np.ndarray) -> None:
    assert fundus.field_of_view(rgb.astype(np.uint8)) is None
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8)
    assert fundus.field_of_view(noise) is None


@given(
    st.integers(16, 70),
    st.integers(16, 70),
    st.integers(16, 80),
    st.floats(-20, 60),
    st.floats(-20, 60),
    st.floats(1, 90),
)
@settings(deadline=None)
def test_resampling_equals_the_reference(height: int, width: int, size: int, cx: float, cy: float, r: float) -> None:
    rgb = np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)
    circle = Circle(cx, cy, r, 0, 0, width, height)
    side = 2 * 0.975 * r
    x0, y0 = cx - side / 2, cy - side / 2
    if side < 1 or x0 >= width or y0 >= height or x0 + side <= 0 or y0 + side <= 0:
        with pytest.raises(ValueError):
            fundus.crop(rgb, circle, size)
        return
    pixels, within = fundus.crop(rgb, circle, size)
    rows, columns = _fundus_geometry.weights(y0, side, height, size), _fundus_geometry.weights(x0, side, width, size)
    assert np.array_equal(pixels, reference_fundus.resample(rgb, *rows, *columns))
    assert (within.cx, within.cy, within.r) == (size / 2, size / 2, size / 2)
    assert rows[1].sum(1).tolist() == [1 << 14] * size


@st.composite
def crops(draw: st.DrawFn) -> tuple[np.ndarray, Circle]:
    size = draw(st.integers(16, 90))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    low, high = sorted(draw(st.tuples(st.integers(0, 255), st.integers(0, 255))))
    pixels = rng.integers(low, high + 1, (size, size, 3)).astype(np.uint8)
    edge = st.floats(-5, size + 5)
    bounds = [draw(edge) for _ in range(4)] if draw(st.booleans()) else [0, 0, size, size]
    return pixels, Circle(draw(edge), draw(edge), draw(st.floats(0, size)), *bounds)


@given(crops(), st.sampled_from([(1 / 128, 0), (0.013, -7), (1 / 255, -128)]))
@settings(deadline=None)
def test_normalisation_equals_the_reference(crop: tuple[np.ndarray, Circle], quantisation: tuple[float, int]) -> None:
    pixels, circle = crop
    size = len(pixels)
    out, measures = fundus.normalise_int8(pixels, circle, *quantisation)
    lo, hi = _fundus_geometry.spans(circle, size)
    mask = reference_fundus.visible(lo, hi)
    difference = reference_fundus.local_difference(pixels, mask, size // 16)
    magnitude = np.abs(difference.astype(np.int64)).sum((0, 1))
    table, _ = _fundus_geometry.table(*quantisation)
    expected = reference_fundus.quantise(difference, mask, _fundus_geometry.gains(magnitude, int(mask.sum())), table)
    assert np.array_equal(out, expected)
    sums = reference_fundus.measure(pixels, mask, 24, 240)
    assert measures.dark * max(sums[5], 1) == pytest.approx(sums[3])
    assert measures.bright * max(sums[5], 1) == pytest.approx(sums[4])
    counted = np.zeros(8, np.int64)
    _fundus.measure(pixels, lo, hi, 24, 240, counted)
    assert counted.tolist() == sums.tolist()


@given(crops())
@settings(deadline=None)
def test_plain_crop_is_the_crop_less_128(crop: tuple[np.ndarray, Circle]) -> None:
    pixels, circle = crop
    out, _ = fundus.crop_int8(pixels, circle)
    mask = reference_fundus.visible(*_fundus_geometry.spans(circle, len(pixels)))
    assert np.array_equal(out, np.where(mask[..., None], pixels.astype(int) - 128, -128))


def test_a_brighter_stretched_photograph_normalises_alike() -> None:
    rgb = photo(512, 512, 256, 256, 250, 110)
    circle = fundus.field_of_view(rgb)
    assert circle is not None
    normalised = fundus.normalise(rgb, circle, 256)
    plain, green = normalised.pixels.astype(int), normalised.measures.contrast[1]
    stretched = fundus.normalise((rgb * np.array([1.8, 2.0, 2.5])).clip(0, 255).astype(np.uint8), circle, 256).pixels
    assert np.abs(plain - stretched)[..., :2].mean() < 2  # blue, of few levels, is mostly rounding
    assert np.abs(plain[..., 1]).mean() == pytest.approx(18 * green / (green + 0.5) * np.pi / 4, rel=0.05)


def test_blur_and_darkness_are_measured() -> None:
    rgb = photo(512, 512, 256, 256, 250)
    circle = fundus.field_of_view(rgb)
    assert circle is not None
    sharp = fundus.normalise(rgb, circle, 256).measures
    blurred = fundus.normalise(cv2.GaussianBlur(rgb, (0, 0), 6), circle, 256).measures
    assert blurred.sharpness < 0.5 * sharp.sharpness
    dark = fundus.normalise(rgb // 8, circle, 256).measures
    assert dark.dark > 0.9 > 0.2 > sharp.dark
    assert sharp.colour == pytest.approx((1 / 1.75, 0.55 / 1.75, 0.2 / 1.75), abs=0.02)


def test_non_contiguous_photographs_and_wrong_types() -> None:
    rgb = photo(300, 300, 150, 150, 140)
    circle = fundus.field_of_view(rgb[:, ::-1])
    assert circle == fundus.field_of_view(rgb[:, ::-1].copy())
    for bad in (rgb.astype(np.float32), rgb[..., 0], rgb[:0], rgb[..., :2]):
        with pytest.raises(ValueError):
            fundus.field_of_view(bad)
    for size in (0, 1, 15, 2001):
        with pytest.raises(ValueError):
            fundus.crop(rgb, Circle(150, 150, 140, 0, 0, 300, 300), size)
    for scale, zero in ((0.0, 0), (float("nan"), 0), (0.1, 200)):
        with pytest.raises(ValueError):
            fundus.normalise_int8(rgb, Circle(150, 150, 140, 0, 0, 300, 300), scale, zero)


@pytest.mark.parametrize(("min_side", "scale"), [(100, 8), (130, 4), (256, 2), (512, 1), (3000, 1)])
def test_decodes_at_the_scale_needed(min_side: int, scale: int) -> None:
    decoded = fundus.decode(jpeg(photo(800, 1200, 600, 400, 420)), min_side)
    assert (decoded.width, decoded.height, decoded.scale) == (1200, 800, scale)
    assert decoded.rgb.shape == (800 // scale, 1200 // scale, 3)
    assert decoded.field is not None
    assert decoded.field.r * scale == pytest.approx(420, rel=0.02)


def test_a_small_field_is_decoded_larger() -> None:
    decoded = fundus.decode(jpeg(photo(800, 800, 400, 400, 180)), 300)
    assert decoded.scale == 1


def test_png_and_red_first() -> None:
    rgb = photo(200, 300, 150, 100, 90)
    done, data = cv2.imencode(".png", rgb[..., ::-1])
    assert done
    decoded = fundus.decode(data.tobytes(), 64)
    assert np.array_equal(decoded.rgb, rgb)
    sixteen = cv2.imencode(".png", rgb[..., ::-1].astype(np.uint16) * 257)[1].tobytes()
    assert np.array_equal(fundus.decode(sixteen, 64).rgb, rgb)
    grey = fundus.decode(cv2.imencode(".png", rgb[..., 1])[1].tobytes(), 64).rgb
    assert np.array_equal(grey, np.repeat(rgb[..., 1:2], 3, 2))


def test_orientation_is_applied() -> None:
    rgb = photo(240, 320, 160, 120, 100)
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    body = b"Exif\x00\x00" + tiff
    plain = jpeg(rgb)
    turned = fundus.decode(plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:], 1000)
    assert (turned.width, turned.height) == (240, 320)
    assert np.array_equal(turned.rgb, np.rot90(fundus.decode(plain, 1000).rgb, -1))


def test_cut_off_and_damaged_files_are_refused() -> None:
    whole = jpeg(photo(400, 400, 200, 200, 190))
    for cut in (0, 1, 3, 30, 200, 700, len(whole) // 2, len(whole) - 3, len(whole) - 1):
        with pytest.raises(UnreadableInputError) as caught:
            fundus.decode(whole[:cut], 100)
        assert caught.value.remedy
    for cut in (800, len(whole) // 2):  # cut off, and closed again by some tool: OpenCV fills grey and says nothing
        with pytest.raises(UnreadableInputError, match="missing"):
            fundus.decode(whole[:cut] + b"\xff\xd9", 100)
    fundus.decode(whole + b"something a phone appended", 100)
    png = cv2.imencode(".png", photo(100, 100, 50, 50, 45))[1].tobytes()
    for bad in (png[:-5], png[:40], png[:200] + bytes([png[200] ^ 1]) + png[201:], b"GIF89a....", b"hello" * 100):
        with pytest.raises(UnreadableInputError):
            fundus.decode(bad, 100)


def test_absurd_sizes_are_refused_before_decoding() -> None:
    whole = bytearray(jpeg(photo(64, 64, 32, 32, 30)))
    at = whole.index(b"\xff\xc0") + 5
    whole[at : at + 4] = struct.pack(">HH", 30_000, 30_000)
    with pytest.raises(UnreadableInputError, match="30000 x 30000"):
        fundus.decode(bytes(whole), 100)
    body = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    end = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    with pytest.raises(UnreadableInputError, match="60000 x 60000"):
        fundus.decode(b"\x89PNG\r\n\x1a\n" + chunk + end, 100)


def test_printers_inks_are_unsupported() -> None:
    whole = bytearray(jpeg(photo(64, 64, 32, 32, 30)))
    whole[whole.index(b"\xff\xc0") + 9] = 4
    with pytest.raises(UnsupportedFormatError):
        fundus.decode(bytes(whole), 100)


@given(st.binary(max_size=200), st.integers(0, 3000), st.integers(0, 255))
@settings(deadline=None, max_examples=80)
def test_damaged_bytes_are_refused_or_decoded_never_worse(tail: bytes, at: int, value: int) -> None:
    whole = bytearray(WHOLE)
    whole[at % len(whole)] = value
    for data in (bytes(whole), b"\xff\xd8" + tail, b"\x89PNG\r\n\x1a\n" + tail):
        try:
            decoded = fundus.decode(data, 50)
        except UnreadableInputError:
            continue
        assert decoded.rgb.size


WHOLE = jpeg(photo(120, 120, 60, 60, 55))


@pytest.mark.skipif(not DATA.exists(), reason=f"no photographs in {DATA}")
@pytest.mark.parametrize("folder", ["fullres", "idrid", "eyepacs256", "eyepacs512"])
def test_field_is_found_in_real_photographs(folder: str) -> None:
    files = sorted((DATA / "fundus" / folder).glob("*.jpg"))[::97] or sorted((DATA / "fundus" / folder).glob("*.jpg"))
    for file in files:
        decoded = fundus.decode(file.read_bytes(), 256)
        assert decoded.field is not None, file.name
        assert 2 * decoded.field.r >= 128
        assert decoded.field.visible > 0.6
