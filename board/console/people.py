"""The patients whom this device knows, and its workers with their PINs."""

from __future__ import annotations

import sqlite3
import threading
import time
import unicodedata
import uuid
from collections.abc import Callable

import msgspec

from aidpost import records
from aidpost.board.console.database import DATABASE, ConsoleDatabase
from aidpost.board.console.words import N_
from aidpost.errors import StoreDamagedError, UsageError
from aidpost.records import Consent, Patient, Record
from aidpost.sync import seal
from aidpost.sync._writer import connect, store_error
from aidpost.sync.bodies import IndexEntry
from aidpost.sync.rotation import Swap
from aidpost.sync.store import Store

FOUND = 8
"""Patients of a search that fit on the screen; more than that asks for more letters."""
TRIES = 5
LOCK_S, LONGEST_LOCK_S = 300.0, 4 * 3600.0


class Known(Record, frozen=True, kw_only=True):
    """A patient with what they agreed to."""

    patient: Patient
    consents: tuple[Consent, ...] = ()


class Patients:
    """Search before register. In memory once opened, sealed with each patient's key on the disk."""

    def __init__(self, database: ConsoleDatabase, store: Store) -> None:
        self._database, self._store = database, store
        self._known: dict[uuid.UUID, Known] = {}
        self._index: dict[uuid.UUID, IndexEntry] = {}
        self._index_state: tuple[object, ...] = ()
        for number, sealed in database.read("SELECT id, sealed FROM patient"):
            patient = uuid.UUID(bytes=number)
            try:
                plain = store.open_for(patient, sealed, _place(patient))
            except StoreDamagedError:
                continue  # erased since
            self._known[patient] = records.decode(Known, plain)
        self.refresh()

    def refresh(self) -> None:
        """Take in patients of exams that were made without the screen."""
        # by the patients, of whom there are fewer than of records
        query = (
            "SELECT patient FROM patient_key AS one WHERE wrapped IS NOT NULL AND EXISTS"
            " (SELECT 1 FROM record WHERE patient = one.patient AND kind = 'ExamReport')"
        )
        for (number,) in self._store.read(query):
            patient = uuid.UUID(bytes=number)
            if patient not in self._known and (found := self._store.patient(patient)):
                self._known[patient] = Known(patient=found)

    def _take_index(self) -> None:
        """What the hub has sent or erased since."""
        state = self._store.inbox.index_state()
        if state != self._index_state:
            self._index = {one.patient.id: one for one in self._store.inbox.index()}
            self._index_state = state
            for patient in self._store.erased() & self._known.keys():
                del self._known[patient]

    def get(self, patient: uuid.UUID) -> Known:
        """A patient: known here, or else by the clinic's index, without consents. Raises UsageError where there is
        none."""
        self._take_index()
        if patient not in self._known and patient in self._index:
            return Known(patient=self._index[patient].patient)
        if patient not in self._known:
            raise UsageError(
                operation="opening a patient", target=str(patient), cause=N_("this device knows no such patient")
            )
        return self._known[patient]

    def from_hub(self, patient: uuid.UUID) -> IndexEntry | None:
        """What the hub says of a patient, under any of their numbers; None where it has said nothing."""
        self._take_index()
        if patient in self._index:
            return self._index[patient]
        return next((one for one in self._index.values() if patient in one.same_as), None)

    def is_known(self, patient: uuid.UUID) -> bool:
        """Whether the patient was examined or registered here."""
        return patient in self._known

    def keep(self, known: Known) -> None:
        """Register or update; on the disk when this returns."""
        patient = known.patient.id
        sealed = self._store.seal_for(patient, records.encode(known), _place(patient))
        self._database.write(
            lambda db: db.execute("INSERT OR REPLACE INTO patient VALUES (?, ?)", (patient.bytes, sealed))
        )
        self._known[patient] = known

    def search(self, text: str) -> list[Patient]:
        """Patients whose name, number or telephone holds every word of `text`; capitals and accents do not matter. The
        clinic's other patients too, each person once, as this device knows them where it does."""
        self._take_index()
        words = _fold(text).split()
        known = [one.patient for one in self._known.values()]
        here = self._known.keys()
        others = [
            one.patient for one in self._index.values() if one.patient.id not in here and here.isdisjoint(one.same_as)
        ]
        found = [one for one in (*known, *others) if words and _holds(one, words)]
        return sorted(found, key=lambda one: _fold(one.name))


def _holds(patient: Patient, words: list[str]) -> bool:
    numbers = [one.value for one in patient.identifiers]
    text = _fold(" ".join((patient.name, patient.telephone, str(patient.id), *numbers)))
    return all(word in text for word in words)


def _fold(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).casefold()


def _place(patient: uuid.UUID) -> bytes:
    return f"patient {patient}".encode()


class Worker(msgspec.Struct, frozen=True, kw_only=True):
    """Who works at this device. `pin` is an Argon2id hash."""

    id: str
    name: str
    supervisor: bool
    pin: str


class Workers:
    """PINs are short: they are hashed with Argon2id, sealed with the device's key, and five failures lock a worker for
    five minutes, five more for ten, and so on to four hours: all PINs of four digits would take 11 months. A lock is
    counted from the last failure or the last start: switching the device off gains nothing."""

    def __init__(self, database: ConsoleDatabase, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        from argon2 import PasswordHasher

        self._database, self._store, self._clock = database, store, clock
        # OWASP's second setting for Argon2id: 19 MiB, two passes, one lane; 0.1 s on a Pi 4
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._lock = threading.Lock()
        self._started: dict[str, float] = dict.fromkeys(
            (row[0] for row in database.read("SELECT id FROM worker")), clock()
        )

    def all(self) -> list[Worker]:
        """Everybody, by name."""
        return sorted(map(self._open, self._database.read("SELECT id, sealed FROM worker")), key=lambda one: one.name)

    def add(self, name: str, pin: str, *, supervisor: bool) -> Worker:
        """A new worker, or an old one's new PIN.

        Raises
        ------
        UsageError
            No name, or the PIN is not 4 to 8 digits, or too easy.
        """
        cause = "" if name.strip() else N_("give a name")
        if not (pin.isascii() and pin.isdigit() and 4 <= len(pin) <= 8):
            cause = N_("a PIN has 4 to 8 digits")
        elif len(set(pin)) == 1 or pin in "0123456789876543210":
            cause = N_("this PIN is too easy to guess")
        if cause:
            raise UsageError(operation="adding a worker", target=name, cause=cause)
        worker = Worker(id=name.strip()[:40], name=name.strip()[:40], supervisor=supervisor, pin=self._hasher.hash(pin))
        sealed = seal.seal(self._store.key.secret, msgspec.msgpack.encode(worker), f"worker {worker.id}".encode())

        def keep(db: sqlite3.Connection) -> None:
            db.execute("INSERT OR REPLACE INTO worker VALUES (?, ?, 0)", (worker.id, sealed))
            db.execute("DELETE FROM challenge WHERE worker = ?", (worker.id,))

        self._database.write(keep)
        return worker

    def locked_s(self, worker: str) -> float:
        """Seconds for which a worker stays locked out; 0 for one who is not."""
        rows = self._database.read("SELECT failures FROM worker WHERE id = ?", (worker,))
        rounds, tries = divmod(rows[0][0], TRIES) if rows else (0, 0)
        if rounds == 0 or tries:
            return 0.0
        lasts = min(LOCK_S * 2.0 ** min(rounds - 1, 16), LONGEST_LOCK_S)
        return max(0.0, self._started.get(worker, self._clock()) + lasts - self._clock())

    def check(self, worker: str, pin: str) -> Worker | None:
        """The worker where the PIN is theirs and they are not locked out."""
        from argon2.exceptions import VerificationError

        with self._lock:
            found = next((one for one in self.all() if one.id == worker), None)
            if found is None or self.locked_s(worker) > 0:
                return None
            self._count(worker)
            try:
                self._hasher.verify(found.pin, pin)
            except VerificationError:
                return None
            self.unlock(worker)
            return found

    def unlock(self, worker: str) -> None:
        """Forget a worker's failures, and with them what they were to read out by telephone: a supervisor's word, the
        right PIN, or a code from the hub."""

        def forget(db: sqlite3.Connection) -> None:
            db.execute("UPDATE worker SET failures = 0 WHERE id = ?", (worker,))
            db.execute("DELETE FROM challenge WHERE worker = ?", (worker,))

        self._database.write(forget)

    def _count(self, worker: str) -> None:
        """A try counts before it is looked at, so that pulling the plug does not undo it."""
        self._database.write(lambda db: db.execute("UPDATE worker SET failures = failures + 1 WHERE id = ?", (worker,)))
        self._started[worker] = self._clock()

    def _open(self, row: tuple[str, bytes]) -> Worker:
        try:
            plain = seal.unseal(self._store.key.secret, row[1], f"worker {row[0]}".encode())
        except seal.SealBrokenError:
            raise StoreDamagedError(
                operation="opening a worker", target=row[0], cause="it does not open: damaged or moved"
            ) from None
        return msgspec.msgpack.decode(plain, type=Worker)


def reseal_workers(swap: Swap) -> None:
    """Everybody's PIN under the swap's device key; the audit says so. Nothing, where no screen was ever opened."""
    path = swap.folder / DATABASE
    if not path.exists():
        return
    db = connect(path)
    try:
        db.execute("BEGIN IMMEDIATE")
        rows = db.execute("SELECT sealed, id FROM worker").fetchall()
        db.executemany(
            "UPDATE worker SET sealed = ? WHERE id = ?",
            [(swap.reseal(bytes(sealed), f"worker {worker}".encode()), worker) for sealed, worker in rows],
        )
        audited = (time.time_ns() // 1_000_000, "", "device-key", swap.key.source)
        db.execute("INSERT INTO audit (at_ms, worker, what, about) VALUES (?, ?, ?, ?)", audited)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise store_error(error, path) from None
    finally:
        db.close()
