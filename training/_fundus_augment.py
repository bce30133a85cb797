"""What happens to a photograph between two cameras, two operators and two compressions, at random.

All functions take and give H x W x 3 uint8. For locally normalised photographs 128 is "as its surroundings", for raw
ones 0 is black.
"""

from __future__ import annotations

import cv2
import numpy as np

Image = np.ndarray


def placement(rng: np.random.Generator, side: int, size: int, zoom: tuple[float, float]) -> np.ndarray:
    """2 x 3 matrix from a square of `side` to one of `size`: flips, any small and sometimes a large rotation, scale,
    shear and shift."""
    angle = rng.uniform(-180, 180) if rng.random() < 0.2 else rng.normal(0, 12)
    scale = size / side * rng.uniform(*zoom)
    stretch = np.exp(rng.normal(0, 0.03))
    a = np.deg2rad(angle)
    linear = scale * np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]) @ np.diag([stretch, 1 / stretch])
    linear = linear @ np.diag(rng.choice([-1.0, 1.0], 2, p=[0.5, 0.5]))
    shift = size / 2 + rng.normal(0, 0.02, 2) * size - linear @ np.array([side / 2, side / 2])
    return np.column_stack([linear, shift])


def place(image: Image, matrix: np.ndarray, size: int, border: int) -> Image:
    """`image` through a `placement` to size x size, `border` around it."""
    smaller = np.sqrt(abs(np.linalg.det(matrix[:, :2]))) < 0.7
    mode = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return cv2.warpAffine(image, matrix, (size, size), flags=mode, borderValue=(border,) * 3)


def optics(image: Image, rng: np.random.Generator, p: float = 0.25) -> Image:
    """Defocus, fewer pixels, sharpening, JPEG and sensor noise."""
    size = image.shape[0]
    if rng.random() < p:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.3))
    elif rng.random() < p:
        soft = cv2.GaussianBlur(image, (0, 0), 1.5)
        image = cv2.addWeighted(image, 1 + (k := rng.uniform(0.2, 1.0)), soft, -k, 0)
    if rng.random() < p:
        small = int(size * rng.uniform(0.55, 0.95))
        image = cv2.resize(cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA), (size, size))
    if rng.random() < p:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(35, 92))])
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    if rng.random() < p:
        noise = rng.normal(0, rng.uniform(2, 9), (size, size, 1 if rng.random() < 0.5 else 3))
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image


def normalised_colours(image: Image, rng: np.random.Generator) -> Image:
    """Contrast per channel, mixing of channels and an offset, around the neutral 128, which stays 128 outside the
    disc."""
    x = image.astype(np.float32) - 128.0
    outside = ~np.any(x, axis=2, keepdims=True)
    common = rng.normal(0, 0.22)
    gain = np.exp(common + rng.normal(0, 0.15, 3))
    mix = np.diag(gain) + rng.normal(0, 0.06, (3, 3))
    if rng.random() < 0.1:
        mix = np.tile(rng.dirichlet([1, 4, 1]), (3, 1)) * np.exp(common)  # a camera without colour, or nearly
    elif rng.random() < 0.1:
        mix[rng.choice([0, 2])] *= rng.uniform(0, 0.4)  # a red channel saturated, or a blue one empty
    x = x @ mix.T.astype(np.float32) + rng.normal(0, 5, 3).astype(np.float32)
    if rng.random() < 0.2:
        x = np.sign(x) * 128 * (np.abs(x) / 128) ** rng.uniform(0.75, 1.3)
    x[np.broadcast_to(outside, x.shape)] = 0.0
    return np.clip(x + 128.0, 0, 255).astype(np.uint8)


def shadows(image: Image, rng: np.random.Generator, neutral: int, p: float = 0.25) -> Image:
    """A rectangle or two of the picture blanked (eyelash, reflex, dust): no single lesion should decide."""
    if rng.random() < p:
        image = image.copy()
        size = image.shape[0]
        for _ in range(int(rng.integers(1, 3))):
            w, h = rng.integers(size // 16, size // 4, 2)
            x, y = rng.integers(0, size - w), rng.integers(0, size - h)
            image[y : y + h, x : x + w] = neutral
    return image


def stretch_channels(image: Image, low: float = 1.0, high: float = 99.0) -> Image:
    """Each channel of the visible disc to its whole range, as some archives store photographs."""
    visible = image.max(axis=2) > 12
    if visible.sum() < 100:
        return image
    out = image.astype(np.float32)
    for c in range(3):
        lo, hi = np.percentile(image[..., c][visible], (low, high))
        out[..., c] = (out[..., c] - lo) * 255.0 / max(hi - lo, 8.0)
    out[~visible] = 0
    return np.clip(out, 0, 255).astype(np.uint8)


def augment_normalised(image: Image, rng: np.random.Generator, size: int, p: float = 0.25) -> tuple[Image, np.ndarray]:
    """A locally normalised photograph (128 neutral) as another camera might have given it, and where in it things went
    (see `place`); `p`: how often each fault."""
    matrix = placement(rng, image.shape[0], size, (0.92, 1.18))
    image = optics(normalised_colours(place(image, matrix, size, 128), rng), rng, p)
    return shadows(image, rng, 128, p), matrix


def augment_raw(image: Image, rng: np.random.Generator, size: int) -> Image:
    """A raw crop (black outside the disc), its quality kept: small changes only."""
    image = place(image, placement(rng, image.shape[0], size, (0.95, 1.08)), size, 0)
    gain = np.exp(rng.normal(0, 0.06) + rng.normal(0, 0.05, 3))
    if rng.random() < 0.25:
        image = stretch_channels(image, *((0.5, 99.5) if rng.random() < 0.5 else (1.0, 99.0)))
    image = np.clip(image * gain, 0, 255).astype(np.uint8)
    if rng.random() < 0.2:
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 95))])
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    return image
