"""What is usual for an adult, beside each vital sign: the limits of the rules, with a site's own values, so that paper
and triage never disagree. Where no rule has a limit there is no range."""

from __future__ import annotations

from collections.abc import Mapping

from aidpost.inference._rules import rule_book
from aidpost.inference.vitals import age_years
from aidpost.records import ExamReport, VitalKind

_ADULT_YEARS = 16.0
"""As in NEWS2 (Royal College of Physicians 2017): for children these limits say nothing."""
_LIMITS: dict[VitalKind, tuple[str, str]] = {
    VitalKind.SYSTOLIC_BP: ("bp_low_systolic", "bp_grade_1_systolic"),
    VitalKind.DIASTOLIC_BP: ("", "bp_grade_1_diastolic"),
    VitalKind.SPO2: ("spo2_low", ""),
    VitalKind.TEMPERATURE: ("hypothermia", "fever"),
    VitalKind.GLUCOSE: ("hypoglycaemia", "random_glucose"),
    VitalKind.HBA1C: ("", "hba1c_diabetes"),
    VitalKind.PULSE_RATE: ("ecg:bradycardia", "ecg:tachycardia"),
    VitalKind.HEART_RATE: ("ecg:bradycardia", "ecg:tachycardia"),
}
"""Kind -> the limit under which, and the one from which a rule speaks; with its file where that is not `vitals`."""


def usual(report: ExamReport, limits: Mapping[str, Mapping[str, float]] | None = None) -> dict[VitalKind, str]:
    """Kind -> "90 – 140", "< 90" or "≥ 94", in the unit of the record; empty for children, in pregnancy, and where the
    age is not known."""
    age = age_years(report.patient, report.exam.started)
    pregnant = any(one.question == "pregnant" and one.answer == "yes" for one in report.answers)
    if age is None or age < _ADULT_YEARS or pregnant:
        return {}
    return {kind: _said(_value(low, limits), _value(high, limits)) for kind, (low, high) in _LIMITS.items()}


def _value(limit: str, limits: Mapping[str, Mapping[str, float]] | None) -> float | None:
    book, _, name = limit.rpartition(":")
    book = book or "vitals"
    return rule_book(book, (limits or {}).get(book))[name] if name else None


def _said(low: float | None, high: float | None) -> str:
    if low is None:
        return f"< {high:g}"
    return f"≥ {low:g}" if high is None else f"{low:g} – {high:g}"
