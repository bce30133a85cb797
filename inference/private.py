"""What a device gives to a federated round: a clipped, noised sum over its patients, never a gradient of one.

DP-SGD (Abadi et al., CCS 2016;10.1145/2976749.2978318) with whole batches and the patient as the unit: what one patient
adds to a step is at most `clip` long, whatever number of examples they have, and Gaussian noise of `noise` times `clip`
is added to the sum. The number of patients is one more coordinate of that sum, so it is as private as the rest and no
exact count leaves the device. Everything else, division, step, ridge, FedProx's pull (Li et al., MLSys 2020), is made
of these sums alone and costs no privacy.
"""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from aidpost.errors import NotPossibleError
from aidpost.inference.head import Cases, Floats, Kind, extended, residuals

__all__ = ["Recipe", "Update", "epsilon", "epsilon_apart", "noise_for", "spent_by", "train"]

_GRADIENT_SHARE = np.sqrt(0.75)
_COUNT_SHARE = 0.5
"""A patient's contribution is (gradient, count): lengths whose squares sum to one, in units of the clip."""


@dataclass(frozen=True)
class Recipe:
    """How a device answers a round; the hub announces it.

    `steps` whole-batch gradient steps of length `rate`, each patient's gradient clipped to `clip`, noise of `noise`
    times the clip in every step (0: none), `pull` (FedProx's mu) towards the round's own head, `ridge` towards zeros,
    that is the model itself.
    """

    kind: Kind
    steps: int = 1
    rate: float = 4.0
    clip: float = 1.0
    noise: float = 0.0
    pull: float = 0.0
    ridge: float = 0.0


@dataclass(frozen=True, eq=False)
class Update:
    """What leaves the device: the change of the weights (logits, width + 1) and the noised number of patients that
    stands behind it."""

    change: Floats
    patients: float

    def to_vector(self) -> Floats:
        """The change times the patients, and the patients: vectors of several devices add up to their weighted mean."""
        return np.append(self.change.ravel() * self.patients, self.patients)

    @classmethod
    def from_sum(cls, vector: Floats, shape: tuple[int, int]) -> Update:
        """The weighted mean of the updates whose vectors were added up."""
        return cls(vector[:-1].reshape(shape) / max(vector[-1], 1.0), float(vector[-1]))


def train(
    recipe: Recipe, cases: Cases, weights: Floats, rng: np.random.Generator, correction: Floats | None = None
) -> Update:
    """Learn from the cases, starting at the round's weights.

    `correction` is added to each slope, after clipping and noise: what SCAFFOLD tells a device of the others. `rng`
    must be unpredictable where noise protects somebody: `np.random.default_rng()` seeds itself from the system.
    """
    here, patients = weights.copy(), []
    others = np.zeros_like(weights) if correction is None else correction
    for _ in range(recipe.steps):
        total = _noised_sum(recipe, cases, here, rng)
        patients.append(max(total[-1], 1.0))
        slope = total[:-1].reshape(here.shape) / patients[-1]
        held = recipe.pull * (here - weights) + recipe.ridge * here
        here = here - recipe.rate * (slope + others + held)
    return Update(here - weights, float(np.mean(patients)))


def _noised_sum(recipe: Recipe, cases: Cases, weights: Floats, rng: np.random.Generator) -> Floats:
    """The sum over patients of their clipped gradients, and their number: (logits · (width + 1) + 1,)."""
    table = extended(cases.features)
    outward = residuals(recipe.kind, cases.logits + table @ weights.T, cases.labels)
    _, patient, examples = np.unique(cases.patients, return_inverse=True, return_counts=True)
    # the gradient of an example is the outer product of these two, so its length is the product of theirs; a patient's
    # is the mean of their examples', each clipped
    length = np.linalg.norm(outward, axis=1) * np.linalg.norm(table, axis=1)
    scale = np.minimum(1.0, _GRADIENT_SHARE * recipe.clip / np.maximum(length, 1e-300)) / examples[patient]
    total = (outward * scale[:, np.newaxis]).T @ table
    out = np.append(total.ravel(), examples.size * _COUNT_SHARE * recipe.clip)
    if recipe.noise > 0.0:
        out = out + rng.normal(0.0, recipe.noise * recipe.clip, out.size)
    out[-1] /= _COUNT_SHARE * recipe.clip
    return out


def spent_by(recipe: Recipe) -> float:
    """What answering costs: steps over noise squared. Gaussian mechanisms add up in this measure, and a sum of them is
    as private as one of noise 1 / sqrt(sum), so that a budget is one number to keep and to compare."""
    return math.inf if recipe.noise <= 0.0 else recipe.steps / recipe.noise**2


def epsilon(spent: float, delta: float) -> float:
    """The epsilon that goes with `delta` after having spent this much, for adding or removing one patient; by the
    privacy loss distribution (`dp-accounting`).

    Raises
    ------
    NotPossibleError
        The extra `federated` is not installed.
    """
    dp, pld = _accounting()
    if spent <= 0.0:
        return 0.0
    if math.isinf(spent):
        return math.inf
    accountant = pld.PLDAccountant()
    accountant.compose(dp.GaussianDpEvent(1.0 / math.sqrt(spent)))
    return float(accountant.get_epsilon(delta))


def epsilon_apart(spent: float, delta: float) -> float:
    """`epsilon`, worked out by a process of its own: the accountant's memory, nearly twice that of learning, goes with
    it. Raises as `epsilon`."""
    if importlib.util.find_spec("dp_accounting") is None:
        raise _lacking("it is not installed")
    program = "import sys; from aidpost.inference.private import epsilon; print(epsilon(*map(float, sys.argv[1:])))"
    done = subprocess.run(
        [sys.executable, "-c", program, repr(spent), repr(delta)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise _lacking(done.stderr.strip().rpartition("\n")[2])
    return float(done.stdout)


def noise_for(target: float, delta: float, steps: int) -> float:
    """The least noise, to a hundredth, with which so many steps stay within epsilon `target`. Raises as `epsilon`."""
    low, high = 1, 100_000
    while low < high:
        middle = (low + high) // 2
        if epsilon(steps / (middle / 100) ** 2, delta) <= target:
            high = middle
        else:
            low = middle + 1
    return low / 100


def _accounting() -> tuple[Any, Any]:
    # here, for it takes a second and 80 MB that only a device in a round needs
    try:
        import dp_accounting
        from dp_accounting import pld
    except ImportError as error:
        raise _lacking(str(error)) from error
    return dp_accounting, pld


def _lacking(cause: str) -> NotPossibleError:
    return NotPossibleError(
        operation="accounting for privacy",
        target="dp-accounting",
        cause=cause,
        remedy='Install it: pip install "aidpost[federated]".',
    )
