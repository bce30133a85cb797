"""The patient index on the device: sealed with each patient's key, the newest of each, and gone with an erasure."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from device_records import KEY, NAME, FakeClock, make_item
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.errors import StoreError
from aidpost.records import ExamReport, Patient, Timestamp, TriageLevel, encode
from aidpost.sync import outbox
from aidpost.sync.bodies import Erasure, IndexEntry, LastVisit
from aidpost.sync.envelope import Envelope, Receipt, RecordClass, pack_message, unpack_message
from aidpost.sync.store import Store

EPOCHS = (b"hub-epo1", b"hub-epo2")


def moment(wall_ms: int) -> Timestamp:
    return Timestamp(wall_ms=wall_ms, monotonic_ms=1, boot=0, synced=True)


def entry(patient: uuid.UUID, seq: int = 1, *, epoch: bytes = EPOCHS[0], removed: bool = False) -> Envelope:
    last = LastVisit(exam=uuid.UUID(int=9), day="2026-11-01", triage=TriageLevel.SOON, result=f"result {seq}")
    made = IndexEntry(
        patient=Patient(id=patient, name="" if removed else NAME),
        at=moment(1_000 * seq),
        last=None if removed else last,
        removed=removed,
    )
    return Envelope(epoch, "index", seq, "IndexEntry", patient, None, encode(made))


def erasure(patient: uuid.UUID, seq: int = 1) -> Envelope:
    return Envelope(EPOCHS[0], "erasure", seq, "Erasure", patient, None, encode(Erasure(patient=patient, at=moment(5))))


def results(store: Store) -> dict[uuid.UUID, str]:
    return {one.patient.id: one.last.result if one.last else "" for one in store.inbox.index()}


@settings(deadline=None, max_examples=40)
@given(
    order=st.permutations([(epoch, seq) for epoch in (0, 1) for seq in (1, 2, 3)]),
    again=st.lists(st.integers(0, 5), max_size=4),
)
def test_in_whichever_order_and_however_often_entries_come_the_newest_stays(
    order: list[tuple[int, int]], again: list[int]
) -> None:
    patient = uuid.uuid4()
    # the hub was restored from a backup after its third entry, and counts from 1 again; its clock went on
    messages = [
        Envelope(EPOCHS[epoch], "index", seq, "IndexEntry", patient, None, entry(patient, seq + 3 * epoch).body)
        for epoch, seq in order
    ]
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder), KEY, clock=FakeClock(), name="u") as store:
        for one in [*messages, *(messages[number] for number in again)]:
            assert store.inbox.keep([one], 1).rejected == ()
        assert results(store) == {patient: "result 6"}
        assert store.read("SELECT count(*) FROM received") == [(1,)]


def test_an_entry_lies_sealed_and_a_removed_one_is_not_shown(store: Store) -> None:
    one, other = uuid.uuid4(), uuid.uuid4()
    store.inbox.keep([entry(one), entry(other, 2)], 1)
    assert all(NAME.encode() not in part.read_bytes() for part in store.folder.glob("store.sqlite3*"))
    before = store.inbox.index_state()
    store.inbox.keep([entry(other, 3, removed=True)], 2)
    assert store.inbox.index_state() != before
    assert results(store) == {one: "result 1"}


def test_an_entry_of_another_patient_than_its_envelope_is_rejected(store: Store) -> None:
    good = entry(uuid.uuid4())
    for kind in (good, erasure(uuid.uuid4())):
        forged = Envelope(kind.epoch, kind.cls, 7, kind.kind, uuid.uuid4(), None, kind.body)
        assert [one.code for one in store.inbox.keep([forged], 1).rejected] == ["invalid"]
    assert store.inbox.index() == []


def test_an_erasure_from_the_hub_takes_all_that_the_device_has_of_them(
    open_store: Callable[..., Store],
) -> None:
    store = open_store()
    item = make_item(RecordClass.REPORT, b"photograph" * 999)
    assert isinstance(item.record, ExamReport)
    patient, stays = item.record.patient.id, make_item()
    store.append_many([item, stays])
    store.inbox.keep([entry(patient)], 1)
    sealed = store.seal_for(patient, b"draft", b"place")
    receipt = store.inbox.keep([erasure(patient), entry(patient, 2)], 2)
    assert [one.cls for one in receipt.held] == ["erasure"]
    assert [one.code for one in receipt.rejected] == ["erased"]
    assert store.inbox.index() == []
    assert store.reports() == [stays.record]
    assert store.erased() == {patient}
    assert not [path for path in (store.folder / "blobs").rglob("*") if path.is_file()]
    with pytest.raises(StoreError):
        store.open_for(patient, sealed, b"place")
    with pytest.raises(StoreError):
        store.append(item)
    assert sum(one.queued for one in outbox.status(store)) == 1  # no tombstone goes back to the hub, which has it
    assert store.inbox.keep([erasure(patient)], 3).rejected == ()
    store.close()
    assert open_store().erased() == {patient}


def test_an_index_of_many_gaps_is_still_one_receipt(store: Store) -> None:
    numbers = range(1, 25_000, 2)  # as years of entries that replaced each other leave them
    rows = [(EPOCHS[0], "index", number, "IndexEntry", b"", bytes(32), 1) for number in numbers]
    insert = "INSERT INTO received (epoch, cls, seq, kind, body, hash, at_ms) VALUES (?, ?, ?, ?, ?, ?, ?)"
    store.write(lambda db: db.executemany(insert, rows) and None)
    held = store.inbox.held()
    message = pack_message(Receipt(EPOCHS[0], held=held), sender="unit-1", key=store.identity.private)
    said = unpack_message(message, lambda _: store.identity.public).content
    assert isinstance(said, Receipt)
    assert [number for one in said.held for start, stop in one.ranges for number in range(start, stop)] == [*numbers]


def test_an_erasure_that_comes_before_the_patient_keeps_them_out(store: Store) -> None:
    patient = uuid.uuid4()
    store.inbox.keep([erasure(patient)], 1)
    assert [one.code for one in store.inbox.keep([entry(patient)], 2).rejected] == ["erased"]
    with pytest.raises(StoreError):
        store.append(make_item(patient=patient))
    store.erase_patient(patient)  # what a worker then asks for changes nothing, and tells the hub nothing new
    assert outbox.status(store) == []
