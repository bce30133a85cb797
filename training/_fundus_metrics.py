"""Figures of merit, their bootstrap intervals and the calibration of ordinal outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Array = np.ndarray


def sigmoid(x: Array) -> Array:
    """Logistic function."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -40, 40)))


def quadratic_kappa(truth: Array, grade: Array, classes: int = 5) -> float:
    """Cohen's kappa with quadratic weights (Cohen 1968)."""
    table = np.zeros((classes, classes))
    np.add.at(table, (truth, grade), 1)
    weight = np.subtract.outer(np.arange(classes), np.arange(classes)) ** 2
    chance = np.outer(table.sum(1), table.sum(0)) / max(len(truth), 1)
    expected = (weight * chance).sum()
    return float(1 - (weight * table).sum() / expected) if expected > 0 else float("nan")


def auc(positive: Array, score: Array) -> float:
    """Area under the ROC curve, ties counted half (Mann-Whitney)."""
    positive = np.asarray(positive, bool)
    n, m = int(positive.sum()), int((~positive).sum())
    if n == 0 or m == 0:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2.0
    return float((rank[inverse][positive].sum() - n * (n + 1) / 2) / (n * m))


def calibration_error(hit: Array, confidence: Array, bins: int = 10) -> float:
    """Expected calibration error over bins of equal width."""
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(hit[index == b].mean() - confidence[index == b].mean()) * (index == b).mean()
        for b in range(bins)
        if (index == b).any()
    ]
    return float(sum(gaps))


def unavoidable_error(confidence: Array, repeats: int = 400) -> float:
    """The calibration error that so many answers of such confidence would have by chance, were they calibrated."""
    rng = np.random.default_rng(11)
    draws = (calibration_error(rng.random(len(confidence)) < confidence, confidence) for _ in range(repeats))
    return float(np.mean(list(draws)))


def bootstrap(figure: Callable[..., float], *columns: Array, groups: Sequence[str] | None = None, repeats: int = 1000):
    """The figure and its 95 % interval, resampling patients (`groups`) or rows."""
    rng = np.random.default_rng(20)
    n = len(columns[0])
    names = np.asarray(groups if groups is not None else np.arange(n))
    _, member = np.unique(names, return_inverse=True)
    order = np.argsort(member, kind="stable")
    rows_of = np.split(order, np.cumsum(np.bincount(member))[:-1])
    values = []
    for _ in range(repeats):
        rows = np.concatenate([rows_of[i] for i in rng.integers(0, len(rows_of), len(rows_of))])
        values.append(figure(*(c[rows] for c in columns)))
    low, high = np.nanpercentile(values, (2.5, 97.5))
    return float(figure(*columns)), float(low), float(high)


def grade_probabilities(logits: Array) -> Array:
    """n x 4 calibrated cumulative logits (grade >= 1 .. 4) to n x 5 probabilities that sum to one."""
    at_least = np.minimum.accumulate(sigmoid(logits), axis=1)
    edges = np.concatenate([np.ones((len(logits), 1)), at_least, np.zeros((len(logits), 1))], axis=1)
    return edges[:, :-1] - edges[:, 1:]


def fit_platt(logit: Array, positive: Array, weight: Array | None = None) -> tuple[float, float]:
    """Slope and offset that calibrate a logit (Platt 1999), with a weak pull towards (1, 0); Newton's method,
    damped."""
    w = np.ones(len(logit)) if weight is None else weight
    x = np.column_stack([logit, np.ones(len(logit))])
    y, prior, ridge = positive.astype(float), np.array([1.0, 0.0]), np.diag([1.0, 0.2])

    def cost(a: Array) -> float:
        z = x @ a
        return float((w * (np.logaddexp(0, z) - y * z)).sum() + 0.5 * (a - prior) @ ridge @ (a - prior))

    a = prior
    for _ in range(100):
        p = sigmoid(x @ a)
        gradient = x.T @ (w * (p - y)) + ridge @ (a - prior)
        step = np.linalg.solve((x * (w * p * (1 - p))[:, None]).T @ x + ridge, gradient)
        while np.abs(step).max() > 1e-9 and cost(a - step) > cost(a):
            step = step / 2
        a = a - step
        if np.abs(step).max() <= 1e-9:
            break
    return float(a[0]), float(a[1])


def threshold_for_sensitivity(positive: Array, score: Array, sensitivity: float, group: Array | None = None) -> float:
    """The highest threshold at which `score >= threshold` finds that share of the positives, groups weighing the
    same."""
    positive = np.asarray(positive, bool)
    names = np.zeros(len(score), int) if group is None else np.unique(group, return_inverse=True)[1]
    found = [np.sort(score[positive & (names == name)]) for name in np.unique(names[positive])]

    def reached(threshold: float) -> float:
        return float(np.mean([1 - np.searchsorted(scores, threshold) / len(scores) for scores in found]))

    candidates = np.unique(score[positive])
    return float(max(t for t in candidates if reached(t) >= sensitivity))
