"""Rate and pauses from the beats of one lead."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aidpost.inference._ecg_signal import Lead

_RR_RANGE_S = (0.2, 12.0)  # outside it an interval is an artefact or a stretch without an ECG
_PAUSE_FACTOR = 1.5


@dataclass(frozen=True)
class Timing:
    """`rr_s` are the intervals between neighbouring beats with nothing but usable signal between them; `pause_at` is
    the number of the beat before the longest pause."""

    rr_s: npt.NDArray[np.float64]
    heart_rate_bpm: float | None
    longest_pause_s: float | None
    pause_at: int | None = None

    def pause_beats(self, peaks: npt.NDArray[np.int64]) -> dict[str, tuple[int, ...]]:
        """The samples of the two beats around the longest pause, by the name of the fact that they show."""
        if self.longest_pause_s is None or self.pause_at is None:
            return {}
        return {"longest_pause_s": (int(peaks[self.pause_at]), int(peaks[self.pause_at + 1]))}


def measure_timing(lead: Lead, peaks: npt.NDArray[np.int64]) -> Timing:
    """Heart rate, beats over time in usable stretches, and the longest RR interval that stands out as a pause.

    The rate is None with fewer than three such intervals, so that one doubtful beat does not make a rate.
    """
    broken = np.concatenate(([0], np.cumsum(~lead.usable)))
    whole = broken[peaks[1:]] == broken[peaks[:-1]] if peaks.size > 1 else np.zeros(0, dtype=bool)
    every = np.diff(peaks) / lead.fs_hz
    kept = np.flatnonzero(whole & (every >= _RR_RANGE_S[0]) & (every <= _RR_RANGE_S[1]))
    rr = every[kept]
    if rr.size < 3:
        return Timing(rr, None, None)
    longest = float(rr.max())
    # in a slow regular rhythm no interval is a pause: the rate says it already
    pause = longest if longest > _PAUSE_FACTOR * float(np.median(rr)) else None
    return Timing(rr, float(60.0 / rr.mean()), pause, int(kept[rr.argmax()]))
