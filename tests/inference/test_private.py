"""What a device gives to a federated round: bounded by patient, noised, of no more use to an attacker than stated."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.errors import NotPossibleError
from aidpost.inference.head import Cases, extended, fit, residuals
from aidpost.inference.private import Recipe, Update, epsilon, epsilon_apart, noise_for, spent_by, train

QUIET = Recipe("softmax", rate=1.0, clip=1.0)


def some_cases(seed: int, patients: int, each: int = 1, width: int = 5, scale: float = 1.0) -> Cases:
    rng = np.random.default_rng(seed)
    count = patients * each
    features = rng.normal(size=(count, width)) * scale
    return Cases(features, rng.normal(size=(count, 3)), rng.integers(0, 3, count), np.arange(count) // each)


def sent(recipe: Recipe, cases: Cases) -> np.ndarray:
    return train(recipe, cases, np.zeros((3, 6)), np.random.default_rng(0)).to_vector()


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.floats(0.01, 1e6), st.floats(0.05, 5.0))
def test_a_patient_moves_what_is_summed_by_no_more_than_the_clip(
    seed: int, each: int, scale: float, clip: float
) -> None:
    """However many and however extreme their examples: gradient and count together, before noise."""
    recipe = replace(QUIET, clip=clip)
    cases = some_cases(seed, 4, each, scale=scale)
    apart = sent(recipe, cases) - sent(recipe, cases.take(cases.patients != 3))
    gradient, count = apart[:-1], apart[-1] * clip / 2
    assert math.hypot(float(np.linalg.norm(gradient)), float(count)) <= clip * (1 + 1e-9)


def test_without_clip_and_noise_it_is_the_gradient_of_the_mean_over_patients() -> None:
    cases = some_cases(1, 9, each=1)
    change = train(replace(QUIET, clip=1e9), cases, np.zeros((3, 6)), np.random.default_rng(0)).change
    slope = residuals("softmax", cases.logits, cases.labels).T @ extended(cases.features) / 9
    assert change == pytest.approx(-slope)


def test_a_correction_is_added_to_each_slope_and_costs_no_privacy() -> None:
    cases, others = some_cases(4, 9), np.full((3, 6), 0.5)
    recipe = replace(QUIET, steps=1, clip=1e9)
    plain = train(recipe, cases, np.zeros((3, 6)), np.random.default_rng(0))
    corrected = train(recipe, cases, np.zeros((3, 6)), np.random.default_rng(0), others)
    assert corrected.change == pytest.approx(plain.change - others)
    assert corrected.patients == plain.patients


def test_many_steps_reach_what_fitting_the_cases_reaches() -> None:
    cases = some_cases(2, 200)
    recipe = Recipe("softmax", steps=4000, rate=1.0, clip=1e9, pull=0.1)
    change = train(recipe, cases, np.zeros((3, 6)), np.random.default_rng(0)).change
    assert change == pytest.approx(fit("softmax", cases, 0.1, steps=2000), abs=1e-6)


def test_a_ridge_holds_to_the_model_itself_wherever_the_round_begins() -> None:
    """To zeros, where a pull holds to the round's own head: it ends where pooled training with that ridge does."""
    cases = some_cases(2, 200)
    start = np.full((3, 6), 0.7)
    recipe = Recipe("softmax", steps=4000, rate=1.0, clip=1e9, ridge=0.1)
    change = train(recipe, cases, start, np.random.default_rng(0)).change
    assert start + change == pytest.approx(fit("softmax", cases, 0.1, steps=2000), abs=1e-6)


def test_the_sum_of_what_devices_send_is_their_mean_by_patients() -> None:
    vectors = [Update(np.full((2, 3), value), patients).to_vector() for value, patients in ((1.0, 30.0), (4.0, 10.0))]
    mean = Update.from_sum(vectors[0] + vectors[1], (2, 3))
    assert mean.patients == 40
    assert mean.change == pytest.approx(np.full((2, 3), 1.75))


def test_noise_has_the_stated_size_and_shares_add_up_to_it() -> None:
    """1/sqrt(10) of it in each of ten devices."""
    cases = some_cases(3, 50)
    quiet = sent(QUIET, cases)[:-1]

    def spread(noise: float, devices: int) -> float:
        rng = np.random.default_rng(5)
        recipe = replace(QUIET, noise=noise)
        sums = [
            sum(train(recipe, cases, np.zeros((3, 6)), rng).to_vector()[:-1] - quiet for _ in range(devices))
            for _ in range(300)
        ]
        return float(np.std(sums))

    assert spread(2.0, 1) == pytest.approx(2.0, rel=0.05)
    assert spread(2.0 / math.sqrt(10), 10) == pytest.approx(2.0, rel=0.05)


# values of the Gaussian mechanism's exact curve (Balle and Wang, ICML 2018, theorem 8), computed from its formula
def exact_delta(spent: float, target: float) -> float:
    def normal(x: float) -> float:
        return 0.5 * math.erfc(-x / math.sqrt(2))

    mu = math.sqrt(spent)
    return normal(mu / 2 - target / mu) - math.exp(target) * normal(-mu / 2 - target / mu)


@pytest.mark.parametrize(("noise", "steps"), [(2.33, 15), (1.0, 1), (5.0, 60)])
def test_the_budget_is_that_of_the_exact_curve(noise: float, steps: int) -> None:
    spent = spent_by(Recipe("softmax", steps=steps, noise=noise))
    found = epsilon(spent, 1e-5)
    assert exact_delta(spent, found) <= 1e-5
    assert exact_delta(spent, found * 0.99) > 1e-5


def test_noise_for_a_budget_keeps_it_and_wastes_none() -> None:
    noise = noise_for(8.0, 1e-5, 15)
    assert epsilon(15 / noise**2, 1e-5) <= 8.0 < epsilon(15 / (noise - 0.01) ** 2, 1e-5)


def test_process_of_its_own_accounts_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    assert epsilon_apart(0.5, 1e-5) == epsilon(0.5, 1e-5)
    assert epsilon_apart(math.inf, 1e-5) == math.inf
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotPossibleError, match=r"aidpost\[federated\]"):
        epsilon_apart(0.5, 1e-5)


def test_nothing_spent_is_no_epsilon_and_no_noise_is_no_privacy() -> None:
    assert epsilon(0.0, 1e-5) == 0.0
    assert epsilon(spent_by(QUIET), 1e-5) == math.inf


def advantage(noise: float, trials: int) -> tuple[float, float]:
    """Membership inference at its strongest: the attacker knows the head, every other patient and the target, sees the
    sum, and decides by the likelihood ratio. True and false positive rates."""
    cases = some_cases(7, 20, scale=3.0)
    others = cases.take(cases.patients != 0)
    recipe = replace(QUIET, noise=noise)
    direction = sent(QUIET, cases) - sent(QUIET, others)
    direction[-1] /= 4  # in units in which the noise of every coordinate is the same
    threshold = (sent(QUIET, others) @ direction + sent(QUIET, cases) @ direction) / 2
    rng, weights = np.random.default_rng(11), np.zeros((3, 6))
    rates = [
        np.mean([train(recipe, who, weights, rng).to_vector() @ direction > threshold for _ in range(trials)])
        for who in (cases, others)
    ]
    return float(rates[0]), float(rates[1])


def test_membership_inference_does_no_better_than_the_budget_allows() -> None:
    """True positives <= e^epsilon false positives + delta, for every attacker (Kairouz et al., ICML 2015); the attack
    itself works, as it must with next to no noise."""
    hit, false = advantage(0.01, 200)
    assert (hit, false) == (1.0, 0.0)
    noise, delta, trials = 1.5, 1e-5, 4000
    bound = math.exp(epsilon(1 / noise**2, delta))
    hit, false = advantage(noise, trials)
    slack = 4 * math.sqrt(0.25 / trials)
    assert hit <= bound * false + delta + slack * (1 + bound)
    assert 1 - false <= bound * (1 - hit) + delta + slack * (1 + bound)
    # the exact best advantage of one Gaussian step: 2 Phi(1 / (2 noise)) - 1
    assert 0.1 < hit - false <= math.erf(1 / (2 * noise) / math.sqrt(2)) + 2 * slack
