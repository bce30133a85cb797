"""A hundred numbers about a whole recording that the rhythm network gets beside the signal.

They are what a reader measures: how fast, how irregular, how premature, how alike the beats are, what the average beat
looks like before and after its QRS, and what is left when it is taken away. All are within ±4, so that the signal's
int8 scale serves them.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

Signal = npt.NDArray[np.float64]

FEATURES = 100
_FS_HZ = 100.0
_BEFORE, _AFTER = 40, 53  # samples of the average beat around the R-peak: 0.40 s and 0.53 s
_BANDS_HZ = (0.7, 2.0, 4.0, 6.0, 8.0, 11.0, 16.0, 25.0, 40.0)
_EMPTY = 1e-6


def rhythm_features(wave: Signal, beats: Signal) -> npt.NDArray[np.float32]:
    """(100,) float32 from a clean wave at 100 Hz, of unit QRS, and its beats in samples; 0 where too few beats are."""
    groups = [_rr_features(np.diff(beats) / _FS_HZ), *_beat_features(wave, beats), _wave_features(wave)]
    values = np.concatenate(groups)
    out = np.zeros(FEATURES, np.float32)
    out[: values.size] = np.clip(np.nan_to_num(values), -4.0, 4.0)
    return out


def _rr_features(rr: Signal) -> Signal:
    """(31,) rate, variability, irregularity and prematurity of RR intervals in seconds."""
    out = np.zeros(31)
    if rr.size < 4:
        return out
    middle = float(np.median(rr))
    rr = rr / middle
    step = np.diff(rr)
    size, turn = np.abs(step), np.diff(step)
    eight = np.convolve(rr, np.ones(min(8, rr.size)) / min(8, rr.size), mode="valid")
    early = rr[1:-1] < 0.85 * np.minimum(rr[:-2], rr[2:])
    paused = early & (rr[2:] > 1.08)
    late = rr > 1.35
    alike, both = _recurrence(rr)
    out[0] = 2.0 * np.log2(middle / 0.8)
    out[1:3] = 2.0 * np.log2(middle * np.array([eight.min(), eight.max()]) / 0.8)
    out[3:8] = _log(
        np.array([rr.std(), np.sqrt(np.mean(step**2)), np.median(size), np.sqrt(np.mean(turn**2)), size.mean()])
    )
    out[8:13] = 4.0 * np.array([(size > limit).mean() for limit in (0.03, 0.06, 0.1, 0.2, 0.4)])
    out[13:19] = 4.0 * np.log2(np.maximum(np.percentile(rr, (0, 5, 20, 80, 95, 100)), 0.1))
    out[19:23] = np.log2(1.0 + np.array([early.sum(), paused.sum(), late.sum(), (rr < 0.8).sum()])) - 1.0
    out[23:26] = 6.0 * np.array([early.mean(), paused.mean(), late.mean()])
    out[26:28] = 4.0 * np.array([_correlation(step[:-1], step[1:]), _correlation(rr[:-1], rr[1:])])
    out[28:30] = 4.0 * alike, _log(both / max(alike, _EMPTY)) + 2.0
    out[30] = 3.0 * np.mean(np.sign(step[1:]) != np.sign(step[:-1]))
    return out


def _recurrence(rr: Signal) -> tuple[float, float]:
    """Share of pairs of intervals alike to a tenth, and of those followed by such: sample entropy's two counts."""
    close = np.abs(rr[:, np.newaxis] - rr) < 0.1
    np.fill_diagonal(close, False)
    pairs = rr.size * (rr.size - 1)
    return float(close.sum() / pairs), float((close[:-1, :-1] & close[1:, 1:]).sum() / pairs) + _EMPTY


def _beat_features(wave: Signal, beats: Signal) -> tuple[Signal, Signal, Signal]:
    """(31,) the average beat, companded; (18,) how beats differ from it; (10,) the spectrum that is left without it."""
    centres = np.round(beats).astype(int)
    centres = centres[(centres >= _BEFORE) & (centres < wave.size - _AFTER)]
    if centres.size < 3:
        return np.zeros(31), np.zeros(18), np.zeros(10)
    pieces = wave[centres[:, np.newaxis] + np.arange(-_BEFORE, _AFTER)]
    average = np.median(pieces, axis=0)
    rest = pieces - average
    shape = np.arcsinh(12.0 * average.reshape(31, 3).mean(axis=1))
    spread = np.median(np.abs(rest), axis=0)
    core = slice(_BEFORE - 15, _BEFORE + 16)
    likeness = np.array([_correlation(piece[core], average[core]) for piece in pieces])
    height = np.ptp(pieces[:, _BEFORE - 10 : _BEFORE + 11], axis=1)
    p_wave, before = average[_BEFORE - 28 : _BEFORE - 7], spread[_BEFORE - 28 : _BEFORE - 7]
    differs = np.concatenate(
        (
            _log(spread[:90].reshape(9, 10).mean(axis=1)) + 3.0,
            4.0 * (1.0 - np.percentile(likeness, (0, 10, 50))),
            4.0 * np.array([(likeness < limit).mean() for limit in (0.5, 0.8, 0.95)]),
            (_log(p_wave.std() / max(before.mean(), _EMPTY)), _log(height.std()) + 2.0, np.log2(height.max() + _EMPTY)),
        )
    )
    return shape, differs, _residual_spectrum(wave, centres, average)


def _residual_spectrum(wave: Signal, centres: npt.NDArray[np.intp], average: Signal) -> Signal:
    """(10,) log amplitudes of what is left, by band, and the share of 4-8 Hz, where fibrillation is."""
    left = wave.copy()
    near = np.abs(np.arange(-_BEFORE, _AFTER)) <= 12
    for centre in centres:
        left[centre - _BEFORE : centre + _AFTER][near] = 0.0
        left[centre - _BEFORE : centre + _AFTER][~near] -= average[~near]
    power = np.abs(np.fft.rfft(left * np.hanning(left.size))) ** 2 / left.size**2
    hertz = np.fft.rfftfreq(left.size, 1.0 / _FS_HZ)
    edges = np.searchsorted(hertz, _BANDS_HZ)
    bands = np.array([power[low:high].sum() for low, high in pairwise(edges)])
    share = bands[2:4].sum() / max(bands.sum(), _EMPTY)
    fine = power[edges[2] : edges[4]]
    return np.concatenate(
        (_log(np.sqrt(bands)) + 4.0, (4.0 * share, _log(fine.max() / max(fine.mean(), _EMPTY)) - 2.0))
    )


def _wave_features(wave: Signal) -> Signal:
    """(10,) amplitudes, roughness and length of the whole signal."""
    levels = np.arcsinh(12.0 * np.percentile(wave, (1, 5, 25, 75, 95, 99)))
    rough = _log(np.array([np.abs(np.diff(wave)).mean(), np.abs(np.diff(wave, 2)).mean(), wave.std()])) + 3.0
    return np.concatenate((levels, rough, (np.log2(wave.size / _FS_HZ / 30.0),)))


def _log(x: Signal | float) -> Signal:
    return np.log2(np.asarray(x, np.float64) + 1e-3) / 2.0 + 1.0


def _correlation(a: Signal, b: Signal) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / max(float(np.sqrt((a @ a) * (b @ b))), _EMPTY))
