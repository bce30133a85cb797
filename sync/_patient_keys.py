"""One data key per patient, wrapped by the device's key. Erasing a patient is erasing theirs."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from aidpost.errors import StoreDamagedError, StoreError
from aidpost.sync import seal
from aidpost.sync.keys import DeviceKey

NOBODY = uuid.UUID(int=0)
"""Whose key seals records that are about no patient."""


class Reads(Protocol):
    """`Store.read`."""

    def __call__(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]: ...


class PatientKeys:
    """The table `patient_key`, and the keys that were opened since the store was. Each key stands a second time in
    `spare_key`, on another page of the disk, since a lost one would take all of a patient's records with it."""

    def __init__(self, device: DeviceKey) -> None:
        self._device = device
        self._opened: dict[uuid.UUID, bytes] = {}

    def opened(self, patient: uuid.UUID) -> bytes | None:
        """The patient's key if it was used before."""
        return self._opened.get(patient)

    def make(self, db: sqlite3.Connection, patient: uuid.UUID) -> bytes:
        """The patient's key; a new one for a new patient, which nobody may use before the commit.

        Raises
        ------
        StoreError
            The patient was erased.
        """
        row = db.execute("SELECT wrapped FROM patient_key WHERE patient = ?", (patient.bytes,)).fetchone()
        if row is None:
            wrapped = seal.seal(self._device.secret, seal.new_key(), _belongs_to(patient))
            db.execute("INSERT INTO patient_key (patient, wrapped) VALUES (?, ?)", (patient.bytes, wrapped))
            db.execute("INSERT INTO spare_key VALUES (?, ?)", (patient.bytes, wrapped))
            return self._unwrap(patient, wrapped)
        self.require(db, patient)
        return self._unwrap(patient, bytes(row[0]))

    def even_out(self, db: sqlite3.Connection) -> None:
        """The spares as the keys are: the version before makes and erases keys without them."""
        erased = "SELECT patient FROM patient_key WHERE wrapped IS NULL"
        db.execute(f"DELETE FROM spare_key WHERE patient IN ({erased})")
        db.execute(
            "INSERT OR REPLACE INTO spare_key SELECT patient, wrapped FROM patient_key AS key WHERE wrapped IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM spare_key WHERE patient = key.patient AND wrapped = key.wrapped)"
        )

    def require(self, db: sqlite3.Connection, patient: uuid.UUID) -> None:
        """Nothing, unless the patient was erased, perhaps by another process a moment ago: a StoreError."""
        row = db.execute("SELECT wrapped FROM patient_key WHERE patient = ?", (patient.bytes,)).fetchone()
        if row is None or row[0] is None:
            raise StoreError(operation="accepting a record", target=str(patient), cause="this patient was erased")

    def has(self, db: sqlite3.Connection, patient: uuid.UUID) -> bool:
        """Whether anything of the patient was ever here."""
        return db.execute("SELECT 1 FROM patient_key WHERE patient = ?", (patient.bytes,)).fetchone() is not None

    def is_erased(self, db: sqlite3.Connection, patient: uuid.UUID) -> bool:
        """Whether the patient was here and was erased."""
        row = db.execute("SELECT wrapped FROM patient_key WHERE patient = ?", (patient.bytes,)).fetchone()
        return row is not None and row[0] is None

    def keep(self, patient: uuid.UUID, key: bytes) -> bytes:
        """Remember a committed key."""
        self._opened[patient] = key
        return key

    def find(self, read: Reads, patient: uuid.UUID) -> bytes:
        """The key of a patient whose records are to be opened.

        Raises
        ------
        StoreDamagedError
            They were erased, or the key does not open.
        """
        # looked at each time: another process may have erased the patient whose key was opened here before
        rows = read("SELECT wrapped FROM patient_key WHERE patient = ?", (patient.bytes,))
        if not rows or rows[0][0] is None:
            self._opened.pop(patient, None)
            raise StoreDamagedError(operation="opening a record", target=str(patient), cause="it was erased")
        return self._opened.get(patient) or self.keep(patient, self._unwrap(patient, rows[0][0]))

    def erase(self, db: sqlite3.Connection, patient: uuid.UUID, now_ms: int) -> bool:
        """Forget the key, and note that this patient was erased, whether there was one or not; False where none was."""
        changed = db.execute(
            "UPDATE patient_key SET wrapped = NULL, erased_ms = ? WHERE patient = ? AND wrapped IS NOT NULL",
            (now_ms, patient.bytes),
        )
        db.execute("INSERT OR IGNORE INTO patient_key VALUES (?, NULL, ?)", (patient.bytes, now_ms))
        db.execute("DELETE FROM spare_key WHERE patient = ?", (patient.bytes,))
        self._opened.pop(patient, None)
        return changed.rowcount > 0

    def _unwrap(self, patient: uuid.UUID, wrapped: bytes) -> bytes:
        key = open_wrapped(self._device, patient.bytes, wrapped)
        if key is None:
            raise StoreDamagedError(
                operation="opening a record", target=str(patient), cause="the patient's key does not open"
            )
        return key


def open_wrapped(device: DeviceKey, patient: bytes, wrapped: bytes) -> bytes | None:
    """A patient's key from its row; None where it does not open."""
    try:
        return seal.unseal(device.secret, wrapped, b"patient" + patient)
    except seal.SealBrokenError:
        return None


def _belongs_to(patient: uuid.UUID) -> bytes:
    return b"patient" + patient.bytes
