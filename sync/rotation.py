"""Another device key in the place of the one that all at rest hangs on. No record is sealed anew: those hang on their
patients' keys, and it is these, the identity, the TLS key and whatever else the device key seals that change hands.

The order is what makes it safe. First a journal that holds each of the two keys sealed under the other; then all else,
piece by piece, each whole either way; then what the new key is made of (its salt, its file); the journal goes last.
Killed anywhere, the next start finds the journal and brings everything under the key that it was given, be it the old
or the new one: nobody is locked out by a key that was never put in its place. What this module does not know is the
caller's, as `more`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from aidpost.errors import KeyUnavailableError
from aidpost.sync import _integrity, _recovery, _schema, enrolment, keys, seal
from aidpost.sync._alone import alone
from aidpost.sync._durable import make_folder, replace_file, sync_folder
from aidpost.sync._writer import connect, store_error
from aidpost.sync.keys import DeviceKey

_JOURNAL = "device-key.rotation"
_PLACE = b"device key rotation"


class _Journal(msgspec.Struct, frozen=True, array_like=True):
    """Each key under the other, and the salts that a passphrase needs to become one of them; empty where none."""

    old: bytes
    new: bytes
    old_salt: bytes
    new_salt: bytes


class Swap(NamedTuple):
    """Everything goes under `key`; what was sealed until now may be under `other`."""

    folder: Path
    key: DeviceKey
    other: DeviceKey

    def reseal(self, sealed: bytes, belongs_to: bytes) -> bytes:
        """The same under `key`; as it is where it is under that already.

        Raises
        ------
        KeyUnavailableError
            It opens under neither.
        """
        try:
            seal.unseal(self.key.secret, sealed, belongs_to)
        except seal.SealBrokenError:
            return seal.seal(self.key.secret, self._opened(sealed, belongs_to), belongs_to)
        return sealed

    def _opened(self, sealed: bytes, belongs_to: bytes) -> bytes:
        try:
            return seal.unseal(self.other.secret, sealed, belongs_to)
        except seal.SealBrokenError:
            raise _failed(self.folder, f"{belongs_to[:16]!r} opens under neither key") from None


More = Callable[[Swap], None]


def under_way(folder: Path) -> bool:
    """Whether a change of the key was begun here and is not at its end."""
    return (folder / _JOURNAL).exists()


def salts(folder: Path) -> tuple[bytes, ...]:
    """With which salts a passphrase may be one of the two keys."""
    journal = _journal(folder)
    return tuple(salt for salt in (journal.new_salt, journal.old_salt) if salt)


def rotate(
    folder: Path, old: DeviceKey, new: DeviceKey, more: More, place: Callable[[], None], salt: bytes = b""
) -> None:
    """Bring everything under `new`. No other process may have the store open.

    Parameters
    ----------
    folder
        The state folder.
    more
        Brings what sync does not know under the swap's key; may be called again.
    place
        Puts in its place what `new` will be taken from at the next start. May be called again.
    salt
        Where `new` comes from a passphrase: what it was derived with.

    Raises
    ------
    StoreLockedError
        Another process has the store open.
    KeyUnavailableError
        Something is there that `old` does not open. Nothing was changed.
    OSError, StoreError
        The disk failed. The next start brings everything under the key that it is given.
    """
    with _alone(folder):
        _require(folder, old)
        journal = _Journal(
            old=seal.seal(new.secret, old.secret, _PLACE),
            new=seal.seal(old.secret, new.secret, _PLACE),
            old_salt=keys.salt(folder),
            new_salt=salt,
        )
        replace_file(folder / _JOURNAL, msgspec.msgpack.encode(journal))
        _swap(Swap(folder, new, old), more, place)


def come_back(folder: Path, given: Iterable[DeviceKey], more: More, place: Callable[[DeviceKey], None]) -> DeviceKey:
    """End a change of the key that was interrupted, under the one of both that is `given`; gives that one.

    Parameters
    ----------
    given
        Keys that what was given at this start may be: a passphrase is another one with each salt.
    more, place
        As for `rotate`; `place` is told for which key.

    Raises
    ------
    KeyUnavailableError
        None of them is one of the two.
    """
    with _alone(folder):
        journal = _journal(folder)
        for key in given:
            for sealed in (journal.new, journal.old):
                try:
                    other = DeviceKey(seal.unseal(key.secret, sealed, _PLACE), "the other key")
                except seal.SealBrokenError:
                    continue
                _swap(Swap(folder, key, other), more, lambda key=key: place(key))  # type: ignore[misc]
                return key
    raise _failed(folder, "a change of the device key was interrupted, and this is neither the old nor the new one")


def _swap(swap: Swap, more: More, place: Callable[[], None]) -> None:
    _reseal_store(swap)
    enrolment.reseal(swap.folder / enrolment.FOLDER, swap.key, swap.other)
    more(swap)
    place()
    (swap.folder / _JOURNAL).unlink()
    sync_folder(swap.folder)


def _reseal_store(swap: Swap) -> None:
    """Identity and patients' keys in one transaction, then the copy beside the database."""
    path = swap.folder / _integrity.NAME
    if not path.exists():
        return
    db = connect(path)
    try:
        _schema.migrate(db, str(path))
        db.execute("BEGIN IMMEDIATE")
        meta = dict(db.execute("SELECT name, value FROM meta"))
        identity = swap.reseal(bytes(meta["identity"]), b"identity")
        db.execute("UPDATE meta SET value = ? WHERE name = 'identity'", (identity,))
        if following := meta.get("identity_next"):
            sealed = swap.reseal(bytes(following), b"identity next")
            db.execute("UPDATE meta SET value = ? WHERE name = 'identity_next'", (sealed,))
        wrapped = db.execute("SELECT patient, wrapped FROM patient_key WHERE wrapped IS NOT NULL").fetchall()
        rows = [(swap.reseal(bytes(key), b"patient" + bytes(patient)), patient) for patient, key in wrapped]
        db.executemany("UPDATE patient_key SET wrapped = ? WHERE patient = ?", rows)
        db.execute("DELETE FROM spare_key")
        db.executemany("INSERT INTO spare_key (wrapped, patient) VALUES (?, ?)", rows)
        db.execute("COMMIT")
        # the log still has the keys as they were wrapped before
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        raise store_error(error, path) from None
    finally:
        db.close()
    _recovery.keep_base(swap.folder, _recovery.Base(bytes(meta["epoch"]), identity))


def _require(folder: Path, old: DeviceKey) -> None:
    """Nothing, where the key opens this store, and nothing lies here that only the old key will ever open."""
    if (folder / _recovery.QUARANTINE).exists():
        raise _failed(
            folder,
            "quarantine/ holds a damaged store that only the old key opens",
            "Send it in for recovery, or delete that folder; then change the key.",
        )
    path = folder / _integrity.NAME
    if path.exists():
        db = connect(path)
        try:
            (sealed,) = db.execute("SELECT value FROM meta WHERE name = 'identity'").fetchone()
            seal.unseal(old.secret, bytes(sealed), b"identity")
        except seal.SealBrokenError:
            raise _failed(folder, f"the {old.source} is not the key that opens it", "Give the right one.") from None
        finally:
            db.close()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While nobody else has the store open: the lock that `Store.open` takes, for oneself."""
    make_folder(folder)
    cause, remedy = "another process has the store open", "Stop the device's program first: systemctl stop aidpost."
    with alone(folder / "store.lock", operation="changing the device key", cause=cause, remedy=remedy):
        yield


def _journal(folder: Path) -> _Journal:
    try:
        return msgspec.msgpack.decode((folder / _JOURNAL).read_bytes(), type=_Journal)
    except (OSError, msgspec.DecodeError) as error:
        raise _failed(folder, str(error)) from None


def _failed(folder: Path, cause: str, remedy: str = "Give the old device key or the new one.") -> KeyUnavailableError:
    return KeyUnavailableError(operation="changing the device key", target=str(folder), cause=cause, remedy=remedy)
