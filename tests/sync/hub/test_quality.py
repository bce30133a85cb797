"""Sensitivity, specificity and kappa against worked examples, and what is not claimed."""

from __future__ import annotations

import uuid

import pytest

from aidpost.sync.hub import _facts, _quality_data, _quality_page
from aidpost.sync.hub._chinese import CHINESE
from aidpost.sync.hub.quality import LEAST_DRIFT, LEAST_READ, Stratum, in_sample, performance, psi, share


def test_begg_and_greenes_correction_of_a_worked_table() -> None:
    # 100 called positive, all read, 80 diseased; 900 called negative, 90 read, 2 diseased: 20 expected among the 900
    found = performance(Stratum(100, 100, 80), Stratum(900, 90, 2))
    assert found.sensitivity is not None
    assert found.specificity is not None
    assert found.sensitivity.value == pytest.approx(80 / 100)
    assert found.specificity.value == pytest.approx(880 / 900)
    # uncorrected it would have been 80 / 82
    assert found.sensitivity.high < 80 / 82
    assert found.kappa == pytest.approx((0.96 - (0.1 * 0.1 + 0.9 * 0.9)) / (1 - 0.82))


def test_everything_read_gives_the_plain_ratios() -> None:
    found = performance(Stratum(50, 50, 40), Stratum(150, 150, 10))
    assert found.sensitivity is not None
    assert found.sensitivity.value == pytest.approx(40 / 50)
    assert found.sensitivity.low < 0.8 < found.sensitivity.high


@pytest.mark.parametrize("read", [0, LEAST_READ - 1])
def test_too_few_read_is_not_estimable(read: int) -> None:
    found = performance(Stratum(500, 400, 300), Stratum(5000, read, 0))
    assert (found.sensitivity, found.specificity, found.kappa) == (None, None, None)
    assert found.missing == LEAST_READ - read


def test_no_missed_case_still_has_an_interval_below_one() -> None:
    found = performance(Stratum(30, 30, 30), Stratum(3000, 30, 0))
    assert found.sensitivity is not None
    assert found.sensitivity.value == 1.0
    assert found.sensitivity.low < 0.7, "thirty of three thousand say little about the rest"


def test_sample_is_a_tenth_and_the_same_at_every_hub() -> None:
    ids = [uuid.UUID(int=i) for i in range(4000)]
    share = sum(map(in_sample, ids)) / len(ids)
    assert 0.08 < share < 0.12
    assert [in_sample(number) for number in ids] == [in_sample(number) for number in ids]


def test_stability_index_of_a_worked_example_and_of_too_few() -> None:
    # two bins, 50/50 against 80/20: (0.5-0.8) ln(0.5/0.8) + (0.5-0.2) ln(0.5/0.2)
    assert psi([50_000, 50_000], [80_000, 20_000]) == pytest.approx(0.4159, abs=1e-3)
    assert psi([1000, 0], [1000, 0]) == pytest.approx(0)
    assert psi([LEAST_DRIFT - 1, 0], [1000, 0]) is None


def test_share_of_nobody_is_not_estimable() -> None:
    assert share("x", 0, 0).interval is None
    found = share("x", 0, 10).interval
    assert found is not None
    assert found.value == 0
    assert found.high > 0.1


def test_names_that_the_page_gives_to_figures_are_in_chinese_too() -> None:
    names = {*_quality_page.TITLES.values(), *_facts.TIMES, *_quality_data._CONTROLLED.values(), *_facts.GROUPS}
    assert names - CHINESE.keys() == set()
