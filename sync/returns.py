"""What the hub signed and sent down, given back to it after it was restored from an older backup.

The device keeps each such record with the hub's proof (`aidpost.sync.proofs`). A hub that learns by a device's receipt
of records that it does not have asks for them (`wanted`); the device puts each into its outbox once, as `Returned`, and
from there it goes like any other record, by the network or by a stick.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from aidpost.errors import StoreDamagedError
from aidpost.records import decode
from aidpost.sync import proofs
from aidpost.sync.bodies import Erasure, Returned
from aidpost.sync.envelope import Envelope, Held, Receipt, RecordClass, RecordKey
from aidpost.sync.store import Item, Store

_NAMES = uuid.UUID("7d5b7f1e-3a43-4a57-9d0c-6f2f0d5f3a11")
_PAGE = 100
_WANTED = (
    "SELECT epoch, cls, seq, kind, patient, exam, body, proof FROM received"
    " WHERE epoch = ? AND cls = ? AND seq >= ? AND seq < ? AND proof IS NOT NULL"
)


def give_back(store: Store, receipts: Iterable[Receipt], hub_key: Ed25519PublicKey) -> int:
    """Put what the hub wants of its own, and this device can prove, into the outbox; what is there stays as it is.

    Parameters
    ----------
    hub_key
        Whose proof counts: a new hub in the place of the old one would refuse what that one signed.

    Returns
    -------
    int
        How many records were put there; durable when this returns.

    Raises
    ------
    StoreError
        The disk is full or failed; the hub asks again at the next connection.
    """
    wanted = [one for receipt in receipts for one in receipt.wanted]
    if not wanted:  # nearly always: receipts come many a second
        return 0
    mine = {store.lives.first, *(bytes(row[0]) for row in store.read("SELECT epoch FROM life"))}
    items = list(_items(store, [one for one in wanted if one.epoch not in mine], hub_key))
    for start in range(0, len(items), _PAGE):
        store.append_many(items[start : start + _PAGE])
    return len(items)


def _items(store: Store, wanted: Sequence[Held], hub_key: Ed25519PublicKey) -> Iterator[Item]:
    for one in wanted:
        for start, stop in one.ranges:
            for *key, kind, patient, exam, body, proof in store.read(_WANTED, (one.epoch, one.cls, start, stop)):
                if (item := _item(store, RecordKey(*key), kind, patient, exam, body, proof, hub_key)) is not None:
                    yield item


def _item(
    store: Store,
    key: RecordKey,
    kind: str,
    patient: bytes | None,
    exam: bytes | None,
    body: bytes,
    proof: bytes,
    hub_key: Ed25519PublicKey,
) -> Item | None:
    """None where it is in the outbox, or was, or does not open any more: one damaged row keeps no other from going."""
    number = uuid.uuid5(_NAMES, str(key))
    if store.sent(Returned, number):
        return None
    try:
        plain = store.inbox.open(key, patient, body)
    except StoreDamagedError:
        return None
    about = [uuid.UUID(bytes=one) if one else None for one in (patient, exam)]
    # an erased patient's key is gone, so what says that they were erased is nobody's, but names them
    named = decode(Erasure, plain).patient if kind == Erasure.__name__ else about[0]
    if not proofs.is_proven(hub_key, store.identity.name, Envelope(*key, kind, named, about[1], plain), proof):
        return None
    made = Returned(id=number, **key._asdict(), kind=kind, body=plain, proof=proof, at=store.now())
    return Item(RecordClass.RETURNED, made, about[0], about[1])
