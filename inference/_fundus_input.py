"""What the fundus models see of a decoded photograph: the one definition that training and the device share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from aidpost.kernels.fundus import NORMALISATION_VERSION, Circle, ModelInput, normalise, plain

INPUT_VERSION = f"fundus-input/1+kernel/{NORMALISATION_VERSION}"
"""Changes whenever the same photograph would give a model other numbers; a card names the one it was trained with."""


def dr_input(rgb: NDArray[np.uint8], circle: Circle, size: int) -> ModelInput:
    """The grading model's input, int8 (size, size, 3): light, colour and contrast of the camera normalised away.

    `rgb` and `circle` as `kernels.fundus.decode` and `field_of_view` give them; real value = int8 / 128.
    """
    return normalise(rgb, circle, size)


def quality_input(rgb: NDArray[np.uint8], circle: Circle | None, size: int) -> ModelInput:
    """The quality model's input, int8 (size, size, 3): the photograph's own colours, black outside the field of view.

    Without a field of view (`circle` is None) the circle around the picture's middle is shown, as large as the
    picture's longer side;
    real value = (byte - 128) / 128.
    """
    return plain(rgb, whole_picture(rgb) if circle is None else circle, size)


def whole_picture(rgb: NDArray[np.uint8]) -> Circle:
    """The circle around the middle of a picture in which no field of view was found."""
    height, width = rgb.shape[:2]
    return Circle(width / 2, height / 2, max(height, width) / 2, 0.0, 0.0, float(width), float(height))
