"""The rhythm model on a signal of any length and rate."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from aidpost.inference._card import card_error
from aidpost.inference._rhythm_input import (
    FS_HZ,
    MIN_DURATION_S,
    RHYTHM_INPUT_VERSION,
    WINDOW,
    rhythm_input,
    rhythm_windows,
)
from aidpost.inference.model import SHIPPED, Model
from aidpost.kernels.resample import resample

Signal = npt.NDArray[np.float64]

WHOLE_S = 65.0
"""Recordings up to this length go to the model whole, as it was trained; longer ones in windows of their own."""

_WINDOW_S = WINDOW / FS_HZ
_RATES_HZ = (100.0, 1000.0)
_COMMON_HZ = 500.0
_USABLE_SHARE = 0.7


def rhythm_probabilities(model: Model, samples_mv: Signal, fs_hz: float) -> Signal:
    """Calibrated probabilities of each 30 s window, (windows, labels), of a finite signal of 5 to 65 s, millivolts.

    Raises ValueError where the signal is too short, not finite, or slower than 100 Hz.
    """
    windows = model_windows(model, samples_mv, fs_hz)
    logits = np.concatenate([model.logits(model.run(window[np.newaxis])) for window in windows])
    return model.probabilities(logits)


def model_windows(model: Model, samples_mv: Signal, fs_hz: float) -> npt.NDArray[np.float32]:
    """The model's inputs for such a signal, (windows, T, channels). Raises as `rhythm_probabilities` does."""
    if str(model.card.input.preprocessing_version) != str(RHYTHM_INPUT_VERSION):
        version = model.card.input.preprocessing_version
        raise card_error(SHIPPED / model.card.name, f"it wants input version {version}, not {RHYTHM_INPUT_VERSION}")
    if fs_hz > _RATES_HZ[1]:
        samples_mv, fs_hz = resample(samples_mv, fs_hz, _COMMON_HZ), _COMMON_HZ
    return rhythm_windows(rhythm_input(samples_mv, fs_hz))


@dataclass(frozen=True)
class RhythmReading:
    """The model over a recording: overall probabilities (labels,), and for a long one each window's label and place.

    `spans_s` are the windows' (start, stop); windows with too little usable signal are not among them.
    """

    probability: Signal
    spans_s: tuple[tuple[float, float], ...]
    window_probability: Signal

    def within(self, label: int, seconds: Signal) -> npt.NDArray[np.bool_]:
        """Which moments (n,) lie in windows to which `label` gives a half or more."""
        out = np.zeros(seconds.size, dtype=bool)
        for (start, stop), probability in zip(self.spans_s, self.window_probability[:, label], strict=True):
            out |= (seconds >= start) & (seconds < stop) & bool(probability >= 0.5)
        return out

    def seconds_of(self, label: int, at_least: float) -> float:
        """Seconds of the windows in which `label` leads with at least that probability."""
        chosen = (self.window_probability.argmax(axis=1) == label) & (self.window_probability[:, label] >= at_least)
        return float(sum(stop - start for (start, stop), one in zip(self.spans_s, chosen, strict=True) if one))


def read_rhythm(model: Model, samples_mv: Signal, usable: npt.NDArray[np.bool_], fs_hz: float) -> RhythmReading | None:
    """Read the rhythm of a finite signal (n,) in millivolts, of which `usable` (n,) says where it means something.

    Up to 65 s the answer is the mean over the model's windows. A longer recording is read in windows of 30 s of its
    own, leaving out those with under 70 % usable signal (unless there is no better one), and the answer is their mean.
    None where it is under 5 s or slower than 100 Hz.
    """
    duration = samples_mv.size / fs_hz
    if duration < MIN_DURATION_S or fs_hz < _RATES_HZ[0]:
        return None
    if duration <= WHOLE_S:
        probability = rhythm_probabilities(model, samples_mv, fs_hz).mean(axis=0)
        return RhythmReading(probability, ((0.0, duration),), probability[np.newaxis])
    spans = _spans(duration)
    share = np.array([usable[round(a * fs_hz) : round(b * fs_hz)].mean() for a, b in spans])
    spans = [span for span, part in zip(spans, share, strict=True) if part >= min(_USABLE_SHARE, share.max())]
    pieces = [samples_mv[round(a * fs_hz) : round(b * fs_hz)] for a, b in spans]
    each = np.stack([rhythm_probabilities(model, piece, fs_hz).mean(axis=0) for piece in pieces])
    return RhythmReading(each.mean(axis=0), tuple(spans), each)


def _spans(duration_s: float) -> list[tuple[float, float]]:
    edges = np.linspace(0.0, duration_s, round(duration_s / _WINDOW_S) + 1)
    return [(float(a), float(b)) for a, b in pairwise(edges)]
