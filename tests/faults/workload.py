"""What a device does while it is traced: makes a store, accepts records from several threads, closes, goes on.

Run as a process of its own with the shim: `python workload.py FOLDER SEED`. Each acceptance is written to FOLDER's
`acknowledged` after `append` has returned. AIDPOST_LEAVE_OUT names one fsync of ours to be left out, by the functions
that lead to it; AIDPOST_LIST_SYNCS names a file to which every such place is written; AIDPOST_OLD_STORE begins with a
store of the version before.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import threading
import uuid
from pathlib import Path

from aidpost import records
from aidpost.records import BlobRef, Origin, Patient
from aidpost.sync import _durable, _schema, keys, seal
from aidpost.sync._writer import connect
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import RecordClass, content_hash
from aidpost.sync.store import Blob, Item, Store

BLOB_SIZES = (1, 4_000, 70_000)


class LeavingOut:
    """Stands for `os` in `_durable`: fsync as ever, except at the place that is to be left out."""

    def __init__(self, place: str, listing: Path | None) -> None:
        self._place, self._listing = place, listing

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        frame, names = sys._getframe(1), []
        while frame is not None and len(names) < 3:
            names.append(frame.f_code.co_name)
            frame = frame.f_back  # type: ignore[assignment]
        # a content's fsync is one place whoever asks for it; a folder's is told apart by who asks
        place = names[0] if names[0] == "write_file" else "<".join(names[:2])
        if place == "write_file":
            place = f"write_file<{names[1]}"
        if self._listing is not None:
            with self._listing.open("a") as file:
                file.write(place + "\n")
        if place != self._place:
            os.fsync(descriptor)


def acknowledge(descriptor: int, lock: threading.Lock, accepted: dict[str, object]) -> None:
    with lock:
        os.write(descriptor, json.dumps(accepted).encode() + b"\n")


def accept(store: Store, chance: random.Random, descriptor: int, lock: threading.Lock) -> None:
    patient = Patient(id=uuid.UUID(int=chance.getrandbits(128), version=4), name="Amina Yusuf")
    data = chance.randbytes(chance.choice(BLOB_SIZES))
    ref = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data), media_type="image/jpeg")
    blobs = [Blob(ref, data, Origin.SIMULATED)] if chance.random() < 0.6 else []
    key = store.append(Item(RecordClass.REPORT, patient, patient.id, None, blobs))
    sha256 = ref.sha256 if blobs else None
    acknowledge(descriptor, lock, {"seq": key.seq, "patient": str(patient.id), "blob": sha256})


def make_old_store(state: Path, key: keys.DeviceKey, descriptor: int, lock: threading.Lock) -> None:
    """A store as the version before the additions made it, with three records: the next opening migrates it."""
    _durable.make_folder(state)
    db = connect(state / "store.sqlite3")
    for number, step in enumerate(_schema._STEPS):
        db.executescript(f"BEGIN; {step} PRAGMA user_version = {number + 1}; COMMIT;")
    epoch, at = os.urandom(8), 1_760_000_000_000
    identity = seal.seal(key.secret, keys.Identity.create("unit-1").to_bytes(), b"identity")
    meta = [("epoch", epoch), ("identity", identity), ("boot", b"1"), ("boot_id", "x")]
    db.execute("BEGIN IMMEDIATE")
    db.executemany("INSERT INTO meta VALUES (?, ?)", meta)
    db.execute("COMMIT")
    for seq in (1, 2, 3):
        patient, own = Patient(id=uuid.uuid4(), name="Amina Yusuf"), seal.new_key()
        body = records.encode(patient)
        sealed = seal.seal(own, body, f"record {epoch.hex()}/report/{seq}".encode())
        wrapped = seal.seal(key.secret, own, b"patient" + patient.id.bytes)
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO patient_key (patient, wrapped) VALUES (?, ?)", (patient.id.bytes, wrapped))
        db.execute("INSERT INTO sequence VALUES ('report', 1) ON CONFLICT DO UPDATE SET last = last + 1")
        values = (seq, patient.id.bytes, sealed, content_hash("Patient", patient.id, None, body), len(body), at)
        db.execute(
            "INSERT INTO record (cls, seq, kind, patient, body, hash, size, at_ms)"
            " VALUES ('report', ?, 'Patient', ?, ?, ?, ?, ?)",
            values,
        )
        db.execute("COMMIT")
        acknowledge(descriptor, lock, {"seq": seq, "patient": str(patient.id), "blob": None})
    db.close()


def main(folder: Path, seed: int) -> None:
    listing = os.environ.get("AIDPOST_LIST_SYNCS")
    _durable.os = LeavingOut(os.environ.get("AIDPOST_LEAVE_OUT", ""), Path(listing) if listing else None)  # type: ignore[assignment]
    descriptor = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    lock = threading.Lock()
    for session in range(2):
        state = folder / "state"
        key = keys.from_file(state / "device.key", create=True)
        acknowledge(descriptor, lock, {"key": key.secret.hex()})
        if session == 0 and "AIDPOST_OLD_STORE" in os.environ:
            make_old_store(state, key, descriptor, lock)
        with Store.open(state, key, clock=SystemClock(), name="unit-1") as store:
            chances = [random.Random(seed * 100 + session * 10 + number) for number in range(2)]
            accept(store, chances[0], descriptor, lock)
            threads = [
                threading.Thread(target=lambda c=c: [accept(store, c, descriptor, lock) for _ in range(3)])
                for c in chances
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
