"""Reviews and referrals on their way down: kept once, sealed, and receipted only when they are on the disk."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from device_records import KEY, FakeClock, make_item
from hub_end import HubEnd, sign_review
from sqlalchemy import select

from aidpost.errors import StorageFullError, StoreDamagedError, StoreError
from aidpost.records import ExamReport, Referral, ReferralStatus, Review, ReviewDecision, Timestamp, encode
from aidpost.sync import _schema, keys
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import Envelope, Records, pack_message
from aidpost.sync.hub import outgoing, schema
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.service import HubService
from aidpost.sync.inbox import Inbox
from aidpost.sync.link import Link
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

EPOCH = b"hub-epoc"
AT = Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=1, boot=0, synced=True)

DEVICE_THAT_DIES = """
import os, signal, sys
from pathlib import Path
from aidpost.sync import inbox, keys, publisher
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

folder, port, hub_key, where = sys.argv[1:]
publish = publisher.Publisher._publish
if where == "before the commit":
    inbox.Inbox.keep = die
else:
    publisher.Publisher._publish = lambda self, leaf, content, **more: (
        die() if leaf == "receipt" else publish(self, leaf, content, **more)
    )
store = Store.open(Path(folder), keys.DeviceKey(bytes(range(32)), "test"), clock=SystemClock())
link = publisher.Link("127.0.0.1", int(port), "hub", keys.public_key(bytes.fromhex(hub_key)))
publisher.Publisher(store, link)._run()
"""


def make_review(**changes: Any) -> Review:
    fields: dict[str, Any] = {name: uuid.uuid4() for name in ("id", "report", "exam", "patient")}
    fields |= {"reviewer": "dr.okoro", "decision": ReviewDecision.CONFIRMED, "at": AT, "text": "normal sinus rhythm"}
    return Review(**(fields | changes))


def make_referral(**changes: Any) -> Referral:
    fields: dict[str, Any] = {name: uuid.uuid4() for name in ("id", "exam", "patient")}
    fields |= {"to": "Kisumu eye unit", "due": "2026-12-01", "reason": "dr", "status": ReferralStatus.DUE, "at": AT}
    return Referral(**(fields | changes))


def envelope(record: Review | Referral, seq: int = 1, cls: str = "review", **changes: Any) -> Envelope:
    made = Envelope(EPOCH, cls, seq, type(record).__name__, record.patient, record.exam, encode(record))
    return msgspec.structs.replace(made, **changes)


def rows(store: Store) -> int:
    return int(store.read("SELECT count(*) FROM received")[0][0])


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


# -- the inbox


def test_review_is_kept_held_and_read(store: Store) -> None:
    review = make_review()
    receipt = store.inbox.keep([envelope(review)], 1)
    assert [(one.epoch, one.cls, one.ranges) for one in receipt.held] == [(EPOCH, "review", ((1, 2),))]
    assert store.reviews(review.exam) == [review]
    assert store.reviews(uuid.uuid4()) == []


def test_same_record_again_is_held_again_and_kept_once(store: Store) -> None:
    sent = envelope(make_review())
    assert store.inbox.keep([sent, sent], 1) == store.inbox.keep([sent], 2)
    assert rows(store) == 1


def test_another_record_under_a_known_key_is_a_conflict(store: Store) -> None:
    first = make_review()
    store.inbox.keep([envelope(first)], 1)
    receipt = store.inbox.keep([envelope(make_review(exam=first.exam))], 2)
    assert receipt.held == ()
    assert [one.code for one in receipt.rejected] == ["conflict"]
    assert store.reviews(first.exam) == [first]


@pytest.mark.parametrize(
    "changes", [{"body": b"\xc1"}, {"patient": uuid.UUID(int=9)}, {"exam": None}], ids=["body", "patient", "exam"]
)
def test_record_that_contradicts_its_envelope_is_rejected_and_the_next_is_kept(
    store: Store, changes: dict[str, Any]
) -> None:
    good = make_review()
    receipt = store.inbox.keep([envelope(make_review(), **changes), envelope(good, 2)], 1)
    assert [(one.seq, one.code) for one in receipt.rejected] == [(1, "invalid")]
    assert receipt.held[0].ranges == ((2, 3),)
    assert store.reviews(good.exam) == [good]


def test_unknown_class_and_kind_are_kept_as_bytes(store: Store) -> None:
    future = Envelope(EPOCH, "tele-visit", 1, "TeleVisit", None, None, b"of a later version")
    receipt = store.inbox.keep([future], 1)
    assert receipt.held == store.inbox.held()
    assert store.inbox.held()[0].cls == "tele-visit"


def test_referrals_of_one_exam_and_of_all(store: Store) -> None:
    late = make_referral(at=msgspec.structs.replace(AT, wall_ms=AT.wall_ms + 5))
    early = make_referral()
    store.inbox.keep([envelope(late, 1, "referral"), envelope(early, 2, "referral")], 1)
    assert store.referrals() == [early, late]
    assert store.referrals(late.exam) == [late]


def test_erased_patient_does_not_come_back_from_the_hub(store: Store) -> None:
    review = make_review()
    store.inbox.keep([envelope(review)], 1)
    store.erase_patient(review.patient)
    assert rows(store) == 0
    receipt = store.inbox.keep([envelope(review)], 2)
    assert [one.code for one in receipt.rejected] == ["erased"]
    assert rows(store) == 0


def test_review_lies_sealed_and_does_not_open_in_another_place(store: Store) -> None:
    review = make_review(text="a text to be found nowhere")
    store.inbox.keep([envelope(review)], 1)
    assert all(b"to be found" not in part.read_bytes() for part in store.folder.glob("store.sqlite3*"))
    store.write(lambda db: db.execute("UPDATE received SET seq = 2") and None)
    with pytest.raises(StoreDamagedError):
        store.reviews(review.exam)


# -- the schema


def test_store_of_version_1_is_opened_with_all_that_it_has(
    tmp_path: Path, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(_schema, "VERSION", 1)
        older.setattr(_schema, "_ADDITIONS", _schema._ADDITIONS[:3])  # the fourth is an index of what it lacks
        old = open_store()
        item = make_item()
        old.append(item)
        assert old.read("PRAGMA user_version") == [(1,)]
        with pytest.raises(StoreError, match="no such table"):
            old.read("SELECT * FROM received")
        old.close()
    store = open_store()
    assert store.read("PRAGMA user_version") == [(2,)]
    assert store.reports() == [item.record]
    review = make_review()
    store.inbox.keep([envelope(review)], 1)
    assert store.reviews(review.exam) == [review]


# -- the sender's side of it


class Captured:
    """A publisher without a broker: what arrives is given by hand, what it publishes is kept."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hub = keys.Identity.create("hub")
        self.publisher = Publisher(store, Link("127.0.0.1", 1, "hub", self.hub.public))
        self.published: list[tuple[str, Any]] = []
        monkeypatch.setattr(self.publisher, "_publish", lambda leaf, content: self.published.append((leaf, content)))

    def take(self, *envelopes: Envelope, recipient: str = "unit-1", signer: keys.Identity | None = None) -> None:
        key = (signer or self.hub).private
        message = pack_message(Records(envelopes), sender="hub", key=key, recipient=recipient)
        self.publisher._arrived.put(message)
        self.publisher._take_arrived()


def test_duplicate_is_receipted_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    captured, sent = Captured(store, monkeypatch), envelope(make_review())
    captured.take(sent)
    captured.take(sent)
    assert [leaf for leaf, _ in captured.published] == ["receipt", "receipt"]
    assert captured.published[0] == captured.published[1]


@pytest.mark.parametrize("how", [{"recipient": "unit-2"}, {"recipient": ""}, {"signer": keys.Identity.create("hub")}])
def test_forged_or_foreign_record_is_neither_kept_nor_receipted(
    store: Store, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    captured = Captured(store, monkeypatch)
    captured.take(envelope(make_review()), **how)
    assert captured.published == []
    assert rows(store) == 0


def test_full_disk_keeps_the_receipt_back_and_the_sender_going(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    captured, sent = Captured(store, monkeypatch), envelope(make_review())

    def full(self: Inbox, envelopes: object, now_ms: int, proofs: object) -> None:
        raise StorageFullError(operation="writing to the store", target="x", cause="database or disk is full")

    with monkeypatch.context() as broken:
        broken.setattr(Inbox, "keep", full)
        captured.take(sent)
    assert captured.published == []
    assert "full" in captured.publisher.last_error
    captured.take(sent)
    assert [leaf for leaf, _ in captured.published] == ["receipt"]


# -- with a real hub on a real broker


class Hub:
    """The hub's service in this process."""

    def __init__(self, end: HubEnd) -> None:
        self.database = Database(end.config.url)
        self.service = HubService(end.config, self.database, BlobFiles(end.config.blobs))
        self.service.start()
        wait_for(lambda: self.service.connected, "the hub is connected")

    def sign(self, report: ExamReport, text: str) -> Review:
        review = sign_review(self.database, report, ReviewDecision.CORRECTED, text)
        self.service.wake()
        return review

    def nothing_waits(self) -> bool:
        with self.database.read() as connection:
            return not outgoing.anything(connection)

    def attempts(self) -> list[int]:
        with self.database.read() as connection:
            return list(connection.execute(select(schema.outgoing.c.attempts)).scalars())

    def stop(self) -> None:
        self.service.stop()
        self.database.close()


def test_review_signed_at_the_hub_reaches_the_device_once(tmp_path: Path, mosquitto: Any, store: Store) -> None:
    end = HubEnd(tmp_path / "hub", mosquitto.port)
    link, hub, item = end.enroll(store), Hub(end), make_item()
    store.append(item)
    try:
        with Publisher(store, link) as publisher:
            assert publisher.wait_until_empty(30), publisher.last_error
            assert isinstance(item.record, ExamReport)
            signed = [hub.sign(item.record, text) for text in ("first", "second")]
            wait_for(hub.nothing_waits, "the device's receipt is noted")
            assert store.reviews(item.record.exam.id) == signed
    finally:
        hub.stop()
    assert rows(store) == 2


@pytest.mark.parametrize("where", ["before the commit", "before the receipt"])
def test_device_killed_on_taking_a_review_has_it_once(tmp_path: Path, mosquitto: Any, where: str) -> None:
    end = HubEnd(tmp_path / "hub", mosquitto.port)
    with Store.open(tmp_path / "device", KEY, clock=FakeClock(), name="unit-1") as store:
        link = end.enroll(store)
    item = make_item()
    assert isinstance(item.record, ExamReport)
    hub = Hub(end)
    try:
        review = hub.sign(item.record, "seen")
        hub_key = keys.public_bytes(link.hub_key).hex()
        died = subprocess.run(
            [sys.executable, "-c", DEVICE_THAT_DIES, str(tmp_path / "device"), str(mosquitto.port), hub_key, where],
            timeout=60, check=False,
        )  # fmt: skip
        assert died.returncode == -signal.SIGKILL
        assert not hub.nothing_waits()
        with Store.open(tmp_path / "device", KEY, clock=SystemClock()) as store:
            assert rows(store) == (0 if where == "before the commit" else 1)
            with Publisher(store, link):
                wait_for(hub.nothing_waits, "the device's receipt is noted")
            assert store.reviews(item.record.exam.id) == [review]
            assert rows(store) == 1
        assert hub.attempts()[0] >= 2
    finally:
        hub.stop()
