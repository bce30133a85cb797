"""What the beat network sees of each beat: the beat itself, the patient's usual beat, and how it comes in time.

One patient's ectopic beat is another's normal one, so everything is told relative to the recording. Its beats are
compared with each other; the largest family, weighed against coming early and being wide, gives the usual beat, and the
scale. A beat is then (144, 3) within ±4, so that one int8 scale serves all:

    0  beat      asinh-companded, its usual QRS upright and of unit size, 0.40 s before to 0.50 s after the QRS
    1  usual     the median of the usual beats, likewise
    2  rest      before the QRS, what is left of the beat when the T wave of a usual beat before it is taken away (a
                 premature P wave hides there); from the QRS on, its difference from the usual beat

Below stand thirty-two rows of three that are no signal: ninety-six numbers on RR intervals against those around, and on
likeness, the last ones zeros. The same function makes the training data and the device's input; a change to it needs a
new `BEATS_INPUT_VERSION` and a new model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aidpost.inference._beats_timing import against, around_each, log, rhythm, timing
from aidpost.kernels.filters import highpass, lowpass, sosfiltfilt
from aidpost.kernels.resample import resample

BEATS_INPUT_VERSION = 2
FS_HZ = 125.0
BEFORE, AFTER = 50, 62  # samples of a beat around its QRS
WINDOW = BEFORE + AFTER
CHANNELS = ("beat", "usual", "rest")
FEATURES = 96
FEATURE_ROWS = FEATURES // len(CHANNELS)
ROWS = WINDOW + FEATURE_ROWS
LIMIT = 4.0
FEWEST_BEATS = 5

_BAND_HZ = (0.5, 35.0)
_COMPAND = 12.0
_CORE = 12  # samples either side of the R-peak that hold the QRS
_SHIFT = 6
_BLOCK = 600  # beats that are compared with each other
_ALIKE = 0.90
_SAME = 0.95
_CANDIDATES = 3
_TAIL_S = 0.5

Signal = npt.NDArray[np.float64]
Input = npt.NDArray[np.float32]


def beats_input(samples_mv: Signal, fs_hz: float, peaks: npt.NDArray[np.int64]) -> Input:
    """(n, 144, 3) float32 of the beats at `peaks` (n,), samples of a finite lead in millivolts at `fs_hz`.

    Gain and polarity of the lead change nothing but rounding.

    Raises ValueError where there are fewer than five beats or the rate is not 100-1000 Hz.
    """
    if not 100.0 <= fs_hz <= 1000.0:
        raise ValueError(f"sampling rate {fs_hz} Hz is outside 100-1000 Hz")
    if peaks.size < FEWEST_BEATS:
        raise ValueError(f"{peaks.size} beats, at least {FEWEST_BEATS} needed")
    wave = _clean(samples_mv, fs_hz)
    at = np.asarray(peaks * (FS_HZ / fs_hz), dtype=np.float64)
    rr = np.diff(at) / FS_HZ
    blocks = np.array_split(np.arange(at.size), -(-at.size // _BLOCK))
    parts = [_look(wave, at[block], rr[block[0] : block[-1]]) for block in blocks]
    signal = np.concatenate([one.signal for one in parts])
    usual = np.concatenate([one.usual for one in parts])
    likeness = np.concatenate([one.likeness for one in parts])
    numbers = np.concatenate((timing(rr, usual), _with_neighbours(likeness), rhythm(rr)), axis=1)
    table = np.zeros((at.size, FEATURES))
    table[:, : numbers.shape[1]] = np.clip(np.nan_to_num(numbers), -LIMIT, LIMIT)
    return np.concatenate((signal, table.reshape(-1, FEATURE_ROWS, len(CHANNELS))), axis=1).astype(np.float32)


def _clean(samples_mv: Signal, fs_hz: float) -> Signal:
    wave = resample(samples_mv - np.median(samples_mv), fs_hz, FS_HZ)
    wave = sosfiltfilt(highpass(_BAND_HZ[0], FS_HZ), wave)
    return sosfiltfilt(lowpass(_BAND_HZ[1], FS_HZ, 4), wave)


@dataclass(frozen=True)
class _Look:
    """A block of beats, compared: channels (n, 112, 3), which are of the usual family (n,), likeness (n, k)."""

    signal: Signal
    usual: npt.NDArray[np.bool_]
    likeness: Signal


def _look(wave: Signal, at: Signal, rr: Signal) -> _Look:
    centre = _aligned(wave, np.rint(at).astype(np.int64))
    beats = _pieces(wave, centre, BEFORE, AFTER)
    core = beats[:, BEFORE - _CORE : BEFORE + _CORE + 1]
    unit = core - core.mean(axis=1, keepdims=True)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
    alike = unit @ unit.T
    usual = _usual_family(alike > _ALIKE, core, rr)
    template = np.median(beats[usual], axis=0)
    middle = template[BEFORE - _CORE : BEFORE + _CORE + 1]
    high, low = middle.max(), middle.min()
    base = float(np.median(template[BEFORE - 15 : BEFORE - 7]))
    scale = (1.0 if high - base >= base - low else -1.0) / max(float(high - low), 1e-3)
    beats, template = beats * scale, template * scale
    rest = beats - _expected(template, rr, float(np.median(rr)))
    channels = np.stack((beats, np.broadcast_to(template, beats.shape), rest), axis=2)
    return _Look(
        np.clip(np.arcsinh(_COMPAND * channels), -LIMIT, LIMIT),
        usual,
        np.concatenate(
            (_likeness(beats, template, rest, alike, usual), _family(beats, template, rest, alike, usual, rr)), axis=1
        ),
    )


def _pieces(wave: Signal, centre: npt.NDArray[np.int64], before: int, after: int) -> Signal:
    index = centre[:, np.newaxis] + np.arange(-before, after)
    return np.asarray(wave[np.clip(index, 0, wave.size - 1)])


def _aligned(wave: Signal, centre: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Each beat moved by up to 48 ms to where the size of its slope best matches the median beat's: a peak that was put
    on another wave of the QRS comes back."""
    reach = _CORE + _SHIFT
    slope = np.abs(np.diff(_pieces(wave, centre, reach + 1, reach + 1), axis=1))
    smooth = (slope[:, :-2] + slope[:, 1:-1] + slope[:, 2:]) / 3.0
    smooth = np.pad(smooth, ((0, 0), (1, 1)), mode="edge")
    smooth /= np.maximum(np.linalg.norm(smooth, axis=1, keepdims=True), 1e-9)
    median = np.median(smooth, axis=0)[_SHIFT:-_SHIFT]
    views = np.lib.stride_tricks.sliding_window_view(smooth, median.size, axis=1)
    return np.asarray(centre + (views @ median).argmax(axis=1) - _SHIFT)


def _usual_family(alike: npt.NDArray[np.bool_], core: Signal, rr: Signal) -> npt.NDArray[np.bool_]:
    """Which beats are like the usual one: of the largest families, the one that is large, not early and not wide."""
    middle = float(np.median(rr))
    ahead, behind = np.concatenate(([middle], rr)), np.concatenate((rr, [middle]))
    early = np.clip(ahead / np.maximum(behind, 1e-3), 0.5, 1.5)
    slope = np.abs(np.diff(core, axis=1))
    width = (slope > 0.2 * slope.max(axis=1, keepdims=True)).sum(axis=1)
    left = np.ones(len(alike), dtype=bool)
    best, best_score = left, -1.0
    for _ in range(_CANDIDATES):
        count = (alike & left).sum(axis=1) * left
        members = alike[int(count.argmax())] & left
        if not members.any():
            break
        score = float(members.sum() * np.median(early[members]) ** 2 / np.median(width[members]))
        if score > best_score:
            best, best_score = members, score
        left &= ~members
    return best


def _expected(template: Signal, rr: Signal, middle: float) -> Signal:
    """(n, 112) what a usual beat before leaves at each place before the QRS, and the usual beat from there on."""
    time = np.arange(-BEFORE, AFTER)
    ahead = np.rint(np.concatenate(([middle], rr)) * FS_HZ).astype(np.int64)
    reach = min(round(min(_TAIL_S, 0.7 * middle) * FS_HZ), AFTER) - 1
    since = time + ahead[:, np.newaxis]
    tail = np.where((since <= reach) & (since > _CORE), template[np.clip(since + BEFORE, 0, WINDOW - 1)], 0.0)
    return np.asarray(np.where(time < -_CORE, tail, template))


def _likeness(beats: Signal, template: Signal, rest: Signal, alike: Signal, usual: npt.NDArray[np.bool_]) -> Signal:
    """(n, 14) how like the usual beat, and the beats around, each is."""
    core = slice(BEFORE - _CORE, BEFORE + _CORE + 1)
    p_wave, t_wave = slice(BEFORE - 32, BEFORE - 9), slice(BEFORE + 14, AFTER + BEFORE)
    slope = np.abs(np.diff(beats[:, core], axis=1))
    usual_slope = np.abs(np.diff(template[core]))
    width, usual_width = _width(slope), _width(usual_slope[np.newaxis])
    size = np.ptp(beats[:, core], axis=1)
    family = alike[usual].mean(axis=0)
    share = (alike > _ALIKE).mean(axis=1)
    previous = np.concatenate(([1.0], np.diagonal(alike, 1)))
    following = np.concatenate((np.diagonal(alike, 1), [1.0]))
    columns = [
        4.0 * (1.0 - _correlation(beats[:, core], template[core])),
        4.0 * (1.0 - family),
        2.0 * (1.0 - _correlation(beats[:, p_wave], template[p_wave])),
        2.0 * (1.0 - _correlation(beats[:, t_wave], template[t_wave])),
        4.0 * np.log2(np.maximum(size, 0.05)),
        4.0 * np.log2(width / usual_width),
        2.0 * np.log2(width / 10.0),
        4.0 * share,
        2.0 * (1.0 - previous),
        2.0 * (1.0 - following),
        3.0 * np.log2((slope.max(axis=1) + 1e-3) / (usual_slope.max() + 1e-3)),
        log(rest[:, p_wave].std(axis=1)) + 1.0,
        log(rest[:, core].std(axis=1)),
        3.0 * beats[:, t_wave].mean(axis=1) - 3.0 * template[t_wave].mean(),
    ]
    return np.stack(columns, axis=1)


def _family(
    beats: Signal, template: Signal, rest: Signal, alike: Signal, usual: npt.NDArray[np.bool_], rr: Signal
) -> Signal:
    """(n, 9) how each compares with what is common among the usual beats, and how beats of its own shape come."""
    p_wave, core = slice(BEFORE - 32, BEFORE - 9), slice(BEFORE - _CORE, BEFORE + _CORE + 1)
    own = template[p_wave] - template[p_wave].mean()
    rows = beats[:, p_wave] - beats[:, p_wave].mean(axis=1, keepdims=True)
    moved = [_correlation(beats[:, BEFORE - 32 + k : BEFORE - 9 + k], template[p_wave]) for k in range(-6, 7, 2)]
    left = [np.log2(rest[:, part].std(axis=1) + 1e-3) for part in (p_wave, core)]
    columns = [
        np.clip(rows @ own / max(float(own @ own), 1e-6), -2.0, 3.0),
        2.0 * (1.0 - np.max(moved, axis=0)),
        *(one - np.median(one[usual]) for one in left),
        2.0 * (np.median(_correlation(rows[usual], own)) - _correlation(rows, own)),
        np.full(len(beats), 2.0 * np.median(_correlation(rows[usual], own))),
    ]
    weight = np.maximum(alike - _SAME, 0.0)
    weight /= np.maximum(weight.sum(axis=1, keepdims=True), 1e-9)
    padded = np.concatenate(([rr[0]], rr, [rr[-1]]))
    near = np.median(around_each(padded, 8), axis=1)
    early, late = (against(padded[k : k + len(beats)], near[k : k + len(beats)]) for k in (0, 1))
    columns += [weight @ np.clip(early, -LIMIT, LIMIT), weight @ np.clip(late, -LIMIT, LIMIT)]
    columns += [4.0 * (weight @ usual.astype(float))]
    return np.stack(columns, axis=1)


def _with_neighbours(likeness: Signal) -> Signal:
    """The likeness numbers with the first (QRS) of the two beats either side, and the running medians of two: noise."""
    first = np.pad(likeness[:, 0], 2, mode="edge")
    around = [first[k : k + len(likeness)] for k in (0, 1, 3, 4)]
    noise = [np.median(around_each(likeness[:, k], 7), axis=1) for k in (0, 11, 12)]
    return np.concatenate((likeness, np.stack(around + noise, axis=1)), axis=1)


def _width(slope: Signal) -> Signal:
    """How long, in samples, the slope's area takes from a tenth to nine tenths."""
    area = np.cumsum(slope, axis=1)
    area /= np.maximum(area[:, -1:], 1e-9)
    return np.asarray(np.maximum(((area > 0.1) & (area < 0.9)).sum(axis=1), 1).astype(np.float64))


def _correlation(rows: Signal, one: Signal) -> Signal:
    rows, one = rows - rows.mean(axis=1, keepdims=True), one - one.mean()
    return np.asarray(rows @ one / np.maximum(np.linalg.norm(rows, axis=1) * np.linalg.norm(one), 1e-6))
