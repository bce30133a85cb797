"""Written rules: limits with their source, and conclusions that follow when facts pass them.

A rule file (`inference/rules/*.toml`) holds a version, `[limits.<name>]` (value, unit, source, who should confirm it)
and `[[rule]]` entries. A rule's `when` is a list of [fact, operator, value] that must all hold; of its `any`, where it
has one, at least one must. A fact that is unknown satisfies none of them: unknown never counts as normal, nor as
abnormal. A value like "$tachycardia" is a limit's.
Of the rules that share a `group`, only the gravest that holds speaks.
"""

from __future__ import annotations

import hashlib
import operator
import sys
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Any

import msgspec

from aidpost.errors import ConfigurationError
from aidpost.records import Finding, TriageLevel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Fact = float | str | bool | None
Facts = Mapping[str, Fact]
Condition = tuple[str, str, Any]

RULES = Path(__file__).with_name("rules")

_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    "in": lambda fact, values: fact in values,
}


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number that a rule compares with. `confirm` says who should confirm it before clinical use."""

    value: float
    unit: str
    source: str
    confirm: str = "clinician"


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A conclusion. `text` may quote facts and limits as {fact:.0f} and {$limit:.0f}; `advice` is for the patient's
    paper, `within_days` by when it is to be followed (0: today). What `reassures` is left out when anything with a
    `red_flag` holds."""

    name: str
    severity: TriageLevel
    text: str
    when: tuple[Condition, ...] = ()
    any: tuple[Condition, ...] = ()
    source: str = ""
    group: str = ""
    advice: str = ""
    within_days: int | None = None
    reassures: bool = False
    red_flag: bool = False

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All of them, those that must hold first."""
        return self.when + self.any


class Hazard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What could come of a rule of this file that is wrong, and the tests that hold it: for the hazard log."""

    text: str
    tests: tuple[str, ...]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: str
    hazard: Hazard | None = None
    limits: dict[str, Limit] = {}
    rule: tuple[Rule, ...] = ()


class Conclusion(msgspec.Struct, frozen=True):
    """A rule that held, with the facts it looked at and the limits it used."""

    rule: Rule
    said: dict[str, Fact]
    facts: dict[str, Fact]
    limits: dict[str, Limit]
    version: str

    @property
    def text(self) -> str:
        """The conclusion in words."""
        return say(self.rule.text, self.said)

    @property
    def advice(self) -> str:
        """What the patient's paper says."""
        return say(self.rule.advice, self.said)

    def finding(
        self, *, about: tuple[uuid.UUID, ...] = (), probability: float | None = None, model: str = ""
    ) -> Finding:
        """The same as a record."""
        sources = [self.rule.source, *(limit.source for limit in self.limits.values())]
        return Finding(
            code=self.rule.name,
            text=self.text,
            severity=self.rule.severity,
            probability=probability,
            about=about,
            rule=f"{self.rule.name}@{self.version}",
            source="; ".join(dict.fromkeys(source for source in sources if source)),
            model=model,
            values=self.quoted,
            within_days=self.rule.within_days,
        )

    @property
    def quoted(self) -> dict[str, Fact]:
        """The facts and limits that the text and the advice quote; one that is not known is None."""
        names = {name for _, name, _, _ in Formatter().parse(self.rule.text + self.rule.advice) if name}
        return {name: self.said.get(name) for name in sorted(names)}


class RuleBook:
    """A rule file, read and checked.

    Raises
    ------
    ConfigurationError
        A rule names a limit that is not there, an unknown operator, or an override names no limit.
    """

    def __init__(self, content: _File, name: str, overrides: Mapping[str, float] | None = None) -> None:
        self.version, self.rules, self.hazard = f"{name} {content.version}", content.rule, content.hazard
        self.limits = dict(content.limits)
        for limit, value in (overrides or {}).items():
            if limit not in self.limits:
                raise _wrong(name, f"there is no limit {limit!r}", f"The limits are {', '.join(sorted(self.limits))}.")
            source = f"set at this site (published: {self.limits[limit].value:g}, {self.limits[limit].source})"
            self.limits[limit] = msgspec.structs.replace(self.limits[limit], value=float(value), source=source)
        if overrides:  # a report says by which limits it was made, also where they are a site's own
            said = msgspec.json.encode(dict(sorted(overrides.items())))
            self.version += f"+{hashlib.sha256(said).hexdigest()[:6]}"
        for rule in self.rules:
            self._check(rule, name)

    def __getitem__(self, limit: str) -> float:
        return self.limits[limit].value

    def conclusions(self, facts: Facts) -> list[Conclusion]:
        """What follows from the facts, in the file's order; of a group only the gravest, the first of equals."""
        held = [self.conclude(rule, facts) for rule in self.rules if self._holds(rule, facts)]
        best: dict[str, Conclusion] = {}
        for one in held:
            group = one.rule.group or one.rule.name
            if group not in best or one.rule.severity > best[group].rule.severity:
                best[group] = one
        kept = {id(one) for one in best.values()}
        return [one for one in held if id(one) in kept]

    def _holds(self, rule: Rule, facts: Facts) -> bool:
        enough = not rule.any or any(self.met(condition, facts) for condition in rule.any)
        return enough and all(self.met(condition, facts) for condition in rule.when)

    def met(self, condition: Condition, facts: Facts) -> bool:
        """Whether the facts meet a condition; what is not known meets none."""
        fact, compare, value = condition
        known = facts.get(fact)
        return known is not None and known == known and _COMPARE[compare](known, self._value(value))

    def _value(self, value: Any) -> Any:
        return self.limits[value[1:]].value if isinstance(value, str) and value.startswith("$") else value

    def conclude(self, rule: Rule, facts: Facts) -> Conclusion:
        """What a rule says of the facts, whether it holds or not."""
        used = {value[1:]: self.limits[value[1:]] for value in _limit_names(rule)}
        said = dict(facts) | {f"${name}": limit.value for name, limit in used.items()}
        looked_at = {fact: facts.get(fact) for fact, _, _ in rule.conditions}
        return Conclusion(rule, said, looked_at, used, self.version)

    def _check(self, rule: Rule, name: str) -> None:
        for _, compare, _ in rule.conditions:
            if compare not in _COMPARE:
                raise _wrong(
                    name, f"rule {rule.name} has the operator {compare!r}", f"Use one of {' '.join(_COMPARE)}."
                )
        for value in _limit_names(rule):
            if value[1:] not in self.limits:
                raise _wrong(name, f"rule {rule.name} names no limit with {value!r}", "Add it under [limits].")


class _Unknown(str):
    def __format__(self, spec: str) -> str:
        return str(self)  # "unknown" has no decimals


class _Quoted(dict[str, Any]):
    unknown = _Unknown("unknown")

    def __missing__(self, name: str) -> _Unknown:
        return self.unknown


def say(template: str, values: Mapping[str, Fact], unknown: str = "unknown") -> str:
    """A rule's text or advice with its facts and limits; one that is not known reads `unknown`."""
    quoted = _Quoted({name: value for name, value in values.items() if value is not None})
    quoted.unknown = _Unknown(unknown)
    return template.format_map(quoted)


def _limit_names(rule: Rule) -> list[str]:
    return [value for _, _, value in rule.conditions if isinstance(value, str) and value.startswith("$")]


def _wrong(name: str, cause: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(operation="reading rules", target=name, cause=cause, remedy=remedy)


@cache
def _read(path: Path) -> _File:
    try:
        with path.open("rb") as file:
            return msgspec.convert(tomllib.load(file), _File)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise _wrong(str(path), str(error), "Correct the file, or use the one that was installed.") from error


def rule_book(name: str, overrides: Mapping[str, float] | None = None, folder: Path = RULES) -> RuleBook:
    """The rules `<name>.toml` in `folder`, with a site's own values for named limits. Raises ConfigurationError."""
    return RuleBook(_read(folder / f"{name}.toml"), name, overrides)


@cache
def _names() -> frozenset[str]:
    return frozenset(path.stem for path in RULES.glob("*.toml"))


def rule_of(finding: Finding) -> Rule | None:
    """The rule that made a finding, as this version has it; None where it has none of that name."""
    name, _, version = finding.rule.partition("@")
    file = version.partition(" ")[0]
    if file not in _names():  # a report may come from anywhere
        return None
    return next((rule for rule in rule_book(file).rules if rule.name == name), None)


def advice_of(finding: Finding) -> str:
    """What the patient's paper says because of a finding; empty where its rule says nothing."""
    rule = rule_of(finding)
    return say(rule.advice, finding.values) if rule else ""
