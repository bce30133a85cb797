"""What this device has given to rounds and what it cost: one sealed file a round, on the disk before anything is given.

The cost is written first, then noise is drawn and the answer accepted by the store; a device that dies in between has
paid and may still answer, never the other way round. A file that does not open stops the device from answering: nobody
knows what was spent any more.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from aidpost.inference.private import epsilon
from aidpost.sync._alone import alone
from aidpost.sync._durable import make_folder, replace_file
from aidpost.sync._patient_keys import NOBODY
from aidpost.sync.rounds import RoundPeers, RoundRoster
from aidpost.sync.secure_sum import Secrets
from aidpost.sync.store import Store

__all__ = ["Group", "Kept", "Ledger"]

FOLDER = "rounds"
"""Folder of the state directory."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One round as this device stands in it.

    `spent`: the cost is paid and the answer not given yet. `waits`: there is not enough to learn from now. `declined`
    is for good, and `reason` says why. `cost` is in the measure of `private.spent_by`, for each of `patients`.
    """

    round: uuid.UUID
    number: int
    model: str
    state: Literal["keys", "shares", "waits", "spent", "answered", "revealed", "declined"]
    at_ms: int
    cost: float = 0.0
    patients: tuple[uuid.UUID, ...] = ()
    secrets: Secrets | None = None
    roster: RoundRoster | None = None
    peers: RoundPeers | None = None
    answered: tuple[str, ...] = ()
    reason: str = ""


class Group(NamedTuple):
    """Patients who were in the same rounds: how many, in how many rounds, and the epsilon that cost them."""

    patients: int
    rounds: int
    epsilon: float


class Ledger:
    """The folder of rounds in the state directory of a store."""

    def __init__(self, store: Store) -> None:
        self._store, self.folder = store, store.folder / FOLDER

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the one process that answers.

        Raises
        ------
        StoreLockedError
            Another one does.
        """
        make_folder(self.folder)
        remedy = "Wait until it has ended: `aidpost models rounds` shows how far it is."
        cause = "another process of this device does"
        with alone(self.folder / "lock", operation="answering rounds", cause=cause, remedy=remedy):
            yield

    def all(self) -> list[Kept]:
        """Every round, the oldest first.

        Raises
        ------
        StoreDamagedError
            One of the files does not open.
        """
        found = [self._read(path) for path in self.folder.glob("*.round")] if self.folder.is_dir() else []
        return sorted(found, key=lambda one: (one.at_ms, one.number))

    def find(self, number: uuid.UUID) -> Kept | None:
        """One round; None where this device has done nothing in it. Raises as `all`."""
        path = self._path(number)
        return self._read(path) if path.exists() else None

    def put(self, kept: Kept) -> None:
        """On the disk when it returns."""
        make_folder(self.folder)
        sealed = self._store.seal_for(NOBODY, msgspec.msgpack.encode(kept), _place(kept.round))
        replace_file(self._path(kept.round), sealed)

    def spent(self) -> float:
        """What all rounds together cost: an upper bound for each patient. Raises as `all`."""
        return sum(one.cost for one in self.all())

    def groups(self, delta: float) -> list[Group]:
        """Patients by what they have spent, the most first. Raises as `all`, and NotPossibleError as `epsilon`."""
        paid = [one for one in self.all() if one.cost]
        in_rounds: dict[uuid.UUID, list[Kept]] = {}
        for one in paid:
            for patient in one.patients:
                in_rounds.setdefault(patient, []).append(one)
        same = Counter((len(rounds), sum(one.cost for one in rounds)) for rounds in in_rounds.values())
        return [
            Group(patients, number, epsilon(cost, delta))
            for (number, cost), patients in sorted(same.items(), key=lambda one: -one[0][1])
        ]

    def _path(self, number: uuid.UUID) -> Path:
        return self.folder / f"{number}.round"

    def _read(self, path: Path) -> Kept:
        number = uuid.UUID(path.stem)
        plain = self._store.open_for(NOBODY, path.read_bytes(), _place(number))
        return msgspec.msgpack.decode(plain, type=Kept)


def _place(number: uuid.UUID) -> bytes:
    return b"round " + number.bytes
