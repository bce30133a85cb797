"""Photographs of retinas that do not exist: disc, cup, macula, vessel tree, and the lesions of diabetic retinopathy.

Drawn, not photographed: good for practice, tests and demonstrations, and never for training a model. Geometry in disc
diameters (about 1.5 mm; a 45° photograph spans some 8 of them) follows the usual macula-centred field: the fovea in the
middle, the disc 2.5 diameters to its nasal side, the temporal arcades arching round it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from aidpost.records import Eye

Image = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]

FIELD_IN_DISCS = 8.2


@dataclass(frozen=True)
class Lesions:
    """How many of each. `neovascular` are tufts of new vessels; `preretinal` are boat-shaped bleedings."""

    microaneurysms: int = 0
    haemorrhages: int = 0
    exudates: int = 0
    cotton_wool: int = 0
    neovascular: int = 0
    preretinal: int = 0


GRADES = (
    Lesions(),
    Lesions(microaneurysms=6),
    Lesions(microaneurysms=18, haemorrhages=10, exudates=24),
    Lesions(microaneurysms=45, haemorrhages=70, exudates=40, cotton_wool=4),
    Lesions(microaneurysms=30, haemorrhages=40, exudates=30, cotton_wool=3, neovascular=4, preretinal=1),
)
"""Lesions as they are typical of each grade of the ICDR scale, 0 to 4."""


@dataclass(frozen=True)
class Flaws:
    """What makes a photograph bad: blur (deviation in 1/1000 of the field), darkness and haze (both 0 to 1)."""

    blur: float = 0.0
    darkness: float = 0.0
    haze: float = 0.0


class _Retina:
    """The picture while it is drawn: float32 RGB 0..1; lengths are disc diameters from the fovea, nasal positive."""

    def __init__(self, size: int, eye: Eye, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.size, self.unit = size, size / FIELD_IN_DISCS
        # the disc lies to the nasal side: on the right of a right eye's photograph
        self.nasal = 1.0 if eye is Eye.RIGHT else -1.0
        self.disc = (2.5 + 0.15 * self.rng.standard_normal(), -0.15 + 0.1 * self.rng.standard_normal())
        y, x = np.mgrid[0:size, 0:size].astype(np.float32)
        self.x = (x - size / 2) / self.unit * self.nasal
        self.y = (y - size / 2) / self.unit
        self.rgb: Image = np.empty((size, size, 3), np.float32)

    def distance(self, centre: tuple[float, float], stretch: float = 1.0) -> Image:
        out: Image = np.hypot(self.x - centre[0], (self.y - centre[1]) / stretch)
        return out

    def pixel(self, points: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """Points (n, 2) as pixel coordinates with 4 fractional bits, as OpenCV draws them."""
        pixels = points * [self.nasal * self.unit, self.unit] + self.size / 2
        return np.round(pixels * 16).astype(np.int32)

    def blend(self, mask: Image, colour: tuple[float, float, float]) -> None:
        """Move towards the colour where the mask (0..1) says."""
        self.rgb += mask[..., None] * (np.array(colour, np.float32) - self.rgb)

    def absorb(self, mask: Image, keep: tuple[float, float, float]) -> None:
        """Multiply, as blood does: it takes away green and blue, and leaves red."""
        self.rgb *= 1 - mask[..., None] * (1 - np.array(keep, np.float32))

    def texture(self, scale: float) -> Image:
        """Smooth noise of unit deviation; `scale` is its grain in disc diameters."""
        cells = max(2, round(FIELD_IN_DISCS / scale))
        coarse = self.rng.standard_normal((cells, cells)).astype(np.float32)
        out = cv2.resize(coarse, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
        return np.asarray(out / out.std(), np.float32)


def render_fundus(
    *,
    grade: int = 0,
    eye: Eye = Eye.RIGHT,
    size: int = 1024,
    lesions: Lesions | None = None,
    flaws: Flaws | None = None,
    seed: int = 1,
) -> Pixels:
    """A square colour photograph, uint8 (size, size, 3) in OpenCV's order BGR. The same arguments give the same pixels.

    `lesions` default to what is typical of the ICDR `grade`, 0 to 4.
    """
    retina = _Retina(size, eye, seed)
    _background(retina)
    _disc(retina)
    _vessels(retina)
    _lesions(retina, lesions or GRADES[grade])
    return _photograph(retina, flaws or Flaws())


def encode_fundus(image: Pixels, *, png: bool = False) -> bytes:
    """The photograph as JPEG (quality 92), or as PNG."""
    options = [] if png else [cv2.IMWRITE_JPEG_QUALITY, 92]
    return cv2.imencode(".png" if png else ".jpg", image, options)[1].tobytes()


def _background(retina: _Retina) -> None:
    tint = 1 + 0.12 * retina.rng.standard_normal(3)
    base = np.array([0.72, 0.33, 0.13]) * [tint[0] ** 0.3, tint[1], tint[2]]
    retina.rgb[:] = base.astype(np.float32)
    choroid = 0.08 * retina.texture(0.9) + 0.055 * retina.texture(0.25) + 0.026 * retina.texture(0.06)
    retina.rgb *= 1 + choroid[..., None] * np.array([0.7, 1.3, 1.2], np.float32)
    macula = np.exp(-0.5 * (retina.distance((0.0, 0.0)) / 0.75) ** 2).astype(np.float32)
    retina.absorb(0.42 * macula, (0.75, 0.45, 0.35))
    fovea = np.exp(-0.5 * (retina.distance((0.0, 0.0)) / 0.22) ** 2).astype(np.float32)
    retina.absorb(0.35 * fovea, (0.7, 0.5, 0.5))
    glow = np.exp(-0.5 * (retina.distance(retina.disc) / 1.6) ** 2).astype(np.float32)
    retina.rgb *= 1 + 0.22 * glow[..., None]


def _soften(image: Image | Pixels, sigma: float) -> Image:
    """Gaussian blur; 8-bit drawings become 0..1."""
    scaled = image.astype(np.float32) / 255 if image.dtype == np.uint8 else image
    return np.asarray(cv2.GaussianBlur(scaled, (0, 0), sigma), np.float32)


def _edge(distance: Image, softness: float) -> Image:
    """1 where the distance to an outline is negative, 0 outside, with a soft step between."""
    out: Image = (1 / (1 + np.exp(np.clip(distance / softness, -30, 30)))).astype(np.float32)
    return out


def _disc(retina: _Retina) -> None:
    radius = 0.5
    distance = retina.distance(retina.disc, 1.08)
    retina.blend(0.62 * _edge(distance - radius, 0.025), (0.98, 0.72, 0.40))
    cup_radius = radius * retina.rng.uniform(0.3, 0.5)
    cup = retina.distance((retina.disc[0] - 0.04, retina.disc[1])) - cup_radius
    retina.blend(0.6 * _edge(cup, 0.05), (1.0, 0.88, 0.62))


def _vessels(retina: _Retina) -> None:
    """Four arcades, each an artery and a vein, two nasal pairs, and their branches."""
    arteries = np.zeros((retina.size, retina.size), np.uint8)
    veins = np.zeros_like(arteries)
    for canvas, width, shift in ((veins, 0.115, 0.10), (arteries, 0.078, -0.10)):
        for up in (-1.0, 1.0):
            _grow(retina, canvas, np.array(retina.disc), np.deg2rad(up * (92 + 60 * shift)), up * 0.46, width, 6.6, 0)
            _grow(
                retina,
                canvas,
                np.array(retina.disc),
                np.deg2rad(up * (46 + 70 * shift)),
                up * 0.05,
                0.6 * width,
                3.0,
                1,
            )
            _grow(
                retina,
                canvas,
                np.array(retina.disc),
                np.deg2rad(up * (168 + 20 * shift)),
                up * 0.16,
                0.32 * width,
                1.7,
                2,
            )
    for canvas, keep in ((veins, (0.66, 0.42, 0.46)), (arteries, (0.80, 0.54, 0.55))):
        mask = _soften(canvas, 0.012 * retina.unit + 0.3)
        retina.absorb(mask, keep)
    core = np.asarray(cv2.erode(arteries, np.ones((3, 3)), iterations=max(1, round(0.022 * retina.unit))), np.uint8)
    reflex = _soften(core, 0.012 * retina.unit + 0.3)
    retina.blend(0.22 * reflex, (0.95, 0.55, 0.35))


def _grow(
    retina: _Retina,
    canvas: Pixels,
    start: npt.NDArray[np.float64],
    heading: float,
    curve: float,
    width: float,
    length: float,
    depth: int,
) -> None:
    """A vessel from `start` (disc diameters) that bends by `curve` radians a diameter, thins and branches."""
    rng, step = retina.rng, 0.06
    points, position, travelled, next_branch, side = [start.copy()], start.copy(), 0.0, rng.uniform(0.5, 1.0), 1.0
    while travelled < length and np.hypot(*position) < 4.6:
        # towards the end of its arc an arcade runs straighter, so that it does not close round the macula
        bend = curve * (1.0 if travelled < 3.6 else 0.3)
        heading += step * (bend + 0.9 * rng.standard_normal())
        position = position + step * np.array([np.cos(heading), np.sin(heading)])
        travelled += step
        points.append(position.copy())
        thickness = max(0.018, width * (1 - 0.72 * travelled / length)) * retina.unit
        cv2.polylines(
            canvas, [retina.pixel(np.array(points[-2:]))], False, 255, max(1, round(thickness)), cv2.LINE_AA, 4
        )
        if depth < 3 and travelled > next_branch:
            angle = side * rng.uniform(0.45, 0.85)
            reach = (length - travelled) * rng.uniform(0.35, 0.6) + 0.4
            # branches stop short of the fovea, which has no vessels
            reach = min(reach, max(0.3, float(np.hypot(*position)) - 0.45))
            _grow(retina, canvas, position, heading + angle, -0.3 * angle, 0.55 * width, reach, depth + 1)
            next_branch, side = travelled + rng.uniform(0.45, 1.0), -side


def _place(retina: _Retina, low: float, high: float) -> tuple[float, float]:
    """A point between `low` and `high` disc diameters from the fovea, off the disc."""
    while True:
        radius, angle = retina.rng.uniform(low, high), retina.rng.uniform(0, 2 * np.pi)
        x, y = float(radius * np.cos(angle)), float(radius * np.sin(angle))
        if np.hypot(x - retina.disc[0], y - retina.disc[1]) > 0.75:
            return x, y


def _blobs(retina: _Retina, spots: list[tuple[float, float, float]], ragged: float = 0.0) -> Image:
    """Filled spots (x, y, radius), soft at the edge; `ragged` makes their outline uneven."""
    canvas = np.zeros((retina.size, retina.size), np.uint8)
    for x, y, radius in spots:
        angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
        wave = 1 + ragged * retina.rng.standard_normal(18)
        outline = np.stack([x + radius * wave * np.cos(angle), y + radius * wave * np.sin(angle)], axis=1)
        cv2.fillPoly(canvas, [retina.pixel(outline)], 255, cv2.LINE_AA, 4)
    return _soften(canvas, 0.012 * retina.unit + 0.25)


def _lesions(retina: _Retina, lesions: Lesions) -> None:
    rng = retina.rng
    dots = [(*_place(retina, 0.4, 3.4), rng.uniform(0.022, 0.035)) for _ in range(lesions.microaneurysms)]
    retina.absorb(0.85 * _blobs(retina, dots), (0.66, 0.30, 0.40))
    blots = [(*_place(retina, 0.6, 3.7), rng.uniform(0.04, 0.12)) for _ in range(lesions.haemorrhages)]
    retina.absorb(0.9 * _blobs(retina, blots, 0.18), (0.58, 0.24, 0.35))
    rings = [_place(retina, 0.7, 1.9) for _ in range(1 + lesions.exudates // 14)]
    hard = []
    for number in range(lesions.exudates):  # they lie in rings round leaking vessels
        x, y = rings[number % len(rings)]
        angle, reach = rng.uniform(0, 2 * np.pi), rng.normal(0.36, 0.09)
        hard.append((x + reach * np.cos(angle), y + reach * np.sin(angle), rng.uniform(0.02, 0.055)))
    retina.blend(0.85 * _blobs(retina, hard, 0.15), (0.98, 0.86, 0.48))
    wool = [(*_place(retina, 1.4, 3.4), rng.uniform(0.10, 0.17)) for _ in range(lesions.cotton_wool)]
    soft = _soften(_blobs(retina, wool, 0.2), 0.05 * retina.unit)
    retina.blend(0.65 * soft, (0.93, 0.82, 0.66))
    for number in range(lesions.neovascular):
        _tuft(retina, retina.disc if number == 0 else _place(retina, 2.0, 3.2))
    for _ in range(lesions.preretinal):
        x, y = _place(retina, 1.5, 2.6)
        boat = _blobs(retina, [(x, y, 0.6)], 0.04) * (retina.y > y)  # blood settles: level above, round below
        retina.absorb(0.93 * _soften(boat, 0.02 * retina.unit), (0.52, 0.14, 0.22))


def _tuft(retina: _Retina, centre: tuple[float, float]) -> None:
    """A lace of new vessels: short, tangled, bright red."""
    canvas = np.zeros((retina.size, retina.size), np.uint8)
    for _ in range(14):
        heading, points = retina.rng.uniform(0, 2 * np.pi), [np.array(centre)]
        for _ in range(22):
            heading += 0.9 * retina.rng.standard_normal()
            points.append(points[-1] + 0.035 * np.array([np.cos(heading), np.sin(heading)]))
        cv2.polylines(
            canvas, [retina.pixel(np.array(points))], False, 255, max(1, round(0.016 * retina.unit)), cv2.LINE_AA, 4
        )
    mask = _soften(canvas, 0.008 * retina.unit + 0.2)
    retina.absorb(0.8 * mask, (0.85, 0.38, 0.42))


def _photograph(retina: _Retina, flaws: Flaws) -> Pixels:
    """What the camera makes of it: uneven light, haze, blur, sensor noise, and the round mask of the field."""
    radius = np.hypot(retina.x, retina.y) / (FIELD_IN_DISCS / 2)
    offset = 0.15 * retina.rng.standard_normal(2)
    light = 1.04 - 0.34 * ((retina.x / 4.1 - offset[0]) ** 2 + (retina.y / 4.1 - offset[1]) ** 2)
    rgb = retina.rgb * light[..., None].astype(np.float32)
    rgb += flaws.haze * 0.75 * (np.array([0.80, 0.55, 0.38], np.float32) - rgb)
    rgb *= 1 - 0.9 * flaws.darkness
    sigma = retina.size / 1000 * max(flaws.blur, 0.45)
    rgb = _soften(rgb, sigma)
    rgb += 0.007 * retina.rng.standard_normal(rgb.shape).astype(np.float32)
    rgb = rgb * _edge(radius - 0.965, 0.004)[..., None] + 0.008
    bgr = np.clip(rgb[..., ::-1] * 255, 0, 255)
    return np.ascontiguousarray(bgr.astype(np.uint8))
