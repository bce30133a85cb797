"""What the classes of the beats come to: how many are ectopic, which, and pairs and runs of ventricular ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

RUN_BEATS = 3
_FASTEST_RR_S, _SLOWEST_RR_S = 0.2, 0.6  # a run is faster than 100 /min (AHA/ACC/HRS 2017)
_FEWEST_BEATS, _SHORTEST_S = 10, 10.0  # under them neither a share nor a rate an hour means anything


@dataclass(frozen=True)
class Ectopy:
    """Counts over the classified beats. `longest_run_s` is from its first beat to its last; the beats' numbers are in
    `ventricular` and `longest` (the longest run), and each pair's in `pairs`. `enough` says whether shares mean
    something."""

    ventricular_per_hour: float
    ventricular_fraction: float
    supraventricular_per_hour: float
    supraventricular_fraction: float
    longest_run: int
    longest_run_s: float
    ventricular: tuple[int, ...]
    supraventricular: tuple[int, ...]
    longest: tuple[int, ...]
    pairs: tuple[tuple[int, int], ...]
    enough: bool

    def facts(self) -> dict[str, float | None]:
        """For the rules."""
        run = self.longest_run >= RUN_BEATS
        return {
            "pvc_per_hour": self.ventricular_per_hour if self.enough else None,
            "pvc_fraction": self.ventricular_fraction if self.enough else None,
            "sve_per_hour": self.supraventricular_per_hour if self.enough else None,
            "sve_fraction": self.supraventricular_fraction if self.enough else None,
            "vt_longest_beats": float(self.longest_run),
            "vt_longest_s": self.longest_run_s if run else 0.0,
            "couplets": float(len(self.pairs)),
        }

    def shown(self, peaks: npt.NDArray[np.int64]) -> dict[str, tuple[int, ...]]:
        """Fact -> samples of the beats that make it."""

        def samples(beats: Sequence[int]) -> tuple[int, ...]:
            return tuple(int(peaks[beat]) for beat in beats)

        run = samples(self.longest)
        return {
            "pvc_fraction": samples(self.ventricular),
            "sve_fraction": samples(self.supraventricular),
            "vt_longest_beats": run,
            "vt_longest_s": run,
            "couplets": samples([beat for pair in self.pairs for beat in pair]),
        }


def measure_ectopy(
    peaks: npt.NDArray[np.int64], classes: Sequence[str], fs_hz: float, usable_s: float
) -> Ectopy | None:
    """Ectopic beats among those that a model has classified (not Q) in `usable_s` seconds; None where there are none.

    A run is three ventricular beats or more (AAMI class V), each within 0.2 to 0.6 s of the one before; a couplet is
    two.
    """
    named = np.array(list(classes), dtype="U1")
    known = int(np.isin(named, ("N", "S", "V", "F")).sum())
    if known == 0 or usable_s <= 0:
        return None
    ventricular, early = np.flatnonzero(named == "V"), np.flatnonzero(named == "S")
    runs = _runs(ventricular, peaks / fs_hz)
    longest = max(runs, key=len, default=())
    return Ectopy(
        ventricular_per_hour=float(ventricular.size * 3600.0 / usable_s),
        ventricular_fraction=float(ventricular.size / known),
        supraventricular_per_hour=float(early.size * 3600.0 / usable_s),
        supraventricular_fraction=float(early.size / known),
        longest_run=len(longest),
        longest_run_s=float((peaks[longest[-1]] - peaks[longest[0]]) / fs_hz) if longest else 0.0,
        ventricular=tuple(ventricular.tolist()),
        supraventricular=tuple(early.tolist()),
        longest=longest,
        pairs=tuple((run[0], run[1]) for run in runs if len(run) == 2),
        enough=known >= _FEWEST_BEATS and usable_s >= _SHORTEST_S,
    )


def _runs(ventricular: npt.NDArray[np.intp], seconds: npt.NDArray[np.float64]) -> list[tuple[int, ...]]:
    """Ventricular beats, by number, grouped where each comes fast and directly after the one before."""
    out: list[tuple[int, ...]] = []
    for beat in ventricular.tolist():
        goes_on = (
            bool(out)
            and out[-1][-1] == beat - 1
            and _FASTEST_RR_S <= seconds[beat] - seconds[beat - 1] <= _SLOWEST_RR_S
        )
        if goes_on:
            out[-1] = (*out[-1], beat)
        else:
            out.append((beat,))
    return out
