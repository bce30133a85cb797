"""A head is held against what serves: no worse on all, in no group beyond the margin, and too few decide nothing."""

from __future__ import annotations

import numpy as np
import pytest

from aidpost.inference.head import Cases, Head
from aidpost.inference.judge import Judged, judge
from aidpost.inference.model import SHIPPED, Model, load_model


@pytest.fixture(scope="module")
def rhythm() -> Model:
    return load_model(SHIPPED / "ecg-rhythm", check=False)


def cases(number: int = 400, seed: int = 0) -> Cases:
    """Labels that the first feature tells better than the network's own logits do; two cases a patient."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, number)
    features = rng.normal(size=(number, 32)) * 0.1
    features[:, :3] += np.eye(3)[labels]
    logits = rng.normal(size=(number, 4)) + 1.5 * np.eye(4)[labels]
    return Cases(features, logits, labels, np.arange(number) // 2)


def head(model: Model, scale: float) -> Head:
    weights = np.zeros(model.head_shape, np.float32)
    weights[:3, :3] = scale * np.eye(3)
    return Head(model.card.name, model.card.network, weights)


def judged(of: Cases, second: float = 0.5) -> Judged:
    return Judged(of, {"camera": ["old" if i < second * len(of) else "new" for i in range(len(of))]})


def test_a_head_that_helps_everybody_passes(rhythm: Model) -> None:
    verdict = judge(rhythm, head(rhythm, 1.0), judged(cases()))
    assert verdict.passed
    assert [(row.group, row.name, row.cases) for row in verdict.rows] == [
        ("all", "all", 400),
        ("camera", "new", 200),
        ("camera", "old", 200),
    ]
    assert all(row.loss_after < row.loss_before for row in verdict.rows)
    assert all(row.accuracy_after > row.accuracy_before for row in verdict.rows)


def test_a_head_of_zeros_is_no_worse(rhythm: Model) -> None:
    assert judge(rhythm, head(rhythm, 0.0), judged(cases())).passed


def test_a_head_that_is_worse_is_refused_with_the_measure(rhythm: Model) -> None:
    verdict = judge(rhythm, head(rhythm, -1.0), judged(cases()))
    assert not verdict.passed
    assert "all all: the loss rises from" in verdict.reasons[0]


def test_a_group_that_loses_refuses_it_though_all_together_gain(rhythm: Model) -> None:
    of = cases(400)
    harmed = np.arange(400) >= 340
    of.features[harmed, :3] *= -1
    verdict = judge(rhythm, head(rhythm, 1.0), judged(of, 340 / 400))
    assert verdict.rows[0].fault == ""
    assert [reason.split(":")[0] for reason in verdict.reasons] == ["camera new"]


def test_within_the_margin_a_group_may_lose(rhythm: Model) -> None:
    of = cases(400)
    of.features[np.arange(400) >= 340, :3] *= -1
    assert judge(rhythm, head(rhythm, 1.0), judged(of, 340 / 400), margin=5.0).passed


def test_a_group_of_few_decides_nothing_and_is_listed(rhythm: Model) -> None:
    of = cases(400)
    of.features[np.arange(400) >= 390, :3] *= -1
    verdict = judge(rhythm, head(rhythm, 1.0), judged(of, 390 / 400))
    assert verdict.passed
    assert [row.fault for row in verdict.rows if row.name == "new"] == ["too few to say"]


def test_too_few_cases_are_no_proof(rhythm: Model) -> None:
    verdict = judge(rhythm, head(rhythm, 1.0), judged(cases(99)))
    assert verdict.reasons == ("99 reviewed cases, 100 are needed",)


def test_a_patient_counts_once_however_many_recordings_they_have(rhythm: Model) -> None:
    """One patient with three hundred recordings that it harms does not outweigh two hundred whom it helps."""
    of, many = cases(400, seed=1), cases(300, seed=2)
    many.features[:, :3] *= -1
    both = Cases(
        *(np.concatenate([getattr(of, name), getattr(many, name)]) for name in ("features", "logits", "labels")),
        np.concatenate([of.patients, np.full(300, 10_000)]),
    )
    row = judge(rhythm, head(rhythm, 0.5), Judged(both, {})).rows[0]
    assert row.loss_after < row.loss_before
