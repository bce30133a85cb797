"""Pictures that are not a retina: what a camera sees when it looks elsewhere, and what somebody may upload by mistake.

Drawn ones, and windows of the few photographs that come with scikit-image and scikit-learn. All are size x size x 3
uint8, red first.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np

Image = np.ndarray
Rng = np.random.Generator


def _colour(rng: Rng) -> np.ndarray:
    """Any colour, or one of skin, or of a retina."""
    kind = rng.random()
    if kind < 0.25:
        tone = rng.uniform(0.25, 1.0)
        return np.array([235, 180, 150]) * tone + rng.normal(0, 10, 3)
    if kind < 0.5:
        return np.array([200, 95, 40]) * rng.uniform(0.4, 1.25) + rng.normal(0, 18, 3)
    return rng.uniform(0, 255, 3)


def _clip(x: np.ndarray) -> Image:
    return np.clip(x, 0, 255).astype(np.uint8)


def _power_noise(rng: Rng, size: int, exponent: float) -> np.ndarray:
    """size x size noise with spectrum f^-exponent, mean 0 and deviation 1."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    f[0, 0] = 1
    spectrum = rng.normal(size=f.shape) + 1j * rng.normal(size=f.shape)
    field = np.fft.irfft2(spectrum * f**-exponent, (size, size))
    return (field - field.mean()) / (field.std() + 1e-9)


def texture(rng: Rng, size: int) -> Image:
    """Clouds, cloth, earth: noise with the spectrum of natural pictures."""
    base = _power_noise(rng, size, rng.uniform(0.3, 2.4))
    per_channel = np.stack([_power_noise(rng, size, rng.uniform(0.5, 2.4)) for _ in range(3)], -1)
    mixed = base[..., None] * rng.uniform(0.3, 1.2, 3) + per_channel * rng.uniform(0, 0.6)
    return _clip(_colour(rng) + mixed * rng.uniform(8, 70))


def dead_leaves(rng: Rng, size: int) -> Image:
    """Overlapping opaque shapes of all sizes, the usual model of a scene of objects (Lee, Mumford and Huang 2001)."""
    image = np.full((size, size, 3), _colour(rng), np.float32)
    for _ in range(int(rng.integers(8, 150))):
        r = size * 0.02 / max(rng.random(), 0.04) ** rng.uniform(0.6, 1.0)
        centre = tuple(int(v) for v in rng.uniform(0, size, 2))
        colour = tuple(float(v) for v in _colour(rng))
        if rng.random() < 0.5:
            axes = (int(r) + 1, int(r * rng.uniform(0.3, 1)) + 1)
            cv2.ellipse(image, centre, axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        else:
            corners = np.array(centre) + rng.normal(0, r, (int(rng.integers(3, 6)), 2))
            cv2.fillPoly(image, [corners.astype(np.int32)], colour)
    image = image * (1 + 0.1 * _power_noise(rng, size, 1.2)[..., None])
    return _clip(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.5)))


def text(rng: Rng, size: int) -> Image:
    """A page, a form, a screen."""
    paper, ink = (
        (_colour(rng), _colour(rng)) if rng.random() < 0.5 else (rng.uniform(200, 255, 3), rng.uniform(0, 60, 3))
    )
    image = _clip(np.broadcast_to(paper, (size, size, 3)))
    height = rng.uniform(0.25, 1.6)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz ABCDEFGHIJ 0123456789 .,:-/"))
    for y in np.arange(0, size + 20, 26 * height + 4):
        line = "".join(rng.choice(letters, 60))
        cv2.putText(
            image, line, (int(rng.uniform(-30, 20)), int(y)), int(rng.integers(0, 8)), height, tuple(map(float, ink)), 1
        )
    if rng.random() < 0.5:
        matrix = cv2.getRotationMatrix2D((size / 2, size / 2), float(rng.uniform(-30, 30)), float(rng.uniform(1, 1.6)))
        image = cv2.warpAffine(image, matrix, (size, size), borderMode=cv2.BORDER_REFLECT)
    return _clip(image * rng.uniform(0.5, 1.0))


def gradient(rng: Rng, size: int) -> Image:
    """A wall, the sky, a covered lens: smooth light, almost nothing in it."""
    y, x = np.mgrid[0:size, 0:size] / size
    a = rng.uniform(0, 2 * np.pi)
    ramp = x * np.cos(a) + y * np.sin(a)
    if rng.random() < 0.5:
        ramp = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1))
    image = _colour(rng) + (ramp - ramp.mean())[..., None] * rng.normal(0, 150, 3)
    return _clip(image + rng.normal(0, rng.uniform(0, 12), image.shape))


def noise(rng: Rng, size: int) -> Image:
    """A sensor without light, a broken cable."""
    cells = int(rng.choice([size, size // 2, size // 4, size // 8, 6]))
    image = rng.normal(rng.uniform(20, 200), rng.uniform(10, 90), (cells, cells, 1 if rng.random() < 0.4 else 3))
    return cv2.resize(
        _clip(np.broadcast_to(image, (cells, cells, 3))), (size, size), interpolation=int(rng.integers(0, 3))
    )


def pattern(rng: Rng, size: int) -> Image:
    """Stripes, checks, rings, grids: buildings, fabrics, test charts."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    a, period = rng.uniform(0, np.pi), rng.uniform(5, 70)
    u, v = x * np.cos(a) + y * np.sin(a), y * np.cos(a) - x * np.sin(a)
    wave = np.sin(2 * np.pi * u / period)
    kind = rng.random()
    if kind < 0.35:
        wave = wave * np.sin(2 * np.pi * v / (period * rng.uniform(0.5, 2)))
    elif kind < 0.6:
        wave = np.sin(2 * np.pi * np.hypot(x - rng.uniform(0, size), y - rng.uniform(0, size)) / period)
    if rng.random() < 0.6:
        wave = np.sign(wave)
    share = (wave[..., None] + 1) / 2
    return _clip(_colour(rng) * share + _colour(rng) * (1 - share) + rng.normal(0, rng.uniform(1, 15), (size, size, 3)))


def _blob(size: int, cx: float, cy: float, rx: float, ry: float, soft: float = 0.15) -> np.ndarray:
    y, x = np.mgrid[0:size, 0:size]
    d = np.hypot((x - cx) / rx, (y - cy) / ry)
    return np.clip((1 - d) / soft + 0.5, 0, 1)[..., None]


def face(rng: Rng, size: int) -> Image:
    """A head with hair, eyes and mouth, in front of something."""
    image = texture(rng, size).astype(np.float64)
    skin = np.array([235, 180, 150]) * rng.uniform(0.25, 1.05)
    cx, cy = size * rng.uniform(0.35, 0.65, 2)
    r = size * rng.uniform(0.2, 0.6)
    hair = _blob(size, cx, cy - 0.35 * r, 1.05 * r, 1.15 * r)
    image = image * (1 - hair) + rng.uniform(5, 110, 3) * hair
    head = _blob(size, cx, cy, 0.8 * r, r)
    shade = 1 + 0.15 * _power_noise(rng, size, 2)[..., None]
    image = image * (1 - head) + skin * shade * head
    for side in (-1, 1):
        white = _blob(size, cx + side * 0.33 * r, cy - 0.15 * r, 0.16 * r, 0.08 * r)
        iris = _blob(size, cx + side * 0.33 * r, cy - 0.15 * r, 0.07 * r, 0.07 * r)
        image = (image * (1 - white) + 225 * white) * (1 - iris) + rng.uniform(10, 90) * iris
    mouth = _blob(size, cx, cy + 0.5 * r, 0.3 * r, 0.09 * r)
    return _clip(image * (1 - mouth) + skin * [0.8, 0.45, 0.45] * mouth)


def outer_eye(rng: Rng, size: int) -> Image:
    """The eye from in front, as a camera not yet close enough sees it: lids, white, iris, pupil, the flash."""
    skin = np.array([225, 160, 130]) * rng.uniform(0.25, 1.05)
    image = skin * (1 + 0.12 * _power_noise(rng, size, 1.8)[..., None])
    cx, cy = size * rng.uniform(0.4, 0.6, 2)
    r = size * rng.uniform(0.15, 0.45)
    white = _blob(size, cx, cy, 2.1 * r, rng.uniform(0.8, 1.2) * r, 0.08)
    image = image * (1 - white) + np.array([230, 215, 210]) * rng.uniform(0.5, 1) * white
    y, x = np.mgrid[0:size, 0:size]
    rays = 1 + 0.25 * np.sin(np.arctan2(y - cy, x - cx) * rng.integers(20, 60))[..., None]
    iris = _blob(size, cx, cy, r, r, 0.06) * white
    image = image * (1 - iris) + np.array([[90, 60, 35], [90, 120, 150], [110, 120, 70]][rng.integers(3)]) * rays * iris
    pupil = _blob(size, cx, cy, *(2 * [r * rng.uniform(0.25, 0.75)]), 0.06)
    inside = np.array([190, 60, 30]) if rng.random() < 0.3 else np.array([12, 10, 10])
    image = image * (1 - pupil) + inside * pupil
    flash = _blob(size, cx + 0.2 * r, cy - 0.2 * r, 0.12 * r, 0.12 * r)
    return _clip(image * (1 - flash) + 255 * flash)


def ball(rng: Rng, size: int) -> Image:
    """An orange, a lamp, the moon: round and red is not enough."""
    colour = np.array([205, 100, 45]) * rng.uniform(0.5, 1.2) if rng.random() < 0.6 else _colour(rng)
    y, x = np.mgrid[0:size, 0:size] / size
    light = 1 - rng.uniform(0.2, 1.2) * np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.2, 0.8))
    image = (
        colour
        * np.clip(light, 0, 2)[..., None]
        * (1 + rng.uniform(0, 0.2) * _power_noise(rng, size, rng.uniform(0, 2))[..., None])
    )
    if rng.random() < 0.5:
        spot = _blob(size, *(size * rng.uniform(0.2, 0.8, 2)), *(size * rng.uniform(0.03, 0.2, 2)))
        image = image * (1 - spot) + rng.uniform(150, 255, 3) * spot
    return _clip(image)


def scan(rng: Rng, size: int) -> Image:
    """Grey medical pictures: a chest, a slice, an ultrasound sector, an OCT's layers."""
    image = np.zeros((size, size, 1))
    for _ in range(int(rng.integers(2, 9))):
        shape = _blob(
            size, *(size * rng.uniform(0.1, 0.9, 2)), *(size * rng.uniform(0.05, 0.5, 2)), rng.uniform(0.05, 0.9)
        )
        image = image * (1 - shape) + rng.uniform(0, 255) * shape
    if rng.random() < 0.4:
        y = np.arange(size)[:, None] + 6 * _power_noise(rng, size, 2.4)
        image = image * 0.3 + (120 * (np.sin(y / rng.uniform(3, 12)) > rng.uniform(-0.5, 0.8)))[..., None]
    image = image * (1 + 0.25 * _power_noise(rng, size, rng.uniform(0.2, 1.2))[..., None])
    return _clip(np.repeat(image, 3, 2))


MAKERS: tuple[Callable[[Rng, int], Image], ...] = (
    texture, dead_leaves, dead_leaves, text, gradient, noise, pattern, face, outer_eye, outer_eye, ball, scan,
)  # fmt: skip


def not_a_retina(rng: Rng, size: int) -> Image:
    """One drawn picture as the quality model would be shown it: in a round field, or whole with black around it."""
    return as_shown(MAKERS[int(rng.integers(len(MAKERS)))](rng, size), rng)


def as_shown(image: Image, rng: Rng) -> Image:
    """A square picture in a round field or whole with black around it; sometimes grey, or red as a retina is."""
    size = image.shape[0]
    if rng.random() < 0.15:
        image = np.repeat(image.mean(2, keepdims=True), 3, 2).astype(np.uint8)
    if rng.random() < 0.4:
        tint = np.array([1.0, rng.uniform(0.35, 0.7), rng.uniform(0.1, 0.5)])
        image = (
            _clip(image.mean(2, keepdims=True) * tint * rng.uniform(0.8, 1.5))
            if rng.random() < 0.5
            else _clip(image * tint)
        )
    if rng.random() < 0.5:
        image = image.copy()
        rows = int(size * rng.uniform(0.05, 0.22))
        image[:rows] = 0
        image[size - rows :] = 0
    y, x = np.mgrid[0:size, 0:size] + 0.5
    return image * (np.hypot(x - size / 2, y - size / 2) <= size / 2)[..., None].astype(np.uint8)


RETINAS = {"retina.jpg", "microaneurysms.png"}


def packaged_photographs() -> list[Path]:
    """The photographs that scikit-image and scikit-learn bring along, but for those of retinas."""
    folders = []
    for package, inside in (("skimage", "data"), ("sklearn", "datasets/images")):
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            raise SystemExit(f"{package}, whose photographs training reads, is not installed: install aidpost[train]")
        folders.append(Path(found.submodule_search_locations[0]) / inside)
    files = (file for folder in folders for file in folder.iterdir() if file.suffix in {".png", ".jpg"})
    return sorted(file for file in files if file.name not in RETINAS)


def read_photograph(file: Path) -> Image:
    """H x W x 3 uint8, red first."""
    picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
    if picture is None:
        raise SystemExit(f"cannot read {file}: not a picture that OpenCV knows")
    return np.ascontiguousarray(picture[..., ::-1])


def windows(picture: Image, rng: Rng, count: int) -> list[Image]:
    """The whole picture and `count` square windows of it."""
    h, w = picture.shape[:2]
    out = [picture]
    for _ in range(count):
        side = int(min(h, w) * rng.uniform(0.35, 1.0))
        y, x = int(rng.integers(0, h - side + 1)), int(rng.integers(0, w - side + 1))
        out.append(np.ascontiguousarray(picture[y : y + side, x : x + side]))
    return out
