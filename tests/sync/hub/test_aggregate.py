"""One round's answers to one step: the same as Flower's strategies, and nothing from what is no answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.inference.head import Cases, extended, fit, loss
from aidpost.inference.private import Recipe, train
from aidpost.sync.hub.aggregate import Aggregator, Controls, Strategy, corrected, geometric_median

# made by tests/sync/hub/make_flower.py with Flower 1.42, which would hold the hub's web libraries back
GOLDEN = json.loads((Path(__file__).with_name("flower.json")).read_text())
TRUTH = np.random.default_rng(4).normal(size=(3, 4)) * 3
FLOWERS: tuple[Strategy, ...] = ("fedavg", "fedadam", "trimmed-mean", "krum")
STRATEGIES: tuple[Strategy, ...] = (*FLOWERS, "fedavgm", "scaffold", "geometric-median")


@pytest.mark.parametrize("strategy", FLOWERS)
def test_three_rounds_are_flowers(strategy: Strategy) -> None:
    aggregator = Aggregator(strategy, np.array(GOLDEN["start"]))
    for changes, patients, expected in zip(GOLDEN["changes"], GOLDEN["patients"], GOLDEN[strategy], strict=True):
        found = aggregator.take(np.array(changes), np.array(patients, dtype=np.float64))
        assert found == pytest.approx(np.array(expected), abs=2e-6)


@pytest.mark.parametrize("strategy", ["geometric-median", "trimmed-mean", "krum"])
def test_two_hostile_devices_of_ten_do_not_decide(strategy: Strategy) -> None:
    rng = np.random.default_rng(0)
    changes = 1.0 + 0.1 * rng.normal(size=(10, 4))
    changes[:2] = -1e6
    found = Aggregator(strategy, np.zeros(4), steps=5).take(changes, np.array([1e9, 1e9, *[10.0] * 8]))
    assert np.abs(found - 1.0).max() < 0.5


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    ("changes", "patients"),
    [
        (np.full((3, 2), np.nan), np.ones(3)),
        (np.full((3, 2), np.inf), np.ones(3)),
        (np.zeros((3, 2)), np.array([1.0, np.nan, 1.0])),
        (np.zeros((3, 2)), np.array([1.0, 0.0, 1.0])),
        (np.zeros((0, 2)), np.zeros(0)),
        (np.zeros((3, 5)), np.ones(3)),
    ],
)
def test_what_is_no_answer_changes_nothing(strategy: Strategy, changes: np.ndarray, patients: np.ndarray) -> None:
    aggregator = Aggregator(strategy, np.ones(2))
    with pytest.raises(ValueError, match="answer"):
        aggregator.take(changes, patients)
    assert aggregator.round == 0
    assert aggregator.weights.tolist() == [1.0, 1.0]


def clinic(seed: int, mix: float) -> Cases:
    """Eighty patients of one truth; clinics differ in whom they see."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(80, 4)) * 0.5 + mix
    labels = (features @ TRUTH.T + rng.gumbel(size=(80, 3))).argmax(axis=1)
    return Cases(features, np.zeros((80, 3)), labels, np.arange(80))


def test_clinics_of_different_patients_reach_together_what_all_their_cases_in_one_place_teach() -> None:
    clinics = [clinic(one, 0.4 * (-1) ** one) for one in range(8)]
    names = ("features", "logits", "labels")
    whole = Cases(*(np.concatenate([getattr(one, name) for one in clinics]) for name in names), np.arange(640))
    fresh = clinic(99, 0.0)

    def judged(weights: np.ndarray) -> float:
        return float(loss("softmax", extended(fresh.features) @ weights.T, fresh.labels).mean())

    aggregator, recipe = Aggregator("fedavg", np.zeros(15)), Recipe("softmax", steps=20, rate=1.0, clip=1e6)
    rng = np.random.default_rng(0)
    for _ in range(15):
        here = rng.permutation(8)[:6]
        answers = [train(recipe, clinics[one], aggregator.weights.reshape(3, 5), rng) for one in here]
        changes = np.stack([one.change.ravel() for one in answers])
        aggregator.take(changes, np.array([one.patients for one in answers]))
    alone = float(np.mean([judged(fit("softmax", one, 0.01)) for one in clinics]))
    pooled, together = judged(fit("softmax", whole, 0.0001)), judged(aggregator.weights.reshape(3, 5))
    assert pooled < alone
    assert (alone - together) / (alone - pooled) > 0.9


def test_scaffold_reaches_the_common_optimum_where_many_steps_alone_drift_apart() -> None:
    """Three clinics of other sizes and other tastes: quadratics, whose weighted mean has one known optimum."""
    rng = np.random.default_rng(3)
    curve = [np.diag(rng.uniform(0.2, 2.0, 6)) for _ in range(3)]
    best, patients = [rng.normal(size=6) * 3 for _ in range(3)], np.array([10.0, 30.0, 60.0])
    wanted = np.linalg.solve(
        sum(n * a for n, a in zip(patients, curve, strict=True)),
        sum(n * a @ b for n, a, b in zip(patients, curve, best, strict=True)),
    )

    def after(corrected: bool) -> float:
        weights, controls = np.zeros(6), Controls()
        for _ in range(60):
            changes = []
            for i in range(3):
                others = controls.correction(str(i), 6) if corrected else np.zeros(6)
                here = weights.copy()
                for _ in range(20):
                    here = here - 0.2 * (curve[i] @ (here - best[i]) + others)
                changes.append(here - weights)
            controls.note({str(i): (changes[i], patients[i]) for i in range(3)}, 20 * 0.2)
            weights = Aggregator("scaffold", weights).take(np.stack(changes), patients)
        return float(np.linalg.norm(weights - wanted))

    assert after(corrected=True) < 1e-3 < 0.1 < after(corrected=False)


@pytest.mark.parametrize("strategy", ["fedavgm", "geometric-median"])
def test_server_momentum_is_nesterovs_over_a_restart(strategy: Strategy) -> None:
    """v = 0.8 v + change, and what devices get lies one more 0.8 v ahead."""
    aggregator, step = Aggregator(strategy, np.zeros(3)), np.full((2, 3), 1.0)
    assert aggregator.take(step, np.ones(2)) == pytest.approx(np.full(3, 1.8))
    resumed = Aggregator(strategy, aggregator.weights)
    resumed.recall(aggregator.memory())
    assert resumed.take(step, np.ones(2)) == pytest.approx(np.full(3, 1.8 + 1 + 0.8 * 1.8))


@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.floats(1.0, 1e6))
def test_geometric_median_stays_among_the_honest_wherever_under_half_lie(seed: int, count: int, far: float) -> None:
    """At most 2 (n - f) / (n - 2 f) times the honest ones' radius from their middle (Minsker, Bernoulli 2015), whatever
    the hostile ones say and however many patients they claim."""
    rng = np.random.default_rng(seed)
    hostile = (count - 1) // 3
    points = rng.normal(size=(count, 5))
    points[:hostile] = far * rng.normal(size=5)
    patients = np.array([1e5] * hostile + [10.0] * (count - hostile))
    found = geometric_median(points, patients)
    honest = points[hostile:]
    radius = np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
    bound = 2 * (count - hostile) / (count - 2 * hostile) * radius
    assert np.linalg.norm(found - honest.mean(axis=0)) <= bound + 1e-6


def test_geometric_median_is_where_the_weighted_distances_have_the_least_sum() -> None:
    points, patients = np.random.default_rng(1).normal(size=(9, 3)), np.array([5.0, 9, 2, 7, 4, 4, 8, 1, 6])
    found, weight = geometric_median(points, patients), np.minimum(patients, 5.0)

    def cost(at: np.ndarray) -> float:
        return float(weight @ np.linalg.norm(points - at, axis=1))

    steps = np.concatenate((np.eye(3), -np.eye(3))) * 1e-3
    assert all(cost(found) < cost(found + step) for step in steps)


def test_hostile_devices_do_not_decide_what_the_others_are_told() -> None:
    """Of ten devices two claim a far slope and many patients; the others hear of each other all the same."""
    rng = np.random.default_rng(2)
    came = {str(i): (-rng.normal(1.0, 0.1, 4), 20.0) for i in range(8)}
    came |= {str(i): (np.full(4, 1e4), 9e4) for i in (8, 9)}
    plain, robust = Controls(), Controls(robust=True)
    plain.note(came, 1.0)
    robust.note(came, 1.0)
    assert np.linalg.norm(robust.correction("0", 4)) < 1 < 1e3 < np.linalg.norm(plain.correction("0", 4))


def test_only_strategies_that_keep_devices_from_drifting_tell_them_of_others() -> None:
    told = {(one, steps) for one in STRATEGIES for steps in (1, 5) if corrected(one, steps)}
    assert told == {("scaffold", 1), ("scaffold", 5), ("geometric-median", 5)}


def test_a_device_that_is_not_known_yet_is_not_corrected() -> None:
    controls = Controls()
    controls.note({"a": (np.ones(3), 5.0)}, 1.0)
    assert controls.correction("b", 3).tolist() == [0, 0, 0]
    assert controls.correction("a", 3).tolist() == [0, 0, 0], "alone it is the mean"
