"""Boxes around lesions: where they are in the model's square, and that they follow every change of a photograph."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "training"))

import _fundus_lesions as lesions  # noqa: E402
from _fundus_augment import augment_normalised, place  # noqa: E402

from aidpost.kernels.fundus import Circle  # noqa: E402

CIRCLE = Circle(320.0, 320.0, 320.0, 0.0, 0.0, 640.0, 640.0)


def test_a_box_covers_the_same_part_of_the_field_in_the_models_square() -> None:
    mask = lesions.inside([("haemorrhage", (320.0, 320.0, 352.0, 384.0))], "lesion", 1, CIRCLE, 320)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    # the square's side shows 2 * 0.975 radii: 624 of the 640 pixels, in 320
    assert (columns[0], rows[0]) == (160, 160)
    assert columns[-1] + 1 == pytest.approx(160 + 32 * 320 / 624, abs=1)
    assert rows[-1] + 1 == pytest.approx(160 + 64 * 320 / 624, abs=1)


def test_the_optic_disc_is_no_lesion() -> None:
    boxes = [("optic_disc", (100.0, 100.0, 200.0, 200.0)), ("hard_exudates", (300.0, 300.0, 340.0, 340.0))]
    disc, lesion = (lesions.inside(boxes, kind, 1, CIRCLE, 320) for kind in ("optic_disc", "lesion"))
    assert disc.any()
    assert lesion.any()
    assert not (disc & lesion).any()


def test_a_photograph_reduced_while_decoding_has_its_boxes_at_the_same_place() -> None:
    box = [("haemorrhage", (100.0, 150.0, 180.0, 260.0))]
    half = Circle(160.0, 160.0, 160.0, 0.0, 0.0, 320.0, 320.0)
    assert np.array_equal(lesions.inside(box, "lesion", 1, CIRCLE, 320), lesions.inside(box, "lesion", 2, half, 320))


@pytest.mark.parametrize("seed", range(12))
def test_a_mask_goes_where_its_lesion_went(seed: int) -> None:
    picture = np.full((320, 320, 3), 128, np.uint8)
    picture[140:190, 90:150] = 250
    mask = np.zeros((320, 320), np.uint8)
    mask[140:190, 90:150] = 255
    changed, matrix = augment_normalised(picture, np.random.default_rng(seed), 256, 0.0)
    moved = place(mask, matrix, 256, 0) > 127
    contrast = np.abs(changed.astype(int) - 128).max(2)
    inner, outer = contrast[moved].mean(), contrast[~moved].mean()
    assert inner > 4 * outer
