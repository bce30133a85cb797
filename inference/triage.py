"""One triage from everything that an exam found, by written rules.

The rules are `rules/*.toml`: ECG and photographs have been judged by their own when they were analysed; here the eyes
are joined, vital signs and answers are judged, and what they mean together. No rule takes another's urgency away: the
level is that of the gravest finding. A red flag forbids reassurance, and what was not assessed is listed, never counted
as normal.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aidpost.inference import forecast as _forecast
from aidpost.inference import trends as _trends
from aidpost.inference._eyes import EyeReading, conclude, read_eyes
from aidpost.inference._rules import Conclusion, Fact, Limit, advice_of, rule_book
from aidpost.inference.stroke_risk import cha2ds2_vasc
from aidpost.inference.vitals import Observations, observe
from aidpost.records import (
    Answer,
    EcgResult,
    ExamReport,
    Eye,
    Finding,
    Forecast,
    FundusResult,
    Patient,
    Record,
    Timestamp,
    Trend,
    Triage,
    TriageLevel,
    VitalSign,
)

__all__ = ["Assessment", "Explanation", "explain", "triage"]

RULE_FILES = ("symptoms", "vitals", "trends", "eyes", "combinations")
"""The rule files used here, besides "ecg" and "fundus" that the analyses use."""

_ORGAN_SYMPTOMS = ("chest-pain", "breathlessness", "vision-loss", "stroke-signs", "severe-headache", "confusion")
NOTHING_FOUND = "Nothing was found in what was assessed."
NO_SCORE = "early warning score (NEWS2 is not for children or in pregnancy)"
RECORDED = {
    "systolic": "blood pressure",
    "glucose": "glucose",
    "spo2": "oxygen saturation",
    "temperature": "temperature",
    "pulse": "pulse",
    "respiratory_rate": "respiratory rate",
}


@dataclass(frozen=True)
class Explanation:
    """Why one thing was concluded: the inputs that were looked at, the rule or model, its version, and its limits (name
    -> value, unit and source in words)."""

    conclusion: str
    inputs: dict[str, Fact]
    rule: str
    version: str
    limits: dict[str, str]


@dataclass(frozen=True)
class Assessment:
    """The answer of one exam; findings and reasons gravest first. `explanations` has one entry a finding, in its
    order."""

    triage: Triage
    findings: tuple[Finding, ...]
    advice: tuple[str, ...]
    not_assessed: tuple[str, ...]
    explanations: tuple[Explanation, ...]


def triage(
    *,
    patient: Patient,
    at: Timestamp,
    vitals: Sequence[VitalSign] = (),
    answers: Sequence[Answer] = (),
    ecg: Sequence[EcgResult] = (),
    fundus: Sequence[FundusResult] = (),
    trends: Sequence[Trend] = (),
    forecasts: Sequence[Forecast] = (),
    limits: Mapping[str, Mapping[str, float]] | None = None,
) -> Assessment:
    """Judge one exam.

    The order of the sequences does not matter. `trends` and `forecasts` are what `inference.trends` and
    `inference.forecast` make of the patient's earlier readings and these. `limits` are a site's own values: rule file
    -> limit -> value.

    Raises
    ------
    ConfigurationError
        `limits` names a limit that is not there, or a rule file cannot be read.
    """
    books = {name: rule_book(name, (limits or {}).get(name)) for name in RULE_FILES}
    seen = observe(patient, vitals, answers, at)
    ecg, fundus = sorted(ecg, key=_when), sorted(fundus, key=_when)
    eyes = read_eyes(fundus)
    facts = seen.facts | _trends.facts(trends) | _forecast.facts(forecasts) | _joined_facts(seen, eyes, ecg)
    made = [_Made(one, _vital_ids(one, seen)) for one in books["symptoms"].conclusions(facts)]
    for name in ("vitals", "trends"):
        made += [_Made(one, _vital_ids(one, seen)) for one in books[name].conclusions(facts)]
    for eye in eyes:
        made += [_Made(one, tuple(photo.id for photo in eye.about)) for one in conclude(eye, books["eyes"])]
    everything = (*(one.id for one in ecg), *(one.id for one in fundus))
    made += [_Made(one, tuple(sorted(everything))) for one in books["combinations"].conclusions(facts)]
    if any(one.conclusion.rule.red_flag for one in made):
        made = [one for one in made if not one.conclusion.rule.reassures]
    pairs = [(one.finding(), one.explanation()) for one in made]
    pairs += [(finding, _explain_result(finding, result)) for result in ecg for finding in result.findings]
    pairs.sort(key=lambda pair: (-pair[0].severity.rank, pair[0].code, pair[0].text, str(pair[0].about)))
    findings = tuple(finding for finding, _ in pairs)
    missing = _not_assessed(seen, eyes, ecg, fundus)
    return Assessment(
        triage=_overall(findings, missing),
        findings=findings,
        advice=_advice(findings, made),
        not_assessed=missing,
        explanations=tuple(explanation for _, explanation in pairs),
    )


def _when(one: EcgResult | FundusResult) -> tuple[int, int, uuid.UUID]:
    return (one.at.boot, one.at.monotonic_ms, one.id)


def explain(report: ExamReport, limits: Mapping[str, Mapping[str, float]] | None = None) -> list[Explanation]:
    """For each conclusion of a report: the inputs, the rule or model, its version and limits, gravest first.

    The rules are those of this version; a finding of the report that they do not make any more is explained by what the
    report itself says of it. Raises ConfigurationError as `triage` does.
    """
    again = triage(
        patient=report.patient,
        at=report.exam.started,
        vitals=report.vitals,
        answers=report.answers,
        ecg=report.ecg,
        fundus=report.fundus,
        trends=report.trends,
        forecasts=report.forecasts,
        limits=limits,
    )
    made = {(one.code, one.text): why for one, why in zip(again.findings, again.explanations, strict=True)}
    return [made.get((one.code, one.text)) or _explain_result(one, None) for one in report.findings]


@dataclass(frozen=True)
class _Made:
    conclusion: Conclusion
    about: tuple[uuid.UUID, ...]

    def finding(self) -> Finding:
        return self.conclusion.finding(about=self.about)

    def explanation(self) -> Explanation:
        one = self.conclusion
        return Explanation(one.text, one.facts, one.rule.name, one.version, _in_words(one.limits))


def _in_words(limits: Mapping[str, Limit]) -> dict[str, str]:
    return {name: f"{limit.value:g} {limit.unit} ({limit.source})" for name, limit in limits.items()}


def _explain_result(finding: Finding, result: Record | None) -> Explanation:
    inputs: dict[str, Fact] = {"probability": finding.probability}
    if isinstance(result, EcgResult):
        inputs |= {"heart_rate_bpm": result.measurements.heart_rate_bpm, "rhythm": result.rhythm.label}
    rule, _, version = finding.rule.partition("@")
    if finding.model:
        version = f"{version}, model {finding.model}"
    limits = {"source": finding.source} if finding.source else {}
    return Explanation(finding.text, inputs, rule, version, limits)


def _joined_facts(seen: Observations, eyes: Sequence[EyeReading], ecg: Sequence[EcgResult]) -> dict[str, Fact]:
    usable = [one for one in ecg if one.quality.usable]
    rhythms = {one.rhythm.label for one in usable if one.rhythm.label is not None}
    # of several recordings the gravest rhythm counts
    rhythm = next((label for label in ("A", "O", "N", "~") if label in rhythms), None)
    rates = [one.measurements.heart_rate_bpm for one in usable if one.measurements.heart_rate_bpm is not None]
    qtc = [one.measurements.qtcf_ms for one in usable if one.measurements.qtcf_ms is not None]
    pulse = seen.facts.get("pulse")
    apart = [abs(rate - float(pulse)) for rate in rates if isinstance(pulse, int | float)]
    referable = [eye.facts.get("referable") for eye in eyes if eye.photograph is not None]
    symptoms = [seen.facts.get(f"answer.{name}") for name in _ORGAN_SYMPTOMS]
    risk = cha2ds2_vasc(seen.facts)
    return {
        "rhythm": rhythm,
        "heart_rate_bpm": max(rates, key=lambda rate: abs(rate - 75), default=None),
        "qtcf_ms": max(qtc, default=None),
        "rate_difference": max(apart, default=None),
        "referable": any(one is True for one in referable) if referable else None,
        "organ_symptom": True if True in symptoms else None,
        "ecg_not_interpreted": any(not one.quality.usable and not one.findings for one in ecg),
        "cha2ds2_vasc": risk.text,
        "anything": bool(seen.used or ecg or eyes or any(name.startswith("answer.") for name in seen.facts)),
    }


_FROM_VITALS = {
    "systolic": ("systolic_bp", "diastolic_bp"),
    "diastolic": ("systolic_bp", "diastolic_bp"),
    "pulse": ("pulse_rate",),
    "bmi": ("weight", "height"),
    "peak_flow_fraction": ("peak_flow",),
}


def _vital_ids(conclusion: Conclusion, seen: Observations) -> tuple[uuid.UUID, ...]:
    kinds = [kind for fact in conclusion.facts for kind in _FROM_VITALS.get(fact, (fact.removeprefix("child_"),))]
    kinds += [kind for fact in conclusion.facts for kind in seen.used if fact.startswith(f"{kind}_")]
    if any(fact.startswith("news2") for fact in conclusion.facts):
        kinds = list(seen.used)
    return tuple(sorted({one.id for kind in kinds for one in seen.used.get(kind, ())}))


def _overall(findings: Sequence[Finding], missing: Sequence[str]) -> Triage:
    level = max((finding.severity for finding in findings), default=TriageLevel.ROUTINE)
    # those that decided it; the rest stand among the findings
    reasons = [finding.text for finding in findings if finding.severity is level is not TriageLevel.ROUTINE]
    if not reasons:
        reasons = [finding.text for finding in findings] or [NOTHING_FOUND]
        reasons += [f"Not assessed: {', '.join(missing)}."] if missing else []
    return Triage(level=level, reasons=tuple(dict.fromkeys(reasons)), computed=level)


def _advice(findings: Iterable[Finding], made: Iterable[_Made]) -> tuple[str, ...]:
    """Gravest first. Of photographs the eyes speak, which join them; ECGs speak for themselves."""
    spoken = {(one.conclusion.rule.name, one.conclusion.text): one.conclusion.advice for one in made}
    said = [spoken.get((one.code, one.text)) or advice_of(one) for one in findings]
    return tuple(dict.fromkeys(advice for advice in said if advice))


def _not_assessed(
    seen: Observations, eyes: Sequence[EyeReading], ecg: Sequence[EcgResult], fundus: Sequence[FundusResult]
) -> tuple[str, ...]:
    out = list(seen.left_out)
    out += [name for fact, name in RECORDED.items() if seen.facts.get(fact) is None]
    if seen.news2.applies and seen.news2.total is None:
        out.append(f"early warning score (missing: {', '.join(one.replace('_', ' ') for one in seen.news2.missing)})")
    if not seen.news2.applies:
        out.append(NO_SCORE)
    if not any(one.quality.usable for one in ecg):
        out.append("heart rhythm")
    for eye in Eye:
        if not any(one.eye is eye and one.photograph is not None for one in eyes):
            out.append(f"{eye.value} eye")
    out += [name for one in fundus for name in one.not_assessed]
    return tuple(dict.fromkeys(out))
