"""What a device does in a round: each step once, from what is on the disk, so that a kill anywhere only repeats it."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from aidpost.board import teach
from aidpost.board.configuration import FederatedSection
from aidpost.board.learning.ledger import Kept, Ledger
from aidpost.errors import ModelError, SyncError
from aidpost.inference._card import Task
from aidpost.inference.model import Models
from aidpost.inference.private import Recipe, epsilon_apart, spent_by, train
from aidpost.records import ConsentPurpose, Record
from aidpost.sync import rounds, secure_sum
from aidpost.sync.envelope import RecordClass
from aidpost.sync.rounds import (
    RoundAnswer,
    RoundCall,
    RoundEnd,
    RoundKeys,
    RoundPeers,
    RoundReveal,
    RoundRoster,
    RoundShares,
    RoundUnmask,
)
from aidpost.sync.secure_sum import Secrets
from aidpost.sync.store import Item, Store

__all__ = ["Due", "Participant"]

_AGAIN_MS = 86_400_000
"""Too few cases today: tomorrow there may be more."""
_TASKS: tuple[Task, ...] = ("ecg-rhythm", "fundus-dr")

Step = Literal["keys", "shares", "answer", "reveal"]


class Due(NamedTuple):
    """The next step of a round that is open here; only "answer" learns, and takes time."""

    call: RoundCall
    step: Step


class Participant:
    """This device in rounds. `models` without heads learned here: a round starts from its own head."""

    def __init__(self, store: Store, section: FederatedSection, models: Models) -> None:
        self._store, self._section, self._models = store, section, models
        self.ledger = Ledger(store)

    def due(self) -> list[Due]:
        """What can be done now. Raises StoreDamagedError where a round's file does not open."""
        inbox = self._store.inbox
        calls = {one.round: one for one in inbox.records(RoundCall, None)}
        ended = {one.round for one in inbox.records(RoundEnd, None)}
        newest: dict[str, int] = {}
        for call in calls.values():
            newest[call.model] = max(call.number, newest.get(call.model, 0))
        found = []
        for call in sorted(calls.values(), key=lambda one: one.number):
            kept = self.ledger.find(call.round)
            # one that was paid for is answered, however late; of those that are not begun only the newest counts
            paid = kept is not None and kept.state == "spent" and not call.secure
            if call.round in ended and not paid:
                continue
            if call.number == newest[call.model] or (kept is not None and kept.state != "waits"):
                step = self._next(call, kept)
                found += [Due(call, step)] if step else []
        return found

    def forget(self) -> None:
        """Remove the secrets of rounds that are over."""
        ended = {one.round for one in self._store.inbox.records(RoundEnd, None)}
        for kept in self.ledger.all():
            if kept.secrets is not None and kept.round in ended:
                self.ledger.put(msgspec.structs.replace(kept, secrets=None))

    def _next(self, call: RoundCall, kept: Kept | None) -> Step | None:
        state = kept.state if kept is not None else None
        if state in (None, "waits"):
            now = self._store.now()
            if now.synced and now.wall_ms > call.deadline_ms:
                return None
            if kept is not None and abs(now.wall_ms - kept.at_ms) < _AGAIN_MS:
                return None
            return "keys" if call.secure else "answer"
        if state == "spent":
            return "answer"
        if not call.secure:
            return None
        # killed before the record was accepted: it still has to go
        if state == "keys" and not self._store.sent(RoundKeys, call.round):
            return "keys"
        if state == "shares" and not self._store.sent(RoundShares, call.round):
            return "shares"
        waits_for: dict[str | None, tuple[type[RoundRoster | RoundPeers | RoundUnmask], Step]] = {
            "keys": (RoundRoster, "shares"),
            "shares": (RoundPeers, "answer"),
            "answered": (RoundUnmask, "reveal"),
        }
        if state not in waits_for:
            return None
        kind, step = waits_for[state]
        return step if self._told(kind, call.round) is not None else None

    def _told(self, kind: type[RoundRoster | RoundPeers | RoundUnmask], number: uuid.UUID) -> Record | None:
        return next((one for one in self._store.inbox.records(kind, None) if one.round == number), None)  # type: ignore[type-var]

    def do(self, due: Due) -> Kept:
        """One step; on the disk when it returns.

        Raises
        ------
        StorageFullError
            There is no room for the answer; what it cost is paid, and it is given when there is.
        NotPossibleError
            The extra `federated` is not installed.
        StoreLockedError
            Another process does it.
        """
        with self.ledger.locked():
            call = due.call
            try:
                return {"keys": self._keys, "shares": self._shares, "answer": self._answer, "reveal": self._reveal}[
                    due.step
                ](call)
            except SyncError as error:
                return self._decline(call, error.cause)

    # -- steps

    def _keys(self, call: RoundCall) -> Kept:
        if reason := self.refusal(call):
            return self._decline(call, reason)
        kept = self.ledger.find(call.round)
        secrets = (kept.secrets if kept is not None else None) or Secrets.make()
        kept = self._keep(call, state="keys", secrets=secrets)
        mask, share = secrets.public
        self._send(RoundKeys(id=call.round, mask=mask, share=share, at=self._store.now()))
        return kept

    def _shares(self, call: RoundCall) -> Kept:
        kept = self._found(call)
        roster = kept.roster or self._told(RoundRoster, call.round)
        assert isinstance(roster, RoundRoster)
        me = self._store.identity.name
        if kept.secrets is None or roster.members.get(me) != kept.secrets.public:
            return self._decline(call, "the hub told others another key than this device's")
        if len(roster.members) < call.minimum:
            return self._decline(call, f"{len(roster.members)} take part, at least {call.minimum} must")
        sealed = secure_sum.seal_shares(me, kept.secrets, roster.members, roster.threshold, call.round)
        # kept first: shares for another roster must never go out
        kept = self._keep(call, state="shares", roster=roster)
        self._send(RoundShares(id=call.round, sealed=sealed, at=self._store.now()))
        return kept

    def _answer(self, call: RoundCall) -> Kept:
        kept = self.ledger.find(call.round)
        if self._store.sent(RoundAnswer, call.round):
            return self._keep(call, state="answered")
        if (reason := self.refusal(call)) and not (kept is not None and kept.cost):
            return self._decline(call, reason)
        peers = self._peers(call, kept) if call.secure else None
        model = self._models.get(self._task(call))  # type: ignore[arg-type]
        found = teach.from_store(model, self._store, withdrawn=call.withdrawn)
        if len(found.patients) < self._section.least_patients:
            if kept is not None and kept.cost:
                return self._decline(call, "its cases are gone")
            if call.secure:
                return self._decline(call, "too few cases")
            return self._keep(call, state="waits", reason="too few cases yet")
        patients = tuple(one for one in found.patients if isinstance(one, uuid.UUID))
        recipe, cost = _recipe(call), self._cost(call)
        # paid before the noise is drawn; whoever came since a kill pays with the others
        before = kept.patients if kept is not None else ()
        kept = self._keep(call, state="spent", cost=cost, patients=tuple({*before, *patients}), peers=peers)
        start = rounds.to_floats(call.head).reshape(call.rows, call.columns)
        others = rounds.to_floats(call.correction).reshape(start.shape) if call.correction else None
        vector = train(recipe, found.cases, start, np.random.default_rng(), others).to_vector()
        self._send(self._sealed_answer(call, kept, vector))
        return self._keep(call, state="answered")

    def _sealed_answer(self, call: RoundCall, kept: Kept, vector: rounds.Floats) -> RoundAnswer:
        if call.secure:
            secrets, roster, peers = _of_secure(kept)
            ring = secure_sum.encode_vector(vector)
            names = sorted(peers.sealed)
            ring = secure_sum.mask(ring, self._store.identity.name, secrets, roster.members, names, call.round)
            content = ring.astype("<u8").tobytes()
        else:
            content = rounds.from_floats(vector)
        return RoundAnswer(
            id=call.round,
            model=call.model,
            base=call.base,
            vector=content,
            masked=call.secure,
            at=self._store.now(),
        )

    def _peers(self, call: RoundCall, kept: Kept | None) -> RoundPeers:
        if kept is None or kept.roster is None:
            raise _broken("its file of this round lacks the members")
        peers = kept.peers or self._told(RoundPeers, call.round)
        assert isinstance(peers, RoundPeers)
        roster, names = kept.roster, set(peers.sealed)
        if self._store.identity.name not in names or not names <= set(roster.members):
            raise _broken("those who shared are not members, or this device is not among them")
        if len(names) < max(roster.threshold, call.minimum):
            raise _broken(f"{len(names)} shared, which is too few to hide among")
        return peers

    def _reveal(self, call: RoundCall) -> Kept:
        kept = self._found(call)
        secrets, roster, peers = _of_secure(kept)
        told = self._told(RoundUnmask, call.round)
        assert isinstance(told, RoundUnmask)
        answered, shared = kept.answered or tuple(sorted(set(told.answered))), set(peers.sealed)
        if not set(answered) <= shared or len(answered) < max(roster.threshold, call.minimum):
            return self._decline(call, f"{len(answered)} answers would be opened, which is too few to hide among")
        # kept first: of one member nobody may ever have both from this device, whatever else the hub asks
        self._keep(call, answered=answered)
        me = self._store.identity.name
        shares = {
            name: secure_sum.open_share(sealed, me, secrets, name, roster.members, call.round)
            for name, sealed in peers.sealed.items()
        }
        self._send(
            RoundReveal(
                id=call.round,
                seeds={name: shares[name].seed for name in answered},
                keys={name: shares[name].key for name in sorted(shared - set(answered))},
                at=self._store.now(),
            )
        )
        return self._keep(call, state="revealed", secrets=None)

    # -- whether

    def refusal(self, call: RoundCall) -> str:
        """Why this device will not answer; empty where it may."""
        if call.purpose is not ConsentPurpose.MODEL_TRAINING:
            return f"nobody was asked for their consent to {call.purpose.value} in rounds"
        if call.noise <= 0.0:
            return "it asks for answers without noise"
        if self._task(call) is None:
            return f"{call.model} is not the model of this device, or another version of it"
        spent, cost = self.ledger.spent(), self._cost(call)
        if epsilon_apart(spent + cost, self._section.delta) > self._section.epsilon:
            used = epsilon_apart(spent, self._section.delta)
            return f"the privacy budget is spent: epsilon {used:.2f} of {self._section.epsilon:g}"
        return ""

    def _task(self, call: RoundCall) -> Task | None:
        """What the round's model is for here; None where this device has another one, or another version of it."""
        for task in _TASKS:
            try:
                card = self._models.card(task)
            except ModelError:
                continue
            wanted = (call.model, call.base, call.kind)
            if card is not None and (card.name, card.network, card.output.kind) == wanted:
                return task
        return None

    def _cost(self, call: RoundCall) -> float:
        # of a secure sum the noise is that of all shares together, which is what anybody ever sees
        return spent_by(Recipe(call.kind, call.steps, noise=call.noise))

    def _found(self, call: RoundCall) -> Kept:
        kept = self.ledger.find(call.round)
        assert kept is not None
        return kept

    def _keep(self, call: RoundCall, **changes: object) -> Kept:
        now = self._store.now().wall_ms
        before = self.ledger.find(call.round)
        if before is None:
            before = Kept(round=call.round, number=call.number, model=call.model, state="waits", at_ms=now)
        kept = msgspec.structs.replace(before, at_ms=now, reason=str(changes.pop("reason", "")), **changes)
        self.ledger.put(kept)
        return kept

    def _decline(self, call: RoundCall, reason: str) -> Kept:
        return self._keep(call, state="declined", reason=reason, secrets=None)

    def _send(self, record: RoundAnswer | RoundKeys | RoundShares | RoundReveal) -> None:
        # a kill between this and the note that it was done: it was given, and is not given again
        if not self._store.sent(type(record), record.id):
            self._store.append(Item(RecordClass.ROUND, record, None))


def _recipe(call: RoundCall) -> Recipe:
    noise = call.noise / math.sqrt(call.minimum) if call.secure else call.noise
    return Recipe(call.kind, call.steps, call.rate, call.clip, noise, call.pull, call.ridge)


def _of_secure(kept: Kept) -> tuple[Secrets, RoundRoster, RoundPeers]:
    if kept.secrets is None or kept.roster is None or kept.peers is None:
        raise _broken("its file of this round lacks secrets or members")
    return kept.secrets, kept.roster, kept.peers


def _broken(cause: str) -> SyncError:
    return SyncError(operation="answering a round", target="round", cause=cause)


def waiting(due: Sequence[Due]) -> bool:
    """Whether one of them needs time to learn."""
    return any(one.step == "answer" for one in due)
