"""The counts behind the quality page, the metrics and shadow mode, kept while the hub works.

Whatever changes an exam or a patient notes it in its own transaction (`changed`). A turn takes what was noted, reads
how it is now, and moves the counts by the difference to what it counted before. So the counts are those of a full
recount, some seconds late; the page says how much is not in them yet.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import DBAPIError, OperationalError

from aidpost.sync.hub import _facts, _rows, schema
from aidpost.sync.hub._facts import Cell, ExamFacts, PatientFacts
from aidpost.sync.hub._worker import Worker
from aidpost.sync.hub.database import Database, now_ms

_log = logging.getLogger(__name__)

_EVERY_S = 5.0
"""Who looks at the page sees what is newer, too (`Tally.catch_up`), and the ingest has the lock to itself meanwhile."""
_PREPARE_EVERY_S = 30.0
_BREATH_S = 0.05
"""Between two turns of a long count: others write, too."""
_PAGE = 200
_AT_ONCE = 3
_BEHIND = 2000
_MOST_DUE = 100_000

_pack = msgspec.msgpack.Encoder().encode
_exam_facts = msgspec.msgpack.Decoder(ExamFacts)
_patient_facts = msgspec.msgpack.Decoder(PatientFacts)


class Standing(NamedTuple):
    """As of when the counts are, and how many changes are not in them yet."""

    at_ms: int | None
    due: int


def changed(connection: Connection, pairs: Iterable[tuple[uuid.UUID | None, uuid.UUID | None]]) -> None:
    """Notes in the caller's transaction that exams and patients, as (exam, patient), are to be counted anew."""
    rows = [{"exam": exam, "patient": patient} for exam, patient in dict.fromkeys(pairs)]
    if rows:
        connection.execute(insert(schema.quality_due), rows)


def changed_where(connection: Connection, condition: ColumnElement[bool]) -> None:
    """The same for all exams for which a condition holds."""
    exams = schema.exams
    found = select(exams.c.id, exams.c.patient).where(condition)
    connection.execute(insert(schema.quality_due).from_select(["exam", "patient"], found))


def standing(connection: Connection) -> Standing:
    """How far the counts are."""
    at_ms = connection.execute(select(schema.hub.c.tallied_ms)).scalar_one()
    some = select(schema.quality_due.c.id).limit(_MOST_DUE).subquery()
    return Standing(at_ms, connection.execute(select(func.count()).select_from(some)).scalar_one())


def is_behind(connection: Connection) -> bool:
    """Whether the counts lack more than what comes in meanwhile: after an update that began to keep them."""
    return standing(connection).due > _BEHIND


class Tally(Worker):
    """Keeps the counts until `stop`.

    Parameters
    ----------
    prepare
        Called twice a minute with the counts as they are: works out, and remembers, what takes a page long.
    """

    def __init__(self, database: Database, prepare: Callable[[Connection], None] | None = None) -> None:
        self._database, self._prepare, self._prepare_due_s = database, prepare, 0.0
        super().__init__("hub-tally")

    def catch_up(self) -> None:
        """Counts what is due, if that is little: who looks just after signing sees it. More is left to the thread."""
        try:
            for _ in range(_AT_ONCE):
                if not self.turn():
                    return
        except OperationalError as error:  # a full disk must not take the page away, too
            _log.error("the quality page's counts cannot be kept up: %s", error.orig)

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            wait = _EVERY_S
            try:
                while self.turn() and not self._stopping.wait(_BREATH_S):
                    pass
                if self._prepare and time.monotonic() >= self._prepare_due_s:
                    with self._database.read() as connection:
                        self._prepare(connection)
                    self._prepare_due_s = time.monotonic() + _PREPARE_EVERY_S
            except (DBAPIError, OSError) as error:
                _log.error("the quality page's counts cannot be kept up: %s", getattr(error, "orig", error))

    def turn(self) -> int:
        """Counts some of what is due; returns how many changes. Several workers may do so at once: of two that read the
        same, one counts."""
        due = schema.quality_due
        # what is slow is done without the writer's lock
        with self._database.read() as connection:
            turn = connection.execute(select(schema.hub.c.tally)).scalar_one()
            rows = connection.execute(select(due).order_by(due.c.id).limit(_PAGE)).all()
            if not rows:
                return 0
            before, after = _before(connection, rows), _after(connection, rows)
        with self._database.write() as connection:
            hub = schema.hub
            mine = update(hub).where(hub.c.tally == turn).values(tally=turn + 1, tallied_ms=now_ms())
            if connection.execute(mine).rowcount:
                _keep(connection, before, after)
                connection.execute(delete(due).where(due.c.id.in_([row.id for row in rows])))
        return len(rows)


def _subjects(rows: Iterable[Any]) -> tuple[list[uuid.UUID], list[uuid.UUID]]:
    exams = dict.fromkeys(row.exam for row in rows if row.exam is not None)
    return list(exams), list(dict.fromkeys(row.patient for row in rows if row.patient is not None))


def _before(connection: Connection, rows: Iterable[Any]) -> dict[uuid.UUID, bytes]:
    table = schema.quality_facts
    exams, patients = _subjects(rows)
    found = connection.execute(select(table).where(table.c.subject.in_(exams + patients)))
    return {row.subject: bytes(row.body) for row in found}


def _after(connection: Connection, rows: Sequence[Any]) -> dict[uuid.UUID, bytes]:
    exams, _ = _subjects(rows)
    facts: dict[uuid.UUID, Any] = dict(_facts.of_exams(connection, exams))
    facts |= _facts.of_patients(connection, [row.id for row in rows])
    return {subject: _pack(one) for subject, one in facts.items()}


def _facts_in(body: bytes) -> ExamFacts | PatientFacts:
    try:
        return _exam_facts.decode(body)
    except msgspec.ValidationError:
        return _patient_facts.decode(body)


def _keep(connection: Connection, before: Mapping[uuid.UUID, bytes], after: Mapping[uuid.UUID, bytes]) -> None:
    moved: Counter[Cell] = Counter()
    different = [subject for subject in {*before, *after} if before.get(subject) != after.get(subject)]
    for subject in different:
        if subject in before:
            moved.subtract(_facts.cells_of(_facts_in(before[subject])))
        if subject in after:
            moved.update(_facts.cells_of(_facts_in(after[subject])))
    facts, counts = schema.quality_facts, schema.quality_counts
    if gone := [{"its": subject} for subject in different if subject not in after]:
        connection.execute(delete(facts).where(facts.c.subject == bindparam("its")), gone)
    if rows := [{"subject": subject, "body": after[subject]} for subject in different if subject in after]:
        put = _rows.insert(connection, facts)
        put = put.on_conflict_do_update(index_elements=["subject"], set_={"body": put.excluded.body})
        connection.execute(put, rows)
    # in one order, so that two writers never wait for each other
    if cells := [{**cell._asdict(), "number": number} for cell, number in sorted(moved.items()) if number]:
        add = _rows.insert(connection, counts)
        total = {"number": counts.c.number + add.excluded.number}
        keys = ["clinic", "what", "name", "bucket"]
        connection.execute(add.on_conflict_do_update(index_elements=keys, set_=total), cells)
