"""A damaged database becomes a whole one: what is damaged is set aside, the rest is taken over, and people are told.

The damaged files go to `quarantine/` and stay there as they are. What can be read of them (`_salvage`) and opens under
its own key goes into a new database, which then takes the old one's name. Killed anywhere, the next start begins again
or ends it: until the new database is complete as `store.sqlite3.recovered`, the old one is as it was. Nothing that the
old one said of receipts is believed: all goes to the hub again, under the same keys, and counts once. A new epoch
begins, so that a sequence that was lost is never used for another record.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from aidpost import records
from aidpost.errors import StoreDamagedError
from aidpost.sync import _schema, ranges, seal
from aidpost.sync._durable import make_folder, replace_file, sync_folder
from aidpost.sync._lives import Lives
from aidpost.sync._patient_keys import NOBODY, open_wrapped
from aidpost.sync._salvage import Pages, Row
from aidpost.sync._writer import connect
from aidpost.sync.blobs import BlobFiles
from aidpost.sync.bodies import BlobManifest, Erasure
from aidpost.sync.keys import DeviceKey

DAMAGED = "damaged"
"""What the note says of a recovery."""

QUARANTINE = "quarantine"
"""The folder of what was set aside. Erasing a patient empties it, for their key is in there too."""

_RECORD_COLUMNS = 14
_RECEIVED_COLUMNS = 10
"""The last one, the proof, is missing in rows that an older version wrote."""
_DELIVERY_COLUMNS = 10


class Base(NamedTuple):
    """What every row hangs on, kept in a file of its own besides the database: first epoch and sealed identity."""

    epoch: bytes
    identity: bytes


def keep_base(folder: Path, base: Base) -> None:
    """Write the copy, if it is not there as it should be."""
    path, content = folder / "store.base", msgspec.msgpack.encode(base)
    with contextlib.suppress(OSError):
        if path.read_bytes() == content:
            return
    replace_file(path, content)


def finish(path: Path) -> None:
    """End a recovery that was interrupted behind its last point of return."""
    recovered = path.with_name(f"{path.name}.recovered")
    if recovered.exists():
        # a log of the damaged database would be taken for the new one's; its copy is in quarantine
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        sync_folder(path.parent)
        recovered.replace(path)
        sync_folder(path.parent)


def recover(path: Path, key: DeviceKey, fault: str, now_ms: int) -> None:
    """Set the damaged database at `path` aside and make a whole one of what is left.

    Raises
    ------
    StoreDamagedError
        Neither it nor `store.base` says whose records these are: nothing was changed.
    KeyUnavailableError, OSError
        As the disk and the key have it.
    """
    quarantined = quarantine(path)
    found = _Salvaged(Pages(path, path.with_name(f"{path.name}-wal")), _base(path.parent), key)
    if found.base is None:
        raise StoreDamagedError(
            operation="recovering the store",
            target=str(path),
            cause=f"{fault}; and nothing left of it says whose it is under this device key",
            remedy=f"Keep the folder as it is (a copy is in {quarantined}) and send it in, or restore a backup.",
        )
    why, blobs = f"{fault}; kept in {quarantined.name}", BlobFiles(path.parent / "blobs")
    exchange(path, lambda db: _schema.migrate(db, str(path)), lambda db: found.write(db, blobs, why, now_ms))


def exchange(
    path: Path, make: Callable[[sqlite3.Connection], None], fill: Callable[[sqlite3.Connection], None]
) -> None:
    """Put a new database in the place of the one at `path`: `make` makes its tables, `fill` its rows in one
    transaction. Killed anywhere, the old one is there, or `finish` ends it."""
    fresh = path.with_name(f"{path.name}.recovering")
    for leftover in path.parent.glob(f"{fresh.name}*"):
        leftover.unlink()
    db = connect(fresh)
    try:
        make(db)
        db.execute("BEGIN IMMEDIATE")
        fill(db)
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()
    fresh.replace(path.with_name(f"{path.name}.recovered"))
    sync_folder(path.parent)
    finish(path)


def quarantine(path: Path) -> Path:
    """Give the files of a database a second name in a folder of their own, which is returned."""
    folder = path.parent / QUARANTINE
    make_folder(folder)
    number = 1 + sum(1 for one in folder.iterdir() if one.suffix != ".tmp")
    whole, part = folder / f"{number}", folder / f"{number}.tmp"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    for one in path.parent.glob(f"{path.name}*"):
        # a second name for the same bytes: needs no room on a full disk, and reads nothing of a bad one
        os.link(one, part / one.name)
    sync_folder(part)
    part.replace(whole)
    sync_folder(folder)
    return whole


def _base(folder: Path) -> Base | None:
    try:
        return msgspec.msgpack.decode((folder / "store.base").read_bytes(), type=Base)
    except (OSError, msgspec.DecodeError):
        return None


class _Salvaged:
    """The rows by table, each proven where it can be."""

    def __init__(self, pages: Pages, base: Base | None, key: DeviceKey) -> None:
        self._key = key
        self._meta: dict[str, Any] = {}
        self._keys: dict[bytes, Row] = {}
        self._records: dict[tuple[str, int], Row] = {}
        self._received: dict[tuple[bytes, str, int], Row] = {}
        self._deliveries: dict[tuple[bytes, str, int], Row] = {}
        self._blobs: dict[tuple[bytes, bytes], Row] = {}
        self._lives: list[Row] = []
        self._notes: list[Row] = []
        self._named: set[tuple[str, int]] = set()
        for row in pages.rows():
            self._sort(row)
        self.base = next((one for one in (base, self._own_base()) if one and self._opens(one)), None)

    def _sort(self, row: Row) -> None:
        match row:
            case (str(name), bytes() | str()) if len(row) == 2:
                self._meta[name] = row[1]
            case (str(cls), int(seq)) | (_, str(), str(cls), int(seq)):
                self._named.add((cls, seq))  # of `sequence`, or of an index: that it was there
            case (bytes(patient), bytes(wrapped)) if len(patient) == 16:
                self._keys.setdefault(patient, (patient, wrapped, None))
            case (bytes(patient), bytes() | None, int() | None) if len(patient) == 16:
                if patient not in self._keys or row[1] is None:  # erased is erased
                    self._keys[patient] = row
            case (None, bytes(epoch), bytes()) if len(epoch) == 8:
                self._lives.append(row)
            case (None, int(), str(), str()):
                self._notes.append(row)
            case (str(cls), int(seq), str(), *_) if len(row) >= _RECORD_COLUMNS and isinstance(row[6], bytes):
                self._records[cls, seq] = (*row, None)[: _RECORD_COLUMNS + 1]
            case (bytes(epoch), str(cls), int(seq), str(), *_) if (
                _RECEIVED_COLUMNS - 1 <= len(row) <= _RECEIVED_COLUMNS
            ):
                self._received[epoch, cls, seq] = (*row, None)[:_RECEIVED_COLUMNS]
            case (bytes(epoch), str(cls), int(seq), bytes(), str(), int(), *_) if len(row) == _DELIVERY_COLUMNS:
                self._deliveries[epoch, cls, seq] = row
            case (bytes(sha256), bytes(patient), int(), str(), str(), int(), *_) if len(sha256) == 32:
                self._blobs[sha256, patient] = row

    def _own_base(self) -> Base | None:
        epoch, identity = self._meta.get("epoch"), self._meta.get("identity")
        return Base(epoch, identity) if isinstance(epoch, bytes) and isinstance(identity, bytes) else None

    def _opens(self, base: Base) -> bool:
        try:
            seal.unseal(self._key.secret, base.identity, b"identity")
        except seal.SealBrokenError:
            return False
        return True

    def write(self, db: sqlite3.Connection, files: BlobFiles, why: str, now_ms: int) -> None:
        """Put everything into a new database."""
        assert self.base is not None
        meta = {"boot": b"1", "boot_id": ""} | self._meta | self.base._asdict()
        meta.pop("additions", None)
        db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", meta.items())
        keys = {patient: open_wrapped(self._key, patient, row[1]) for patient, row in self._keys.items() if row[1]}
        db.executemany(
            "INSERT INTO patient_key VALUES (?, ?, ?)",
            [row for patient, row in self._keys.items() if row[1] is None or keys[patient]],
        )
        closed = self._write_records(db, keys, files)
        received = [row for row in self._received.values() if self._opened(keys, row[4], row[6], _received_place(row))]
        db.executemany(f"INSERT INTO received VALUES ({','.join('?' * _RECEIVED_COLUMNS)})", received)
        # what was taken up is not taken up again; what was not is begun anew, its chunks asked for again
        ended = [row for row in self._deliveries.values() if row[8] not in ("waiting", "held")]
        db.executemany(f"INSERT INTO delivery VALUES ({','.join('?' * _DELIVERY_COLUMNS)})", ended)
        last: dict[str, int] = {}
        for cls, seq in {*self._named, *self._records}:
            last[cls] = max(seq, last.get(cls, 0))
        db.executemany("INSERT INTO sequence VALUES (?, ?)", last.items())
        lives = sorted(self._lives, key=lambda row: sum(msgspec.msgpack.decode(row[2]).values()))
        db.executemany("INSERT OR IGNORE INTO life (epoch, before) VALUES (?, ?)", [row[1:] for row in lives])
        db.executemany("INSERT INTO note (at_ms, what, detail) VALUES (?, ?, ?)", [row[1:] for row in self._notes])
        db.execute(_schema.TALLY)
        said = f"{why}: {len(self._records)} records and {len(received)} from the hub are whole{self._lost(closed)}"
        Lives(self.base.epoch, lambda *_: []).renew(db, DAMAGED, said[:500], now_ms)

    def _lost(self, closed: list[tuple[str, int]]) -> str:
        # the highest sequence of a class is in `sequence` too, and so is named whether it was lost or erased
        lost: dict[str, list[int]] = {}
        for cls, seq in sorted({*closed, *(self._named - self._records.keys())}):
            lost.setdefault(cls, []).append(seq)
        if not lost:
            return "; nothing is known to be lost"
        words = (f"{cls} {start}-{stop - 1}" for cls in lost for start, stop in ranges.from_numbers(lost[cls]))
        return "; damaged, erased or pruned: " + ", ".join(words)

    def _write_records(
        self, db: sqlite3.Connection, keys: dict[bytes, bytes | None], files: BlobFiles
    ) -> list[tuple[str, int]]:
        """Records, and the blobs that their manifests name; gives those that do not open."""
        closed = []
        for (cls, seq), row in self._records.items():
            assert self.base is not None
            body = self._opened(keys, row[4], row[6], f"record {self.base.epoch.hex()}/{cls}/{seq}".encode())
            state, code, reason = (row[10], row[12], row[13]) if row[10] == _schema.DEAD else (_schema.QUEUED, "", "")
            if body is None:
                closed.append((cls, seq))
                state, code, reason = _schema.DEAD, "damaged", "it does not open any more"
            values = (*row[:10], state, None, code, reason, row[14])
            db.execute(f"INSERT INTO record VALUES ({','.join('?' * len(values))})", values)
            if body is not None and row[2] == BlobManifest.__name__:
                self._note_blob(records.decode(BlobManifest, body), row)
            if body is not None and row[2] == Erasure.__name__:
                gone = (records.decode(Erasure, body).patient.bytes, row[9])
                db.execute("INSERT OR REPLACE INTO patient_key VALUES (?, NULL, ?)", gone)
        there = [row for row in self._blobs.values() if files.path(row[0], uuid.UUID(bytes=row[1])).exists()]
        db.executemany(
            "INSERT INTO blob (sha256, patient, size, media_type, cls, at_ms) VALUES (?, ?, ?, ?, ?, ?)",
            [row[:6] for row in there],
        )
        return closed

    def _note_blob(self, manifest: BlobManifest, row: Row) -> None:
        ref = manifest.blob
        of = (bytes.fromhex(ref.sha256), row[4] or NOBODY.bytes)
        self._blobs.setdefault(of, (*of, ref.size, ref.media_type, row[0], row[9]))

    def _opened(self, keys: dict[bytes, bytes | None], patient: Any, body: Any, place: bytes) -> bytes | None:
        key = keys.get(patient or NOBODY.bytes)
        try:
            return seal.unseal(key, body, place) if key and isinstance(body, bytes) else None
        except seal.SealBrokenError:
            return None


def _received_place(row: Row) -> bytes:
    return f"received {row[0].hex()}/{row[1]}/{row[2]}".encode()
