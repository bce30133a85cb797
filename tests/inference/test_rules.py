"""The rule engine: limits with sources, unknown facts, groups."""

from __future__ import annotations

from pathlib import Path

import pytest

from aidpost.errors import ConfigurationError
from aidpost.inference._rules import RULES, rule_book
from aidpost.records import TriageLevel

FILE = """
version = "1"
[limits.hot]
value = 38
unit = "Cel"
source = "a book"
[limits.very_hot]
value = 40
unit = "Cel"
source = "another book"
[[rule]]
name = "very-hot"
group = "temperature"
severity = "urgent"
text = "Very hot: {temperature:.1f} (limit {$very_hot:.0f})"
when = [["temperature", ">=", "$very_hot"]]
[[rule]]
name = "hot"
group = "temperature"
severity = "soon"
text = "Hot"
when = [["temperature", ">=", "$hot"]]
[[rule]]
name = "cold-or-blue"
severity = "soon"
text = "Look"
when = [["colour", "in", ["blue", "grey"]]]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "heat.toml").write_text(FILE)
    return tmp_path


def test_only_the_gravest_of_a_group_speaks_and_quotes_its_limit(folder: Path) -> None:
    (one,) = rule_book("heat", folder=folder).conclusions({"temperature": 40.0})
    assert one.text == "Very hot: 40.0 (limit 40)"
    finding = one.finding()
    assert (finding.code, finding.severity, finding.rule) == ("very-hot", TriageLevel.URGENT, "very-hot@heat 1")
    assert finding.source == "another book"


@pytest.mark.parametrize("facts", [{}, {"temperature": None}, {"temperature": float("nan")}])
def test_unknown_satisfies_no_rule(folder: Path, facts: dict[str, float | None]) -> None:
    assert rule_book("heat", folder=folder).conclusions(facts) == []


def test_a_site_moves_a_limit_and_the_finding_says_so(folder: Path) -> None:
    book = rule_book("heat", {"hot": 37.5}, folder)
    (one,) = book.conclusions({"temperature": 37.5})
    assert "set at this site (published: 38, a book)" in one.finding().source


def test_an_override_of_no_limit_is_a_configuration_error(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="no limit 'hott'"):
        rule_book("heat", {"hott": 1.0}, folder)


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ('"$hot"', '"$warm"', "names no limit"),
        ('">=", "$hot"', '"=>", "$hot"', "operator"),
        ('severity = "urgent"', 'severity = "bad"', "Invalid enum value"),
        ("[[rule]]", "[[rule", "Expected"),
    ],
)
def test_a_wrong_rule_file_is_refused_when_it_is_read(tmp_path: Path, old: str, new: str, cause: str) -> None:
    (tmp_path / "heat.toml").write_text(FILE.replace(old, new))
    with pytest.raises(ConfigurationError, match=cause):
        rule_book("heat", folder=tmp_path)


def test_every_shipped_rule_file_reads_and_every_limit_has_a_source() -> None:
    files = sorted(RULES.glob("*.toml"))
    assert files
    for path in files:
        book = rule_book(path.stem)
        assert book.rules
        assert all(limit.source and limit.unit for limit in book.limits.values())
        names = [rule.name for rule in book.rules]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("file", sorted(path.stem for path in RULES.glob("*.toml")))
def test_every_shipped_rule_can_hold_and_needs_each_of_its_conditions(file: str) -> None:
    book = rule_book(file)
    values = {"in": lambda v: v[0], "!=": lambda v: not v if isinstance(v, bool) else f"not {v}"}
    for rule in book.rules:
        facts: dict[str, object] = {}
        for fact, compare, value in rule.conditions:
            limit = book[value[1:]] if isinstance(value, str) and value.startswith("$") else value
            nudge = {">": 1e-6, "<": -1e-6}.get(compare, 0)
            # of two limits of one fact both must hold: the inner one
            met = values.get(compare, lambda v, nudge=nudge: v + nudge if nudge else v)(limit)
            facts.setdefault(fact, met)
        held = [one.rule.name for one in book.conclusions(facts)]  # type: ignore[arg-type]
        others = [one for one in book.rules if one.name in held]
        group = {one.group or one.name for one in others}
        assert (rule.group or rule.name) in group, f"{rule.name} cannot hold: {facts}"
        for fact, _, _ in rule.when:
            without = {name: value for name, value in facts.items() if name != fact}
            assert rule.name not in [one.rule.name for one in book.conclusions(without)], f"{rule.name} without {fact}"  # type: ignore[arg-type]
