"""A patient who is watched: each number is followed by its own limits in `rules/watch.toml`, with hysteresis; what is
silenced comes back by itself, and nothing worse is hidden. A sensor that falls silent calls too.

Pure but for what it remembers: readings and times come from the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from aidpost.errors import ConfigurationError
from aidpost.inference import forecast
from aidpost.inference._rules import Fact, Rule, RuleBook, rule_book
from aidpost.inference.alerts import Alert, Limits, snooze, step
from aidpost.inference.vitals import observe, reliable
from aidpost.records import Answer, Finding, Patient, Timestamp, VitalKind, VitalSign

__all__ = ["Call", "Watch"]

REMEMBERED = 4096
"""Readings of the past that a forecast may look at: two weeks of a glucose sensor."""


class Call(NamedTuple):
    """Somebody is called because of `finding`. `quiet`: somebody has asked not to hear of it for a while."""

    finding: Finding
    quiet: bool


class _Line(NamedTuple):
    """One number in one direction. `rules[k]` is what level k + 1 says."""

    fact: str
    limits: Limits
    rules: tuple[Rule, ...]


class Watch:
    """What is known of one patient while they are watched.

    Parameters
    ----------
    answers
        Those of the exam: on oxygen, and whether the oxygen target is 88 to 92 % (`spo2-scale-2`).
    history
        Earlier readings of the same patient; forecasts look at them.
    overrides
        A site's own limits by name.

    Raises
    ------
    ConfigurationError
        An override names no limit, or limits contradict one another.
    """

    def __init__(
        self,
        patient: Patient,
        began: Timestamp,
        answers: Iterable[Answer] = (),
        history: Iterable[VitalSign] = (),
        overrides: Mapping[str, float] | None = None,
    ) -> None:
        self._patient, self._answers = patient, tuple(answers)
        self._past = deque(history, maxlen=REMEMBERED)
        self._book = rule_book("watch", overrides)
        whom = observe(patient, (), self._answers, began).facts
        self._lines = _lines(self._book, whom)
        self._alerts = dict.fromkeys(self._lines, Alert())
        self._facts: dict[str, Fact] = dict(whom)
        self._heard: dict[str, float] = {"": _seconds(began)}  # when each kind was last heard; "" any

    def take(self, readings: Iterable[VitalSign], at: Timestamp) -> bool:
        """Follow new readings; several of one kind in the order of their times. Whether a level changed."""
        usable, _ = reliable(readings)
        before = {group: alert.level for group, alert in self._alerts.items()}
        for one in sorted(usable, key=lambda one: (one.at.boot, one.at.monotonic_ms)):
            self._past.append(one)
            self._heard[""] = self._heard[one.kind.value] = _seconds(at)
            self._follow(observe(self._patient, (one,), self._answers, at).facts, at)
        if any(one.kind is VitalKind.GLUCOSE for one in usable):
            glucose = forecast.forecast(VitalKind.GLUCOSE, self._past, at)
            self._follow(forecast.facts((glucose,) if glucose else ()), at)
        return before != {group: alert.level for group, alert in self._alerts.items()}

    def calls(self, at: Timestamp) -> list[Call]:
        """Whom to call for now, the gravest first."""
        now = _seconds(at)
        self._follow(
            {f"{kind}_silent_s" if kind else "silent_s": now - heard for kind, heard in self._heard.items()}, at
        )
        found = []
        for group, line in self._lines.items():
            alert = self._alerts[group]
            if alert.level:
                found.append(Call(self._finding(line.rules[alert.level - 1]), not alert.shown(now)))
        return sorted(found, key=lambda call: (call.quiet, call.finding.severity), reverse=True)

    def quiet(self, at: Timestamp, seconds: float) -> None:
        """Nobody is called again for what is known now, for so long. Raises ValueError as `alerts.snooze`."""
        now = _seconds(at)
        self._alerts = {
            group: snooze(alert, now, seconds) if alert.level else alert for group, alert in self._alerts.items()
        }

    def _follow(self, facts: Mapping[str, Fact], at: Timestamp) -> None:
        self._facts |= {name: value for name, value in facts.items() if value is not None}
        for group, line in self._lines.items():
            value = facts.get(line.fact)
            if isinstance(value, int | float) and not isinstance(value, bool):
                self._alerts[group] = step(self._alerts[group], float(value), _seconds(at), line.limits)

    def _finding(self, rule: Rule) -> Finding:
        """What the rule says. The latest value is quoted, which may be on its way back already."""
        return self._book.conclude(rule, self._facts).finding()


def _seconds(at: Timestamp) -> float:
    return at.monotonic_ms / 1000


def _lines(book: RuleBook, whom: Mapping[str, Fact]) -> dict[str, _Line]:
    """The numbers to follow for such a patient, by the rules' group."""
    groups: dict[str, list[Rule]] = {}
    for rule in book.rules:
        if all(book.met(condition, whom) for condition in rule.when[1:]):
            groups.setdefault(rule.group, []).append(rule)
    return {group: _line(book, group, sorted(rules, key=lambda rule: rule.severity)) for group, rules in groups.items()}


def _line(book: RuleBook, group: str, rules: list[Rule]) -> _Line:
    (fact, compare, _), *others = (rule.when[0] for rule in rules)
    if compare not in ("<=", ">=") or any(one[:2] != (fact, compare) for one in others):
        raise _wrong(group, "its rules do not all follow one number in one direction, by <= or >=")
    limits = [book[str(rule.when[0][2]).removeprefix("$")] for rule in rules]
    name, falling = f"{fact}_margin", compare == "<="
    margin = book[name] if name in book.limits else 0.0
    beyond = [limit + (margin if falling else -margin) for limit in limits]
    after = int(book["clear_after"]) if name in book.limits else 1
    try:
        return _Line(fact, Limits(tuple(limits), tuple(beyond), after, falling), tuple(rules))
    except ValueError as error:
        raise _wrong(group, str(error)) from error


def _wrong(group: str, cause: str) -> ConfigurationError:
    remedy = "Correct the site's own limits under [limits.watch]."
    return ConfigurationError(operation="reading what to watch for", target=group, cause=cause, remedy=remedy)
