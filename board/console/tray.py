"""Readings that are perhaps another person's: kept under nobody's name until a person says whose they are.

Cuffs and meters send their memory again and again. What was decided about a measurement is therefore remembered, by a
keyed hash of what identifies it: the sensor's own number for it, or else sensor, time, and every kind and value.
Nothing of a patient can be read from the hash, so it may outlive their erasure. What was thrown away is kept whole,
under nobody's name, and can be taken back.
"""

from __future__ import annotations

import hmac
import logging
import sqlite3
import threading
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from aidpost.board.console.words import N_
from aidpost.board.measurements import Measurement, measured_now, measurements
from aidpost.errors import StoreDamagedError, StoreError, UsageError
from aidpost.records import Record, VitalKind, VitalSign, decode, encode
from aidpost.sync._patient_keys import NOBODY

if TYPE_CHECKING:
    from aidpost.board.console.workspace import Workspace

_log = logging.getLogger(__name__)

THROWN_KEPT = 1_000
"""Measurements thrown away that can be taken back: at most 2 MB. Those that no sensor has sent for longest go first."""
SETTLED_KEPT = 20_000
"""Measurements of finished exams that are recognised: at most 3 MB."""
_KINDS = list(VitalKind)
_ROWS = "INSERT OR IGNORE INTO unassigned VALUES (?, ?, ?)"


class Split(NamedTuple):
    """What a sensor gave: readings of the exam that is open, readings that are perhaps another person's, and how many
    measurements had come before."""

    mine: list[VitalSign]
    others: list[VitalSign]
    again: int


class Thrown(Record, frozen=True, kw_only=True):
    """A measurement that somebody threw away."""

    readings: tuple[VitalSign, ...]


@dataclass(frozen=True)
class Discarded:
    """One of what was thrown away: by whom, when by this device's clock, and how often it was sent again since."""

    measurement: Measurement
    worker: str
    at_ms: int
    again: int


@dataclass(frozen=True)
class Decision:
    """What a worker decided last, which `undo` takes back. `exam` is None of what was thrown away."""

    worker: str
    exam: uuid.UUID | None
    measurements: tuple[Measurement, ...]


class Tray:
    """The readings of one workspace that are nobody's. Methods may be called from any thread."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._database, self._store, self._drafts = workspace.database, workspace.store, workspace.drafts
        self._lock = threading.RLock()
        self._key = b""
        self.last: Decision | None = None

    # -- what arrives

    def sort(self, readings: Sequence[VitalSign]) -> Split:
        """Whose readings are: those that came before are left out, whatever was decided about them. A measurement that
        shares its sensor, its time and its kinds with another one of other values is not recognised by them, since that
        sensor's clock stands still; unless it still waits here."""
        out = Split([], [], 0)
        if not any(one.device_time for one in readings):
            return out._replace(mine=list(readings))  # made just now
        again: list[bytes] = []
        arrived = measurements(readings)
        with self._lock:
            waiting = self.waiting()
            here = {mark for one in waiting if (mark := self._mark(one)) is not None}
            known = self._known(arrived, waiting)
            for one in arrived:
                mark, moment = self._mark(one), self._moment(one)
                if mark is not None and (mark in here or known.get(moment) == {mark: True}):
                    again.append(mark)
                elif all(map(measured_now, one.readings)):
                    out.mine.extend(one.readings)
                else:
                    out.others.extend(one.readings)
            self._came_again(again)
        return out._replace(again=len(again))

    def _known(self, arrived: Sequence[Measurement], waiting: Sequence[Measurement]) -> dict[bytes, dict[bytes, bool]]:
        """Of the moments at which these were measured, each measurement that was heard of and whether it is decided."""
        found: dict[bytes, dict[bytes, bool]] = defaultdict(dict)
        for moment in {self._moment(one) for one in arrived}:
            for (mark,) in self._database.read("SELECT mark FROM settled WHERE moment = ?", (moment,)):
                found[moment][mark] = True
        for draft in self._drafts.all():
            for one in measurements(draft.vitals):
                if (mark := self._mark(one)) is not None:
                    found[self._moment(one)][mark] = True
        for one in (*arrived, *waiting):
            if (mark := self._mark(one)) is not None:
                found[self._moment(one)].setdefault(mark, False)
        return found

    def _came_again(self, marks: Sequence[bytes]) -> None:
        """Count it, and let what is still sent be forgotten last."""
        if marks:
            query = "UPDATE settled SET again = again + 1, turn = (SELECT max(turn) + 1 FROM settled) WHERE mark = ?"
            self._database.write(lambda db: db.executemany(query, [(mark,) for mark in marks]))

    def keep(self, readings: Sequence[VitalSign]) -> None:
        """Keep readings under nobody's name; on the disk when this returns."""
        rows = self._rows(readings)
        if rows:
            self._database.write(lambda db: db.executemany(_ROWS, rows))

    def _rows(self, readings: Sequence[VitalSign]) -> list[tuple[bytes, bytes, bytes]]:
        return [
            (one.id.bytes, NOBODY.bytes, self._store.seal_for(NOBODY, encode(one), _place(one.id))) for one in readings
        ]

    # -- what a person sees and decides

    def waiting(self) -> list[Measurement]:
        """What nobody has assigned, the newest first by the sensors' own clocks. What a power cut left here after it
        was given to an exam is that exam's."""
        given = {one.id for draft in self._drafts.all() for one in draft.vitals}
        found = []
        for number, patient, sealed in self._database.read("SELECT id, patient, sealed FROM unassigned"):
            reading = uuid.UUID(bytes=number)
            if reading in given:
                continue
            try:
                plain = self._store.open_for(uuid.UUID(bytes=patient), sealed, _place(reading))
            except StoreDamagedError as error:
                _log.warning("a reading that waits to be assigned is lost: %s", error)
                continue
            found.append(decode(VitalSign, plain))
        found.sort(key=lambda one: (one.kind is VitalKind.PULSE_RATE, _KINDS.index(one.kind)))  # which comes last
        return sorted(measurements(found), key=lambda one: (one.time, one.id), reverse=True)

    def thrown(self) -> list[Discarded]:
        """What was thrown away, the last first."""
        query = "SELECT mark, sealed, worker, at_ms, again FROM settled WHERE sealed IS NOT NULL"
        found = []
        for mark, sealed, worker, at_ms, again in self._database.read(query):
            try:
                plain = self._store.open_for(NOBODY, sealed, _thrown_place(mark))
            except StoreDamagedError:
                continue
            found.append(Discarded(Measurement(decode(Thrown, plain).readings), worker, at_ms, again))
        return sorted(found, key=lambda one: (one.at_ms, one.measurement.time), reverse=True)

    def thrown_number(self) -> int:
        """How many can be taken back."""
        return int(self._database.read("SELECT count(*) FROM settled WHERE sealed IS NOT NULL")[0][0])

    def chosen(self, ids: Iterable[uuid.UUID]) -> tuple[Measurement, ...]:
        """Those of what waits; what somebody decided meanwhile is not among them."""
        wanted = set(ids)
        return tuple(one for one in self.waiting() if one.id in wanted)

    def give(self, ids: Iterable[uuid.UUID], exam: uuid.UUID, worker: str) -> tuple[Measurement, ...]:
        """Give measurements to an open exam, all in one step of it; who did is kept."""
        with self._lock:
            chosen = self.chosen(ids)
            if chosen:
                self._workspace.add_vitals(exam, _readings(chosen))
                self._decided(chosen, worker, f"to {exam}")
                self.last = Decision(worker, exam, chosen)
            return chosen

    def throw_away(self, ids: Iterable[uuid.UUID], worker: str) -> tuple[Measurement, ...]:
        """They are nobody's: they are not shown again when they are sent again, until somebody takes them back."""
        with self._lock:
            chosen = self.chosen(ids)
            at = self._store.now().wall_ms
            rows = []
            for one in chosen:
                # one without a time of its own never comes again; it can be taken back all the same
                mark, moment = self._mark(one) or one.id.bytes, self._moment(one)
                plain = encode(Thrown(readings=one.readings))
                rows.append((mark, moment, at, worker, self._store.seal_for(NOBODY, plain, _thrown_place(mark))))
            if chosen:
                self._decided(chosen, worker, "thrown away", rows)
                self.last = Decision(worker, None, chosen)
            return chosen

    def take_back(self, ids: Iterable[uuid.UUID], worker: str) -> None:
        """Let what was thrown away wait again."""
        with self._lock:
            wanted = set(ids)
            back = [one.measurement for one in self.thrown() if one.measurement.id in wanted]
            rows, at = self._rows(_readings(back)), self._store.now().wall_ms
            marks = [(self._mark(one) or one.id.bytes,) for one in back]

            def work(db: sqlite3.Connection) -> None:
                db.executemany(_ROWS, rows)
                db.executemany("DELETE FROM settled WHERE mark = ?", marks)
                _audit(db, at, worker, "took a reading back", back)

            if back:
                self._database.write(work)

    def undo(self, worker: str) -> None:
        """Take back what this worker decided last.

        Raises
        ------
        UsageError
            The exam that it was given to is finished.
        """
        with self._lock:
            last = self.last
            if last is None or last.worker != worker:
                return
            if last.exam is None:
                self.take_back([one.id for one in last.measurements], worker)
            else:
                if self._drafts.find(last.exam) is None:
                    raise UsageError(
                        operation="taking readings back",
                        target=str(last.exam),
                        cause=N_("the exam is finished"),
                        remedy=N_("Tell a clinician at the hub: its report has gone."),
                    )
                self._workspace.drop_vitals(last.exam, {one.id for one in _readings(last.measurements)})
                self._database.write(
                    lambda db: _audit(db, self._store.now().wall_ms, worker, "took a reading back", last.measurements)
                )
            self.last = None

    def settle(self, vitals: Sequence[VitalSign]) -> None:
        """The exam of these is finished: they are recognised, and nothing of them waits. Its report is queued by now:
        where the disk fails here they are asked about once more."""
        found = [one for one in measurements(vitals) if one.time]
        at = self._store.now().wall_ms
        marks = [(self._mark(one), self._moment(one), at, "", None) for one in found]
        numbers = [(reading.id.bytes,) for one in found for reading in one.readings]

        def work(db: sqlite3.Connection) -> None:
            _insert(db, marks)
            db.executemany("DELETE FROM unassigned WHERE id = ?", numbers)

        if not found:
            return
        try:
            self._database.write(work)
        except StoreError as error:
            _log.warning("readings of a finished exam will not be known again: %s", error)

    def _decided(
        self, chosen: Sequence[Measurement], worker: str, what: str, settled: Sequence[tuple[object, ...]] = ()
    ) -> None:
        numbers, at = [(one.id.bytes,) for one in _readings(chosen)], self._store.now().wall_ms

        def work(db: sqlite3.Connection) -> None:
            _insert(db, settled)
            db.executemany("DELETE FROM unassigned WHERE id = ?", numbers)
            _audit(db, at, worker, "assigned a reading", chosen, what)

        self._database.write(work)

    # -- what tells one measurement from another

    def _mark(self, one: Measurement) -> bytes | None:
        return None if one.identity is None else self._hash(one.identity[1])

    def _moment(self, one: Measurement) -> bytes:
        return b"" if one.identity is None else self._hash(one.identity[0])

    def _hash(self, text: str) -> bytes:
        if not self._key:
            made = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"measurements that were decided about")
            self._key = made.derive(self._store.nobodys_key())
        return hmac.digest(self._key, text.encode(), "sha256")[:16]


def _readings(chosen: Iterable[Measurement]) -> tuple[VitalSign, ...]:
    return tuple(reading for one in chosen for reading in one.readings)


def _insert(db: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> None:
    """Keep what was decided, and of the oldest no more than there is room for."""
    query = (
        "INSERT OR REPLACE INTO settled (mark, moment, at_ms, worker, sealed, turn)"
        " VALUES (?, ?, ?, ?, ?, (SELECT coalesce(max(turn), 0) + 1 FROM settled))"
    )
    db.executemany(query, rows)
    for condition, most in (("sealed IS NOT NULL", THROWN_KEPT), ("sealed IS NULL", SETTLED_KEPT)):
        db.execute(
            f"DELETE FROM settled WHERE {condition} AND turn <= (SELECT turn FROM settled WHERE {condition}"
            " ORDER BY turn DESC LIMIT 1 OFFSET ?)",
            (most,),
        )


def _audit(
    db: sqlite3.Connection, at_ms: int, worker: str, what: str, chosen: Iterable[Measurement], more: str = ""
) -> None:
    rows = [(at_ms, worker, what, f"{one.id} {more}".strip()) for one in chosen]
    db.executemany("INSERT INTO audit (at_ms, worker, what, about) VALUES (?, ?, ?, ?)", rows)


def _place(reading: uuid.UUID) -> bytes:
    return f"unassigned {reading}".encode()


def _thrown_place(mark: bytes) -> bytes:
    return b"thrown away " + mark
