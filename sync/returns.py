"""What the hub signed and sent down, given back to it after it was restored from an older backup.

The device keeps each such record with the hub's proof (`aidpost.sync.proofs`). A hub that learns by a device's receipt
of records that it does not have asks for them (`wanted`); the device puts each into its outbox once, as `Returned`, and
from there it goes like any other record, by the network or by a stick.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence

from aidpost.errors import StoreDamagedError
from aidpost.sync.bodies import Erasure, Returned
from aidpost.sync.envelope import Held, Receipt, RecordClass, RecordKey
from aidpost.sync.store import Item, Store

_NAMES = uuid.UUID("7d5b7f1e-3a43-4a57-9d0c-6f2f0d5f3a11")
_PAGE = 100
_WANTED = (
    "SELECT epoch, cls, seq, kind, patient, exam, body, proof FROM received"
    " WHERE epoch = ? AND cls = ? AND seq >= ? AND seq < ? AND proof IS NOT NULL"
)


def give_back(store: Store, receipts: Iterable[Receipt]) -> int:
    """Put what the hub wants of its own, and this device can prove, into the outbox; what is there stays as it is.

    Returns
    -------
    int
        How many records were put there; durable when this returns.

    Raises
    ------
    StoreError
        The disk is full or failed; the hub asks again at the next connection.
    """
    mine = {store.lives.first, *(bytes(row[0]) for row in store.read("SELECT epoch FROM life"))}
    wanted = [one for receipt in receipts for one in receipt.wanted if one.epoch not in mine]
    items = list(_items(store, wanted)) if wanted else []
    for start in range(0, len(items), _PAGE):
        store.append_many(items[start : start + _PAGE])
    return len(items)


def _items(store: Store, wanted: Sequence[Held]) -> Iterator[Item]:
    for one in wanted:
        for start, stop in one.ranges:
            for row in store.read(_WANTED, (one.epoch, one.cls, start, stop)):
                if (item := _item(store, *row)) is not None:
                    yield item


def _item(
    store: Store,
    epoch: bytes,
    cls: str,
    seq: int,
    kind: str,
    patient: bytes | None,
    exam: bytes | None,
    body: bytes,
    proof: bytes,
) -> Item | None:
    """None where it is in the outbox, or was, or does not open any more: one damaged row keeps no other from going."""
    key = RecordKey(epoch, cls, seq)
    number = uuid.uuid5(_NAMES, str(key))
    if store.sent(Returned, number):
        return None
    try:
        plain = store.inbox.open(key, patient, body)
    except StoreDamagedError:
        return None
    made = Returned(id=number, epoch=epoch, cls=cls, seq=seq, kind=kind, body=plain, proof=proof, at=store.now())
    # an erased patient's key is gone, so what says that they were erased is nobody's
    of = uuid.UUID(bytes=patient) if patient and kind != Erasure.__name__ else None
    return Item(RecordClass.RETURNED, made, of, uuid.UUID(bytes=exam) if exam else None)
