"""From the bytes of a retinal photograph to what a model sees, and measures of the photograph itself.

The steps are `decode`, `field_of_view`, `crop`, then `normalise_int8` for the grading model or `crop_int8` for the
quality model; `normalise` and `plain` chain them. Everything after the JPEG decoder is integer arithmetic, or single
correctly rounded float operations, so that every board gives the same bits; `reference_fundus` proves it.

The normalisation takes away what belongs to the camera and the light (the slowly varying background, after Graham,
"Kaggle Diabetic Retinopathy Detection competition report", 2015, with a box in place of the Gaussian) and each
channel's
contrast (one gain per channel and photograph, which also undoes a camera's or an archive's contrast stretch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from aidpost.kernels import _fundus
from aidpost.kernels import _fundus_geometry as _geometry
from aidpost.kernels._photo_header import read_header, unreadable

NORMALISATION_VERSION = 1
"""Changes whenever the same photograph would give other numbers; a model is trained for one version."""

MAX_SIZE = 2000
"""Largest model input, in pixels a side: the window's sum of bytes stays exact in a float."""

INPUT_SCALE = 1.0 / 128.0
"""Quantisation at which the input's int8 is the normalised pixel itself: real = int8 / 128, zero point 0."""

_RIM = 0.975  # of the radius is kept: the rim itself glows or is dark with the camera, not with the eye
_WINDOW = 16  # half the local mean's window is the size divided by this, r / 8
_DARK, _BRIGHT = 24, 240
_FAR = 100  # photographs' sides: a larger field is none
_GRID = 192  # cells along the longer side, where the field of view is looked for
_LEVELS = (0.06, 0.12, 0.25, 0.45)  # thresholds tried, between the background and the bright part
_TRIALS = 64


@dataclass(frozen=True)
class Circle:
    """The camera's round field of view, in pixels (pixel i spans i to i + 1).

    `left`, `top`, `right`, `bottom` bound what of it is in the picture: cameras cut it off above and below.
    """

    cx: float
    cy: float
    r: float
    left: float
    top: float
    right: float
    bottom: float

    @property
    def visible(self) -> float:
        """Fraction of the circle's area within its bounds, 0 to 1."""
        if self.r < 1e-6:
            return 0.0
        n = 256
        y = self.cy + self.r * ((np.arange(n) + 0.5) * 2 / n - 1)
        half = np.sqrt(np.maximum(self.r**2 - (y - self.cy) ** 2, 0))
        width = np.minimum(self.cx + half, self.right) - np.maximum(self.cx - half, self.left)
        inside = (y >= self.top) & (y <= self.bottom)
        return float(np.sum(np.maximum(width, 0) * inside) / np.sum(2 * half))


@dataclass(frozen=True, eq=False)
class DecodedPhoto:
    """A photograph decoded no larger than needed, upright (the EXIF orientation is applied).

    `rgb` is uint8 (h, w, 3), red first; `width` and `height` the original size, upright; `scale` what it was divided by
    (1, 2, 4 or 8); `field` the field of view in `rgb`'s pixels, None if there is none.
    """

    rgb: NDArray[np.uint8]
    width: int
    height: int
    scale: int
    field: Circle | None


@dataclass(frozen=True)
class PhotoMeasures:
    """Measures of a photograph inside its field of view.

    `sharpness`: mean |Laplacian| over mean |difference from the local mean|, of green. `contrast`: that mean
    difference, red,
    green, blue, in grey levels. `brightness`: mean of (R + 2 G + B) / 4, 0-255. `dark` and `bright`: fraction of
    pixels below
    24 and from 240 on. `colour`: shares of red, green and blue in the total, summing to 1. `visible`: see
    `Circle.visible`.
    """

    sharpness: float
    contrast: tuple[float, float, float]
    brightness: float
    dark: float
    bright: float
    colour: tuple[float, float, float]
    visible: float


@dataclass(frozen=True, eq=False)
class ModelInput:
    """`pixels` int8 (size, size, 3), red first, for a model's input tensor, and the photograph's measures."""

    pixels: NDArray[np.int8]
    measures: PhotoMeasures


def decode(encoded: bytes, min_side: int) -> DecodedPhoto:
    """Decode a JPEG or PNG at the smallest of libjpeg's scales that keeps the field of view at `min_side` pixels or
    more.

    The scale is first guessed from the picture's shorter side; where the field of view is a smaller part of the
    picture, it is
    decoded again. A JPEG whose last rows are missing decodes to flat grey there, and is refused.

    Raises
    ------
    UnreadableInputError
        Empty, cut off, damaged, not an image, or larger than 100 megapixels (refused from the header).
    UnsupportedFormatError
        A CMYK JPEG, or one with other than 8 bits.
    """
    header = read_header(encoded)
    scale = 1
    while scale < 8 and header.kind == "jpeg" and min(header.width, header.height) >= 2 * scale * min_side:
        scale *= 2
    while True:
        rgb = _decode_at(encoded, scale)
        if header.kind == "jpeg" and _ends_in_grey(rgb):
            raise unreadable("the JPEG is cut off or damaged: part of the picture is missing")
        field = field_of_view(rgb)
        if scale == 1 or field is None or 2 * field.r >= min_side:
            break
        scale //= 2
    turned = (rgb.shape[0] > rgb.shape[1]) != (header.height > header.width) and header.height != header.width
    width, height = (header.height, header.width) if turned else (header.width, header.height)
    return DecodedPhoto(rgb, width, height, scale, field)


def field_of_view(rgb: NDArray[np.uint8]) -> Circle | None:
    """Find the round field of view in a photograph, uint8 (h, w, 3), channels in any order.

    On a grid of at most 192 cells a side the outline is taken at several thresholds; the circle that most of it lies
    on wins
    (RANSAC with a fixed seed, then Kasa's least squares). None if no circle is convincing: not a fundus photograph,
    black, or
    the picture lies wholly within the field.
    """
    _check_photo(rgb)
    height, width = rgb.shape[:2]
    if min(height, width) < 16:
        return None
    step = -(-max(height, width) // _GRID)
    raw = np.empty((height // step, width // step), np.uint8)
    _fundus.brightness_grid(np.ascontiguousarray(rgb), step, raw)
    grid = np.empty_like(raw)
    _fundus.smooth(raw, grid)
    found = _fit_outline(grid)
    if found is None:
        return None
    circle, level = found
    left, top, right, bottom = _bounds(grid, circle, level)
    cx, cy, r = (float(v) * step for v in circle)
    return Circle(cx, cy, r, left * step, top * step, min(right * step, width), min(bottom * step, height))


def crop(rgb: NDArray[np.uint8], circle: Circle, size: int) -> tuple[NDArray[np.uint8], Circle]:
    """Cut the field of view out and resample it to uint8 (size, size, 3); also the circle in the result's pixels.

    The inner 97.5 % of the radius fill the square. What lies outside the photograph repeats its border and is masked
    later.
    The filter is a triangle two output pixels wide (bilinear when enlarging, antialiased when reducing), in fixed
    point.

    Raises
    ------
    ValueError
        `size` is not in 16..2000, or the circle does not touch the photograph or is far larger than it.
    """
    _check_photo(rgb)
    _check_size(size)
    side = 2 * _RIM * circle.r
    x0, y0 = circle.cx - side / 2, circle.cy - side / 2
    height, width = rgb.shape[:2]
    if not (1 <= side <= _FAR * max(width, height) and x0 < width and y0 < height and x0 + side > 0 and y0 + side > 0):
        raise ValueError("the circle does not touch the photograph")
    pixels = np.empty((size, size, 3), np.uint8)
    _fundus.resample(
        np.ascontiguousarray(rgb),
        *_geometry.weights(y0, side, height, size),
        *_geometry.weights(x0, side, width, size),
        pixels,
    )
    k = size / side
    left, right = (min(max((v - x0) * k, 0.0), float(size)) for v in (circle.left, circle.right))
    top, bottom = (min(max((v - y0) * k, 0.0), float(size)) for v in (circle.top, circle.bottom))
    return pixels, Circle(size / 2, size / 2, size / 2, left, top, right, bottom)


def normalise_int8(
    pixels: NDArray[np.uint8], circle: Circle, scale: float = INPUT_SCALE, zero_point: int = 0
) -> tuple[NDArray[np.int8], PhotoMeasures]:
    """Normalise a crop's illumination and colour and quantise it; with the measures of the same pass.

    From every channel its mean over the visible pixels of a window r/4 wide is subtracted; the difference is
    multiplied so that its
    mean magnitude is 18 steps of 1/128, and saturated to -1..127/128. Outside the visible circle it is 0. The model's
    real value
    is (steps / 128), quantised with `scale` and `zero_point`; at 1/128 and 0 the steps are the result.

    Parameters
    ----------
    pixels
        uint8 (size, size, 3) from `crop`.
    circle
        As `crop` returned it, in these pixels.
    """
    size = _check_crop(pixels)
    lo, hi = _geometry.spans(circle, size)
    pixels = np.ascontiguousarray(pixels)
    difference = np.empty((size, size, 3), np.int16)
    magnitude = np.zeros(3, np.int64)
    _fundus.local_difference(pixels, lo, hi, size // _WINDOW, difference, magnitude)
    measures = _measure(pixels, lo, hi, magnitude, circle)
    out = np.empty((size, size, 3), np.int8)
    gain = np.tile(_geometry.gains(magnitude, int(np.maximum(hi - lo, 0).sum())), size)
    _fundus.quantise(difference, lo, hi, gain, *_geometry.table(scale, zero_point), out)
    return out, measures


def crop_int8(
    pixels: NDArray[np.uint8], circle: Circle, scale: float = INPUT_SCALE, zero_point: int = 0
) -> tuple[NDArray[np.int8], PhotoMeasures]:
    """Quantise a crop in its own colours, for the quality model; black outside the visible circle.

    The real value is (byte - 128) / 128. Parameters as `normalise_int8`.
    """
    size = _check_crop(pixels)
    lo, hi = _geometry.spans(circle, size)
    pixels = np.ascontiguousarray(pixels)
    magnitude = np.zeros(3, np.int64)
    _fundus.local_difference(pixels, lo, hi, size // _WINDOW, np.empty((size, size, 3), np.int16), magnitude)
    x = np.arange(size)
    masked = np.where(((x >= lo[:, None]) & (x < hi[:, None]))[..., None], pixels, 0)
    table, _ = _geometry.table(scale, zero_point)
    return table[masked], _measure(pixels, lo, hi, magnitude, circle)


def normalise(
    rgb: NDArray[np.uint8], circle: Circle, size: int, scale: float = INPUT_SCALE, zero_point: int = 0
) -> ModelInput:
    """`crop`, then `normalise_int8`: the grading model's input from a decoded photograph."""
    return ModelInput(*normalise_int8(*crop(rgb, circle, size), scale, zero_point))


def plain(
    rgb: NDArray[np.uint8], circle: Circle, size: int, scale: float = INPUT_SCALE, zero_point: int = 0
) -> ModelInput:
    """`crop`, then `crop_int8`: the quality model's input from a decoded photograph."""
    return ModelInput(*crop_int8(*crop(rgb, circle, size), scale, zero_point))


def _decode_at(encoded: bytes, scale: int) -> NDArray[np.uint8]:
    flags = {
        1: cv2.IMREAD_COLOR,
        2: cv2.IMREAD_REDUCED_COLOR_2,
        4: cv2.IMREAD_REDUCED_COLOR_4,
        8: cv2.IMREAD_REDUCED_COLOR_8,
    }
    try:
        bgr: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags[scale])
    except cv2.error as error:
        raise unreadable("its picture data cannot be decoded") from error
    if bgr is None:
        raise unreadable("its picture data cannot be decoded")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=bgr), np.uint8)


def _ends_in_grey(rgb: NDArray[np.uint8]) -> bool:
    """libjpeg fills what is missing at the end with 128: some corner is exactly that grey, and the others are not."""
    h, w = rgb.shape[0] - 1, rgb.shape[1] - 1
    grey = [bool(np.all(rgb[y, x] == 128)) for y in (0, h) for x in (0, w)]
    return any(grey) and not all(grey)


def _fit_outline(grid: NDArray[np.uint8]) -> tuple[NDArray[np.float64], int] | None:
    counts = np.cumsum(np.bincount(grid.ravel(), minlength=256))
    low, high = (int(np.searchsorted(counts, part * counts[-1])) for part in (0.01, 0.95))
    points = np.empty((2 * sum(grid.shape), 2))
    longest, tolerance = max(grid.shape), 0.006 * max(grid.shape)
    best: tuple[NDArray[np.float64], int] | None = None
    best_score = 0.0
    for share in _LEVELS:
        level = low + max(2, round(share * (high - low)))
        n = _fundus.edge_points(grid, level, points)
        if level >= high or n < 16:
            continue
        circle = np.zeros(3)
        on = _fundus.fit_circle(points, n, _TRIALS, 0.2 * longest, 0.8 * longest, tolerance, circle)
        score = on * on / n
        convincing = on >= 0.3 * n and _fundus.sectors(points, n, circle, tolerance) >= 6 and _stands_out(grid, circle)
        if score > best_score and convincing:
            best, best_score = (circle, level), score
    return best


def _stands_out(grid: NDArray[np.uint8], circle: NDArray[np.float64]) -> bool:
    """Whether it is darker outside the circle than inside: noise, or a picture of something else, is not."""
    rows, columns = grid.shape
    y, x = np.arange(rows)[:, None] + 0.5, np.arange(columns) + 0.5
    inside = (x - circle[0]) ** 2 + (y - circle[1]) ** 2 < circle[2] ** 2
    n = int(np.count_nonzero(inside))
    total, within = int(grid.sum()), int(grid[inside].sum())
    return bool(n < inside.size and (total - within) * n < 0.7 * within * (inside.size - n))


def _bounds(grid: NDArray[np.uint8], circle: NDArray[np.float64], level: int) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is lit, in cells: a row counts when over half of its chord is."""
    rows, columns = grid.shape
    y, x = np.arange(rows)[:, None] + 0.5, np.arange(columns) + 0.5
    inside = (x - circle[0]) ** 2 + (y - circle[1]) ** 2 < circle[2] ** 2
    lit = inside & (grid > level)
    limits: list[float] = []
    for axis, n, centre in ((0, columns, circle[0]), (1, rows, circle[1])):
        chord = inside.sum(axis)
        seen = np.flatnonzero((2 * lit.sum(axis) > chord) & (chord > 2))
        first, last = (seen[0], seen[-1] + 1) if len(seen) else (0, n)
        # where the circle itself ends first nothing is cut; where it is cut, the cell of the edge is mixed
        limits.append(float(first + 1.5) if first > centre - circle[2] + 2 and first > 0 else float(max(first - 3, 0)))
        limits.append(float(last - 1.5) if last < centre + circle[2] - 2 and last < n else float(min(last + 3, n)))
    return limits[0], limits[2], limits[1], limits[3]


def _measure(
    pixels: NDArray[np.uint8],
    lo: NDArray[np.int32],
    hi: NDArray[np.int32],
    magnitude: NDArray[np.int64],
    circle: Circle,
) -> PhotoMeasures:
    sums = np.zeros(8, np.int64)
    _fundus.measure(pixels, lo, hi, _DARK, _BRIGHT, sums)
    red, green, blue, dark, bright, n, edges, edge_pixels = (int(v) for v in sums)
    n, edge_pixels, total = max(n, 1), max(edge_pixels, 1), max(red + green + blue, 1)
    contrast = (int(magnitude[0]) / n / 64, int(magnitude[1]) / n / 64, int(magnitude[2]) / n / 64)
    return PhotoMeasures(
        sharpness=edges / edge_pixels / (contrast[1] + _geometry.FLOOR_Q6 / 64),
        contrast=contrast,
        brightness=(red + 2 * green + blue) / 4 / n,
        dark=dark / n,
        bright=bright / n,
        colour=(red / total, green / total, blue / total),
        visible=circle.visible,
    )


def _check_photo(rgb: NDArray[np.uint8]) -> None:
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or 0 in rgb.shape:
        raise ValueError(f"expected uint8 (height, width, 3), got {rgb.dtype} {rgb.shape}")


def _check_size(size: int) -> None:
    if not 16 <= size <= MAX_SIZE:
        raise ValueError(f"size must be 16..{MAX_SIZE}, not {size}")


def _check_crop(pixels: NDArray[np.uint8]) -> int:
    _check_photo(pixels)
    size = int(pixels.shape[0])
    _check_size(size)
    if pixels.shape[1] != size:
        raise ValueError(f"expected a square crop, got {pixels.shape}")
    return size
