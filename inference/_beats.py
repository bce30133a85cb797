"""The beat model on a lead and its R-peaks: a class of AAMI EC57 for each beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from aidpost.inference._beats_input import BEATS_INPUT_VERSION, FEWEST_BEATS, beats_input
from aidpost.inference._card import card_error
from aidpost.inference.model import SHIPPED, Model
from aidpost.kernels.resample import resample

__all__ = ["CLASSES", "beat_probabilities", "classes_of", "classify", "without_early_beats"]

CLASSES = ("N", "S", "V", "F")
UNCLASSIFIED = "Q"
"""AAMI EC57: the honest class of a beat that no model could look at."""

_RATES_HZ = (100.0, 1000.0)
_COMMON_HZ = 500.0


def beat_probabilities(
    model: Model, samples_mv: npt.NDArray[np.float64], fs_hz: float, peaks: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Calibrated probabilities of N, S, V, F, (beats, 4), of a finite lead in millivolts with its R-peaks.

    Raises ValueError where there are fewer than five beats, or the rate is under 100 Hz.
    """
    version = model.card.input.preprocessing_version
    if str(version) != str(BEATS_INPUT_VERSION):
        raise card_error(SHIPPED / model.card.name, f"it wants input version {version}, not {BEATS_INPUT_VERSION}")
    if fs_hz > _RATES_HZ[1]:
        peaks = np.rint(peaks * (_COMMON_HZ / fs_hz)).astype(np.int64)
        samples_mv, fs_hz = resample(samples_mv, fs_hz, _COMMON_HZ), _COMMON_HZ
    beats = beats_input(samples_mv, fs_hz, peaks)
    logits = np.concatenate([model.logits(model.run(beat[np.newaxis])) for beat in beats])
    return model.probabilities(logits)


def classes_of(probability: npt.NDArray[np.float64], thresholds: Mapping[str, float]) -> npt.NDArray[np.int64]:
    """(n,) indices into CLASSES: of those of S, V, F that reach their threshold the likeliest; N where none does."""
    limits = np.array([thresholds[name] for name in CLASSES[1:]])
    reached = np.where(probability[:, 1:] >= limits, probability[:, 1:], 0.0)
    return np.where(reached.max(axis=1) > 0.0, reached.argmax(axis=1) + 1, 0)


def without_early_beats(
    probability: npt.NDArray[np.float64], fibrillating: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The probabilities with S's set to 0 where the atria fibrillate: no beat is early there."""
    out: npt.NDArray[np.float64] = probability.copy()
    out[fibrillating, CLASSES.index("S")] = 0.0
    return out


def classify(
    model: Model | None,
    samples_mv: npt.NDArray[np.float64],
    fs_hz: float,
    peaks: npt.NDArray[np.int64],
    fibrillating: npt.NDArray[np.bool_] | None = None,
) -> tuple[str, ...]:
    """The class of each beat; all are Q without a model, with fewer than five beats, or under 100 Hz.

    `fibrillating` (beats,) is where the rhythm model reads atrial fibrillation: no beat there is S.
    """
    if model is None or peaks.size < FEWEST_BEATS or fs_hz < _RATES_HZ[0]:
        return (UNCLASSIFIED,) * peaks.size
    probability = beat_probabilities(model, samples_mv, fs_hz, peaks)
    if fibrillating is not None:
        probability = without_early_beats(probability, fibrillating)
    return tuple(CLASSES[k] for k in classes_of(probability, model.card.thresholds))
