"""The fundus models on a decoded photograph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aidpost.inference._card import card_error
from aidpost.inference._fundus_input import INPUT_VERSION, dr_input, quality_input, whole_picture
from aidpost.inference._photo_quality import judge_photo
from aidpost.inference.model import SHIPPED, Model
from aidpost.kernels.fundus import DecodedPhoto, ModelInput, decode
from aidpost.records import DrGrade, Quality

Probabilities = npt.NDArray[np.float64]
Map = npt.NDArray[np.float32]

_REFERABLE = 2  # ICDR grade from which a patient is referred
_CALLED = 0.5


@dataclass(frozen=True, eq=False)
class Grading:
    """The grading model's answer for one photograph; `activation` (rows, columns, 4), where the model has one, says how
    much each cell of the model's input speaks for grade >= 1, 2, 3, 4; `oedema` is the probability that signs of
    macular oedema are there, None where the model does not assess it."""

    dr: DrGrade
    activation: Map | None
    oedema: float | None


def model_side(model: Model) -> int:
    """Pixels a side that the model's input has."""
    return model.card.input.shape[1]


def photo_probabilities(model: Model, encoded: bytes) -> Probabilities:
    """Calibrated probabilities (labels,) of an encoded photograph, through all of the preprocessing.

    Raises ValueError where no field of view is found; UnreadableInputError as `kernels.fundus.decode` does.
    """
    photo = decode(encoded, model_side(model))
    if photo.field is None:
        raise ValueError("no field of view was found")
    given = model_input(model, photo)
    answer: Probabilities = model.probabilities(model.logits(model.run(given.pixels)))[0]
    return answer


def read_quality(model: Model, photo: DecodedPhoto) -> Quality:
    """Whether the photograph can be graded, and why not."""
    outputs = model.run(model_input(model, photo).pixels)
    probability: Probabilities = model.probabilities(model.logits(outputs))[0]
    return judge_photo(model, probability, model.reasons(outputs), photo)


def grade_photo(model: Model, photo: DecodedPhoto) -> Grading:
    """The ICDR grade of a photograph.

    The grade is the highest one whose P(grade or worse), cumulated, passes the card's threshold `grade_<k>` (0.5 if it
    names none), None where the model abstains; the photograph is referable where P(2 or worse) reaches `referable`.
    """
    outputs = model.run(model_input(model, photo).pixels)
    probability = np.clip(model.probabilities(model.logits(outputs))[0], 0.0, 1.0)
    worse = np.minimum(np.cumsum(probability[::-1])[::-1], 1.0)  # worse[k] = P(grade >= k)
    thresholds = model.card.thresholds
    referable, threshold = float(worse[_REFERABLE]), thresholds.get("referable", _CALLED)
    abstained = model.abstains(probability)
    grade = max([0, *(k for k in range(1, worse.size) if worse[k] > thresholds.get(f"grade_{k}", _CALLED))])
    dr = DrGrade(
        grade=None if abstained else grade,
        probability=tuple(float(p) for p in probability),
        referable_probability=referable,
        referable=referable >= threshold,
        threshold=threshold,
        abstained=abstained,
    )
    return Grading(dr, model.activation(outputs), model.oedema(outputs))


def model_input(model: Model, photo: DecodedPhoto) -> ModelInput:
    """What the model sees of a photograph. Raises ModelIntegrityError where it wants another preprocessing."""
    version = model.card.input.preprocessing_version
    if str(version) != INPUT_VERSION:
        raise card_error(SHIPPED / model.card.name, f"it wants input version {version}, not {INPUT_VERSION}")
    if model.card.task == "fundus-quality":
        return quality_input(photo.rgb, photo.field, model_side(model))
    # a forced photograph may have no field of view: all of it is shown
    return dr_input(photo.rgb, photo.field or whole_picture(photo.rgb), model_side(model))
