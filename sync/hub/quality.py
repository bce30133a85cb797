"""Does it still work? The device's calls against the clinicians', estimated from what was read.

Readers see more of what the device calls positive, so plain counts flatter its sensitivity. Each stratum, called
positive and called negative, is therefore weighted by how many of it there were, not by how many were read (Begg and
Greenes, Biometrics 1983;39:207-215); that is right where reading does not depend on the disease given the call, hence
the random sample of negatives. Intervals are from the Jeffreys posteriors of the strata, which hold at counts of zero.
"""

from __future__ import annotations

import functools
import hashlib
import uuid
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

LEAST_READ = 20
"""Read exams in each stratum under which nothing is claimed."""
SAMPLE_PERCENT = 10
"""Of the exams that the device calls negative, how many are put before a reader to measure the device."""
LEAST_DRIFT = 100
"""Exams in each of the two times under which nothing is said about drift."""
_DRAWS = 2000
_REMEMBERED = 16_384
"""Results for the same numbers: most groups do not change between two looks at the page."""


class Stratum(NamedTuple):
    """Exams with one call of the device: how many there were, how many were read, how many readers called positive."""

    total: int
    read: int
    positive: int


class Interval(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


class Performance(NamedTuple):
    """What can be said of one model in one group; None where it is not estimable."""

    called_positive: Stratum
    called_negative: Stratum
    sensitivity: Interval | None
    specificity: Interval | None
    kappa: float | None
    abstained: Stratum = Stratum(0, 0, 0)

    @property
    def missing(self) -> int:
        """How many more exams must be read before anything is claimed."""
        strata = (self.called_positive, self.called_negative)
        return sum(max(0, LEAST_READ - stratum.read) for stratum in strata)


class Share(NamedTuple):
    """A part of a number of people or exams; the interval is None where there are none."""

    name: str
    part: int
    total: int
    interval: Interval | None


@functools.lru_cache(_REMEMBERED)
def performance(called_positive: Stratum, called_negative: Stratum, abstained: Stratum | None = None) -> Performance:
    """Sensitivity and specificity against the readers, and Cohen's kappa, weighted by stratum. Exams of which the model
    said nothing are counted beside them."""
    abstained = abstained or Stratum(0, 0, 0)
    if min(called_positive.read, called_negative.read) < LEAST_READ:
        return Performance(called_positive, called_negative, None, None, None, abstained)
    p, q = (stratum.positive / stratum.read for stratum in (called_positive, called_negative))
    n, m = called_positive.total, called_negative.total
    generator = np.random.default_rng(0)  # the same page shows the same interval
    p_draws, q_draws = (_posterior(generator, stratum) for stratum in (called_positive, called_negative))
    return Performance(
        called_positive,
        called_negative,
        _interval(_share(n * p, m * q), n * p_draws, m * q_draws),
        _interval(_share(m * (1 - q), n * (1 - p)), m * (1 - q_draws), n * (1 - p_draws)),
        _kappa(n * p, n * (1 - p), m * q, m * (1 - q)),
        abstained,
    )


@functools.lru_cache(_REMEMBERED)
def share(name: str, part: int, total: int) -> Share:
    """A share with its Jeffreys interval."""
    if total == 0:
        return Share(name, 0, 0, None)
    draws = np.random.default_rng(0).beta(part + 0.5, total - part + 0.5, _DRAWS)
    low, high = np.quantile(draws, (0.025, 0.975))
    value = part / total
    return Share(name, part, total, Interval(value, min(float(low), value), max(float(high), value)))


def psi(recent: Sequence[int], before: Sequence[int]) -> float | None:
    """Population stability index of two histograms with the same bins: the sum of (p - q) ln(p / q). By convention
    under 0.1 is stable and above 0.25 a shift. Each bin gets half a count, so that an empty one is no infinity. None
    with fewer than `LEAST_DRIFT` in either."""
    if min(sum(recent), sum(before)) < LEAST_DRIFT:
        return None
    p, q = ((np.asarray(bins) + 0.5) / (sum(bins) + 0.5 * len(bins)) for bins in (recent, before))
    return float(np.sum((p - q) * np.log(p / q)))


def in_sample(exam: uuid.UUID) -> bool:
    """Whether an exam is in the random sample that is read whatever the device says. The device's own UUID decides, so
    that every hub draws the same sample and nobody can choose."""
    return hashlib.sha256(b"quality sample" + exam.bytes).digest()[0] * 100 < SAMPLE_PERCENT * 256


def _posterior(generator: np.random.Generator, stratum: Stratum) -> npt.NDArray[np.float64]:
    return generator.beta(stratum.positive + 0.5, stratum.read - stratum.positive + 0.5, _DRAWS)


def _share(part: float, rest: float) -> float | None:
    return part / (part + rest) if part + rest > 0 else None


def _interval(value: float | None, part: npt.NDArray[np.float64], rest: npt.NDArray[np.float64]) -> Interval | None:
    if value is None:
        return None
    low, high = np.quantile(part / (part + rest), (0.025, 0.975))
    return Interval(value, min(float(low), value), max(float(high), value))


def _kappa(both: float, device_only: float, reader_only: float, neither: float) -> float | None:
    total = both + device_only + reader_only + neither
    agreed = (both + neither) / total
    positive = (both + device_only) * (both + reader_only) / total**2
    by_chance = positive + (neither + reader_only) * (neither + device_only) / total**2
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else None
