"""What one visit's vital signs and answers come to: one value a kind, blood-pressure means, body mass index, NEWS2.

The facts made here are what the rules in `rules/vitals.toml` and `rules/symptoms.toml` look at.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec

from aidpost.inference._rules import Fact
from aidpost.inference._tables import read_table
from aidpost.inference.news2 import Consciousness, News2, News2Inputs, score
from aidpost.records import Answer, Patient, Sex, Timestamp, VitalKind, VitalSign

__all__ = ["Observations", "age_years", "observe", "reliable"]

_PAEDIATRIC = Path(__file__).with_name("tables") / "paediatric.toml"
_YES = {"yes", "y", "true", "1"}
_NO = {"no", "n", "false", "0"}
# Status flags with which a device disowns its own number.
DISOWNED = ("invalid", "unreliable", "questionable", "fault", "malfunction", "disconnected", "unavailable", "control")
CONTEXTS = {"fasting": "fasting", "preprandial": "fasting", "postprandial": "after a meal", "casual": "random"}
NO_VALUE = "the sensor gave no value"
ON_ONE_READING = " on one reading: measure again after five minutes' rest"
_CHILDBEARING = (12, 56)


@dataclass(frozen=True)
class Observations:
    """The facts of one visit, the vital signs they came from, and what could not be used, in words."""

    facts: dict[str, Fact]
    used: dict[str, tuple[VitalSign, ...]]
    left_out: tuple[str, ...]
    news2: News2


def observe(patient: Patient, vitals: Iterable[VitalSign], answers: Iterable[Answer], at: Timestamp) -> Observations:
    """The facts of one visit.

    Of each kind the latest reliable value counts (of equally late ones, the one further from normal); blood pressure is
    the mean of the last two readings where there are two (ESC/ESH 2018). Values that the device itself marks as wrong,
    values without a number and control solution are left out and named.
    """
    usable, left_out = reliable(vitals)
    given = _answers(answers)
    age = age_years(patient, at)
    used = {kind.value: tuple(found) for kind, found in _by_kind(usable).items()}
    facts: dict[str, Fact] = {"age_years": age, "sex": patient.sex.value, "age_group": _age_group(age)}
    facts |= {name: _latest(used.get(kind, ())) for name, kind in _PLAIN.items()}
    facts |= _blood_pressure(used)
    facts["pulse_steady"] = _steady(used)
    facts |= _glucose(used.get("glucose", ()))
    facts |= _ratios(facts, given)
    facts |= _child(facts, age)
    facts |= {f"answer.{question}": value for question, value in given.items()}
    facts["spo2_scale_2"] = given.get("spo2-scale-2") is True
    news2 = score(_news2_inputs(facts, given, patient, age))
    facts |= _news2_facts(news2)
    return Observations(facts, used, tuple(left_out), news2)


def age_years(patient: Patient, at: Timestamp) -> float | None:
    """Age at a moment, from as much of the birth date as is known (a year alone: its middle); None where it is unknown
    or the device's clock was never set."""
    if patient.birth_date is None or not at.synced:
        return None
    year, month, day = [*(int(part) for part in patient.birth_date.split("-")), 0, 0][:3]
    born = year + ((month or 7) - 1) / 12 + ((day or (15 if month else 1)) - 1) / 365.25
    now = 1970 + at.wall_ms / (1000 * 86400 * 365.2425)
    return now - born if 0 <= now - born <= 130 else None


_PLAIN = {
    "pulse": "pulse_rate",
    "respiratory_rate": "respiratory_rate",
    "spo2": "spo2",
    "temperature": "temperature",
    "hba1c": "hba1c",
    "peak_flow": "peak_flow",
    "weight": "weight",
    "height": "height",
}


def reliable(vitals: Iterable[VitalSign]) -> tuple[list[VitalSign], list[str]]:
    """Those with a number that their own device does not disown, control solution left out; and what was left out, in
    words."""
    usable, left_out = [], []
    for one in vitals:
        name = one.kind.value.replace("_", " ")
        text = " ".join((*one.status, one.context, one.method)).casefold()
        disowned = next((word for word in DISOWNED if word in text), None)
        if one.value is None:
            left_out.append(f"{name}: {NO_VALUE}")
        elif disowned is not None:
            left_out.append(f"{name}: the device says {disowned}")
        else:
            usable.append(one)
    return usable, left_out


def _order(one: VitalSign) -> tuple[int, int]:
    return (one.at.boot, one.at.monotonic_ms)


def _by_kind(vitals: Sequence[VitalSign]) -> dict[VitalKind, list[VitalSign]]:
    out: dict[VitalKind, list[VitalSign]] = {}
    for one in sorted(vitals, key=lambda one: (_order(one), one.value, one.id)):
        out.setdefault(one.kind, []).append(one)
    return out


_NORMAL = {
    "pulse_rate": 75.0,
    "respiratory_rate": 16.0,
    "spo2": 98.0,
    "temperature": 37.0,
    "glucose": 5.5,
    "systolic_bp": 120.0,
    "diastolic_bp": 75.0,
}


def _latest(found: Sequence[VitalSign]) -> float | None:
    if not found:
        return None
    last = _order(found[-1])
    values = [one.value for one in found if _order(one) == last and one.value is not None]
    normal = _NORMAL.get(found[-1].kind.value)
    return values[-1] if normal is None else max(values, key=lambda value: abs(value - normal))


def _blood_pressure(used: dict[str, tuple[VitalSign, ...]]) -> dict[str, Fact]:
    systolic, diastolic = used.get("systolic_bp", ()), used.get("diastolic_bp", ())
    last = [[one.value for one in found[-2:] if one.value is not None] for found in (systolic, diastolic)]
    means = [sum(values) / len(values) if values else None for values in last]
    irregular = any("irregular" in " ".join(one.status).casefold() for one in systolic)
    return {
        "systolic": means[0],
        "diastolic": means[1],
        "bp_repeat": ON_ONE_READING if len(systolic) == 1 else "",
        "cuff_irregular": irregular if systolic else None,
    }


_STEADY_READINGS, _STEADY_RANGE = 6, 2.0


def _steady(used: dict[str, tuple[VitalSign, ...]]) -> Fact:
    """Whether an oximeter's or strap's own pulse hardly changed over several readings, as in atrial fibrillation it
    would; None where there are too few readings of one sensor."""
    by_sensor: dict[tuple[str, str], list[float]] = {}
    for one in (*used.get("pulse_rate", ()), *used.get("heart_rate", ())):
        if one.value is not None and one.method in ("pulse oximeter", "heart rate sensor"):
            by_sensor.setdefault((one.device.name, one.method), []).append(one.value)
    ranges = [max(values) - min(values) for values in by_sensor.values() if len(values) >= _STEADY_READINGS]
    return min(ranges) <= _STEADY_RANGE if ranges else None


def _glucose(found: Sequence[VitalSign]) -> dict[str, Fact]:
    if not found:
        return {"glucose": None, "glucose_context": None}
    context = found[-1].context.casefold()
    known = next((meaning for word, meaning in CONTEXTS.items() if word in context), None)
    return {"glucose": _latest(found), "glucose_context": known or ("random" if "random" in context else "unknown")}


def _answers(answers: Iterable[Answer]) -> dict[str, Fact]:
    """Question -> True, False, a number, or the words; of several answers to one question the gravest, yes, counts."""
    out: dict[str, Fact] = {}
    for one in sorted(answers, key=lambda one: ((one.at.boot, one.at.monotonic_ms), one.answer)):
        value = _read_answer(one.answer)
        if out.get(one.question) is not True:
            out[one.question] = value
    return out


def _read_answer(text: str) -> Fact:
    word = text.strip().casefold()
    if word in _YES or word in _NO:
        return word in _YES
    try:
        return float(word)
    except ValueError:
        return word or None


def _number(value: Fact) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _ratios(facts: dict[str, Fact], given: dict[str, Fact]) -> dict[str, Fact]:
    weight, height = _number(facts["weight"]), _number(facts["height"])
    flow, best = _number(facts["peak_flow"]), _number(given.get("peak-flow-best"))
    return {
        "bmi": weight / (height / 100) ** 2 if weight and height else None,
        "peak_flow_fraction": flow / best if flow is not None and best else None,
    }


class _Paediatric(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    source: str
    confirm: str
    adult_from_years: float
    pulse: tuple[tuple[float, float, float], ...]
    respiratory_rate: tuple[tuple[float, float, float], ...]
    systolic: tuple[tuple[float, float, float], ...]


@cache
def _paediatric(path: Path = _PAEDIATRIC) -> _Paediatric:
    return read_table(path, _Paediatric, "reading ranges by age")


def _age_group(age: float | None) -> str:
    if age is None:
        return "unknown"
    return "child" if age < _paediatric().adult_from_years else "adult"


def _child(facts: dict[str, Fact], age: float | None) -> dict[str, Fact]:
    if age is None or facts["age_group"] != "child":
        return {}
    out: dict[str, Fact] = {}
    for name in ("pulse", "respiratory_rate", "systolic"):
        value = _number(facts[name])
        low, high = next((low, high) for below, low, high in getattr(_paediatric(), name) if age < below)
        if value is not None:
            out[f"child_{name}"] = "low" if value < low else "high" if value > high else "normal"
            out[f"child_{name}_outside"] = max(low - value, value - high)
    return out


def _news2_inputs(facts: dict[str, Fact], given: dict[str, Fact], patient: Patient, age: float | None) -> News2Inputs:
    pregnant = given.get("pregnant")
    young_or_old = age is not None and not _CHILDBEARING[0] <= age < _CHILDBEARING[1]
    if patient.sex is Sex.MALE or young_or_old:
        pregnant = False
    oxygen = given.get("on-oxygen")
    return News2Inputs(
        respiratory_rate=_number(facts["respiratory_rate"]),
        spo2=_number(facts["spo2"]),
        on_oxygen=oxygen if isinstance(oxygen, bool) else None,
        systolic_bp=_number(facts["systolic"]),
        pulse=_number(facts["pulse"]),
        consciousness=_consciousness(given.get("consciousness")),
        temperature=_number(facts["temperature"]),
        scale_2=given.get("spo2-scale-2") is True,
        age_years=age,
        pregnant=pregnant if isinstance(pregnant, bool) else None,
    )


def _consciousness(answer: Fact) -> Consciousness | None:
    if not isinstance(answer, str):
        return None
    return next((one for one in Consciousness if answer in (one.value.casefold(), one.name.casefold())), None)


def _news2_facts(news2: News2) -> dict[str, Fact]:
    if not news2.applies:
        return {"news2": None}
    worst = max(news2.points, key=lambda name: news2.points[name], default="")
    return {
        "news2": news2.total,
        "news2_at_least": news2.at_least if news2.points else None,
        "news2_highest": news2.highest if news2.points else None,
        "news2_worst": worst.replace("_", " "),
    }
