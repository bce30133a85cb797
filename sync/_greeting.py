"""The hello of a store: at the beginning of each connection, and on each stick."""

from __future__ import annotations

import logging
import os
import sqlite3

import msgspec

from aidpost import __version__
from aidpost.errors import StoreError
from aidpost.sync.envelope import Dropped, Hello
from aidpost.sync.store import Store

_log = logging.getLogger(__name__)

_REMEMBERED = 16
"""Sticks that may be under way at once with an answer that counts."""


def known_hub(store: Store) -> bytes:
    """The epoch of the hub as it was noted last; empty where it never was."""
    rows = store.read("SELECT value FROM meta WHERE name = 'hub_epoch'")
    return bytes(rows[0][0]) if rows else b""


def hello(store: Store, nonce: bytes, *, carried: bool = False) -> Hello:
    """Who is there, and what this store has."""
    software, lives = f"aidpost {__version__}", tuple(store.lives.all())
    return Hello(nonce, store.now(), store.epoch, {}, known_hub(store), software, lives, carried)


def carried_hello(store: Store) -> Hello:
    """The hello of a stick. Its nonce is kept until the hub's epoch changes: an earlier answer is of no use then."""
    nonce = os.urandom(16)

    def work(db: sqlite3.Connection) -> None:
        row = db.execute("SELECT value FROM meta WHERE name = 'stick_nonces'").fetchone()
        kept = [*_unpack(row[0] if row else None), nonce][-_REMEMBERED:]
        db.execute("INSERT OR REPLACE INTO meta VALUES ('stick_nonces', ?)", (msgspec.msgpack.encode(kept),))

    try:
        store.write(work)
    except StoreError as error:
        # a full disk is when a stick is needed most; without the note only a hub that was restored is not believed
        _log.warning("the stick's hello cannot be noted: %s", error)
    return hello(store, nonce, carried=True)


def carried_nonces(store: Store) -> frozenset[bytes]:
    """The nonces whose answer is believed, whatever life of the hub it comes from."""
    rows = store.read("SELECT value FROM meta WHERE name = 'stick_nonces'")
    return frozenset(_unpack(rows[0][0] if rows else None))


def note_hub(db: sqlite3.Connection, epoch: bytes) -> None:
    """The hub's epoch, from a full receipt; in the caller's transaction."""
    db.execute(
        "DELETE FROM meta WHERE name = 'stick_nonces'"
        " AND NOT EXISTS (SELECT 1 FROM meta WHERE name = 'hub_epoch' AND value = ?)",
        (epoch,),
    )
    db.execute("INSERT OR REPLACE INTO meta VALUES ('hub_epoch', ?)", (epoch,))


def note_gone(store: Store, gone: Dropped | None) -> None:
    """What the hub asked for by a stick and this store no longer has, to be said on the next one; None: nothing."""
    packed = msgspec.msgpack.encode(gone) if gone else b""
    if packed or carried_gone(store):
        store.write(lambda db: db.execute("INSERT OR REPLACE INTO meta VALUES ('stick_gone', ?)", (packed,)))


def carried_gone(store: Store) -> Dropped | None:
    """What `note_gone` noted last."""
    rows = store.read("SELECT value FROM meta WHERE name = 'stick_gone'")
    return msgspec.msgpack.decode(rows[0][0], type=Dropped) if rows and rows[0][0] else None


def _unpack(packed: bytes | None) -> list[bytes]:
    return msgspec.msgpack.decode(packed, type=list[bytes]) if packed else []
