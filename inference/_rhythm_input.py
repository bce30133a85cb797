"""What the rhythm network sees of a single-lead ECG.

The network never sees millivolts. It sees five channels at 100 samples a second, all within ±4, so that one int8 scale
serves them:

    0  waveform     baseline and mains removed, QRS upright and of unit size, then asinh-companded: a P wave of a
                    twelfth of the QRS keeps some thirty int8 steps where a linear scale would leave it six
    1  rr           the RR interval that the sample lies in, 2·log2(RR / 0.8 s); 0 outside the first and last beat
    2  rr_change    that interval minus the one before, relative to the median RR, companded
    3  unlike       how unlike its neighbours the nearest beat is: 4·(1 - correlation with the median beat)
    4  inside       2 where there is signal, 0 where the window was padded

Below the signal stand twenty rows of five that are no signal: the hundred numbers of `_rhythm_features.py`, which are
about the whole recording and go with each of its windows.

The same function makes the training data, the validation data and the device's input. Any change to it needs a new
`RHYTHM_INPUT_VERSION` and a new model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from aidpost.inference._rhythm_beats import box_mean, find_beats
from aidpost.inference._rhythm_features import rhythm_features
from aidpost.kernels.resample import resample

RHYTHM_INPUT_VERSION = 2
FS_HZ = 100.0
WINDOW = 3000  # samples: 30 s
FEATURE_ROWS = 20
CHANNELS = ("waveform", "rr", "rr_change", "unlike", "inside")
LIMIT = 4.0
MIN_DURATION_S = 5.0

_COMPAND = 12.0
_BASELINE = 81  # samples: a box of 0.8 s, applied twice
_SMOOTH = np.array([-1.0, 4.0, 10.0, 4.0, -1.0]) / 16.0  # flat to 15 Hz, zero at 50 Hz, 0.18 at 40 Hz (60 Hz aliased)
_QRS_HALF = 10  # samples: 100 ms either side of the R-peak
_BEAT_HALF = 15
_SCALE_FLOOR_MV = 1e-3

Signal = npt.NDArray[np.float64]
Input = npt.NDArray[np.float32]


def rhythm_input(samples_mv: npt.ArrayLike, fs_hz: float) -> Input:
    """Turn one lead, millivolts at `fs_hz`, into the network's channels at 100 Hz.

    Returns (T + 20, 5) float32, T being the recording's length at 100 Hz; `rhythm_windows` cuts it for the network.
    Inverting the polarity or scaling the amplitude of the input changes nothing but rounding.

    Raises ValueError when the signal is not one finite lead of at least 5 s at 100-1000 Hz.
    """
    samples = np.asarray(samples_mv, dtype=np.float64)
    if samples.ndim != 1:
        raise ValueError(f"one lead expected, got an array of shape {samples.shape}")
    if not 100.0 <= fs_hz <= 1000.0:
        raise ValueError(f"sampling rate {fs_hz} Hz is outside 100-1000 Hz")
    if samples.size < MIN_DURATION_S * fs_hz:
        raise ValueError(f"{samples.size / fs_hz:.1f} s of signal, at least {MIN_DURATION_S:.0f} s needed")
    if not np.isfinite(samples).all():
        raise ValueError("the signal has samples that are not finite")
    samples = samples - np.median(samples)
    wave = _clean(np.asarray(resample(samples, fs_hz, FS_HZ), dtype=np.float64))
    beats = find_beats(wave)
    peaks = beats / FS_HZ
    wave = _upright_and_unit(wave, peaks)
    out = np.zeros((wave.size, len(CHANNELS)), dtype=np.float32)
    out[:, 0] = np.clip(np.arcsinh(_COMPAND * wave), -LIMIT, LIMIT)
    _write_rr(out, peaks)
    _write_unlike(out, wave, peaks)
    out[:, 4] = 2.0
    features = rhythm_features(wave, beats).reshape(FEATURE_ROWS, len(CHANNELS))
    return np.concatenate((out, features))


def rhythm_windows(channels: Input) -> Input:
    """Cut (T + 20, 5) into (n, 3020, 5): evenly spread windows of 30 s, or one padded, with the features below."""
    channels, features = channels[:-FEATURE_ROWS], channels[-FEATURE_ROWS:]
    length = channels.shape[0]
    if length <= WINDOW:
        return np.concatenate((np.pad(channels, ((0, WINDOW - length), (0, 0))), features))[np.newaxis]
    count = -(-(length - WINDOW // 10) // WINDOW)  # a tail under 3 s is not worth another window
    starts = np.linspace(0, length - WINDOW, max(count, 1)).round().astype(int)
    return np.stack([np.concatenate((channels[start : start + WINDOW], features)) for start in starts])


def _clean(wave: Signal) -> Signal:
    """Remove baseline wander and mains, without phase shift."""
    baseline = box_mean(box_mean(wave, _BASELINE, "reflect"), _BASELINE, "reflect")
    padded = np.pad(wave - baseline, len(_SMOOTH) // 2, mode="edge")
    return np.convolve(padded, _SMOOTH, mode="valid")


def _around(wave: Signal, peaks: Signal, half: int) -> Signal:
    """Stretches of `half` samples either side of each peak, (beats, 2·half + 1); the signal's ends are repeated."""
    centres = np.round(peaks * FS_HZ).astype(int)
    index = centres[:, np.newaxis] + np.arange(-half, half + 1)
    return wave[np.clip(index, 0, wave.size - 1)]


def _upright_and_unit(wave: Signal, peaks: Signal) -> Signal:
    """Scale the median QRS, peak to peak, to 1, its larger deflection upwards; with no QRS, the median second."""
    if peaks.size >= 3:
        pieces = _around(wave, peaks, _QRS_HALF)
    else:
        second = int(FS_HZ)
        pieces = wave[: wave.size // second * second].reshape(-1, second)
    high, low = pieces.max(axis=1), pieces.min(axis=1)
    sign = -1.0 if np.median(high + low) < 0 else 1.0
    return sign * wave / max(float(np.median(high - low)), _SCALE_FLOOR_MV)


def _write_rr(out: Input, peaks: Signal) -> None:
    if peaks.size < 2:
        return
    rr = np.diff(peaks)
    change = np.diff(rr, prepend=rr[0]) / np.median(rr)
    level = np.clip(2.0 * np.log2(rr / 0.8), -LIMIT, LIMIT)
    change = np.clip(np.arcsinh(_COMPAND * change), -LIMIT, LIMIT)
    edges = np.clip(np.round(peaks * FS_HZ).astype(int), 0, out.shape[0])
    lengths = np.diff(edges)
    out[edges[0] : edges[-1], 1] = np.repeat(level, lengths)
    out[edges[0] : edges[-1], 2] = np.repeat(change, lengths)


def _write_unlike(out: Input, wave: Signal, peaks: Signal) -> None:
    if peaks.size < 3:
        return
    beats = _around(wave, peaks, _BEAT_HALF)
    beats = beats - beats.mean(axis=1, keepdims=True)
    median = np.median(beats, axis=0)
    median = median - median.mean()
    norm = np.linalg.norm(beats, axis=1) * np.linalg.norm(median)
    unlike = LIMIT * (1.0 - beats @ median / np.maximum(norm, 1e-9))
    middles = np.round((peaks[1:] + peaks[:-1]) / 2.0 * FS_HZ).astype(int)
    edges = np.concatenate(([0], np.clip(middles, 0, out.shape[0]), [out.shape[0]]))
    out[:, 3] = np.repeat(np.clip(unlike, 0.0, LIMIT), np.diff(edges))
