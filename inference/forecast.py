"""What the next hours are likely to bring: glucose and blood pressure 1 to 24 hours ahead, with an honest interval.

A Gaussian process (Rasmussen and Williams 2006, algorithm 2.1) over irregular times: readings may come every five
minutes or twice a day, with gaps. Its covariance says what is known of the quantity: a level of one's own, slow drift,
excursions of a few hours whose direction goes on for a while (Matern 3/2), habits of the day (period 24 h), and a
sensor's noise. Whether a limit will be passed soon is asked of a logistic regression on the same process's view of the
last hours, since what a body does after a meal is no Gaussian process. `tables/forecast.toml` holds the numbers and
says where each set is from. Nothing is known of the meals or medicine to come, and the interval says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from aidpost.inference._rules import Fact
from aidpost.inference._series import Series, series
from aidpost.inference._tables import read_table
from aidpost.records import VITAL_UNITS, Forecast, Timestamp, VitalKind, VitalSign

__all__ = ["HOURS", "TABLE", "Process", "facts", "forecast", "forecasts", "predict", "soon_features", "table"]

TABLE = Path(__file__).with_name("tables") / "forecast.toml"
HOURS = (0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 24.0)
"""How far ahead. Half an hour is for warnings."""

_Z90 = 1.644854
_SQRT3 = math.sqrt(3.0)
Floats = npt.NDArray[np.float64]


class Soon(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A logistic regression on `soon_features`: (feature - mean) / scale . weight + bias."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    bias: float

    def chance(self, features: Floats) -> float:
        """Of passing the limit between half an hour and two hours from now."""
        # no feature may weigh more than it ever did where the numbers were fitted
        standard = np.clip((features - np.array(self.mean)) / np.array(self.scale), -4.0, 4.0)
        z = float(standard @ np.array(self.weight)) + self.bias
        return round(1.0 / (1.0 + math.exp(-min(max(z, -30.0), 30.0))), 4)


class Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The numbers of one kind. Standard deviations (`_sd`) and `mean` are of the logarithm where `logarithm`, else in
    the kind's unit; `widen` multiplies the interval at each of `HOURS`, as validation found necessary."""

    source: str
    logarithm: bool
    mean: float
    level_sd: float
    slow_sd: float
    slow_h: float
    fast_sd: float
    fast_h: float
    daily_sd: float
    daily_width: float
    daily_lasts_h: float
    noise_sd: float
    widen: tuple[float, ...]
    low_limit: float
    high_limit: float
    least: float
    most: float
    window_h: float
    newest_h: float
    readings: int
    soon_low: Soon | None = None
    soon_high: Soon | None = None

    def covariance(self, lag_h: Floats) -> Floats:
        """Of two moments so far apart, without noise; any shape."""
        near = _SQRT3 * lag_h / self.fast_h
        out = self.level_sd**2 + self.slow_sd**2 * np.exp(-lag_h / self.slow_h)
        out += self.fast_sd**2 * (1.0 + near) * np.exp(-near)
        if self.daily_sd:
            wave = np.sin(np.pi / 24.0 * lag_h) / self.daily_width
            out += self.daily_sd**2 * np.exp(-2.0 * wave * wave - lag_h / self.daily_lasts_h)
        return np.asarray(out, dtype=np.float64)


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    glucose: Process
    systolic_bp: Process
    diastolic_bp: Process


@cache
def table(path: Path = TABLE) -> dict[VitalKind, Process]:
    """The processes by kind. Raises ConfigurationError where the file cannot be read."""
    content = read_table(path, _Table, "reading forecasts")
    return {VitalKind(name): getattr(content, name) for name in ("glucose", "systolic_bp", "diastolic_bp")}


def forecasts(readings: Iterable[VitalSign], at: Timestamp) -> tuple[Forecast, ...]:
    """One for each kind of which there are enough recent readings."""
    known = tuple(readings)
    found = (forecast(kind, known, at) for kind in table())
    return tuple(one for one in found if one is not None)


def forecast(kind: VitalKind, readings: Iterable[VitalSign], at: Timestamp) -> Forecast | None:
    """The next 24 hours of one kind, or None where there is too little to say: a kind that has no process, too few
    readings in its window, or none that is recent."""
    process = table().get(kind)
    if process is None:
        return None
    found = series(kind, readings, at)
    inside = (found.age_h <= process.window_h) & (found.value >= process.least) & (found.value <= process.most)
    ages, values = found.age_h[inside], found.value[inside]
    if ages.size < process.readings or ages[-1] > process.newest_h:
        return None
    recent = Series(ages, values)
    middle, sd = predict(process, recent, HOURS)
    sd = sd * np.array(process.widen)
    low, high = middle - _Z90 * sd, middle + _Z90 * sd
    features = soon_features(process, recent)
    limits = np.array([process.low_limit, process.high_limit])
    if process.logarithm:
        limits = np.log(limits)
    chances = [[_normal((limit - m) / s) for m, s in zip(middle, sd, strict=True)] for limit in limits]

    def shown(values: Floats) -> tuple[float, ...]:
        real = np.exp(values) if process.logarithm else values
        return tuple(round(float(v), 3) for v in np.clip(real, process.least, process.most))

    return Forecast(
        kind=kind,
        unit=VITAL_UNITS[kind],
        hours=HOURS,
        median=shown(middle),
        low=shown(low),
        high=shown(high),
        low_limit=process.low_limit,
        high_limit=process.high_limit,
        below=tuple(round(p, 4) for p in chances[0]),
        above=tuple(round(1.0 - p, 4) for p in chances[1]),
        readings=int(ages.size),
        span_h=float(ages[0]),
        soon_low=process.soon_low.chance(features) if process.soon_low and features is not None else None,
        soon_high=process.soon_high.chance(features) if process.soon_high and features is not None else None,
    )


def predict(process: Process, found: Series, hours: Sequence[float]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of a reading at each of `hours` ahead, not widened; of the logarithm where the
    process is one of it."""
    ages, values, count = _thinned(found)
    y = (np.log(values) if process.logarithm else values) - process.mean
    ahead = np.asarray(hours, dtype=np.float64)
    noise = process.noise_sd**2
    among = process.covariance(np.abs(ages[:, None] - ages[None, :]))
    among[np.diag_indices_from(among)] += noise / count + 1e-9 * process.covariance(np.zeros(1))
    across = process.covariance(np.abs(ahead[:, None] + ages[None, :]))
    root = np.linalg.cholesky(among)
    half = np.linalg.solve(root, np.column_stack([y, across.T]))
    mean = half[:, 1:].T @ half[:, 0]
    variance = process.covariance(np.zeros(ahead.size)) + noise - (half[:, 1:] ** 2).sum(0)
    return mean + process.mean, np.sqrt(np.maximum(variance, noise))


_LOOK_H = (-2.0, -1.0, -0.5, -0.25, 0.0, 0.5, 1.0, 2.0)
_DENSE = 12  # readings in two hours, the last of them not older than a quarter of an hour


def soon_features(process: Process, found: Series) -> Floats | None:
    """What `Soon` looks at, (11,): the process's mean from two hours ago to two hours ahead (gaps filled by it), and
    the last six hours' highest, lowest and how long ago the highest was; None where readings are too far apart.

    How the patient usually is was tried too: a few false alarms less, but silence over a fall to 4.5 in someone who is
    never low.
    """
    if (found.age_h <= 2.0).sum() < _DENSE or found.age_h[-1] > 0.25:
        return None
    values = np.log(found.value) if process.logarithm else found.value
    mean, _ = predict(process, found, _LOOK_H)
    near = values[found.age_h <= 6.0]
    peak_h = float(found.age_h[found.age_h <= 6.0][int(np.argmax(near))])
    return np.array([*mean, near.max(), near.min(), peak_h], dtype=np.float64)


# Readings so old (hours, to the next) are averaged over so many hours: the answer hardly changes, the work does.
_STEPS = ((0.0, 0.0), (3.0, 0.25), (12.0, 1.0), (48.0, 3.0))


def _thinned(found: Series) -> tuple[Floats, Floats, Floats]:
    """Ages, values and how many readings each stands for, newest first."""
    age = found.age_h[::-1]
    bin_of = np.arange(age.size, dtype=np.float64) * 1e-9  # the newest: each by itself
    for number, (start, width) in enumerate(_STEPS):
        if width:
            old = age >= start
            bin_of[old] = 1e4 * number + np.floor(age[old] / width)
    _, group, count = np.unique(bin_of, return_inverse=True, return_counts=True)
    ages = np.bincount(group, age) / count
    values = np.bincount(group, found.value[::-1]) / count
    return ages, values, count.astype(np.float64)


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def facts(found: Iterable[Forecast]) -> dict[str, Fact]:
    """What the rules in `rules/trends.toml` look at: `<kind>_soon_low`, `<kind>_soon_high` and, for their text, the
    forecast of an hour ahead, `<kind>_in_an_hour`."""
    out: dict[str, Fact] = {}
    for one in found:
        hour = min(range(len(one.hours)), key=lambda i: abs(one.hours[i] - 1.0))
        name = one.kind.value
        out |= {f"{name}_soon_low": one.soon_low, f"{name}_soon_high": one.soon_high}
        out[f"{name}_in_an_hour"] = one.median[hour]
    return out
