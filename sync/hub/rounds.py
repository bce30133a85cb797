"""Federated rounds at the hub: who is asked, what came of it, and what is no answer and why.

Nothing here waits for anybody: a round stands in the database, answers come as records when devices are online or a
stick arrives, and `advance` (`_round_phases`) ends a phase when all have answered or its time is over. The head that a
round makes is where the next one starts, and a candidate (`candidate`); it serves nobody by itself.
"""

from __future__ import annotations

import math
import uuid
from typing import Any, NamedTuple

import msgspec
import numpy as np
from sqlalchemy import Connection, Select, func, insert, select, update

from aidpost.errors import UsageError
from aidpost.records import ConsentPurpose, Record, decode, encode
from aidpost.sync import rounds as wire
from aidpost.sync.hub import audit, clocks, consents, outgoing, patients, schema
from aidpost.sync.hub._rows import clean
from aidpost.sync.hub.aggregate import Controls, Strategy, corrected
from aidpost.sync.rounds import RoundAnswer, RoundCall, RoundKeys, RoundReveal, RoundRoster, RoundShares

__all__ = ["Plan", "Progress", "call_of", "find", "open_round", "progress", "take"]

LARGEST_PATIENTS = 100_000.0
"""More patients than this stand behind no device."""
MEANS: tuple[Strategy, ...] = ("fedavg", "fedavgm", "fedadam")
"""Strategies that need no more than the sum."""

_rows, _asked, _came = schema.rounds, schema.round_devices, schema.round_records


class Plan(NamedTuple):
    """What an operator decides about a round; the rest comes of the model and of the rounds before.

    `shape` is the head's (rows, columns), `days` how long each phase lasts. A round begins where the last one of the
    network ended, or at zeros: the first one, and one that is to begin `afresh`.
    """

    model: str
    base: str
    kind: str
    shape: tuple[int, int]
    days: float = 14.0
    minimum: int = 3
    strategy: Strategy = "fedavg"
    secure: bool = False
    steps: int = 1
    rate: float = 4.0
    clip: float = 1.0
    noise: float = 1.0
    pull: float = 0.0
    ridge: float = 0.0
    devices: tuple[str, ...] = ()
    afresh: bool = False


class Progress(NamedTuple):
    """A round as it stands."""

    round: uuid.UUID
    number: int
    model: str
    state: str
    phase: str
    until_ms: int
    strategy: str
    secure: bool
    asked: int
    answered: int
    refused: dict[str, str]
    minimum: int
    counted: int
    reason: str
    candidate: str
    verdict: str


def open_round(connection: Connection, hub_epoch: bytes, plan: Plan, by: str, now_ms: int) -> uuid.UUID:
    """Announce a round to the devices named, or to all that are enrolled; it goes out with the caller's commit.

    Raises
    ------
    UsageError
        One of this model is open, too few devices are enrolled, or the plan contradicts itself.
    """
    _check(connection, plan)
    devices = _devices(connection, plan)
    last = None if plan.afresh else latest(connection, plan.model, plan.base)
    number = 1 + (connection.execute(select(func.max(_rows.c.number)).where(_rows.c.model == plan.model)).scalar() or 0)
    start = wire.from_floats(np.zeros(plan.shape[0] * plan.shape[1]))
    number_of, phase_ms = uuid.uuid4(), max(1, round(plan.days * 86_400_000))
    call = RoundCall(
        round=number_of,
        number=number,
        model=plan.model,
        base=plan.base,
        kind=plan.kind,  # type: ignore[arg-type]
        rows=plan.shape[0],
        columns=plan.shape[1],
        head=bytes(last.head) if last is not None else start,
        purpose=ConsentPurpose.MODEL_TRAINING,
        deadline_ms=now_ms + phase_ms * (3 if plan.secure else 1),
        minimum=plan.minimum,
        strategy=plan.strategy,
        secure=plan.secure,
        steps=plan.steps,
        rate=plan.rate,
        clip=plan.clip,
        noise=plan.noise,
        pull=plan.pull,
        ridge=plan.ridge,
        at=clocks.hub_time(now_ms),
    )
    connection.execute(
        insert(_rows).values(
            id=number_of,
            number=number,
            model=plan.model,
            base=plan.base,
            previous=last.id if last is not None else None,
            state="open",
            phase="keys" if plan.secure else "answer",
            until_ms=now_ms + phase_ms,
            phase_ms=phase_ms,
            call=encode(call),
            opened_ms=now_ms,
            opened_by=by,
        )
    )
    controls = controls_of(last, call)
    for device in devices:
        connection.execute(insert(_asked).values(round=number_of, device=device))
        own = msgspec.structs.replace(
            call,
            withdrawn=_withdrawn(connection, device, call.purpose),
            correction=wire.from_floats(controls.correction(device, call.rows * call.columns)) if controls else b"",
        )
        send(connection, hub_epoch, device, own, now_ms)
    said = f"{plan.model}, {len(devices)} devices, at least {plan.minimum}, {plan.strategy}, noise {plan.noise:g}"
    audit.append(connection, by, "round-opened", str(number_of), said + (", secure sum" if plan.secure else ""))
    return number_of


def _check(connection: Connection, plan: Plan) -> None:
    going = select(_rows.c.number).where(_rows.c.model == plan.model, _rows.c.state == "open")
    if (number := connection.execute(going).scalar()) is not None:
        raise _refused(plan, f"round {number} is open", "Wait for its end, or close it: `aidpost hub rounds close`.")
    if plan.secure and plan.strategy not in MEANS:
        remedy = "Choose fedavg, fedavgm or fedadam, or leave secure aggregation out: a sum shows no answer by itself."
        raise _refused(plan, f"{plan.strategy} must see every answer, and a secure sum shows none", remedy)
    if plan.noise <= 0:
        raise _refused(plan, "it has no noise, so no device would answer", "Give it a budget.")
    if plan.rate * plan.ridge > 1:
        cause = f"a step of {plan.rate:g} overshoots what a ridge of {plan.ridge:g} holds to"
        raise _refused(plan, cause, f"With this ridge the rate may be {1 / plan.ridge:g} at most.")


def _devices(connection: Connection, plan: Plan) -> list[str]:
    table = schema.devices
    enrolled = list(
        connection.execute(select(table.c.name).where(table.c.revoked_ms.is_(None)).order_by(table.c.name)).scalars()
    )
    if unknown := set(plan.devices) - set(enrolled):
        raise _refused(plan, f"{', '.join(sorted(unknown))} is not enrolled", "See `aidpost hub rounds` for the names.")
    devices = [one for one in enrolled if not plan.devices or one in plan.devices]
    if len(devices) < plan.minimum:
        raise _refused(plan, f"{len(devices)} devices for at least {plan.minimum} answers", "Enrol more, or ask fewer.")
    return devices


def _refused(plan: Plan, cause: str, remedy: str) -> UsageError:
    return UsageError(operation="opening a round", target=plan.model, cause=cause, remedy=remedy)


def _withdrawn(connection: Connection, device: str, purpose: ConsentPurpose) -> tuple[uuid.UUID, ...]:
    """Patients of a device who took their consent back here, of which it does not know."""
    table, exams = schema.withdrawn_consents, schema.exams
    here = select(table.c.patient).where(table.c.purpose == purpose.value).distinct()
    gone = [one for one in connection.execute(here).scalars() if consents.refuses(connection, one, purpose)]
    everybody = {other for one in gone for other in patients.group(connection, one)}
    mine = select(exams.c.patient).where(exams.c.device == device).distinct()
    return tuple(sorted(everybody & set(connection.execute(mine).scalars())))


def send(connection: Connection, hub_epoch: bytes, device: str, record: Record, now_ms: int) -> None:
    """Put a record of a round on its way down."""
    outgoing.put(connection, hub_epoch, device, wire.CLASS, record, patient=None, exam=None, now_ms=now_ms)


def latest(connection: Connection, model: str, base: str) -> Any:
    """The last round of a network that made a head, or None."""
    query = select(_rows).where(_rows.c.model == model, _rows.c.base == base, _rows.c.state == "closed")
    return connection.execute(query.order_by(_rows.c.number.desc()).limit(1)).one_or_none()


def controls_of(last: Any, call: RoundCall) -> Controls | None:
    """SCAFFOLD's memory of the rounds up to `last`; None under a strategy that corrects nobody."""
    if not corrected(call.strategy, call.steps):
        return None
    robust = call.strategy == "geometric-median"
    if not remembers(last, call):
        return Controls(robust=robust)
    of = msgspec.msgpack.decode(bytes(last.memory), type=dict[str, tuple[float, list[float]]])
    return Controls(of, robust)


def remembers(last: Any, call: RoundCall) -> bool:
    """Whether the memory that a round left is of the kind that this one goes on from."""
    if last is None or not last.memory:
        return False
    before = call_of(last)
    same = corrected(before.strategy, before.steps) == corrected(call.strategy, call.steps)
    return same and before.strategy == call.strategy


def call_of(row: Any) -> RoundCall:
    """What was asked."""
    return decode(RoundCall, bytes(row.call))


def find(connection: Connection, which: str) -> Any:
    """A round by its UUID, or by its model's name and number: `fundus-dr/3`.

    Raises
    ------
    UsageError
        There is none.
    """
    model, _, number = which.rpartition("/")
    if model and number.isdigit():
        query = select(_rows).where(_rows.c.model == model, _rows.c.number == int(number))
    else:
        try:
            query = select(_rows).where(_rows.c.id == uuid.UUID(which))
        except ValueError:
            query = select(_rows).where(_rows.c.number < 0)
    row = connection.execute(query).one_or_none()
    if row is None:
        remedy = "`aidpost hub rounds status` lists them."
        raise UsageError(operation="looking for a round", target=which, cause="there is none", remedy=remedy)
    return row


# -- what comes up


def take(connection: Connection, device: str, record: Record, now_ms: int) -> None:
    """Keep what a device says in a round, or note why it is no answer; the round goes on either way."""
    assert isinstance(record, wire.UP)
    kind = type(record).__name__
    row = connection.execute(select(_rows).where(_rows.c.id == record.id).with_for_update()).one_or_none()
    if row is None or not _was_asked(connection, row.id, device):
        audit.append(connection, device, "round-refused", str(record.id), f"{kind}: no such round, or not asked")
        return
    known = select(_came.c.kind).where(_came.c.round == row.id, _came.c.device == device, _came.c.kind == kind)
    if connection.execute(known).one_or_none() is not None:
        audit.append(connection, device, "round-refused", str(row.id), f"{kind}: a device answers once")
        return
    fault = _fault(connection, row, device, record)
    connection.execute(
        insert(_came).values(
            round=row.id,
            device=device,
            kind=kind,
            body=encode(record),
            received_ms=now_ms,
            refused=clean(fault, 300),
        )
    )
    if fault:
        audit.append(connection, device, "round-refused", str(row.id), f"{kind}: {fault}")


def _was_asked(connection: Connection, number: uuid.UUID, device: str) -> bool:
    query = select(_asked.c.device).where(_asked.c.round == number, _asked.c.device == device)
    return connection.execute(query).one_or_none() is not None


def _fault(connection: Connection, row: Any, device: str, record: Record) -> str:
    call = call_of(row)
    if isinstance(record, RoundAnswer):
        return answer_fault(call, record) or _phase_fault(connection, row, call, device, "answer")
    phase = {RoundKeys: "keys", RoundShares: "shares", RoundReveal: "reveal"}[type(record)]
    if not call.secure:
        return "the round has no secure sum"
    fault = _phase_fault(connection, row, call, device, phase)
    if not fault and isinstance(record, RoundShares):
        roster = roster_of(connection, row.id, device)
        if roster is None or set(record.sealed) != set(roster.members):
            return "the shares are not for the members"
    return fault


def _phase_fault(connection: Connection, row: Any, call: RoundCall, device: str, phase: str) -> str:
    if not call.secure:
        return ""  # a late one counts for the next round
    if row.state != "open" or row.phase != phase:
        return f"it came in the phase {row.phase}, {row.state}: late for {phase}"
    if phase == "keys":
        return ""
    # only who took part in the phase before may go on
    before = {"shares": RoundKeys, "answer": RoundShares, "reveal": RoundAnswer}[phase].__name__
    there = select(_came.c.kind).where(
        _came.c.round == row.id, _came.c.device == device, _came.c.kind == before, _came.c.refused == ""
    )
    return "" if connection.execute(there).one_or_none() is not None else "it took no part in the phase before"


def roster_of(connection: Connection, number: uuid.UUID, device: str) -> RoundRoster | None:
    """The members that a device was told."""
    table = schema.outgoing
    query = select(table.c.body).where(table.c.device == device, table.c.kind == RoundRoster.__name__)
    found = [decode(RoundRoster, bytes(body)) for body in connection.execute(query).scalars()]
    return next((one for one in found if one.round == number), None)


def answer_fault(call: RoundCall, answer: RoundAnswer) -> str:
    """Why this is no answer to the call; empty where it is one."""
    size = call.rows * call.columns + 1
    if (answer.model, answer.base) != (call.model, call.base):
        return f"it is of another model: {answer.model}"
    if answer.masked != call.secure:
        return "it is masked" if answer.masked else "it is not masked"
    if len(answer.vector) != size * (8 if answer.masked else 4):
        return f"it has {len(answer.vector)} bytes, not those of {size} values"
    if answer.masked:
        return ""  # of this nobody sees more
    return vector_fault(call, wire.to_floats(answer.vector), 1)


def vector_fault(call: RoundCall, vector: Any, devices: int) -> str:
    """Why a vector, or the sum of several devices', is none: not finite, or larger than clip and noise allow."""
    if not np.isfinite(vector).all():
        return "a value is not finite"
    number = float(vector[-1])
    if not 0 < number <= LARGEST_PATIENTS * devices:
        return f"{number:g} patients stand behind it"
    # each step moves by at most rate * (clip * patients + noise): several times that is no accident
    noise = call.noise * call.clip * math.sqrt(vector.size * devices)
    # under SCAFFOLD up to two more slopes are added to each
    slopes = (12 if corrected(call.strategy, call.steps) else 4) * (call.clip * (number + 4 * call.noise) + noise)
    most = call.rate * call.steps * slopes
    if call.ridge:
        most += number * float(np.linalg.norm(wire.to_floats(call.head)))  # it takes no more than was there
    length = float(np.linalg.norm(vector[:-1]))
    return "" if length <= most else f"its length is {length:.3g}, at most {most:.3g} can be"


# -- what is shown


def progress(connection: Connection, where: Any = None) -> list[Progress]:
    """All rounds, the newest first."""
    query: Select[Any] = select(_rows).order_by(_rows.c.opened_ms.desc(), _rows.c.number.desc())
    rows = connection.execute(query if where is None else query.where(where)).all()
    return [_progress(connection, row) for row in rows]


def _progress(connection: Connection, row: Any) -> Progress:
    call = call_of(row)
    came = connection.execute(select(_came).where(_came.c.round == row.id)).all()
    kind = {"keys": "RoundKeys", "shares": "RoundShares", "answer": "RoundAnswer", "reveal": "RoundReveal"}[row.phase]
    return Progress(
        round=row.id,
        number=row.number,
        model=row.model,
        state=row.state,
        phase=row.phase,
        until_ms=row.until_ms,
        strategy=call.strategy,
        secure=call.secure,
        asked=connection.execute(select(func.count()).where(_asked.c.round == row.id)).scalar_one(),
        answered=sum(one.kind == kind and not one.refused for one in came),
        refused={one.device: one.refused for one in came if one.refused},
        minimum=call.minimum,
        counted=row.answers,
        reason=row.reason,
        candidate=row.candidate,
        verdict=row.verdict,
    )


def set_candidate(connection: Connection, number: uuid.UUID, state: str, verdict: str) -> None:
    """What became of a head as a candidate."""
    connection.execute(update(_rows).where(_rows.c.id == number).values(candidate=state, verdict=verdict))
