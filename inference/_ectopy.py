"""What the classes of the beats come to: how many are ectopic, and the longest run of ventricular ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_FASTEST_RR_S, _SLOWEST_RR_S = 0.2, 0.6  # a run is faster than 100 /min (AHA/ACC/HRS 2017)


@dataclass(frozen=True)
class Ectopy:
    """Counts over the classified beats. `longest_run_s` is from its first beat to its last."""

    ventricular_per_hour: float
    ventricular_fraction: float
    supraventricular_fraction: float
    longest_run: int
    longest_run_s: float


def measure_ectopy(
    peaks: npt.NDArray[np.int64], classes: Sequence[str], fs_hz: float, usable_s: float
) -> Ectopy | None:
    """Ectopic beats among those that a model has classified (not Q) in `usable_s` seconds; None where there are none.

    A run is three ventricular beats or more (AAMI class V), each within 0.2 to 0.6 s of the one before.
    """
    named = np.array(list(classes), dtype="U1")
    known = int(np.isin(named, ("N", "S", "V", "F")).sum())
    if known == 0 or usable_s <= 0:
        return None
    ventricular = named == "V"
    longest, longest_s = _longest_run(ventricular, peaks / fs_hz)
    return Ectopy(
        ventricular_per_hour=float(ventricular.sum() * 3600.0 / usable_s),
        ventricular_fraction=float(ventricular.sum() / known),
        supraventricular_fraction=float((named == "S").sum() / known),
        longest_run=longest,
        longest_run_s=longest_s,
    )


def _longest_run(ventricular: npt.NDArray[np.bool_], seconds: npt.NDArray[np.float64]) -> tuple[int, float]:
    best, best_s, count, start = 0, 0.0, 0, 0.0
    for i, (is_ventricular, at) in enumerate(zip(ventricular, seconds, strict=True)):
        if not is_ventricular:
            count = 0
            continue
        goes_on = count > 0 and _FASTEST_RR_S <= at - seconds[i - 1] <= _SLOWEST_RR_S
        count, start = (count + 1, start) if goes_on else (1, float(at))
        if count > best:
            best, best_s = count, float(at) - start
    return best, best_s
