"""A small head on a frozen model's features, learned from a clinic's own confirmed cases.

The model's network stays as it is and gives its embedding, the values that its last layer reads. The head adds to the
model's own logits a linear function of them, so that a head of zeros is the model itself, bit for bit, and what a head
of a hundred or so weights can do is small to send and to look at. Embeddings are centred and half whitened by the
statistics of the model's training data (`embedding.npz` beside the model), without which gradient steps would need
hundreds of rounds and the noise of differential privacy would fall on directions in which nothing varies.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from aidpost.errors import ModelIntegrityError
from aidpost.inference._card import card_error

__all__ = [
    "HEADS",
    "LEAST_CASES",
    "Adaptation",
    "Basis",
    "Cases",
    "Head",
    "adapt",
    "fit",
    "loss",
    "read_basis",
    "read_head",
    "residuals",
]

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Kind = Literal["softmax", "cumulative"]

HEADS = "heads"
"""Folder of the state directory in which the heads learned on this device lie, `<model>.head`."""
LEAST_CASES = 50
"""Labelled examples under which nothing is learned: held-back parts of fewer say nothing."""

_FOLDS = 5
_RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3)
_STEPS = 200


@dataclass(frozen=True, eq=False)
class Basis:
    """What makes features of an embedding: mean (channels,) and basis (channels, width) of the training data, by which
    features have mean zero, no correlation, and mean square length one."""

    mean: npt.NDArray[np.float32]
    basis: npt.NDArray[np.float32]

    @property
    def width(self) -> int:
        """Features of one example."""
        return int(self.basis.shape[1])

    def features(self, embeddings: Floats) -> Floats:
        """Features (n, width) of embeddings (n, channels)."""
        out: Floats = (embeddings - self.mean.astype(np.float64)) @ self.basis.astype(np.float64)
        return out


def read_basis(path: Path, sha256: str) -> Basis:
    """The file `embedding.npz` of a model.

    Raises
    ------
    ModelIntegrityError
        There is none, or its SHA-256 is not the one on the card.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise card_error(path, str(error)) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise card_error(path, "its SHA-256 is not the one on the card")
    with np.load(io.BytesIO(content)) as file:
        return Basis(file["mean"].astype(np.float32), file["basis"].astype(np.float32))


class _Stored(msgspec.Struct, frozen=True):
    model: str
    base: str
    shape: tuple[int, int]
    weights: bytes
    made: str


@dataclass(frozen=True, eq=False)
class Head:
    """What is added to the logits of the model whose card has this `base`.

    `weights` is (logits, width + 1) float32, the last column for a constant; `made` says from what, for people.
    """

    model: str
    base: str
    weights: npt.NDArray[np.float32]
    made: str = ""

    def logits(self, own: Floats, features: Floats) -> Floats:
        """Logits (rows, logits) from the model's own and its features (rows, width)."""
        out: Floats = own + extended(features) @ self.weights.astype(np.float64).T
        return out

    @property
    def version(self) -> str:
        """Eight hex digits of its content: what results and audit name it by."""
        return hashlib.sha256(self.base.encode() + self.weights.tobytes()).hexdigest()[:8]

    def to_bytes(self) -> bytes:
        """The file's and the wire's form, the same bytes for the same head."""
        little = self.weights.astype("<f4")
        shape = (little.shape[0], little.shape[1])
        return msgspec.msgpack.encode(_Stored(self.model, self.base, shape, little.tobytes(), self.made))

    @classmethod
    def from_bytes(cls, content: bytes, target: str) -> Head:
        """Read what `to_bytes` wrote.

        Raises
        ------
        ModelIntegrityError
            The bytes are no head, or hold a weight that is not finite.
        """
        try:
            stored = msgspec.msgpack.decode(content, type=_Stored)
            weights = np.frombuffer(stored.weights, dtype="<f4").reshape(stored.shape).astype(np.float32)
        except (msgspec.DecodeError, ValueError) as error:
            raise _broken(target, str(error)) from error
        if weights.size == 0 or not np.all(np.isfinite(weights)):
            raise _broken(target, "a weight is missing or not finite")
        return cls(stored.model, stored.base, weights, stored.made)


def read_head(folder: Path, model: str) -> Head | None:
    """The head of a model in that folder; None where there is none. Raises ModelIntegrityError as `from_bytes` does."""
    path = folder / f"{model}.head"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _broken(str(path), str(error)) from error
    return Head.from_bytes(content, str(path))


def _broken(target: str, cause: str) -> ModelIntegrityError:
    return ModelIntegrityError(
        operation="reading a head", target=target, cause=cause, remedy="Remove it: the model then answers by itself."
    )


@dataclass(frozen=True, eq=False)
class Cases:
    """Labelled examples: features (n, width), the model's own logits (n, logits), labels (n,) from 0, and to which
    patient each belongs (n,), as whole numbers from 0: what is one patient's is held back, and clipped, together."""

    features: Floats
    logits: Floats
    labels: Labels
    patients: Labels

    def __len__(self) -> int:
        return int(self.labels.size)

    def take(self, rows: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Cases:
        """Some of them."""
        return Cases(self.features[rows], self.logits[rows], self.labels[rows], self.patients[rows])


def loss(kind: Kind, logits: Floats, labels: Labels) -> Floats:
    """Each example's loss (n,): cross-entropy, summed over the thresholds where logits are cumulative."""
    if kind == "cumulative":
        sign = np.where(_beyond(labels, logits.shape[1]), -1.0, 1.0)
        out: Floats = np.logaddexp(0.0, sign * logits).sum(axis=1)
        return out
    top = logits.max(axis=1, keepdims=True)
    whole = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
    picked: Floats = whole - logits[np.arange(labels.size), labels]
    return picked


def residuals(kind: Kind, logits: Floats, labels: Labels) -> Floats:
    """Derivative of each example's loss by its logits, (n, logits)."""
    if kind == "cumulative":
        out: Floats = 1.0 / (1.0 + np.exp(-np.clip(logits, -500.0, 500.0))) - _beyond(labels, logits.shape[1])
        return out
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    share: Floats = powers / powers.sum(axis=1, keepdims=True)
    share[np.arange(labels.size), labels] -= 1.0
    return share


def _beyond(labels: Labels, thresholds: int) -> npt.NDArray[np.bool_]:
    return labels[:, np.newaxis] > np.arange(thresholds)


def extended(features: Floats) -> Floats:
    """Features with a last column of ones, (n, width + 1)."""
    return np.concatenate((features, np.ones((features.shape[0], 1))), axis=1)


def fit(kind: Kind, cases: Cases, ridge: float, start: Floats | None = None, *, steps: int = _STEPS) -> Floats:
    """Weights (logits, width + 1) that minimise mean loss + ridge/2 |weights - start|² over the cases, added to the
    model's own logits; by Nesterov's accelerated gradient with the step that the curvature's bound allows.
    """
    table, own = extended(cases.features), cases.logits
    centre = np.zeros((own.shape[1], table.shape[1])) if start is None else start
    # the second derivative of either loss by a logit is at most 1/4, of softmax by any direction 1/2
    curvature = float(np.linalg.eigvalsh(table.T @ table / len(cases))[-1])
    step = 1.0 / ((0.25 if kind == "cumulative" else 0.5) * curvature + ridge)
    here = ahead = centre
    momentum = 1.0
    for _ in range(steps):
        slope = residuals(kind, own + table @ ahead.T, cases.labels).T @ table / len(cases) + ridge * (ahead - centre)
        there = ahead - step * slope
        grown = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead, here, momentum = there + (momentum - 1.0) / grown * (there - here), there, grown
    return here


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What a clinic's own cases would do, measured on cases that were held back, each once.

    `before` and `after` are mean losses without and with the head, `gain` the mean difference by patient and
    `gain_error` its standard error; `weights` is None where it was refused, and `reason` says why.
    """

    cases: int
    patients: int
    before: float
    after: float
    gain: float
    gain_error: float
    weights: Floats | None
    reason: str


def adapt(kind: Kind, cases: Cases, start: Floats | None = None, *, seed: int = 0) -> Adaptation:
    """Learn a head from a device's own cases, or refuse to.

    Five parts, divided by patient, are held back in turn; how strongly weights are held to the start (the ridge) is
    chosen within the other four, so that no held-back case has a say in it. The head is refused under `LEAST_CASES`,
    and where the gain does not exceed its standard error.
    """
    base = np.zeros((cases.logits.shape[1], cases.features.shape[1] + 1)) if start is None else start
    patients = np.unique(cases.patients)
    if len(cases) < LEAST_CASES or patients.size < 2 * _FOLDS:
        nothing = float("nan")
        few = f"{len(cases)} labelled examples of {patients.size} patients; {LEAST_CASES} are needed, of {2 * _FOLDS}"
        return Adaptation(len(cases), patients.size, nothing, nothing, nothing, nothing, None, few)
    before = loss(kind, cases.logits + extended(cases.features) @ base.T, cases.labels)
    after = _held_back(cases, lambda part: fit(kind, part, _ridge(kind, part, base, seed), base), kind, seed)
    each = np.array([(before - after)[cases.patients == one].mean() for one in patients])
    gain, error = float(each.mean()), float(each.std(ddof=1) / np.sqrt(each.size))
    helps = gain > error
    weights = fit(kind, cases, _ridge(kind, cases, base, seed), base) if helps else None
    reason = "" if helps else f"no gain on held-back cases: {gain:+.3f} ± {error:.3f} of the loss"
    return Adaptation(
        len(cases), patients.size, float(before.mean()), float(after.mean()), gain, error, weights, reason
    )


def _ridge(kind: Kind, cases: Cases, start: Floats, seed: int) -> float:
    def judged(ridge: float) -> float:
        return float(_held_back(cases, lambda part: fit(kind, part, ridge, start, steps=60), kind, seed + 1).mean())

    return min(_RIDGES, key=judged)


def _held_back(cases: Cases, learn: Callable[[Cases], Floats], kind: Kind, seed: int) -> Floats:
    """The loss of each case (n,) under weights learned without its patient's part."""
    out = np.empty(len(cases))
    for rows in _parts(cases.patients, seed):
        weights, held = learn(cases.take(~rows)), cases.take(rows)
        out[rows] = loss(kind, held.logits + extended(held.features) @ weights.T, held.labels)
    return out


def _parts(patients: Labels, seed: int) -> Sequence[npt.NDArray[np.bool_]]:
    order = np.random.default_rng(seed).permutation(np.unique(patients))
    return [np.isin(patients, order[part::_FOLDS]) for part in range(_FOLDS)]
