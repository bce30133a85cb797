"""What the picture of the evidence shows, and what it does not."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from aidpost.inference._heatmap import draw_heatmap, evidence
from aidpost.kernels.fundus import DecodedPhoto, field_of_view


def photo() -> DecodedPhoto:
    y, x = np.mgrid[0:400, 0:400]
    rgb = np.where(np.hypot(x - 200, y - 200)[..., np.newaxis] < 180, (150, 90, 60), (0, 0, 0)).astype(np.uint8)
    return DecodedPhoto(rgb, 400, 400, 1, field_of_view(rgb))


def drawn(of: DecodedPhoto, activation: np.ndarray) -> np.ndarray:
    assert of.field is not None
    png = np.frombuffer(draw_heatmap(of, of.field, activation), np.uint8)
    return cv2.cvtColor(cv2.imdecode(png, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def cells(logit: float) -> np.ndarray:
    return np.full((20, 20, 4), logit, np.float32)


def test_a_retina_in_which_nothing_was_found_is_shown_as_it_is() -> None:
    of, faint = photo(), cells(-9.0)
    faint[3:9, 4:7] = -3.5  # uneven, and still nothing
    assert np.array_equal(drawn(of, faint), of.rgb)


def test_only_the_place_of_a_lesion_is_coloured() -> None:
    of, one = photo(), cells(-9.0)
    one[10, 14] = 4.0
    changed = np.abs(drawn(of, one).astype(int) - of.rgb).max(2) > 8
    y, x = np.argwhere(changed).mean(0)
    side = 2 * 0.975 * 180
    assert x == pytest.approx(200 - side / 2 + 14.5 / 20 * side, abs=3)
    assert y == pytest.approx(200 - side / 2 + 10.5 / 20 * side, abs=3)
    assert changed.mean() < 0.02


@given(arrays(np.float32, (5, 5, 4), elements=st.floats(-200, 200, width=32)))
def test_more_evidence_is_never_shown_weaker_whatever_else_is_in_the_photograph(activation: np.ndarray) -> None:
    strength = evidence(activation)
    assert strength.shape == (5, 5)
    assert 0.0 <= strength.min() <= strength.max() <= 1.0
    assert strength[0, 0] == evidence(activation[:1, :1])[0, 0]
    assert (evidence(activation + 1) >= strength).all()
