"""The disk: what goes when it is full, in which order, and that nothing goes which the hub has not got."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from device_records import FakeClock, make_item
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aidpost.errors import StorageFullError
from aidpost.records import Timestamp
from aidpost.sync import _space, outbox
from aidpost.sync._space import DAY_MS, Budget
from aidpost.sync.envelope import BlobHeld, Held, Receipt, RecordClass, records_check
from aidpost.sync.outbox import Outbox
from aidpost.sync.ranges import from_numbers
from aidpost.sync.store import Item, Store

PHOTO = 200_000


def receipt_all(store: Store, *, photographs: bool = True) -> None:
    """The hub has everything."""
    held = []
    for cls, last in store.read("SELECT cls, last FROM sequence"):
        found = store.envelopes(cls, range(1, last + 1))
        numbers = from_numbers(one.seq for one in found)
        held.append(Held(store.epoch, cls, numbers, records_check(one.hash for one in found)))
    rows = store.read("SELECT sha256, size FROM blob") if photographs else []
    blobs = tuple(BlobHeld(sha256, ((0, size),), True) for sha256, size in rows)
    Outbox(store).receive(Receipt(b"hub-1234", held=tuple(held), blobs=blobs))


def photographed() -> Item:
    return make_item(RecordClass.REPORT, os.urandom(PHOTO))


def blobs(store: Store) -> int:
    return int(store.read("SELECT count(*) FROM blob")[0][0])


def test_full_disk_takes_photographs_first_then_records_and_only_what_the_hub_has(
    open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(budget=Budget(bytes=40 << 20, reserve=0))
    store.append_many([photographed() for _ in range(3)])
    receipt_all(store)
    waiting = store.append(photographed())
    spare = store.space.spare()
    monkeypatch.setattr(store.space, "spare", lambda: spare)
    monkeypatch.setattr(_space, "_NEAR", 1 << 40)
    store.space.require(spare + PHOTO)
    assert blobs(store) == 3, "the oldest photograph that the hub has"
    store.space.require(spare + 2 * PHOTO)
    assert blobs(store) == 1
    assert store.read("SELECT count(*) FROM record WHERE state = 1") == [(6,)]
    monkeypatch.setattr(_space, "_ROWS", 2)
    store.space.require(spare + 100)
    assert store.read("SELECT count(*) FROM record WHERE state = 1") == [(5,)], (
        "then records, the longest settled first, and no more than must go"
    )
    with pytest.raises(StorageFullError, match="not at the hub yet") as caught:
        store.space.require(2 * spare)
    assert caught.value.remedy
    assert store.read("SELECT count(*) FROM record WHERE state = 1")[0][0] == 0
    assert [one.queued for one in outbox.status(store)] == [1, 1]
    assert [one.seq for one in store.envelopes("report", [waiting.seq])] == [waiting.seq]


def test_kept_days_count_from_the_receipt_and_an_unset_clock_ages_nothing(
    open_store: Callable[..., Store], clock: FakeClock
) -> None:
    store = open_store(budget=Budget(keep_days=30))
    clock.wall = 0  # taken with a clock that nobody had set
    store.append_many([photographed(), photographed()])
    waiting = store.append(photographed())
    clock.wall = 1_760_000_000_000
    rows = store.read("SELECT sha256, size FROM blob ORDER BY at_ms LIMIT 2")
    held = tuple(BlobHeld(sha256, ((0, size),), True) for sha256, size in rows)
    Outbox(store).receive(Receipt(b"hub-1234", blobs=held))

    def at(days: float, *, synced: bool = True) -> Timestamp:
        return Timestamp(wall_ms=clock.wall + int(days * DAY_MS), monotonic_ms=1, boot=1, synced=synced)

    assert store.space.prune(at(4000, synced=False)) == 0
    assert store.space.prune(at(29)) == 0
    store.space._pruned = float("-inf")
    assert store.space.prune(at(31)) == 2 * PHOTO
    assert blobs(store) == 1, "the one that the hub has not got stays, whatever its age"
    assert store.envelopes("report", [waiting.seq])
    assert len(store.reports()) == 3, "reports stay: the patient's next exam is compared with them"


def test_days_left_go_by_this_device_s_own_days(open_store: Callable[..., Store], clock: FakeClock) -> None:
    budget = Budget(bytes=10 << 30, reserve=0)
    store = open_store(budget=budget)
    spare = store.space.spare()
    assert store.space.days_left() == spare // (90 << 20), "thirty exams a day, until it has days of its own"
    store.write(lambda db: db.execute(f"INSERT INTO intake VALUES (1, {1 << 40}), (2, 7), (3, 7)") and None)
    store.write(lambda db: db.executemany("INSERT INTO intake VALUES (?, ?)", [(4 + n, 200 << 20) for n in range(14)]))
    assert store.space.days_left() == store.space.spare() // (200 << 20)
    clock.wall -= 3650 * DAY_MS
    store.append(photographed())
    assert store.space.days_left() >= store.space.spare() // (200 << 20), "a clock set back hides no day"


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.sampled_from(["accept", "accept", "receipt", "photographs"]), max_size=12))
def test_whatever_comes_a_full_disk_loses_nothing_that_waits(
    open_store: Callable[..., Store], steps: list[str]
) -> None:
    store = open_store(folder=os.urandom(4).hex(), budget=Budget(bytes=700_000, reserve=0))
    for step in steps:
        waiting = {one.cls: one.queued for one in outbox.status(store)}
        photographs = outbox.blob_status(store).queued
        if step == "accept":
            try:
                store.append(photographed())
            except StorageFullError:
                assert {one.cls: one.queued for one in outbox.status(store) if one.queued} == {
                    cls: count for cls, count in waiting.items() if count
                }
                assert outbox.blob_status(store).queued == photographs
            else:
                assert outbox.blob_status(store).queued == photographs + 1
        else:
            receipt_all(store, photographs=step == "photographs")
    for (sha256,) in store.read("SELECT sha256 FROM blob"):
        assert len(store.read_blob(sha256.hex())) == PHOTO
    store.close()
