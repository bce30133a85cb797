"""NEWS2 at every boundary of the published table (Royal College of Physicians, 2017)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aidpost.inference.news2 import Consciousness, News2Inputs, score

NORMAL = News2Inputs(
    respiratory_rate=16,
    spo2=98,
    on_oxygen=False,
    systolic_bp=120,
    pulse=70,
    consciousness=Consciousness.ALERT,
    temperature=37.0,
    age_years=50,
    pregnant=False,
)

BOUNDARIES = {
    "respiratory_rate": [(3, 3), (8, 3), (9, 1), (11, 1), (12, 0), (20, 0), (21, 2), (24, 2), (25, 3), (60, 3)],
    "spo2": [(70, 3), (91, 3), (92, 2), (93, 2), (94, 1), (95, 1), (96, 0), (100, 0)],
    "systolic_bp": [(60, 3), (90, 3), (91, 2), (100, 2), (101, 1), (110, 1), (111, 0), (219, 0), (220, 3), (260, 3)],
    "pulse": [
        (20, 3), (40, 3), (41, 1), (50, 1), (51, 0), (90, 0), (91, 1), (110, 1), (111, 2), (130, 2), (131, 3), (200, 3),
    ],
    "temperature": [
        (33.0, 3), (35.0, 3), (35.1, 1), (36.0, 1), (36.1, 0), (38.0, 0), (38.1, 1), (39.0, 1), (39.1, 2), (41.0, 2),
    ],
}  # fmt: skip

SCALE_2_ON_AIR = [(83, 3), (84, 2), (85, 2), (86, 1), (87, 1), (88, 0), (92, 0), (93, 0), (97, 0), (100, 0)]
SCALE_2_ON_OXYGEN = [
    (83, 3), (84, 2), (85, 2), (86, 1), (87, 1), (88, 0), (92, 0), (93, 1), (94, 1), (95, 2), (96, 2), (97, 3),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "points"), [(name, *row) for name, rows in BOUNDARIES.items() for row in rows]
)
def test_every_boundary(name: str, value: float, points: int) -> None:
    result = score(replace(NORMAL, **{name: value}))
    assert result.points[name] == points
    assert result.total == points


@pytest.mark.parametrize(("value", "points"), SCALE_2_ON_AIR)
def test_every_boundary_of_spo2_scale_2_on_air(value: float, points: int) -> None:
    assert score(replace(NORMAL, spo2=value, scale_2=True)).total == points


@pytest.mark.parametrize(("value", "points"), SCALE_2_ON_OXYGEN)
def test_every_boundary_of_spo2_scale_2_on_oxygen(value: float, points: int) -> None:
    result = score(replace(NORMAL, spo2=value, scale_2=True, on_oxygen=True))
    assert result.points["spo2"] == points
    assert result.total == points + 2


@pytest.mark.parametrize("state", list(Consciousness))
def test_consciousness(state: Consciousness) -> None:
    assert score(replace(NORMAL, consciousness=state)).total == (0 if state is Consciousness.ALERT else 3)


@pytest.mark.parametrize(
    ("value", "points"), [(38.04, 0), (38.05, 1), (36.04, 1), (36.05, 0), (35.05, 1), (39.04, 1), (39.05, 2)]
)
def test_temperature_is_rounded_to_a_tenth(value: float, points: int) -> None:
    assert score(replace(NORMAL, temperature=value)).points["temperature"] == points


@pytest.mark.parametrize(("value", "points"), [(20.4, 0), (20.5, 2), (24.5, 3), (8.5, 1), (11.5, 0)])
def test_other_inputs_are_rounded_to_whole_numbers(value: float, points: int) -> None:
    assert score(replace(NORMAL, respiratory_rate=value)).points["respiratory_rate"] == points


def test_two_worked_examples() -> None:
    sick = replace(NORMAL, respiratory_rate=22, spo2=93, systolic_bp=105, pulse=115, temperature=38.5)
    assert score(sick).total == 8
    retainer = replace(NORMAL, respiratory_rate=18, spo2=90, scale_2=True, on_oxygen=True, pulse=80)
    assert score(retainer).total == 2


@pytest.mark.parametrize(
    "name",
    [
        "respiratory_rate", "spo2", "on_oxygen", "systolic_bp", "pulse", "consciousness", "temperature", "age_years",
        "pregnant",
    ],
)  # fmt: skip
def test_a_missing_input_gives_no_score_and_is_named(name: str) -> None:
    result = score(replace(NORMAL, **{name: None}))
    assert result.total is None
    assert result.missing == (name,)
    assert result.at_least == 0


def test_the_known_points_are_given_without_a_score() -> None:
    result = score(News2Inputs(respiratory_rate=30, pulse=140))
    assert (result.total, result.at_least, result.highest) == (None, 6, 3)


@pytest.mark.parametrize("change", [{"age_years": 15.9}, {"pregnant": True}])
def test_it_says_nothing_of_children_or_in_pregnancy(change: dict[str, object]) -> None:
    result = score(replace(NORMAL, respiratory_rate=40, **change))
    assert not result.applies
    assert result.total is None
    assert result.points == {}


def test_from_sixteen_years_it_applies() -> None:
    assert score(replace(NORMAL, age_years=16.0)).total == 0


def test_scale_2_with_unknown_oxygen_scores_only_where_both_agree() -> None:
    unknown = replace(NORMAL, scale_2=True, on_oxygen=None)
    assert score(replace(unknown, spo2=85)).points["spo2"] == 2
    assert "spo2" not in score(replace(unknown, spo2=97)).points
