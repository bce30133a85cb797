"""Good photographs made bad on purpose, each for one reason: what the quality model's reasons are trained and tested
on.

All take a crop (size x size x 3 uint8, black outside the field of view) and a strength from 0 (just noticeable) to 1
(hopeless).
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Image = np.ndarray
Rng = np.random.Generator


def _visible(image: Image) -> np.ndarray:
    """The field of view: the circle, between the first and the last row in which anything is lit."""
    size = image.shape[0]
    y, x = np.mgrid[0:size, 0:size] + 0.5
    rows = np.flatnonzero((image.max(2) > 3).sum(1) > size // 8)
    first, last = (rows[0], rows[-1]) if len(rows) else (0, size)
    return ((np.hypot(x - size / 2, y - size / 2) <= size / 2) & (y > first) & (y < last + 1))[..., None]


def _masked(image: np.ndarray, like: Image) -> Image:
    return (np.clip(image, 0, 255) * _visible(like)).astype(np.uint8)


def dark(image: Image, strength: float, rng: Rng) -> Image:
    """Too little light: scaled down, then the sensor's noise."""
    level = 0.42 * (1 - strength) + 0.04 * strength
    target = level * 90.0 / max(float(image[_visible(image)[..., 0]].mean()), 1.0)
    return _masked(image * min(target, level * 1.2) + rng.normal(0, 2.5, image.shape), image)


def overexposed(image: Image, strength: float, rng: Rng) -> Image:
    """Too much light: most of it at the top of the range, with a glare."""
    size = image.shape[0]
    y, x = np.mgrid[0:size, 0:size] / size
    glare = np.exp(-(((x - rng.uniform(0.2, 0.8)) ** 2 + (y - rng.uniform(0.2, 0.8)) ** 2) / rng.uniform(0.1, 0.5)))
    gain = 1.25 + 2.0 * strength
    lift = (25 + 130 * strength) * (0.6 + 0.8 * glare[..., None])
    return _masked(image * gain + lift * np.array([1.0, 0.95, 0.85]), image)


def blurred(image: Image, strength: float, rng: Rng) -> Image:
    """Out of focus, or moved."""
    size = image.shape[0]
    sigma = size / 256 * (1.8 + 7.0 * strength)
    if rng.random() < 0.3:
        length = int(sigma * 4) | 1
        kernel = np.zeros((length, length), np.float32)
        a = rng.uniform(0, np.pi)
        half = (length - 1) / 2 * np.array([np.cos(a), np.sin(a)])
        middle = np.full(2, (length - 1) / 2)
        cv2.line(kernel, tuple(np.rint(middle - half).astype(int)), tuple(np.rint(middle + half).astype(int)), 1.0, 1)
        soft = cv2.filter2D(image, -1, kernel / kernel.sum())
    else:
        soft = cv2.GaussianBlur(image, (0, 0), sigma)
    if rng.random() < 0.5:
        soft = soft + rng.normal(0, rng.uniform(0, 4), image.shape)
    return _masked(soft, image)


def off_centre(image: Image, strength: float, rng: Rng) -> Image:
    """The pupil or the frame missed: part of the field is cut off, or in the iris's shadow or glow."""
    size = image.shape[0]
    a = rng.uniform(0, 2 * np.pi)
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size - 0.5
    along = x * np.cos(a) + y * np.sin(a)
    edge = 0.28 - 0.4 * strength  # half the width is 0.5
    kind = rng.random()
    if kind < 0.5:
        return (image * (along < edge)[..., None]).astype(np.uint8)
    away = np.hypot(x + np.cos(a) * 0.6, y + np.sin(a) * 0.6) - 0.6
    lost = np.clip((away - edge) / rng.uniform(0.08, 0.25) + 0.5, 0, 1)[..., None]
    glow = rng.uniform(90, 230) * np.array([1.0, rng.uniform(0.7, 1.0), rng.uniform(0.5, 1.0)]) if kind > 0.75 else 6.0
    return _masked(image * (1 - lost) + glow * lost, image)


def artefact(image: Image, strength: float, rng: Rng) -> Image:
    """Something on the lens or before it: reflexes, haze, dust, lashes."""
    size = image.shape[0]
    out = image.astype(np.float32)
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    kind = rng.random()
    count = 1 + int(strength * 5)
    for _ in range(count):
        cx, cy = rng.uniform(0.2, 0.8, 2)
        r = rng.uniform(0.06, 0.12) + 0.17 * strength
        d = np.hypot(x - cx, (y - cy) * rng.uniform(0.6, 1.6))
        if kind < 0.6:
            spot = np.clip((r - d) / (r * rng.uniform(0.2, 1.0)), 0, 1)[..., None] * (0.55 + 0.45 * strength)
            colour = rng.uniform(150, 255) * np.array([1.0, rng.uniform(0.8, 1), rng.uniform(0.7, 1)])
            out = out * (1 - spot) + colour * spot
        else:
            for _ in range(3 + int(8 * strength)):
                start = rng.uniform(0, size, 2)
                end = start + rng.normal(0, size * 0.5, 2)
                shade = float(rng.uniform(0, 25))
                layer = cv2.line(
                    np.zeros((size, size), np.float32),
                    tuple(start.astype(int)),
                    tuple(end.astype(int)),
                    1.0,
                    int(2 + size / 256 * rng.uniform(2, 10)),
                )
                layer = cv2.GaussianBlur(layer, (0, 0), size / 256 * rng.uniform(1, 3))[..., None]
                out = out * (1 - layer) + shade * layer
    return _masked(out, image)


REASONS: dict[str, Callable[[Image, float, Rng], Image]] = {
    "dark": dark,
    "overexposed": overexposed,
    "blur": blurred,
    "off_centre": off_centre,
    "artefact": artefact,
}
"""Each reason a health worker can act on, and what makes a good photograph bad for it."""
