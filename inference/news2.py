"""The National Early Warning Score 2 (Royal College of Physicians, 2017).

A missing input gives no score and is named; the points that are known are still given, for a single extreme value calls
for action whatever the others are.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum
from functools import cache
from pathlib import Path

import msgspec

from aidpost.inference._tables import read_table

__all__ = ["TABLE", "Consciousness", "News2", "News2Inputs", "score"]

TABLE = Path(__file__).with_name("tables") / "news2.toml"

Steps = tuple[tuple[float, int], ...]


class Consciousness(Enum):
    """The ACVPU scale; C is new confusion."""

    ALERT = "A"
    CONFUSION = "C"
    VOICE = "V"
    PAIN = "P"
    UNRESPONSIVE = "U"


@dataclass(frozen=True, kw_only=True)
class News2Inputs:
    """What the score is made of; None is unknown. `scale_2` only on a clinician's order (hypercapnic failure)."""

    respiratory_rate: float | None = None
    spo2: float | None = None
    on_oxygen: bool | None = None
    systolic_bp: float | None = None
    pulse: float | None = None
    consciousness: Consciousness | None = None
    temperature: float | None = None
    scale_2: bool = False
    age_years: float | None = None
    pregnant: bool | None = None


@dataclass(frozen=True)
class News2:
    """The score, or why there is none.

    `points` has those that are known, by name; `missing` names what is not. `applies` is False for children and in
    pregnancy, where NEWS2 says nothing and `points` is empty.
    """

    total: int | None
    points: dict[str, int]
    missing: tuple[str, ...]
    applies: bool
    version: str

    @property
    def at_least(self) -> int:
        """The known points: what the score cannot be below."""
        return sum(self.points.values())

    @property
    def highest(self) -> int:
        """Points of the worst single input that is known."""
        return max(self.points.values(), default=0)


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    source: str
    confirm: str
    minimum_age_years: float
    steps: dict[str, Steps]
    points: dict[str, int]
    bands: dict[str, int]


@cache
def _table(path: Path) -> _Table:
    return read_table(path, _Table, "reading the NEWS2 table")


def score(inputs: News2Inputs, table: Path = TABLE) -> News2:
    """NEWS2 of one set of observations.

    Raises
    ------
    ConfigurationError
        The table cannot be read.
    """
    rules = _table(table)
    too_young = inputs.age_years is not None and inputs.age_years < rules.minimum_age_years
    if too_young or inputs.pregnant:
        return News2(None, {}, (), False, rules.version)
    points = {name: value for name, value in _points(inputs, rules).items() if value is not None}
    missing = [name for name in INPUTS if getattr(inputs, name) is None]
    total = None if missing else sum(points.values())
    return News2(total, points, tuple(missing), True, rules.version)


INPUTS = (
    "respiratory_rate",
    "spo2",
    "on_oxygen",
    "systolic_bp",
    "pulse",
    "consciousness",
    "temperature",
    "age_years",
    "pregnant",
)


def _points(inputs: News2Inputs, rules: _Table) -> dict[str, int | None]:
    steps = rules.steps
    awake = inputs.consciousness
    return {
        "respiratory_rate": _step(inputs.respiratory_rate, steps["respiratory_rate"]),
        "spo2": _spo2(inputs, steps),
        "on_oxygen": None if inputs.on_oxygen is None else rules.points["oxygen"] * inputs.on_oxygen,
        "systolic_bp": _step(inputs.systolic_bp, steps["systolic_bp"]),
        "pulse": _step(inputs.pulse, steps["pulse"]),
        "consciousness": None if awake is None else rules.points["not_alert"] * (awake is not Consciousness.ALERT),
        "temperature": _step(inputs.temperature, steps["temperature"], "0.1"),
    }


def _spo2(inputs: News2Inputs, steps: dict[str, Steps]) -> int | None:
    if not inputs.scale_2:
        return _step(inputs.spo2, steps["spo2_scale_1"])
    on_air = _step(inputs.spo2, steps["spo2_scale_2_on_air"])
    on_oxygen = _step(inputs.spo2, steps["spo2_scale_2_on_oxygen"])
    if inputs.on_oxygen is None:
        # below the target both say the same; above it the answer hangs on the oxygen
        return on_air if on_air == on_oxygen else None
    return on_oxygen if inputs.on_oxygen else on_air


def _step(value: float | None, steps: Steps, unit: str = "1") -> int | None:
    if value is None:
        return None
    rounded = float(Decimal(repr(float(value))).quantize(Decimal(unit), ROUND_HALF_UP))
    return next(points for limit, points in steps if rounded <= limit)
