"""What a round makes of its answers: one step of the shared head, by one of seven strategies.

Flower's FedAvg, FedAdam, FedTrimmedAvg and Krum, on vectors; a test holds each against Flower 1.42's for the same
answers. FedProx differs from FedAvg on the device only; SCAFFOLD by what the hub tells each device of the
others (`Controls`). The three robust ones must see every answer by itself, so that they and secure aggregation, under
which the hub sees sums only, exclude each other. The trimmed mean and Krum weigh devices alike, since a poisoned device
would claim to have many patients; the geometric median (Pillutla et al., IEEE TSP 2022) weighs none by more than the
median device's patients.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

__all__ = ["Aggregator", "Controls", "Strategy", "corrected", "geometric_median"]

Floats = npt.NDArray[np.float64]
Strategy = Literal["fedavg", "fedavgm", "scaffold", "fedadam", "geometric-median", "trimmed-mean", "krum"]

_MEDIAN_TURNS = 100


def corrected(strategy: str, steps: int) -> bool:
    """Whether devices are told how the others' slope differs from theirs. Under the geometric median only where they
    take several steps: one lets nobody drift, and it takes the server's momentum instead."""
    return strategy == "scaffold" or (strategy == "geometric-median" and steps > 1)


def geometric_median(points: Floats, patients: Floats) -> Floats:
    """The point (n,) whose distances to the points (devices, n) have the least sum, each device weighed by its patients
    and none by more than the median device's; by Weiszfeld's iteration. Under half of the weight, wherever it lies,
    cannot take it away."""
    weight = np.minimum(patients, np.median(patients))
    here: Floats = np.median(points, axis=0)
    for _ in range(_MEDIAN_TURNS):
        share = weight / np.maximum(np.linalg.norm(points - here, axis=1), 1e-9)
        here = share @ points / share.sum()
    return here


@dataclass
class Aggregator:
    """The shared weights (n,), and what a strategy remembers from round to round.

    Parameters
    ----------
    trimmed
        The share of answers that the trimmed mean leaves out at each end, coordinate by coordinate.
    poisoned
        How many devices Krum assumes to be hostile.
    momentum
        The part of the last step that is taken again (FedAvgM, Hsu et al., 2019), in Nesterov's form: the head that
        devices get lies as far ahead as the next step will carry it anyway. The geometric median's, too, where
        `steps` is 1.
    steps
        How many steps devices take in a round.
    rate, tau
        FedAdam's step and its guard against small denominators (Reddi et al., ICLR 2021).
    """

    strategy: Strategy
    weights: Floats
    trimmed: float = 0.2
    poisoned: int = 2
    momentum: float = 0.8
    steps: int = 1
    rate: float = 0.1
    tau: float = 1e-3
    round: int = 0
    _first: Floats = field(default_factory=lambda: np.zeros(0), repr=False)
    _second: Floats = field(default_factory=lambda: np.zeros(0), repr=False)

    def take(self, changes: Floats, patients: Floats) -> Floats:
        """One round: changes (devices, n) of the weights and how many patients stand behind each (devices,). Gives the
        new weights.

        Raises ValueError where there is no answer, or one that is not finite.
        """
        if changes.ndim != 2 or not len(changes) or changes.shape[1:] != self.weights.shape:
            raise ValueError(f"answers have the shape {changes.shape}, the weights {self.weights.shape}")
        if not (np.isfinite(changes).all() and np.isfinite(patients).all() and (patients > 0).all()):
            raise ValueError("an answer is not finite, or stands on no patient")
        self.round += 1
        change = {
            "fedavg": self._mean,
            "scaffold": self._mean,
            "fedavgm": self._momentum,
            "fedadam": self._adam,
            "geometric-median": self._geometric_median,
            "trimmed-mean": self._trimmed_mean,
            "krum": self._krum,
        }[self.strategy](changes, patients)
        self.weights = self.weights + change
        return self.weights

    def memory(self) -> tuple[int, list[float], list[float]]:
        """What the strategy knows from before: how many rounds, and FedAdam's moments or the momentum's last step."""
        return self.round, self._first.tolist(), self._second.tolist()

    def recall(self, memory: tuple[int, list[float], list[float]]) -> None:
        """Go on from there."""
        self.round = memory[0]
        self._first, self._second = np.array(memory[1]), np.array(memory[2])

    def _mean(self, changes: Floats, patients: Floats) -> Floats:
        mean: Floats = patients @ changes / patients.sum()
        return mean

    def _momentum(self, changes: Floats, patients: Floats) -> Floats:
        return self._ahead(self._mean(changes, patients))

    def _ahead(self, change: Floats) -> Floats:
        self._first = change if self.round == 1 else self.momentum * self._first + change
        return change + self.momentum * self._first

    def _geometric_median(self, changes: Floats, patients: Floats) -> Floats:
        change = geometric_median(changes, patients)
        return change if corrected(self.strategy, self.steps) else self._ahead(change)

    def _adam(self, changes: Floats, patients: Floats) -> Floats:
        change = self._mean(changes, patients)
        if self.round == 1:
            self._first, self._second = np.zeros_like(change), np.zeros_like(change)
        self._first = 0.9 * self._first + 0.1 * change
        self._second = 0.99 * self._second + 0.01 * change**2
        # Flower counts rounds from one and corrects for one more
        rate = self.rate * np.sqrt(1 - 0.99 ** (self.round + 1)) / (1 - 0.9 ** (self.round + 1))
        step: Floats = rate * self._first / (np.sqrt(self._second) + self.tau)
        return step

    def _trimmed_mean(self, changes: Floats, patients: Floats) -> Floats:
        cut = int(self.trimmed * len(changes))
        mean: Floats = np.sort(changes, axis=0)[cut : len(changes) - cut].mean(axis=0)
        return mean

    def _krum(self, changes: Floats, patients: Floats) -> Floats:
        apart = ((changes[:, None] - changes[None]) ** 2).sum(axis=2)
        near = max(1, len(changes) - self.poisoned - 2)
        score = np.sort(apart, axis=1)[:, 1 : near + 1].sum(axis=1)
        chosen: Floats = changes[int(score.argmin())]
        return chosen


@dataclass
class Controls:
    """SCAFFOLD's control variates (Karimireddy et al., ICML 2020, option II): the mean slope of each device's cases,
    and of all, by which a device that takes many steps does not drift to its own optimum.

    Devices would keep theirs; the hub can, since they follow from the changes that it was sent, so that nothing more
    leaves a device. `of` is by device its patients and its slope (n,); where `robust`, the slope of all is their
    geometric median, so that hostile ones do not decide what the others are told.
    """

    of: dict[str, tuple[float, list[float]]] = field(default_factory=dict)
    robust: bool = False

    def correction(self, device: str, size: int) -> Floats:
        """What is added to each slope of a device, (size,); zeros for one that is not known yet."""
        if device not in self.of:
            return np.zeros(size)
        told: Floats = self._mean() - np.array(self.of[device][1])
        return told

    def note(self, changes: dict[str, tuple[Floats, float]], travel: float) -> None:
        """Take in a round: by device its change (n,) and its patients. `travel` is steps times rate, and each was told
        its `correction` as it is now."""
        new = {
            device: (patients, (-change / travel - self.correction(device, change.size)).tolist())
            for device, (change, patients) in changes.items()
        }
        self.of |= new

    def _mean(self) -> Floats:
        patients = np.array([one for one, _ in self.of.values()])
        slopes = np.array([slope for _, slope in self.of.values()])
        if self.robust:
            return geometric_median(slopes, patients)
        mean: Floats = patients @ slopes / patients.sum()
        return mean
