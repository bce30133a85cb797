"""What a federated round says on the wire: records like any other, signed, durable, receipted, carried by stick too.

Down go the call and its end, up goes one answer a device. A round with secure aggregation has three phases before the
end, each asked for by the hub and answered when a device is online: keys, shares, answer, unmasking (`secure_sum`).
Weights are float32, little-endian, row by row; an answer's vector is (rows · columns + 1,), the change times the
patients and their noised number (`aidpost.inference.private.Update.to_vector`).
"""

from __future__ import annotations

import math
import uuid
from typing import Literal

import numpy as np
import numpy.typing as npt

from aidpost._record import require
from aidpost.records import ConsentPurpose, Record, Timestamp

__all__ = [
    "CLASS",
    "DOWN",
    "MAX_WEIGHTS",
    "UP",
    "RoundAnswer",
    "RoundCall",
    "RoundEnd",
    "RoundKeys",
    "RoundPeers",
    "RoundReveal",
    "RoundRoster",
    "RoundShares",
    "RoundUnmask",
    "from_floats",
    "to_floats",
]

Floats = npt.NDArray[np.float64]

CLASS = "round"
"""The class of all of them, both ways."""
MAX_WEIGHTS = 100_000
_KEY = 32
_MOST_MEMBERS = 1000
_MOST_STEPS = 1000


def to_floats(content: bytes) -> Floats:
    """Values from their bytes on the wire."""
    return np.frombuffer(content, dtype="<f4").astype(np.float64)


def from_floats(values: Floats) -> bytes:
    """Values as bytes on the wire."""
    return values.astype("<f4").tobytes()


class RoundCall(Record, frozen=True, kw_only=True):
    """The hub asks a device to learn once from its confirmed cases.

    `base` is the network (its card's `network`), `head` the weights to start from, (rows, columns). The recipe is
    that of `aidpost.inference.private`; `noise` is what protects the sum where `secure`, and then a device adds its
    share, 1/sqrt(minimum), of it. `withdrawn` are this device's patients who took back their consent at the hub.
    `deadline_ms` is by the hub's clock; what comes later counts for the next round. `correction` is what SCAFFOLD adds
    to each of this device's slopes, empty for nothing. `ridge` holds the head to zeros, the model itself.
    """

    round: uuid.UUID
    number: int
    model: str
    base: str
    kind: Literal["softmax", "cumulative"]
    rows: int
    columns: int
    head: bytes
    purpose: ConsentPurpose
    deadline_ms: int
    minimum: int
    strategy: str
    secure: bool
    steps: int
    rate: float
    clip: float
    noise: float
    pull: float
    at: Timestamp
    withdrawn: tuple[uuid.UUID, ...] = ()
    correction: bytes = b""
    ridge: float = 0.0

    def _check(self) -> None:
        require(self.rows >= 1 and self.columns >= 1, self, "a head has no weights")
        require(self.rows * self.columns <= MAX_WEIGHTS, self, f"a head has over {MAX_WEIGHTS} weights")
        require(len(self.head) == 4 * self.rows * self.columns, self, "the head is not rows x columns float32")
        require(bool(np.isfinite(to_floats(self.head)).all()), self, "a weight is not finite")
        require(len(self.correction) in (0, len(self.head)), self, "the correction is not of the head's size")
        require(bool(np.isfinite(to_floats(self.correction)).all()), self, "the correction is not finite")
        require(1 <= self.steps <= _MOST_STEPS, self, f"steps are {self.steps}, not within 1 to {_MOST_STEPS}")
        require(2 <= self.minimum <= _MOST_MEMBERS, self, f"minimum is {self.minimum}, not 2 to {_MOST_MEMBERS}")
        numbers = (self.rate, self.clip, self.noise, self.pull, self.ridge)
        require(all(math.isfinite(one) and one >= 0 for one in numbers), self, "the recipe is not finite")
        require(self.rate > 0 and self.clip > 0, self, "rate and clip must be over 0")
        require(self.rate * self.ridge <= 1, self, "a step of this rate overshoots what the ridge pulls to")
        require(not self.secure or self.steps == 1, self, "noise in shares is right for one step only")


class RoundEnd(Record, frozen=True, kw_only=True):
    """The round is over. `head` is what it made, empty where it made nothing, and then `reason` says why. It serves
    nobody: it is where the next round starts, and a candidate at the hub."""

    round: uuid.UUID
    answers: int
    head: bytes
    at: Timestamp
    reason: str = ""


class RoundAnswer(Record, frozen=True, kw_only=True):
    """What a device gives: the vector in the clear (float32), or masked (uint64). `id` is the round's, for a device
    answers once."""

    id: uuid.UUID
    model: str
    base: str
    vector: bytes
    masked: bool
    at: Timestamp


class RoundKeys(Record, frozen=True, kw_only=True):
    """Phase 1, up: two X25519 public keys, for masks and for shares."""

    id: uuid.UUID
    mask: bytes
    share: bytes
    at: Timestamp

    def _check(self) -> None:
        require(len(self.mask) == len(self.share) == _KEY, self, "a key is not 32 bytes")


class RoundRoster(Record, frozen=True, kw_only=True):
    """Phase 2, down: who takes part, by name, each with both keys; any `threshold` of them can unmask the sum."""

    round: uuid.UUID
    members: dict[str, tuple[bytes, bytes]]
    threshold: int
    at: Timestamp

    def _check(self) -> None:
        require(len(self.members) <= _MOST_MEMBERS, self, f"over {_MOST_MEMBERS} members")
        # with half of them or fewer, a hub could ask two halves for the two things that nobody may have together
        require(len(self.members) < 2 * self.threshold <= 2 * len(self.members), self, "not over half can unmask")
        keys = [key for pair in self.members.values() for key in pair]
        require(all(len(key) == _KEY for key in keys), self, "a key is not 32 bytes")
        require(len(set(keys)) == len(keys), self, "a key stands twice")


class RoundShares(Record, frozen=True, kw_only=True):
    """Phase 2, up: by member's name, shares of this device's two secrets, sealed for that member."""

    id: uuid.UUID
    sealed: dict[str, bytes]
    at: Timestamp


class RoundPeers(Record, frozen=True, kw_only=True):
    """Phase 3, down: by name, what each member that shared has sealed for this device. Masks are made with these."""

    round: uuid.UUID
    sealed: dict[str, bytes]
    at: Timestamp


class RoundUnmask(Record, frozen=True, kw_only=True):
    """Phase 4, down: whose answers are in the sum."""

    round: uuid.UUID
    answered: tuple[str, ...]
    at: Timestamp


class RoundReveal(Record, frozen=True, kw_only=True):
    """Phase 4, up: shares of the own masks' seeds of those who answered, and of the keys of those who did not."""

    id: uuid.UUID
    seeds: dict[str, bytes]
    keys: dict[str, bytes]
    at: Timestamp


DOWN = (RoundCall, RoundEnd, RoundRoster, RoundPeers, RoundUnmask)
UP = (RoundAnswer, RoundKeys, RoundShares, RoundReveal)
