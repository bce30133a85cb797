"""How a round goes on: each phase ends when everybody has answered or its time is over, and too few make it void."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from sqlalchemy import Connection, select, update

from aidpost.errors import SyncError
from aidpost.records import Record, decode
from aidpost.sync import rounds as wire
from aidpost.sync import secure_sum
from aidpost.sync.hub import audit, clocks, rounds, schema
from aidpost.sync.hub.aggregate import Aggregator, corrected
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

__all__ = ["advance", "anything_due"]

_rows, _asked, _came = schema.rounds, schema.round_devices, schema.round_records
_KINDS: dict[str, type[Record]] = {
    "keys": RoundKeys,
    "shares": RoundShares,
    "answer": RoundAnswer,
    "reveal": RoundReveal,
}


def anything_due(connection: Connection) -> bool:
    """Whether a round is open at all."""
    return connection.execute(select(_rows.c.id).where(_rows.c.state == "open").limit(1)).one_or_none() is not None


def advance(connection: Connection, hub_epoch: bytes, now_ms: int, *, close: uuid.UUID | None = None) -> int:
    """Take every open round as far as what has come allows; gives how many phases ended.

    Parameters
    ----------
    close
        A round whose phase ends now, whoever is missing.
    """
    ended = 0
    query = select(_rows).where(_rows.c.state == "open").order_by(_rows.c.opened_ms)
    for row in connection.execute(query.with_for_update()).all():
        step = _Step(connection, hub_epoch, row, now_ms)
        while step.over(forced=close == row.id and not ended):
            ended += 1
            step.end()
            step = step.again()
            if step.row.state != "open":
                break
    return ended


class _Step:
    """One phase of one round."""

    def __init__(self, connection: Connection, hub_epoch: bytes, row: Any, now_ms: int) -> None:
        self._connection, self._epoch, self.row, self._now_ms = connection, hub_epoch, row, now_ms
        self._call: RoundCall = rounds.call_of(row)

    def again(self) -> _Step:
        """As it stands now."""
        row = self._connection.execute(select(_rows).where(_rows.c.id == self.row.id)).one()
        return _Step(self._connection, self._epoch, row, self._now_ms)

    def over(self, *, forced: bool) -> bool:
        """Whether the phase has ended: all have answered, or its time is over."""
        if self.row.state != "open":
            return False
        came = self._devices(self._kind)
        expected = self._expected()
        enough = self.row.phase == "reveal" and len(came) >= self._threshold()
        return forced or enough or self._now_ms >= self.row.until_ms or (bool(expected) and set(came) >= expected)

    @property
    def _kind(self) -> type[Record]:
        return _KINDS[self.row.phase]

    def _expected(self) -> set[str]:
        """Who may still answer: of those asked, or of those who took part in the phase before, who is not revoked."""
        table = schema.devices
        if self.row.phase == "keys" or not self._call.secure:
            query = select(_asked.c.device).where(_asked.c.round == self.row.id)
            may = set(self._connection.execute(query).scalars())
        else:
            before = list(_KINDS)[list(_KINDS).index(self.row.phase) - 1]
            may = set(self._devices(_KINDS[before]))
        there = select(table.c.name).where(table.c.name.in_(may), table.c.revoked_ms.is_(None))
        return set(self._connection.execute(there).scalars())

    def _devices(self, kind: type[Record]) -> dict[str, Any]:
        query = select(_came.c.device, _came.c.body).where(
            _came.c.round == self.row.id, _came.c.kind == kind.__name__, _came.c.refused == ""
        )
        rows = self._connection.execute(query.order_by(_came.c.device)).all()
        return {row.device: decode(kind, bytes(row.body)) for row in rows}

    def _threshold(self) -> int:
        # over half: two disjoint sets of members must never both be able to unmask
        return len(self._devices(RoundKeys)) // 2 + 1

    def end(self) -> None:
        """What follows the phase."""
        try:
            {
                "keys": self._end_keys,
                "shares": self._end_shares,
                "answer": self._end_secure_answers if self._call.secure else self._end_answers,
                "reveal": self._end_reveal,
            }[self.row.phase]()
        except SyncError as error:
            self._void(f"{error.operation}: {error.target}: {error.cause}")

    def _enough(self, number: int, what: str, least: int = 0) -> bool:
        least = max(least, self._call.minimum)
        if number >= least:
            return True
        self._void(f"{number} {what} of {least} needed")
        return False

    def _next(self, phase: str) -> None:
        until = self._now_ms + self.row.phase_ms
        self._set(phase=phase, until_ms=until)
        audit.append(self._connection, "hub", "round-phase", str(self.row.id), phase)

    def _set(self, **values: Any) -> None:
        self._connection.execute(update(_rows).where(_rows.c.id == self.row.id).values(**values))

    def _send(self, device: str, record: Record) -> None:
        rounds.send(self._connection, self._epoch, device, record, self._now_ms)

    # -- secure

    def _end_keys(self) -> None:
        keys = self._devices(RoundKeys)
        if not self._enough(len(keys), "devices sent keys"):
            return
        members = {name: (one.mask, one.share) for name, one in keys.items()}
        roster = RoundRoster(round=self.row.id, members=members, threshold=self._threshold(), at=self._at)
        for device in members:
            self._send(device, roster)
        self._next("shares")

    def _end_shares(self) -> None:
        shares = self._devices(RoundShares)
        if not self._enough(len(shares), "devices sent shares", self._threshold()):
            return
        for device in shares:
            sealed = {sender: one.sealed[device] for sender, one in shares.items()}
            self._send(device, RoundPeers(round=self.row.id, sealed=sealed, at=self._at))
        self._next("answer")

    def _end_secure_answers(self) -> None:
        answers = self._devices(RoundAnswer)
        if not self._enough(len(answers), "devices answered", self._threshold()):
            return
        for device in answers:
            self._send(device, RoundUnmask(round=self.row.id, answered=tuple(answers), at=self._at))
        self._next("reveal")

    def _end_reveal(self) -> None:
        reveals, keys = self._devices(RoundReveal), self._devices(RoundKeys)
        if len(reveals) < self._threshold():
            self._void(f"{len(reveals)} devices of {self._threshold()} needed helped to unmask")
            return
        answers, shared = self._devices(RoundAnswer), self._devices(RoundShares)
        number = {name: i for i, name in enumerate(sorted(keys))}
        seeds = {one: _combined(reveals, number, "seeds", one, self._threshold()) for one in answers}
        gone = {one: _combined(reveals, number, "keys", one, self._threshold()) for one in shared.keys() - answers}
        total = sum((np.frombuffer(one.vector, "<u8").astype(np.uint64) for one in answers.values()), np.uint64(0))
        roster = {name: (one.mask, one.share) for name, one in keys.items()}
        vector = secure_sum.decode_sum(secure_sum.unmask(np.asarray(total), seeds, gone, roster, self.row.id))
        if fault := rounds.vector_fault(self._call, vector, len(answers)):
            self._void(f"the sum is no answer: {fault}")
            return
        self._close([(vector[:-1] / vector[-1], float(vector[-1]))], list(answers), len(answers))

    # -- in the clear

    def _end_answers(self) -> None:
        answers = {one: wire.to_floats(answer.vector) for one, answer in self._devices(RoundAnswer).items()}
        late = self._late(set(answers))
        if not self._enough(len(answers) + len(late), "answers"):
            return
        of_late = [wire.to_floats(decode(RoundAnswer, bytes(row.body)).vector) for row in late.values()]
        vectors = [*answers.values(), *of_late]
        parts = [(one[:-1] / one[-1], float(one[-1])) for one in vectors]
        self._close(parts, list(answers), len(vectors), [(row.round, row.device) for row in late.values()])

    def _late(self, here: set[str]) -> dict[str, Any]:
        """Answers that came after the end of the round before, or to a void one that began where this does: of each
        device that did not answer this one the last."""
        before = self._connection.execute(select(_rows.c.number).where(_rows.c.id == self.row.previous)).scalar()
        query = (
            select(_came, _rows.c.call)
            .join(_rows, _rows.c.id == _came.c.round)
            .where(
                _rows.c.model == self.row.model,
                _rows.c.base == self.row.base,
                _rows.c.number >= (before or 0),
                _rows.c.number < self.row.number,
                _came.c.kind == RoundAnswer.__name__,
                _came.c.refused == "",
                _came.c.counted.is_(None),
            )
        )
        rows = self._connection.execute(query.order_by(_rows.c.number)).all()
        return {row.device: row for row in rows if row.device not in here and self._fits(row)}

    def _fits(self, late: Any) -> bool:
        call = rounds.call_of(late)
        return not call.secure and (late.round == self.row.previous or call.head == self._call.head)

    # -- the end

    def _close(
        self,
        vectors: Sequence[tuple[Any, float]],
        devices: list[str],
        answers: int,
        late: Sequence[tuple[uuid.UUID, str]] = (),
    ) -> None:
        call = self._call
        aggregator = Aggregator(call.strategy, wire.to_floats(call.head), steps=call.steps)  # type: ignore[arg-type]
        self._remember(aggregator)
        try:
            changes, patients = np.stack([one for one, _ in vectors]), np.array([one for _, one in vectors])
            weights = aggregator.take(changes, patients)
        except ValueError as error:
            self._void(str(error))
            return
        memory = self._scaffold(dict(zip(devices, vectors, strict=False)))
        memory = msgspec.msgpack.encode(aggregator.memory()) if memory is None else memory
        self._set(
            state="closed",
            ended_ms=self._now_ms,
            head=wire.from_floats(weights),
            memory=memory,
            answers=answers,
        )
        counted = update(_came).where(_came.c.kind == RoundAnswer.__name__).values(counted=self.row.id)
        self._connection.execute(counted.where(_came.c.round == self.row.id, _came.c.device.in_(devices)))
        for before, device in late:
            self._connection.execute(counted.where(_came.c.round == before, _came.c.device == device))
        said = f"{answers} answers, {len(late)} of them to rounds before"
        audit.append(self._connection, "hub", "round-closed", str(self.row.id), said)
        self._tell(answers, wire.from_floats(weights), "")

    def _scaffold(self, answers: dict[str, tuple[Any, float]]) -> bytes | None:
        """What SCAFFOLD remembers after this round; answers that came late are of another one."""
        before = self._connection.execute(select(_rows).where(_rows.c.id == self.row.previous)).one_or_none()
        controls = rounds.controls_of(before, self._call)
        if controls is None:
            return None
        controls.note(answers, self._call.steps * self._call.rate)
        return msgspec.msgpack.encode(controls.of)

    def _remember(self, aggregator: Aggregator) -> None:
        """What the strategy knows from the rounds before."""
        if corrected(self._call.strategy, self._call.steps):
            return
        before = self._connection.execute(select(_rows).where(_rows.c.id == self.row.previous)).one_or_none()
        if before is not None and rounds.remembers(before, self._call):
            aggregator.recall(msgspec.msgpack.decode(bytes(before.memory)))

    def _void(self, reason: str) -> None:
        self._set(state="void", ended_ms=self._now_ms, reason=reason[:500])
        audit.append(self._connection, "hub", "round-void", str(self.row.id), reason)
        self._tell(0, b"", reason[:500])

    def _tell(self, answers: int, head: bytes, reason: str) -> None:
        end = RoundEnd(round=self.row.id, answers=answers, head=head, reason=reason, at=self._at)
        query = select(_asked.c.device).where(_asked.c.round == self.row.id).order_by(_asked.c.device)
        for device in self._connection.execute(query).scalars().all():
            self._send(device, end)

    @property
    def _at(self) -> Any:
        return clocks.hub_time(self._now_ms)


def _combined(reveals: dict[str, Any], number: dict[str, int], what: str, of: str, threshold: int) -> bytes:
    """A secret from the first shares of it that suffice."""
    shares = {number[one]: getattr(said, what)[of] for one, said in reveals.items() if of in getattr(said, what)}
    if len(shares) < threshold:
        cause = f"{len(shares)} shares of {threshold} needed"
        raise SyncError(operation="unmasking a sum", target=of, cause=cause, remedy="Open the round again.")
    return secure_sum.combine(dict(sorted(shares.items())[:threshold]))
