"""The words of the pages. English is the key; a phrase without a translation shows in English, and a test finds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from aidpost.records import VitalSign
from aidpost.sync.hub._chinese import CHINESE

LANGUAGES = {"en": "English", "zh": "中文"}

_CATALOGUES: dict[str, dict[str, str]] = {"en": {}, "zh": CHINESE}

VITALS = {
    "systolic_bp": "systolic BP",
    "diastolic_bp": "diastolic BP",
    "mean_bp": "mean BP",
    "pulse_rate": "pulse rate",
    "heart_rate": "heart rate",
    "respiratory_rate": "respiratory rate",
    "spo2": "SpO₂",
    "perfusion_index": "perfusion index",
    "temperature": "temperature",
    "glucose": "glucose",
    "hba1c": "HbA1c",
    "weight": "weight",
    "height": "height",
    "body_fat": "body fat",
    "peak_flow": "peak flow",
    "battery": "battery",
}
GRADE_NAMES = {
    "dr_right": "DR, right eye",
    "dr_left": "DR, left eye",
    "dme_right": "Macular oedema, right",
    "dme_left": "Macular oedema, left",
    "rhythm": "Rhythm",
}
_UNITS = {"mm[Hg]": "mmHg", "Cel": "°C"}


def translator(language: str) -> Callable[[str], str]:
    """English -> the language; what is not in the catalogue stays as it is."""
    catalogue = _CATALOGUES[language]
    return lambda text: catalogue.get(text, text)


def vital_name(kind: str) -> str:
    """The English name of a kind of vital sign."""
    return VITALS.get(kind, kind.replace("_", " "))


class Intervals(NamedTuple):
    """Intervals between beats in numbers that interpret nothing: how many, their mean, the shortest and the longest, in
    milliseconds."""

    number: int
    mean_ms: float
    low_ms: float
    high_ms: float


def intervals(vital: VitalSign) -> Intervals | None:
    """Of the intervals that a heart-rate sensor sent; None where it sent none."""
    found = vital.rr_ms
    return Intervals(len(found), sum(found) / len(found), min(found), max(found)) if found else None


def grade_name(name: str) -> str:
    """The English name of what a reader graded."""
    return GRADE_NAMES.get(name, name.replace("_", " "))


def unit(ucum: str) -> str:
    """A UCUM unit as people write it."""
    return _UNITS.get(ucum, ucum)
