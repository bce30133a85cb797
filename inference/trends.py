"""What a patient's earlier readings say about today's: own baseline, robust slope, change of level.

Readings come irregularly and with gaps, several a day or one a year: one value a day counts, the day's median, so that
a day of many readings weighs no more than another.

Methods: baseline and spread are median and scaled median absolute deviation (Hampel 1974); the slope is Theil and Sen's
with Sen's interval (Sen 1968, without the correction for ties); a change of level is Pettitt's test (Pettitt 1979).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from aidpost.inference._rules import Fact
from aidpost.inference._series import Series, series
from aidpost.records import VITAL_UNITS, Timestamp, Trend, VitalKind, VitalSign

__all__ = ["REPEATABILITY", "facts", "trend", "trends"]

REPEATABILITY: dict[VitalKind, float] = {
    VitalKind.SYSTOLIC_BP: 6.0,
    VitalKind.DIASTOLIC_BP: 4.0,
    VitalKind.PULSE_RATE: 5.0,
    VitalKind.SPO2: 1.0,
    VitalKind.GLUCOSE: 0.6,
    VitalKind.HBA1C: 0.2,
    VitalKind.WEIGHT: 0.5,
    VitalKind.PEAK_FLOW: 20.0,
}
"""The kinds that have a course, and how much a reading differs from the next of a person who has not changed (one
standard deviation; conventions, to be confirmed by a clinician). No patient's spread counts as smaller."""

_BASELINE_DAYS, _SLOPE_DAYS = 400.0, 190.0
_DAYS_FOR_BASELINE, _DAYS_FOR_SLOPE, _DAYS_FOR_CHANGE = 3, 5, 10
_SPAN_FOR_SLOPE = 14.0
_MONTH = 30.0
_MOST_DAYS = 200  # slopes of all pairs: 20,000 of them
_Z95 = 1.959964
_CHANGE_CHANCE = 0.01

Days = npt.NDArray[np.float64]


def trends(readings: Iterable[VitalSign], at: Timestamp) -> tuple[Trend, ...]:
    """The course of each kind of which there are readings of today (the 24 hours before `at`) and of three earlier
    days."""
    known = tuple(readings)
    found = (trend(kind, known, at) for kind in REPEATABILITY)
    return tuple(one for one in found if one is not None)


def trend(kind: VitalKind, readings: Iterable[VitalSign], at: Timestamp) -> Trend | None:
    """The course of one kind, or None where there is too little: no reading of today, or under three earlier days."""
    found = series(kind, readings, at)
    ages, values = _days(found)
    if not ages.size or ages[-1] >= 1.0:
        return None
    recent = (ages >= 1.0) & (ages <= _BASELINE_DAYS)
    if recent.sum() < _DAYS_FOR_BASELINE:
        return None
    earlier = values[recent]
    baseline = float(np.median(earlier))
    spread = max(1.4826 * float(np.median(np.abs(earlier - baseline))), REPEATABILITY[kind])
    slope, low, high = _slope(ages, values)
    changed, step = _change(ages, values, spread)
    return Trend(
        kind=kind,
        unit=VITAL_UNITS[kind],
        days=int(ages.size),
        span_days=float(ages[0] - ages[-1]),
        latest=float(values[-1]),
        baseline=baseline,
        spread=spread,
        slope=slope,
        slope_low=low,
        slope_high=high,
        changed_days_ago=changed,
        step=step,
        left_out=found.left_out,
    )


def facts(found: Iterable[Trend]) -> dict[str, Fact]:
    """What the rules in `rules/trends.toml` look at: `<kind>_rise` above the baseline, the same as a part of it
    (`_change`) and in `_spreads`, the slope's bounds a month, `_step` and `_changed_days_ago`."""
    out: dict[str, Fact] = {}
    for one in found:
        rise = one.latest - one.baseline
        named = {
            "latest": one.latest,
            "baseline": one.baseline,
            "rise": rise,
            "change": rise / one.baseline if one.baseline else None,
            "spreads": rise / one.spread,
            "slope": one.slope,
            "slope_low": one.slope_low,
            "slope_high": one.slope_high,
            "step": one.step,
            "changed_days_ago": one.changed_days_ago,
        }
        out |= {f"{one.kind.value}_{name}": value for name, value in named.items()}
    return out


def _days(found: Series) -> tuple[Days, Days]:
    """Mean age in days and median value of each day that has readings, oldest first; day 0 ends at the moment asked
    for."""
    day = np.floor(found.age_h / 24.0)
    each = np.unique(day)[::-1][-_MOST_DAYS:]
    ages = np.array([found.age_h[day == one].mean() / 24.0 for one in each])
    return ages, np.array([np.median(found.value[day == one]) for one in each])


def _slope(ages: Days, values: Days) -> tuple[float | None, float | None, float | None]:
    """Change per 30 days with its 95 % bounds."""
    near = ages <= _SLOPE_DAYS
    x, y = -ages[near], values[near]
    n = x.size
    if n < _DAYS_FOR_SLOPE or x[-1] - x[0] < _SPAN_FOR_SLOPE:
        return None, None, None
    i, j = np.triu_indices(n, 1)
    slopes = np.sort((y[j] - y[i]) / (x[j] - x[i]))
    half = _Z95 * math.sqrt(n * (n - 1) * (2 * n + 5) / 18.0)
    low = max(int((slopes.size - half) / 2), 0)
    high = min(math.ceil((slopes.size + half) / 2), slopes.size - 1)
    middle, least, most = float(np.median(slopes)), float(slopes[low]), float(slopes[high])
    return middle * _MONTH, least * _MONTH, most * _MONTH


def _change(ages: Days, values: Days, spread: float) -> tuple[float | None, float | None]:
    """Age in days of the first day of the new level, and by how much the level changed."""
    n = values.size
    if n < _DAYS_FOR_CHANGE:
        return None, None
    signs = np.sign(values[:, None] - values[None, :])
    rising = np.array([signs[t:, :t].sum() for t in range(1, n)])
    at = int(np.argmax(np.abs(rising))) + 1
    chance = 2.0 * math.exp(-6.0 * float(rising[at - 1]) ** 2 / (n**3 + n**2))
    step = float(np.median(values[at:]) - np.median(values[:at]))
    if chance > _CHANGE_CHANCE or abs(step) < 2.0 * spread:
        return None, None
    return float(ages[at]), step
