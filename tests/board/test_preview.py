"""What the hub shows of a photograph before it has it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from aidpost.board._preview import LONGEST_PX, preview
from aidpost.sync.bodies import MAX_PREVIEW


def photograph(width: int, height: int, *, noise: float, ending: str = ".jpg") -> bytes:
    """A bright disc on black, with so much noise."""
    picture = np.zeros((height, width, 3), np.float32)
    cv2.circle(picture, (width // 2, height // 2), max(0, height // 2 - 1), (40, 90, 190), -1)
    picture += np.random.default_rng(1).normal(0, noise, picture.shape)
    done, packed = cv2.imencode(ending, np.clip(picture, 0, 255).astype(np.uint8))
    assert done
    return packed.tobytes()


@pytest.mark.parametrize("size", [(4288, 2848), (640, 480), (200, 2000), (64, 64), (1, 1)])
@pytest.mark.parametrize("noise", [0, 60])
def test_preview_is_small_and_shows_the_photograph(size: tuple[int, int], noise: float) -> None:
    made = preview(photograph(*size, noise=noise))
    assert 0 < len(made) <= MAX_PREVIEW
    picture = cv2.imdecode(np.frombuffer(made, np.uint8), cv2.IMREAD_COLOR)
    assert max(picture.shape[:2]) == min(LONGEST_PX, max(size))
    if size == (4288, 2848):
        assert picture[picture.shape[0] // 2, picture.shape[1] // 2].argmax() == 2, "the disc is red"
        assert picture[2, 2].max() < 110


def test_png_and_what_is_no_picture() -> None:
    assert preview(photograph(500, 400, noise=5, ending=".png")).startswith(b"\xff\xd8")
    assert preview(b"") == b""
    assert preview(b"no picture") == b""
    assert preview(photograph(4288, 2848, noise=0)[:300]) == b""
