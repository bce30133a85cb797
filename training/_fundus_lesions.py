"""Where IDRiD's photographs have lesions: the boxes that were drawn around them (CODRAS), in the model's square."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from aidpost.kernels.fundus import Circle, decode

RIM = 0.975  # part of the field's radius that the model's input shows
Box = tuple[str, tuple[float, ...]]
"""Kind and x0, y0, x1, y1 in pixels of the photograph."""


def read_boxes(folder: Path) -> dict[str, list[Box]]:
    """The boxes of each photograph that has any, the optic disc's too."""
    boxes: dict[str, list[Box]] = {}
    with (folder / "idrid_boxes.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            corners = tuple(float(row[k]) for k in ("x0", "y0", "x1", "y1"))
            boxes.setdefault(row["file"], []).append((row["kind"], corners))
    return boxes


def inside(boxes: Sequence[Box], kind: str, scale: int, circle: Circle, size: int) -> np.ndarray:
    """Which pixels of the model's square lie in a box of `kind`: "optic_disc", or "lesion" for every other.

    `scale` and `circle` as decoding gave them: by how much the photograph was reduced, and its field of view then.
    """
    side = 2 * RIM * circle.r
    mask = np.zeros((size, size), bool)
    for name, (x0, y0, x1, y1) in boxes:
        if (name == "optic_disc") != (kind == "optic_disc"):
            continue
        left, right = ((v / scale - circle.cx + side / 2) / side * size for v in (x0, x1))
        top, bottom = ((v / scale - circle.cy + side / 2) / side * size for v in (y0, y1))
        mask[max(int(top), 0) : max(int(np.ceil(bottom)), 0), max(int(left), 0) : max(int(np.ceil(right)), 0)] = True
    return mask


def lesion_masks(folder: Path, files: Sequence[str], size: int) -> Mapping[str, np.ndarray]:
    """size x size uint8 (255 in a lesion's box) of each of `files` that was boxed; all 0 where no lesion was found."""
    boxes, masks = read_boxes(folder), {}
    for file in files:
        if file not in boxes:
            continue
        photo = decode((folder / file).read_bytes(), size)
        if photo.field is not None:
            masks[file] = inside(boxes[file], "lesion", photo.scale, photo.field, size).astype(np.uint8) * 255
    return masks
