"""Retinas drawn by formula, as a camera would store them: golden inputs for the models, with nobody's data in them."""

from __future__ import annotations

import cv2
import numpy as np

Image = np.ndarray


def _vessels(
    layer: Image, rng: np.random.Generator, start: np.ndarray, angle: float, width: float, length: float
) -> None:
    point = start.astype(float)
    step = layer.shape[0] / 60
    while length > 0 and width > 0.6:
        angle += rng.normal(0, 0.13)
        following = point + step * np.array([np.cos(angle), np.sin(angle)])
        cv2.line(
            layer, tuple(np.rint(point).astype(int)), tuple(np.rint(following).astype(int)), 1.0, max(round(width), 1)
        )
        point, length, width = following, length - step, width * 0.985
        if rng.random() < 0.12:
            _vessels(layer, rng, point, angle + rng.choice([-1, 1]) * rng.uniform(0.4, 0.9), width * 0.65, length * 0.6)


def _spots(
    image: Image, rng: np.random.Generator, count: int, radius: tuple[float, float], colour: tuple[float, ...]
) -> None:
    size = image.shape[0]
    for _ in range(count):
        layer = np.zeros((size, size), np.float32)
        centre = tuple(int(v) for v in size * (0.5 + rng.normal(0, 0.13, 2)))
        axes = tuple(max(int(v), 1) for v in size * rng.uniform(*radius, 2))
        cv2.ellipse(layer, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
        layer = cv2.GaussianBlur(layer, (0, 0), max(size * radius[0] / 3, 0.7))[..., None]
        image += (np.array(colour, np.float32) - image) * layer * 0.8


def draw_retina(seed: int, size: int = 640, lesions: int = 0, light: float = 1.0, defocus: float = 0.0) -> Image:
    """A right eye's fundus, size x size x 3 uint8 (red first): disc, macula, vessels and, by `lesions`, 0-3, what
    diabetes adds."""
    rng = np.random.default_rng(seed)
    y, x = (np.mgrid[0:size, 0:size].astype(np.float32) + 0.5) / size
    shade = 1.05 - 0.7 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)
    image = np.array([190, 88, 42], np.float32) * shade[..., None]
    macula = np.exp(-((x - 0.42) ** 2 + (y - 0.52) ** 2) / 0.006)[..., None]
    image *= 1 - 0.45 * macula
    disc = np.clip((0.062 - np.hypot(x - 0.72, (y - 0.49) * 0.93)) / 0.012, 0, 1)[..., None]
    image += (np.array([245, 190, 110], np.float32) - image) * disc * 0.9
    vessels = np.zeros((size, size), np.float32)
    for angle in (-2.2, 2.2, -1.75, 1.75, -0.9, 0.9, -2.75, 2.8):
        _vessels(vessels, rng, np.array([0.72, 0.49]) * size, angle, size * rng.uniform(0.007, 0.013), size * 0.75)
    vessels = cv2.GaussianBlur(vessels, (0, 0), size / 400)[..., None]
    image *= 1 - vessels * np.array([0.3, 0.55, 0.35], np.float32)
    if lesions:
        _spots(image, rng, 12 * lesions, (0.003, 0.007), (110, 20, 15))
        _spots(image, rng, 6 * (lesions - 1), (0.008, 0.03), (100, 15, 12))
        _spots(image, rng, 14 * (lesions - 1), (0.004, 0.012), (235, 205, 110))
    if defocus:
        image = cv2.GaussianBlur(image, (0, 0), defocus * size / 256)
    image = image * light + rng.normal(0, 1.2, image.shape)
    image[np.hypot(x - 0.5, y - 0.5) > 0.48] = 2
    image[np.abs(y - 0.5) > 0.42] = 2
    return np.clip(image, 0, 255).astype(np.uint8)


def photographs() -> list[np.ndarray]:
    """The golden photographs, each the bytes (uint8) of a PNG or JPEG file; one is larger, so that it is decoded at
    half its size."""
    drawn = [
        (draw_retina(1, size=360), ".png"),
        (draw_retina(2, lesions=1), ".jpg"),
        (draw_retina(3, size=960, lesions=2), ".jpg"),
        (draw_retina(4, lesions=3), ".jpg"),
        (draw_retina(5, size=480, light=0.2), ".jpg"),
        (draw_retina(6, size=360, defocus=5.0), ".png"),
    ]
    out = []
    for image, kind in drawn:
        parameters = [cv2.IMWRITE_JPEG_QUALITY, 90] if kind == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
        done, encoded = cv2.imencode(kind, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
        if not done:
            raise RuntimeError(f"OpenCV cannot write {kind}")
        out.append(encoded.reshape(-1))
    return out
