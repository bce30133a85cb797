"""The outbox: what goes next, and that only a receipt settles anything."""

from __future__ import annotations

import errno
import os
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from device_records import make_item
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aidpost.errors import StoreError
from aidpost.sync import outbox
from aidpost.sync.envelope import (
    CHUNK,
    BlobHeld,
    Chunks,
    Held,
    Receipt,
    RecordClass,
    Records,
    Reject,
    records_check,
)
from aidpost.sync.outbox import Outbox, Piece
from aidpost.sync.ranges import from_numbers
from aidpost.sync.store import Store

HUB = b"hub-1234"
PATIENT = uuid.UUID(int=9)


def receipt(store: Store, cls: str, *seqs: int, **more: object) -> Receipt:
    check = records_check(one.hash for one in store.envelopes(cls, seqs))
    return Receipt(HUB, held=(Held(store.epoch, cls, from_numbers(seqs), check),), **more)  # type: ignore[arg-type]


def drain(box: Outbox) -> list[Piece]:
    return list(iter(box.next, None))


def seqs(piece: Piece) -> list[int]:
    assert isinstance(piece.content, Records)
    return [one.seq for one in piece.content.envelopes]


def test_alerts_go_first_and_images_last(store: Store) -> None:
    store.append(make_item(RecordClass.REPORT, b"photo" * 8_000))
    store.append(make_item(RecordClass.VITALS))
    store.append(make_item(RecordClass.ALERT))
    pieces = drain(Outbox(store, window_bytes=1 << 20))
    assert [piece.leaf for piece in pieces] == ["alert", "report", "vitals", "image", "blob", "blob", "blob"]


def test_an_alert_goes_before_the_rest_of_an_image(store: Store) -> None:
    store.append(make_item(RecordClass.REPORT, os.urandom(200_000)))
    box = Outbox(store)
    drain(box)
    assert box.next() is None, "the chunks' window is full, and no receipt comes"
    store.append(make_item(RecordClass.ALERT))
    piece = box.next()
    assert piece is not None
    assert piece.leaf == "alert"


@pytest.mark.parametrize("why", ["cut off", "on a bad place of the card"])
def test_photograph_that_does_not_open_is_given_up_and_the_next_one_goes(
    store: Store, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    bad, good = make_item(RecordClass.REPORT, b"bad" * 9_000), make_item(RecordClass.REPORT, b"good" * 9_000)
    store.append_many([bad, good])
    assert bad.patient is not None
    file = store.blobs.path(bytes.fromhex(bad.blobs[0].ref.sha256), bad.patient)
    if why == "cut off":
        file.write_bytes(file.read_bytes()[:-1])
    else:
        fail_to_read(monkeypatch, file, errno.EIO)
    sent = {
        chunk.sha256
        for piece in drain(Outbox(store))
        if isinstance(piece.content, Chunks)
        for chunk in piece.content.chunks
    }
    assert sent == {bytes.fromhex(good.blobs[0].ref.sha256)}
    assert outbox.blob_status(store).dead == 1


def test_photograph_that_cannot_be_read_now_is_not_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    item = make_item(RecordClass.REPORT, b"good" * 9_000)
    store.append(item)
    assert item.patient is not None
    file = store.blobs.path(bytes.fromhex(item.blobs[0].ref.sha256), item.patient)
    with monkeypatch.context() as short:
        fail_to_read(short, file, errno.ENOMEM)
        with pytest.raises(StoreError, match="Cannot allocate memory"):
            drain(Outbox(store))
    assert outbox.blob_status(store).dead == 0
    assert any(isinstance(piece.content, Chunks) for piece in drain(Outbox(store)))


def fail_to_read(monkeypatch: pytest.MonkeyPatch, file: Path, number: int) -> None:
    pread = os.pread

    def failing(descriptor: int, size: int, offset: int) -> bytes:
        if os.path.samestat(os.fstat(descriptor), file.stat()):
            raise OSError(number, os.strerror(number))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", failing)


def test_what_the_hub_wants_of_an_erased_patient_is_announced_as_dropped(store: Store) -> None:
    keys = [store.append(make_item(patient=PATIENT)) for _ in range(2)]
    gone = make_item()
    store.append(gone)
    assert gone.patient is not None
    store.erase_patient(gone.patient)
    wanted = (Held(store.epoch, "report", from_numbers([1, 2, 3])), Held(b"another!", "report", ((1, 9),)))
    dropped = Outbox(store).gone(Receipt(HUB, wanted=wanted))
    assert dropped is not None
    assert dropped.dropped == (Held(store.epoch, "report", ((3, 4),)),)
    assert [key.seq for key in keys] == [1, 2]


def test_a_queue_of_nothing_but_damaged_records_does_not_hide_the_next(store: Store) -> None:
    store.append_many([make_item(patient=PATIENT) for _ in range(20)])
    store.write(lambda db: db.execute("UPDATE record SET body = x'00' WHERE seq <= 18") and None)
    box = Outbox(store, window_records=8)
    assert [seq for piece in drain(box) for seq in seqs(piece)] == [19, 20]


def test_window_counts_what_has_no_receipt(store: Store) -> None:
    store.append_many([make_item(patient=PATIENT) for _ in range(200)])
    box = Outbox(store, window_records=64, window_bytes=1 << 20)
    sent = [seq for piece in drain(box) for seq in seqs(piece)]
    assert sent == list(range(1, 65))
    assert box.next() is None
    box.receive(receipt(store, "report", *range(1, 11)))
    assert [seq for piece in drain(box) for seq in seqs(piece)] == list(range(65, 75))


def test_only_a_receipt_settles_and_a_new_connection_sends_the_rest_again(store: Store) -> None:
    store.append_many([make_item(patient=PATIENT) for _ in range(5)])
    box = Outbox(store)
    drain(box)
    box.receive(receipt(store, "report", 2, 4))
    box.forget_flight()
    assert [seq for piece in drain(box) for seq in seqs(piece)] == [1, 3, 5]
    assert [(one.queued, one.receipted) for one in outbox.status(store)] == [(3, 2)]


def test_receipt_of_another_epoch_settles_nothing(store: Store) -> None:
    store.append(make_item())
    box = Outbox(store)
    assert not box.receive(Receipt(HUB, held=(Held(b"somebody", "report", ((1, 9),)),)))
    assert outbox.status(store)[0].queued == 1


def test_refused_record_is_a_dead_letter_with_the_reason_and_the_others_flow(store: Store) -> None:
    store.append_many([make_item(patient=PATIENT) for _ in range(3)])
    box = Outbox(store)
    drain(box)
    box.receive(receipt(store, "report", 1, 3, rejected=(Reject(store.epoch, "report", 2, "origin", "simulated"),)))
    (letter,) = outbox.dead_letters(store)
    assert (letter.seq, letter.code, letter.reason) == (2, "origin", "simulated")
    box.forget_flight()
    assert drain(box) == []
    assert outbox.retry(store) == 1
    assert [seqs(piece) for piece in drain(box)] == [[2]]


def test_what_a_restored_hub_wants_goes_again(store: Store) -> None:
    store.append_many([make_item(patient=PATIENT) for _ in range(4)])
    box = Outbox(store)
    drain(box)
    box.receive(receipt(store, "report", 1, 2, 3, 4))
    box.receive(Receipt(b"restored", wanted=(Held(store.epoch, "report", ((2, 4),)),), answers=b"n" * 16))
    assert [seqs(piece) for piece in drain(box)] == [[2, 3]]


def test_chunks_resume_from_what_the_hub_holds(store: Store) -> None:
    data = os.urandom(5 * CHUNK + 100)
    store.append(make_item(RecordClass.REPORT, data))
    box = Outbox(store, window_bytes=1 << 20)
    drain(box)
    image = store.read("SELECT sha256 FROM blob")[0][0]
    box.receive(Receipt(HUB, blobs=(BlobHeld(image, ((0, 2 * CHUNK), (4 * CHUNK, 5 * CHUNK)), False),)))
    box.forget_flight()
    box.receive(receipt(store, "report", 1))
    box.receive(receipt(store, "image", 1))
    chunks = [piece.content.chunks[0] for piece in drain(box) if isinstance(piece.content, Chunks)]
    assert [chunk.offset // CHUNK for chunk in chunks] == [2, 3, 5]
    assert all(data[chunk.offset : chunk.offset + len(chunk.data)] == chunk.data for chunk in chunks)
    box.receive(Receipt(HUB, blobs=(BlobHeld(image, ((0, len(data)),), True),)))
    assert outbox.blob_status(store).queued == 0


def test_refused_blob_is_not_sent_again(store: Store) -> None:
    store.append(make_item(RecordClass.REPORT, b"x" * 100))
    box = Outbox(store)
    drain(box)
    image = store.read("SELECT sha256 FROM blob")[0][0]
    box.receive(Receipt(HUB, blobs=(BlobHeld(image, (), False, "too large"),)))
    box.forget_flight()
    assert "blob" not in [piece.leaf for piece in drain(box)]
    assert outbox.blob_status(store).dead == 1


def test_clock_set_back_never_gives_a_negative_age(store: Store, clock: object) -> None:
    store.append(make_item())
    clock.wall = 0  # type: ignore[attr-defined]
    assert outbox.status(store)[0].oldest_s == 0


KINDS_OF_STEP = st.sampled_from(["send", "receipt", "reconnect", "accept"])
STEPS = st.lists(st.tuples(KINDS_OF_STEP, st.integers(1, 12)), max_size=25)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(STEPS)
def test_whatever_happens_each_record_is_queued_or_receipted_and_all_end_receipted(
    open_store: Callable[..., Store], steps: list[tuple[str, int]]
) -> None:
    store = open_store(folder=uuid.uuid4().hex)
    box = Outbox(store, window_records=4)
    accepted, hub = 0, set[int]()
    to_the_end = [("reconnect", 0), ("send", 0), ("receipt", 0)] * 80
    for step, number in [("accept", 3), *steps, *to_the_end]:
        if step == "accept":
            store.append_many([make_item(patient=PATIENT) for _ in range(number)])
            accepted += number
        elif step == "send":
            hub |= {seq for piece in drain(box) for seq in seqs(piece)}
        elif step == "reconnect":
            box.forget_flight()
        elif hub:
            box.receive(receipt(store, "report", *hub))
        (status,) = outbox.status(store)
        assert status.queued + status.receipted == accepted
        assert status.receipted <= len(hub)
        assert box.in_flight <= 4
        if number == 0 and status.queued == 0:
            break
    assert status.queued == 0
    assert hub == set(range(1, accepted + 1))
    store.close()


def test_queue_of_many_records_is_read_a_window_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.append_many([make_item(patient=PATIENT) for _ in range(300)])
    asked: list[int] = []
    envelopes = store.envelopes
    monkeypatch.setattr(store, "envelopes", lambda cls, numbers: asked.append(len(numbers)) or envelopes(cls, numbers))
    drain(Outbox(store))
    assert max(asked) <= 64


def test_live_records_go_before_the_backlog_and_alerts_before_all(store: Store) -> None:
    def accept(*classes: RecordClass) -> None:
        store.append_many([make_item(cls, patient=PATIENT) for cls in classes])

    accept(RecordClass.REPORT, RecordClass.VITALS, RecordClass.ALERT)
    box = Outbox(store)
    box.begin()
    accept(RecordClass.VITALS, RecordClass.REPORT, RecordClass.ALERT, RecordClass.REVIEW_ACK)
    found = [(piece.leaf, seqs(piece)) for piece in drain(box)]
    assert found == [
        ("alert", [2]),
        ("alert", [1]),
        ("report", [2]),
        ("vitals", [2]),
        ("review-ack", [1]),
        ("report", [1]),
        ("vitals", [1]),
    ]


def test_a_live_photograph_goes_before_the_backlog_s(store: Store) -> None:
    old, new = (make_item(RecordClass.REPORT, name * 9_000, patient=PATIENT) for name in (b"old", b"new"))
    store.append(old)
    box = Outbox(store, window_bytes=1 << 20)
    box.begin()
    store.append(new)
    sent = [one.content.chunks[0].sha256.hex() for one in drain(box) if isinstance(one.content, Chunks)]
    assert sent == [new.blobs[0].ref.sha256] * 2 + [old.blobs[0].ref.sha256] * 2


def test_the_backlog_keeps_to_its_share_and_alerts_and_live_records_do_not_wait_for_it(store: Store) -> None:
    store.append_many([make_item(patient=PATIENT) for _ in range(300)])
    store.append(make_item(RecordClass.REPORT, os.urandom(100_000), patient=PATIENT))
    now, rate = [0.0], 20_000
    box = Outbox(store, window_records=10_000, window_bytes=1 << 30, backlog_bytes_s=rate, seconds=lambda: now[0])
    box.begin()
    sent = 0
    for tenth in range(400):
        now[0] = tenth / 10
        for piece in drain(box):
            content = piece.content
            sent += sum(len(one.body) for one in content.envelopes) if isinstance(content, Records) else 0
            sent += sum(len(one.data) for one in content.chunks) if isinstance(content, Chunks) else 0
        # a message is not divided: the share may be overdrawn by one, and is then paid back
        assert sent <= rate * now[0] + 32 * 1024
        if tenth == 10:
            assert box.held_back
            store.append_many([make_item(RecordClass.ALERT), make_item()])
            assert [box.next().leaf for _ in range(2)] == ["alert", "report"]  # type: ignore[union-attr]
    assert not box.held_back
    assert sent >= 300 * 400 + 100_000


def test_a_hundred_thousand_that_wait_take_no_memory(store: Store) -> None:
    """Peak of Python's memory while a message is chosen, a hello made and the status told: as with a thousand."""
    store.append(make_item(patient=PATIENT))
    columns = "kind, id, patient, exam, body, hash, size, at_ms, state, settled_ms, code, reason, epoch"
    peaks = []
    have = 1
    for target in (1_000, 100_000):
        while have < target:
            copied = f"INSERT INTO record SELECT cls, seq + {have}, {columns} FROM record WHERE seq <= {target - have}"
            store.write(lambda db, copied=copied: db.execute(copied) and None)  # type: ignore[misc]
            have = min(2 * have, target)
        store.write(lambda db, have=have: db.execute("UPDATE sequence SET last = ?", (have,)) and None)  # type: ignore[misc]
        tracemalloc.start()
        box = Outbox(store)
        box.begin()
        chosen = box._choose("report", False, 64, 64)
        assert chosen == list(range(1, len(chosen) + 1))
        store.lives.all()
        outbox.status(store)
        outbox.blob_status(store)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 20_000


def test_window_widens_while_receipts_come_at_once_and_closes_when_they_do_not(store: Store) -> None:
    store.append_many([make_item(patient=PATIENT) for _ in range(90)])
    now = [0.0]
    box = Outbox(store, window_records=4, window_bytes=1 << 20, widen=4, seconds=lambda: now[0])

    def round_trip(seconds: float) -> int:
        sent = [seq for piece in drain(box) for seq in seqs(piece)]
        now[0] += seconds
        box.receive(receipt(store, "report", *sent))
        return len(sent)

    assert [round_trip(0.1) for _ in range(4)] == [4, 8, 16, 16]
    assert [round_trip(2.0) for _ in range(3)] == [16, 8, 4]
    assert box._wide == 1
    round_trip(0.1)
    drain(box)
    box.forget_flight()
    assert sum(len(seqs(piece)) for piece in drain(box)) <= 4, "after a time-out the window is the configured one"


def test_a_message_grows_with_the_window_and_is_small_again_after_a_time_out(store: Store) -> None:
    """One signature and one commit at the hub for more records, where the link is no bottleneck."""
    store.append_many([make_item(patient=PATIENT) for _ in range(400)])
    box = Outbox(store, window_records=64, window_bytes=1 << 20, widen=16)

    def largest() -> int:
        sent = [piece.content for piece in drain(box)]
        every = [one for content in sent if isinstance(content, Records) for one in content.envelopes]
        box.receive(receipt(store, "report", *(one.seq for one in every)))
        return max(sum(len(e.body) for e in content.envelopes) for content in sent if isinstance(content, Records))

    first, second, third = largest(), largest(), largest()
    assert first <= 16 * 1024 < second <= 32 * 1024
    assert third <= 64 * 1024
    store.append_many([make_item(patient=PATIENT) for _ in range(400)])
    box.forget_flight()
    assert largest() <= 16 * 1024, "an alert behind it does not wait for more than a slow link carries in a second"


def test_receipts_that_come_together_are_settled_with_one_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.append_many([make_item(patient=PATIENT) for _ in range(6)])
    box = Outbox(store)
    drain(box)
    commits: list[object] = []
    monkeypatch.setattr(store, "write", lambda work, write=store.write: (commits.append(work), write(work)))
    refused = Receipt(HUB, rejected=(Reject(store.epoch, "report", 6, "invalid", "no"),))
    assert box.receive(receipt(store, "report", 1, 2), receipt(store, "report", 3, 5), refused)
    assert len(commits) == 1
    assert [(one.queued, one.receipted, one.dead) for one in outbox.status(store)] == [(1, 4, 1)]
    assert not box.receive()
    assert len(commits) == 1
