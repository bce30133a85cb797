"""Cases that hold whatever a site sets its limits to: run before changed limits serve (`golden_rules.toml`)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from aidpost.inference._rules import RULES, Fact, Limit, rule_book
from aidpost.records import TriageLevel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_CASES = Path(__file__).with_name("golden_rules.toml")


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Facts given to a rule file, and what must follow: at least so grave, or at most."""

    name: str
    file: str
    facts: dict[str, Any]
    at_least: TriageLevel | None = None
    at_most: TriageLevel | None = None


@cache
def cases() -> tuple[Case, ...]:
    """All of them."""
    return msgspec.convert(tomllib.loads(_CASES.read_text(encoding="utf-8"))["case"], tuple[Case, ...])


def published() -> dict[str, Mapping[str, Limit]]:
    """Every limit as the rule files have it, by file and name."""
    return {path.stem: rule_book(path.stem).limits for path in sorted(RULES.glob("*.toml"))}


def failures(limits: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The cases that limits (rule file -> limit -> value) break, in words; empty where they may serve.

    Raises
    ------
    ConfigurationError
        A file or limit is named that is not there.
    """
    for name in limits.keys() | {path.stem for path in RULES.glob("*.toml")}:
        rule_book(name, limits.get(name))
    return [one.name for one in cases() if not _holds(one, limits)]


def _holds(case: Case, limits: Mapping[str, Mapping[str, float]]) -> bool:
    facts: dict[str, Fact] = case.facts
    found = [one.rule.severity for one in rule_book(case.file, limits.get(case.file)).conclusions(facts)]
    gravest = max(found, default=TriageLevel.ROUTINE)
    enough = case.at_least is None or gravest >= case.at_least
    return enough and (case.at_most is None or gravest <= case.at_most)
