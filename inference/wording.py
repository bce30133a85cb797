"""Findings and advice in the reader's language: the rules' templates are the catalogue's messages, the values come from
the finding, so that a report made in one language is read in another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aidpost.inference._rules import RULES, rule_book, rule_of, say
from aidpost.records import ExamReport, Finding, VitalKind

__all__ = ["Translate", "advice", "advice_of", "messages", "word", "words"]

Translate = Callable[[str], str]
"""A message (English, with {placeholders}) to the same in another language: `gettext` of a catalogue."""


def messages() -> Iterator[tuple[str, str]]:
    """Every message that a rule may say, with where it is from (`vitals.toml bp-grade-1`): for a catalogue."""
    for path in sorted(RULES.glob("*.toml")):
        for rule in rule_book(path.stem).rules:
            yield from ((text, f"{path.name} {rule.name}") for text in (rule.text, rule.advice) if text)


def words() -> Iterator[str]:
    """The words that messages quote as values, and what a report says that it did not assess: for a catalogue too."""
    from aidpost.inference import ecg, fundus, news2, stroke_risk, triage, vitals
    from aidpost.inference._photo_quality import ADVICE

    yield from ("unknown", "left", "right", "Left", "Right", "Unknown", "left eye", "right eye")
    yield from (*ADVICE.values(), "the quality is too low", *ecg.REASONS.values(), "too little usable signal")
    yield from (*dict.fromkeys(vitals.CONTEXTS.values()), "random", vitals.ON_ONE_READING)
    yield from (words for words, _ in stroke_risk.QUESTIONS.values())
    yield from ("age", "sex", "at least {points}, ask: {missing}")
    yield from (name.replace("_", " ") for name in (*news2.INPUTS, *(kind.value for kind in VitalKind)))
    yield from (
        *triage.RECORDED.values(),
        "heart rhythm",
        *fundus.NOT_ASSESSED,
        "diabetic retinopathy",
        triage.NOTHING_FOUND,
    )
    yield from ("early warning score (missing: {missing})", triage.NO_SCORE, vitals.NO_VALUE)
    yield "the device says {word}"
    yield from vitals.DISOWNED


def word(finding: Finding, translate: Translate) -> str:
    """The finding in another language; as it stands where its rule, or a value that the text quotes, is not known."""
    rule = rule_of(finding)
    return finding.text if rule is None else _said(rule.text, finding, translate) or finding.text


def advice_of(finding: Finding, translate: Translate) -> str:
    """What is to be done because of a finding; empty where its rule says nothing, or is not known."""
    rule = rule_of(finding)
    return "" if rule is None or not rule.advice else _said(rule.advice, finding, translate)


def advice(report: ExamReport, translate: Translate) -> tuple[str, ...]:
    """The report's advice in another language, in its order; as it stands where it is from no rule of this version."""
    other: dict[str, str] = {}
    for finding in report.findings:
        rule = rule_of(finding)
        if rule is not None and rule.advice:
            other[say(rule.advice, finding.values)] = _said(rule.advice, finding, translate)
    return tuple(other.get(text) or text for text in report.advice)


def _said(template: str, finding: Finding, translate: Translate) -> str:
    """The words among the values ("left", "fasting") are messages too. Empty where the translation is no template."""
    values = {name: translate(v) if isinstance(v, str) and v else v for name, v in finding.values.items()}
    try:
        return say(translate(template), values, translate("unknown"))
    except (ValueError, IndexError):
        return ""
