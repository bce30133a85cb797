"""Why a photograph cannot be graded, in terms that a health worker can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aidpost.records import Quality

if TYPE_CHECKING:
    from aidpost.inference.model import Model
    from aidpost.kernels.fundus import DecodedPhoto

ADVICE = {
    "not_a_retina": "no retina is seen",
    "dark": "too dark: raise the flash, ask for a wide pupil",
    "overexposed": "too bright: lower the flash",
    "blur": "blurred: focus again, ask the patient to look still",
    "off_centre": "off centre: part of the retina is cut off",
    "artefact": "spots or haze: clean the lens, wait for the blink",
}
"""Reason -> what it means to the worker."""

REJECT, GOOD = "reject", "good"

_PRESENT = 0.5
_BLACK = 16.0  # mean grey level under which nothing at all was lit


def judge_photo(
    model: Model, probability: npt.NDArray[np.float64], reasons: Mapping[str, float], photo: DecodedPhoto
) -> Quality:
    """The quality of a photograph from the model's probabilities (labels,) and its reasons.

    Without a field of view it is rejected: not a retina, or nothing was lit. Otherwise the model decides, by the card's
    threshold `reject` where it has one; the reasons, likeliest first, are those that are more likely than not, and for
    a rejected photograph at least the likeliest.
    """
    labels = model.card.output.labels
    named = {name: float(np.clip(p, 0.0, 1.0)) for name, p in zip(labels, probability, strict=True)}
    label = max(named, key=named.__getitem__)
    threshold = model.card.thresholds.get(REJECT)
    if threshold is not None:
        label = REJECT if named[REJECT] >= threshold else max({*named} - {REJECT}, key=named.__getitem__)
    order = sorted(reasons, key=reasons.__getitem__, reverse=True)
    why = [name for name in order if reasons[name] > _PRESENT]
    if photo.field is None:
        label, why = REJECT, ["dark" if photo.rgb.mean() < _BLACK else "not_a_retina"]
    elif label == GOOD:
        why = []
    elif label == REJECT:
        why = why or order[:1]
    return Quality(
        usable=label != REJECT, score=1.0 - named[REJECT], label=label, probability=named, reasons=tuple(why)
    )
