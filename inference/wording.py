"""Findings and advice in the reader's language: the rules' templates are the catalogue's messages, the values come from
the finding, so that a report made in one language is read in another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from aidpost.inference._rules import RULES, rule_book, rule_of, say
from aidpost.records import ExamReport, Finding

__all__ = ["Translate", "advice", "advice_of", "messages", "word"]

Translate = Callable[[str], str]
"""A message (English, with {placeholders}) to the same in another language: `gettext` of a catalogue."""


def messages() -> Iterator[tuple[str, str]]:
    """Every message that a rule may say, with where it is from (`vitals.toml bp-grade-1`): for a catalogue."""
    for path in sorted(RULES.glob("*.toml")):
        for rule in rule_book(path.stem).rules:
            yield from ((text, f"{path.name} {rule.name}") for text in (rule.text, rule.advice) if text)


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
        return say(translate(template), values)
    except (ValueError, IndexError):
        return ""
