"""The course of one vital sign of one patient over time: what it has been, and what is expected of it."""

from __future__ import annotations

import math

from aidpost._record import Record, require, require_probabilities
from aidpost._terms import VITAL_UNITS, VitalKind


class Trend(Record, frozen=True, kw_only=True):
    """What a patient's earlier readings of one kind say about today's, one value a day counted (the day's median).

    `baseline` is the patient's own usual value (median of the earlier `days`), `spread` how much it usually varies
    (robust standard deviation), `latest` today's. The slope is per 30 days with its 95 % interval, None where there is
    too little to tell. `changed_days_ago` and `step` name the day on which the level changed, if it did, and by how
    much. `left_out` readings had no time that can be trusted.
    """

    kind: VitalKind
    unit: str
    days: int
    span_days: float
    latest: float
    baseline: float
    spread: float
    slope: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    changed_days_ago: float | None = None
    step: float | None = None
    left_out: int = 0

    def _check(self) -> None:
        require(self.unit == VITAL_UNITS[self.kind], self, f"{self.kind.value} is kept in {VITAL_UNITS[self.kind]}")
        require(self.days > 0 and self.span_days >= 0 and self.spread > 0, self, "there is no course without days")
        numbers = (self.latest, self.baseline, self.spread, self.slope, self.slope_low, self.slope_high, self.step)
        require(all(v is None or math.isfinite(v) for v in numbers), self, "a number is not finite")


class Forecast(Record, frozen=True, kw_only=True):
    """What the next readings of one kind are expected to be, `hours` ahead: median, and a 90 % interval `low`..`high`.

    `below` and `above` are the chances of a reading under `low_limit` and over `high_limit` at those hours. `readings`
    is how many it was made from, `span_h` how far back the oldest was. `soon_low` and `soon_high` are the chances that
    it will be beyond a limit at some time between half an hour and two hours from now, None where readings are too far
    apart to say.
    """

    kind: VitalKind
    unit: str
    hours: tuple[float, ...]
    median: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    low_limit: float
    high_limit: float
    below: tuple[float, ...]
    above: tuple[float, ...]
    readings: int
    span_h: float
    soon_low: float | None = None
    soon_high: float | None = None

    def _check(self) -> None:
        require(self.unit == VITAL_UNITS[self.kind], self, f"{self.kind.value} is kept in {VITAL_UNITS[self.kind]}")
        columns = (self.median, self.low, self.high, self.below, self.above)
        require(all(len(column) == len(self.hours) for column in columns), self, "each hour needs one value of each")
        ordered = all(a <= b <= c for a, b, c in zip(self.low, self.median, self.high, strict=True))
        require(ordered, self, "the interval does not hold its median")
        require_probabilities(self, (*self.below, *self.above, self.soon_low, self.soon_high))
