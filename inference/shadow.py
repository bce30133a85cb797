"""A report as it is shown where a model has yet to prove itself: without the model's answer, and with all the rest.

The report itself stays whole, for the hub that compares the model with clinicians. What is shown is concluded anew by
the same rules from what is left: symptoms, vital signs, rates, intervals, ventricular beats and the quality of
recordings. What the hidden model would have assessed counts as not assessed and never as normal.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from aidpost.inference._rules import rule_book
from aidpost.inference.triage import triage
from aidpost.records import EcgResult, ExamReport, Finding, FundusResult, Rhythm, TriageLevel

TASKS = ("dr", "af")
"""What is hidden or shown: retinopathy in photographs, the rhythm of an ECG."""
_OF_RHYTHM = {"rhythm", "af_s"}
"""The facts of `rules/ecg.toml` that come from the rhythm model."""


def concealed(
    report: ExamReport, tasks: Collection[str], limits: Mapping[str, Mapping[str, float]] | None = None
) -> ExamReport:
    """The report without what the models of these tasks say: grade, rhythm, probabilities, heatmap, and the findings,
    advice and triage that follow from them. A triage that a person chose stays.

    Raises
    ------
    ConfigurationError
        As `triage.triage`.
    """
    fundus = tuple(_photograph(one) for one in report.fundus) if "dr" in tasks else report.fundus
    ecg = tuple(_trace(one, limits) for one in report.ecg) if "af" in tasks else report.ecg
    if fundus == report.fundus and ecg == report.ecg:
        return report
    # a photograph that only lacks its grade is not an ungradable one: its eye is left out, and so not assessed
    hidden = {one.eye for one, before in zip(fundus, report.fundus, strict=True) if one != before}
    judged = tuple(one for one in fundus if one.eye not in hidden)
    found = triage(
        patient=report.patient,
        at=report.exam.started,
        vitals=report.vitals,
        answers=report.answers,
        ecg=ecg,
        fundus=judged,
        trends=report.trends,
        forecasts=report.forecasts,
        limits=limits,
    )
    chosen = report.triage.changed_by != ""
    level = msgspec.structs.replace(report.triage, computed=found.triage.level) if chosen else found.triage
    rhythm = ("heart rhythm",) if ecg != report.ecg else ()
    return msgspec.structs.replace(
        report,
        triage=level,
        findings=found.findings,
        ecg=ecg,
        fundus=fundus,
        advice=found.advice,
        not_assessed=tuple(dict.fromkeys((*found.not_assessed, *rhythm, *report.not_assessed))),
    )


def _photograph(result: FundusResult) -> FundusResult:
    if result.dr is None:
        return result  # no model graded it
    return msgspec.structs.replace(
        result, dr=None, heatmap=None, findings=(), triage=TriageLevel.ROUTINE, models=(), not_assessed=()
    )


def _trace(result: EcgResult, limits: Mapping[str, Mapping[str, float]] | None) -> EcgResult:
    if result.rhythm.label is None and not result.rhythm.probability:
        return result
    rules = rule_book("ecg", (limits or {}).get("ecg")).rules
    of_rhythm = {rule.name for rule in rules if _OF_RHYTHM & {fact for fact, _, _ in rule.conditions}}

    def hidden(finding: Finding) -> bool:
        return bool(finding.model) or finding.code in of_rhythm

    kept = tuple(finding for finding in result.findings if not hidden(finding))
    return msgspec.structs.replace(
        result,
        rhythm=Rhythm(label=None, probability={}),
        findings=kept,
        triage=max((finding.severity for finding in kept), default=TriageLevel.ROUTINE),
        models=(),
    )
