"""The hazard log and the requirements are held against the tests that they name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from aidpost.inference._rules import RULES, rule_book
from aidpost.inference._rules_page import page

TOP = Path(__file__).parents[2]
LOG = TOP / "docs/safety/hazards.md"


def rows() -> list[list[str]]:
    lines = [line for line in LOG.read_text(encoding="utf-8").splitlines() if re.match(r"\| H-\d+ ", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_there_are_hazards_with_unique_numbers() -> None:
    numbers = [row[0] for row in rows()]
    assert len(numbers) >= 10
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0])
def test_hazard_has_cause_control_and_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 5, "hazard rows have: number, hazard, cause, control, test"
    assert all(row)
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row[4])
    assert named, f"{row[0]} names no test"
    for file, test in named:
        assert (TOP / file).is_file(), f"{row[0]} names {file}"
        assert test in functions_in(TOP / file), f"{row[0]} names {file}::{test}"


def test_the_rules_page_is_what_the_rules_are_now() -> None:
    text = (TOP / "docs/safety/rules.md").read_text(encoding="utf-8")
    assert text == page(), "run scripts/make-rules"


@pytest.mark.parametrize("path", sorted(RULES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_rule_file_names_its_hazard_and_tests_that_exist(path: Path) -> None:
    hazard = rule_book(path.stem).hazard
    assert hazard is not None
    assert hazard.tests
    for named in hazard.tests:
        file, _, test = named.partition("::")
        assert test in functions_in(TOP / file), f"{path.name} names {named}"
