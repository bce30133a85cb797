"""R-peak detection in one lead, whole or streaming, with the same answer.

The method, all of it in integers and divisions, so that every processor finds the same peaks:

1. The lead is averaged down to 125 Hz whatever its rate (boxcar of 20 ms, zero at 50 Hz), and its slope over 16
   ms taken (8-28 Hz). The slope's magnitude, smoothed over some 100 ms, is the envelope of Pan and Tompkins
   (1985) without the square. Every maximum of it that leads for 90 ms either way is a candidate: on MIT-BIH all
   beats but two, and two or three times as many T waves, P waves and bits of noise.
2. A first forest of small trees judges each candidate by 13 ratios: its height against the median of the maxima
   of the seconds around, against its neighbours within 450 ms and their distance, against the background; the
   same for an envelope made for wide beats. Nothing depends on earlier answers, so that one mistake does not
   bring the next.
3. Candidates that it is not sure of (log odds within 5 of even: one in twelve) are judged again, by a small
   convolutional network in integers that sees the slopes of 0.77 s either side against the seconds around, the ratios,
   and whether a beat is due.
4. Of two beats within 200 ms the surer stays. The R-peak is the largest deflection within 80 ms, moved to the
   extremum of the raw samples; of two like deflections the one of the last beat's sign.

A candidate 16 times below the median of the seconds around is no beat. Seconds are unsure that hold a doubtful
candidate, miss a tenth of their samples, or stand still at the extreme of the seconds around (clipped, or at the rail).

Both are learned by `training/ecg_rpeaks.py`, which also says what they give on records that they have not seen.
Gaps are bridged at the value before them; what comes after joins without a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from aidpost.kernels._ecg_checks import rate, samples
from aidpost.kernels._rpeaks import Core, Forest, Network

__all__ = ["RPeakDetector", "RPeaks", "detect"]

_OPERATION = "detecting R-peaks"


@dataclass(frozen=True)
class RPeaks:
    """R-peaks of one lead.

    sample: int64 (k,), rising, each the local extremum of its QRS complex, at the input's own rate, counted from the
    first sample ever fed. unsure: spans [start, end) of samples, rising, where the answer should not be relied on.
    """

    sample: npt.NDArray[np.int64]
    unsure: tuple[tuple[int, int], ...]


class RPeakDetector:
    """Streaming detector: the answers of `feed` and `flush`, joined, are `detect` of the whole, for any chunking.

    A peak is given at most `latency_s` after it. The work is done in blocks of a second.
    """

    latency_s = 6.3

    def __init__(self, fs_hz: float) -> None:
        self._fs = rate(fs_hz, _OPERATION, 50, 10_000)
        self._core = _core(self._fs)

    def feed(self, x: npt.ArrayLike) -> RPeaks:
        """The next (n,) samples in mV, n may be 0; NaN and infinities are missing samples."""
        self._core.feed(samples(x, _OPERATION))
        return self._take()

    def flush(self) -> RPeaks:
        """The rest; afterwards the detector is as new."""
        self._core.finish()
        rest = self._take()
        self._core = _core(self._fs)
        return rest

    def _take(self) -> RPeaks:
        peaks = np.empty(self._core.waiting(), dtype=np.int64)
        spans = np.empty((self._core.waiting_spans(), 2), dtype=np.int64)
        self._core.take(peaks, spans)
        return RPeaks(peaks, tuple((int(start), int(end)) for start, end in spans))


def detect(x: npt.ArrayLike, fs_hz: float) -> RPeaks:
    """R-peaks of `x` (n,) in mV at `fs_hz`; NaN and infinities are missing samples.

    Raises
    ------
    UsageError
        `x` is not (n,) of real numbers, or the rate is not within 50-10,000 Hz.
    """
    detector = RPeakDetector(fs_hz)
    first, rest = detector.feed(x), detector.flush()
    return RPeaks(np.concatenate([first.sample, rest.sample]), first.unsure + rest.unsure)


def _core(fs_hz: float) -> Core:
    return Core(fs_hz, *_judges(), np.empty((0, 0)))


@lru_cache(maxsize=1)
def _judges() -> tuple[Forest, Network, int]:
    with (files("aidpost.kernels") / "rpeaks_trees.npz").open("rb") as stream, np.load(stream) as learned:
        forest = Forest(learned["feature"], learned["threshold"], learned["value"], int(learned["bias"]))
        weights, biases = ([learned[f"{name}{layer}"] for layer in range(5)] for name in ("weights", "biases"))
        return forest, Network(weights, biases), int(learned["doubt"])
