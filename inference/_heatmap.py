"""Where the grading model saw what it saw: its class activation drawn over the photograph."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from aidpost.kernels.fundus import Circle, DecodedPhoto

RIM = 0.975
"""Part of the field's radius that the model's input shows (`kernels.fundus.crop`)."""

_REFERABLE = 2  # ICDR grade
_SIDE = 768  # pixels of the picture's longer side: enough to look at, small enough to send
_NOTHING, _ALL = -3.0, 3.0
"""Logits of a cell without colour and in full colour: chances of 5 % and 95 %. They are the same in every photograph,
so that a retina where the model found nothing looks like it."""

_COLOUR = np.array((0, 225, 255), np.float32)
"""Cyan: nothing in a retina has it, and readers who see red and green alike see it, too."""
_OPACITY = 0.6


def draw_heatmap(photo: DecodedPhoto, field: Circle, activation: npt.NDArray[np.float32]) -> bytes:
    """The photograph with the evidence for retinopathy over it, as a PNG.

    `activation` (rows, columns, thresholds) are the logits of each cell of the square around the field of view that the
    model saw, for grade >= 1, 2, 3, 4; what is drawn is the one of grade >= 2.
    """
    rgb = photo.rgb
    scale = min(1.0, _SIDE / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    strength = _placed(evidence(activation), field, scale, size)
    weight = (_OPACITY * strength)[..., np.newaxis]
    blended = (small * (1.0 - weight) + _COLOUR * weight).astype(np.uint8)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(blended, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


def evidence(activation: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(rows, columns, thresholds) logits -> (rows, columns) in 0..1: each cell's say for referable disease."""
    logit = activation[..., min(_REFERABLE - 1, activation.shape[-1] - 1)]
    strength: npt.NDArray[np.float32] = np.clip((logit - _NOTHING) / (_ALL - _NOTHING), 0.0, 1.0).astype(np.float32)
    return strength


def _placed(
    cells: npt.NDArray[np.float32], field: Circle, scale: float, size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """The cells over their square of the small photograph, zero outside the field of view."""
    side = 2 * RIM * field.r * scale
    rows, columns = cells.shape
    # cell centres to pixel centres, as the model's own strides lay them
    matrix = np.array(
        [
            [side / columns, 0.0, field.cx * scale - side / 2 + side / columns / 2 - 0.5],
            [0.0, side / rows, field.cy * scale - side / 2 + side / rows / 2 - 0.5],
        ]
    )
    placed = cv2.warpAffine(cells, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    y, x = np.ogrid[: size[1], : size[0]]
    inside = (x + 0.5 - field.cx * scale) ** 2 + (y + 0.5 - field.cy * scale) ** 2 <= (RIM * field.r * scale) ** 2
    return np.where(inside, placed, np.float32(0.0)).astype(np.float32)
