"""What the R-peak detector's front end and judgements compute, written for reading: NumPy, slow, for the tests.

The whole lead lies in arrays here, so that nothing is a ring and nothing waits for what is still to come.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from statistics import median_high

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

RATE, HALF, FLOOR, NEAR, REFRACTORY, MANY = 125, 11, 300_000, 56, 25, 1000
PREVIOUS, NEXT, PAST, FUTURE = 6, 3, 5, 2
SLOPES, GROUNDS, SURE = 97, 24, 131072
FAINT, HOPELESS = 16, -1048576
EARLY, MARGIN = 8, 256  # samples before the lead's first: of the envelope's total, of the slope


@dataclass(frozen=True)
class Trees:
    """A forest as it is stored: nodes (n, 7) and leaves (n, 8)."""

    feature: npt.NDArray[np.int32]
    threshold: FloatArray
    value: IntArray
    bias: int

    def score(self, features: list[float]) -> int:
        total = self.bias
        for feature, threshold, value in zip(self.feature, self.threshold, self.value, strict=True):
            node = 0
            while node < 7:
                node = 2 * node + (2 if features[feature[node]] > threshold[node] else 1)
            total += int(value[node - 7])
        return total


@dataclass(frozen=True)
class Front:
    """At 125 Hz: the slope (after MARGIN samples of the past), its envelope and its total, the slow envelope."""

    slope: FloatArray
    envelope: IntArray
    total: IntArray
    slow: IntArray

    def mean(self, at: int, half: int) -> float:
        # smoothing lets slope and envelope begin EARLY samples before the lead does
        return float(self.total[at + half + 1 + EARLY] - self.total[max(0, at - half + EARLY)]) / (2 * half + 1)


@dataclass(frozen=True)
class Candidate:
    """A maximum of the envelope: its place, height, the slow envelope near it, the first judgement and its grounds."""

    at: int
    height: float
    broad: float
    score: int
    features: list[float]
    level: float


def front(x_mv: FloatArray, fs_hz: float) -> Front:
    """The front end for a lead (n,) without missing samples; its end is held as long as the detector looks ahead."""
    counts = np.trunc(x_mv * 8192.0).astype(np.int64)
    pad, reach = int(0.3 * fs_hz) + 4, 0.01 * fs_hz if fs_hz > 50 else 0.5
    held = np.concatenate([np.full(pad, counts[0]), counts, np.full(int(10 * fs_hz), counts[-1])])
    total = np.concatenate([[0], np.cumsum(held)])
    ticks = np.arange(int((len(held) - pad - reach - 2) * RATE / fs_hz))
    centre = ticks * fs_hz / RATE + 0.5 + pad
    left, right = centre - reach, centre + reach
    i, j = left.astype(np.int64), right.astype(np.int64)
    inside = (total[j] - total[i]) + ((right - j) * held[j] - (left - i) * held[i])
    lead = np.trunc(inside * (16 / (2 * reach))).astype(np.int64)
    edge = 64
    lead = np.concatenate([np.full(edge, lead[0]), lead, np.full(edge, lead[-1])])
    smooth = _summed(lead, [1, 2, 1])
    slope = _summed(smooth, [1, 0, -1])
    envelope = _summed(_summed(np.abs(slope), [1] * 9), [1] * 5)
    wide = _summed(_summed(smooth, [1] * 5), [1] * 3)
    slow = _summed(_summed(np.abs(_summed(wide, [1, 0, 0, 0, 0, 0, 0, 0, -1])), [1] * 13), [1] * 5)
    total = np.concatenate([[0], np.cumsum(envelope[edge - EARLY : -edge])])
    slopes = np.concatenate([np.zeros(MARGIN - EARLY), slope[edge - EARLY : -edge].astype(np.float64)])
    return Front(slopes, envelope[edge:-edge], total, slow[edge:-edge])


def _summed(x: IntArray, weights: list[int]) -> IntArray:
    """The weighted sum of the neighbours of each sample; both ends are held."""
    half = len(weights) // 2
    return np.convolve(np.pad(x, half, mode="edge"), np.array(weights, dtype=np.int64), "valid")


def judged(lead: Front, trees: Trees) -> list[Candidate]:
    """All candidates with the first judgement."""
    padded = np.concatenate([np.zeros(HALF, np.int64), lead.envelope, np.zeros(HALF, np.int64)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * HALF + 1)
    height = lead.envelope
    largest = (height > windows[:, :HALF].max(axis=1)) & (height >= windows[:, HALF + 1 :].max(axis=1))
    places = np.flatnonzero(largest & (height > FLOOR))
    broad = np.array([max(1, lead.slow[max(0, at - 6) : at + 7].max()) for at in places], dtype=np.int64)
    return [_judge(lead, places, height[places], broad, index, trees) for index in range(len(places))]


def _judge(lead: Front, at: IntArray, height: IntArray, broad: IntArray, index: int, trees: Trees) -> Candidate:
    h, w = float(height[index]), float(broad[index])
    block = at[index] // RATE
    seconds = [at // RATE == second for second in range(max(0, block - PAST), block + FUTURE + 1)]
    slopes = sorted(float(height[second].max()) for second in seconds if second.any())
    broads = sorted(float(broad[second].max()) for second in seconds if second.any())
    level, upper, wide = slopes[len(slopes) // 2], slopes[3 * len(slopes) // 4], broads[len(broads) // 2]
    distance = at - at[index]
    before = _rival(np.flatnonzero((distance < 0) & (distance >= -NEAR))[::-1], height)
    after = _rival(np.flatnonzero((distance > 0) & (distance <= NEAR)), height)
    rivals = [(float(height[r]), float(broad[r]), float(abs(distance[r]))) if r >= 0 else (0.0, 0.0, 125.0)
              for r in (before, after)]  # fmt: skip
    (before_h, before_w, before_t), (after_h, after_w, after_t) = rivals
    around = lead.mean(int(at[index]), 62)
    features = [
        h / level, h / upper, w / wide, (h / w) / (level / wide), h / (h + before_h), h / (h + after_h),
        before_t, after_t, w / (w + before_w), w / (w + after_w), around / h, lead.mean(int(at[index]), 25) / h,
        around / level,
    ]  # fmt: skip
    score = HOPELESS if features[0] * FAINT < 1 else trees.score(features)
    return Candidate(int(at[index]), h, w, score, features, level)


def _rival(near: IntArray, height: IntArray) -> int:
    """The largest of those near, of equals the nearest; -1: none."""
    return int(near[np.argmax(height[near])]) if len(near) else -1


def look(lead: Front, candidates: list[Candidate], index: int) -> IntArray:
    """What the second judgement of one candidate is shown: 97 slopes and 24 ratios in Q10."""
    beat = candidates[index]
    start = beat.at - SLOPES + 1 + MARGIN
    slopes = lead.slope[start : start + 2 * SLOPES : 2] * (45 / beat.level)
    usual = np.ones(17)
    usual[6:8] = NEAR
    rhythm = intervals(candidates, index)
    shown = [
        _squashed(slopes, 0.5),
        _compared(np.array(beat.features + rhythm[:4]), usual),
        _compared(np.array(rhythm[4:6]), 100.0),
        _squashed(np.array(rhythm[6:]), SURE),
        np.zeros(GROUNDS - 21),
    ]
    return np.concatenate(shown).astype(np.int64)


def _squashed(v: FloatArray, half: float) -> FloatArray:
    return np.trunc(1024 * (v / (np.abs(v) + half)))


def _compared(v: FloatArray, usual: FloatArray | float) -> FloatArray:
    return np.trunc(1024 * ((v - usual) / (v + usual)))


def network(weights: list[IntArray], biases: list[IntArray], shown: IntArray) -> int:
    """Log odds in Q16: three convolutions over the slopes, every second place kept, then two layers over all."""
    x = shown[:SLOPES, None]
    for weight, bias in zip(weights[:3], biases[:3], strict=True):
        taps = weight[:, :7] if x.shape[1] == 1 else weight  # the eighth has no weight
        half = taps.shape[1] // x.shape[1] // 2
        padded = np.pad(x, ((half, half), (0, 0)))
        windows = [padded[place : place + 2 * half + 1].ravel() for place in range(0, len(x), 2)]
        x = _layer(np.array(windows), taps, bias)
    hidden = _layer(np.concatenate([x.ravel(), shown[SLOPES:]])[None], weights[3], biases[3])
    return int((weights[4].astype(np.int64) @ hidden[0] + biases[4])[0]) >> 6


def _layer(x: IntArray, weight: IntArray, bias: IntArray) -> IntArray:
    total: IntArray = (x @ weight.T.astype(np.int64) + bias + 2048) >> 12
    return total.clip(0, 4095)


def intervals(candidates: list[Candidate], index: int) -> list[float]:
    """To the beats before and after, in the median interval around and in samples; then its own score, a rival's."""
    beat = candidates[index]
    horizon = (beat.at // RATE + 3) * RATE
    back = [c for c in candidates[:index][::-1] if beat.at - c.at <= MANY]
    ahead = [c for c in candidates[index + 1 :] if c.at < horizon]
    previous = [c for c in back if c.score > 0][:PREVIOUS]
    following = [c for c in ahead if c.score > 0][:NEXT]
    near = [c for c in _looked_at(back, PREVIOUS) + _looked_at(ahead, NEXT) if abs(c.at - beat.at) <= NEAR]
    steps = [a.at - b.at for side in (previous[::-1], following) for b, a in pairwise(side)]
    rr = float(median_high(kept)) if (kept := [step for step in steps if step > REFRACTORY]) else 125.0
    before = float(beat.at - previous[0].at) if previous else 1000.0
    after = float(following[0].at - beat.at) if following else 1000.0
    due, next_due = before / rr, after / rr
    rival = max((float(c.score) for c in near), default=-1e9)
    return [due, next_due, min(due, next_due), due + next_due, before, after, float(beat.score), rival]


def _looked_at(side: list[Candidate], count: int) -> list[Candidate]:
    """Up to the last of `count` beats."""
    beats = [place for place, c in enumerate(side) if c.score > 0]
    return side[: beats[count - 1] + 1] if len(beats) >= count else side
