"""The beat model on a lead and its R-peaks: a class of AAMI EC57 for each beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from aidpost.inference._beats_input import BEATS_INPUT_VERSION, FEWEST_BEATS, beats_input
from aidpost.inference._card import card_error
from aidpost.inference.model import SHIPPED, Model
from aidpost.kernels.resample import resample

__all__ = ["CLASSES", "agreed", "beat_probabilities", "classes_of", "classify", "doubting_early_beats", "joined"]

CLASSES = ("N", "S", "V", "F")
Signal = npt.NDArray[np.float64]

UNCLASSIFIED = "Q"
"""AAMI EC57: the honest class of a beat that no model could look at."""

_RATES_HZ = (100.0, 1000.0)
_COMMON_HZ = 500.0
_V = CLASSES.index("V")
_BLOCK, _VOICES, _SAME, _OTHERS = 600, 30, 0.95, 0.7
_SHAPE = slice(38, 85)  # of the WINDOW: from 0.1 s before the QRS to 0.28 s after
_SECOND = 0.4
_DOUBT = 50.0


def beat_probabilities(
    model: Model, samples_mv: Signal, fs_hz: float, peaks: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Calibrated probabilities of N, S, V, F, (beats, 4), of a finite lead in millivolts with its R-peaks.

    Raises ValueError where there are fewer than five beats, or the rate is under 100 Hz.
    """
    return model.probabilities(_logits(model, samples_mv, fs_hz, peaks))


def _logits(model: Model, samples_mv: Signal, fs_hz: float, peaks: npt.NDArray[np.int64]) -> Signal:
    version = model.card.input.preprocessing_version
    if str(version) != str(BEATS_INPUT_VERSION):
        raise card_error(SHIPPED / model.card.name, f"it wants input version {version}, not {BEATS_INPUT_VERSION}")
    if fs_hz > _RATES_HZ[1]:
        peaks = np.rint(peaks * (_COMMON_HZ / fs_hz)).astype(np.int64)
        samples_mv, fs_hz = resample(samples_mv, fs_hz, _COMMON_HZ), _COMMON_HZ
    beats = beats_input(samples_mv, fs_hz, peaks)
    return agreed(np.concatenate([model.logits(model.run(beat[np.newaxis])) for beat in beats]), beats)


def agreed(logits: npt.NDArray[Any], beats: npt.NDArray[np.float32]) -> Signal:
    """(n, 4) logits of the beats (n, ROWS, 3) of a lead, V's moved towards what the beats of the same shape say.

    A ventricular focus gives the same wave again and again: each beat's log-odds of V become 0.3 of its own and 0.7 of
    the mean over at most thirty beats of its block of six hundred whose QRS and T wave correlate with its own over
    0.95.
    """
    out = logits.astype(np.float64)
    for block in np.array_split(np.arange(len(out)), -(-len(out) // _BLOCK)):
        shape = np.sinh(beats[block, _SHAPE, 0].astype(np.float64))
        shape -= shape.mean(axis=1, keepdims=True)
        shape /= np.maximum(np.linalg.norm(shape, axis=1, keepdims=True), 1e-6)
        alike = shape @ shape.T
        count = min(_VOICES, block.size)
        nearest = np.argpartition(-alike, count - 1, axis=1)[:, :count]
        weight = (np.take_along_axis(alike, nearest, axis=1) > _SAME).astype(np.float64)
        rest = np.delete(out[block], _V, axis=1)
        odds = out[block, _V] - np.logaddexp.reduce(rest, axis=1)
        mean = (weight * odds[nearest]).sum(axis=1) / np.maximum(weight.sum(axis=1), 1.0)
        out[block, _V] += np.where(weight.sum(axis=1) >= 2.0, _OTHERS * (mean - odds), 0.0)
    return out


def joined(logits: Signal, second: Signal, heard: npt.NDArray[np.bool_]) -> Signal:
    """The logits (n, 4) of the lead that is read with those of a second lead, for the beats (n,) where it is usable."""
    return np.asarray(np.where(heard[:, np.newaxis], (1.0 - _SECOND) * logits + _SECOND * second, logits))


def classes_of(probability: npt.NDArray[np.float64], thresholds: Mapping[str, float]) -> npt.NDArray[np.int64]:
    """(n,) indices into CLASSES: of those of S, V, F that reach their threshold the likeliest; N where none does."""
    limits = np.array([thresholds[name] for name in CLASSES[1:]])
    reached = np.where(probability[:, 1:] >= limits, probability[:, 1:], 0.0)
    return np.where(reached.max(axis=1) > 0.0, reached.argmax(axis=1) + 1, 0)


def doubting_early_beats(
    probability: npt.NDArray[np.float64], fibrillating: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """The probabilities with S's divided by fifty where the rhythm model reads atrial fibrillation: no beat is early
    there, but of a rhythm that is called fibrillation falsely the clearly early beats remain."""
    out: npt.NDArray[np.float64] = probability.copy()
    out[fibrillating, CLASSES.index("S")] /= _DOUBT
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def classify(
    model: Model | None,
    samples_mv: Signal,
    fs_hz: float,
    peaks: npt.NDArray[np.int64],
    fibrillating: npt.NDArray[np.bool_] | None = None,
    second: tuple[Signal, npt.NDArray[np.bool_]] | None = None,
) -> tuple[str, ...]:
    """The class of each beat; all are Q without a model, with fewer than five beats, or under 100 Hz.

    `fibrillating` (beats,) is where the rhythm model reads atrial fibrillation: only a beat that is
    clearly early is S there. `second` is another
    lead of the same moments, finite, and where (n,) it is usable: it has a say on the beats there.
    """
    if model is None or peaks.size < FEWEST_BEATS or fs_hz < _RATES_HZ[0]:
        return (UNCLASSIFIED,) * peaks.size
    logits = _logits(model, samples_mv, fs_hz, peaks)
    if second is not None:
        logits = joined(logits, _logits(model, second[0], fs_hz, peaks), second[1][peaks])
    probability = model.probabilities(logits)
    if fibrillating is not None:
        probability = doubting_early_beats(probability, fibrillating)
    return tuple(CLASSES[k] for k in classes_of(probability, model.card.thresholds))
