"""Whether a head may take the place of what serves: no worse on all reviewed cases, in no group beyond a margin.

Two measures, the lower loss and the higher accuracy being better: the mean loss by patient, of the calibrated
probabilities, and the balanced accuracy of the call (referable retinopathy at the card's threshold; atrial
fibrillation), of one class its accuracy. A group of too few cases decides nothing, and is listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from aidpost.inference.head import Cases, Head, loss
from aidpost.inference.model import Model

__all__ = ["Judged", "Row", "Verdict", "judge", "positive"]

LEAST_CASES = 100
"""Fewer reviewed cases decide nothing."""
LEAST_IN_GROUP = 20
MARGIN = 0.02
"""What a group may lose in either measure."""

Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Judged:
    """Reviewed cases, and by kind of group ("camera") the name of each case's (n,)."""

    cases: Cases
    groups: Mapping[str, Sequence[str]]


class Row(msgspec.Struct, frozen=True):
    """One group: its measures under what serves and under the candidate, and what is wrong with them, if anything."""

    group: str
    name: str
    cases: int
    loss_before: float
    loss_after: float
    accuracy_before: float
    accuracy_after: float
    fault: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """`reasons` are why it was refused: none where it passed."""

    margin: float
    rows: tuple[Row, ...]
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


def positive(model: Model, logits: npt.NDArray[np.float64]) -> Rows:
    """The call of each row of logits: referable retinopathy, or atrial fibrillation."""
    probability = model.probabilities(logits)
    if model.card.task == "fundus-dr":
        out: Rows = probability[:, 2:].sum(axis=1) >= model.card.thresholds.get("referable", 0.5)
        return out
    called: Rows = probability.argmax(axis=1) == model.card.output.labels.index("A")
    return called


def judge(serves: Model, head: Head, judged: Judged, *, least: int = LEAST_CASES, margin: float = MARGIN) -> Verdict:
    """Hold a head against the model that serves, on the same cases; the network is the same in both."""
    cases = judged.cases
    if len(cases) < least:
        return Verdict(margin, (), (f"{len(cases)} reviewed cases, {least} are needed",))
    before = cases.logits if serves.head is None else serves.head.logits(cases.logits, cases.features)
    sides = [_Side(serves, cases, one) for one in (before, head.logits(cases.logits, cases.features))]
    everybody = np.ones(len(cases), dtype=bool)
    rows = [_row("all", "all", everybody, *sides, least=1, margin=0.0)]
    for group, names in judged.groups.items():
        of_case = np.array(names)
        rows += [
            _row(group, name, of_case == name, *sides, least=LEAST_IN_GROUP, margin=margin)
            for name in sorted(set(names))
        ]
    wrong = tuple(f"{row.group} {row.name}: {row.fault}" for row in rows if row.fault and row.fault != _FEW)
    return Verdict(margin, tuple(rows), wrong)


_FEW = "too few to say"


class _Side:
    """One of the two: what it loses and calls on each case."""

    def __init__(self, model: Model, cases: Cases, logits: npt.NDArray[np.float64]) -> None:
        scaled = logits / model.card.calibration.temperature
        self._losses = loss(model.card.output.kind, scaled, cases.labels)
        self._patients = cases.patients
        self._right = positive(model, logits) == self._truth(model, cases)
        self._is = self._truth(model, cases)

    @staticmethod
    def _truth(model: Model, cases: Cases) -> Rows:
        if model.card.task == "fundus-dr":
            referable: Rows = cases.labels >= 2
            return referable
        fibrillates: Rows = cases.labels == model.card.output.labels.index("A")
        return fibrillates

    def loss(self, rows: Rows) -> float:
        """Mean by patient."""
        _, whose = np.unique(self._patients[rows], return_inverse=True)
        return float((np.bincount(whose, self._losses[rows]) / np.bincount(whose)).mean())

    def accuracy(self, rows: Rows) -> float:
        """Balanced over those who have it and those who have not."""
        parts = [self._right[rows & (self._is == one)] for one in (True, False)]
        return float(np.mean([one.mean() for one in parts if one.size]))


def _row(group: str, name: str, rows: Rows, before: _Side, after: _Side, *, least: int, margin: float) -> Row:
    losses, accuracies = (before.loss(rows), after.loss(rows)), (before.accuracy(rows), after.accuracy(rows))
    fault = ""
    if rows.sum() < least:
        fault = _FEW
    elif losses[1] > losses[0] + margin:
        fault = f"the loss rises from {losses[0]:.4f} to {losses[1]:.4f}"
    elif accuracies[1] < accuracies[0] - margin:
        fault = f"the accuracy falls from {accuracies[0]:.4f} to {accuracies[1]:.4f}"
    return Row(group, name, int(rows.sum()), *losses, *accuracies, fault)
