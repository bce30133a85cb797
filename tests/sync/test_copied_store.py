"""A database on two devices (a copied card, a backup of it): both count once, the conflict is seen, nothing is lost."""

from __future__ import annotations

import io
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from device_records import make_item
from hub_end import HubEnd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from aidpost.records import ExamReport
from aidpost.sync import outbox
from aidpost.sync.envelope import Hello, Life, Receipt, RecordClass, Records, pack_message, unpack_message
from aidpost.sync.hub import backup, operations, schema
from aidpost.sync.hub.database import Database
from aidpost.sync.outbox import Outbox
from aidpost.sync.store import Store

PATIENT = uuid.UUID(int=9)


class Link:
    """One device's conversation with a hub, message by message, without a broker."""

    def __init__(self, hub: HubEnd, store: Store) -> None:
        self._hub, self._store, self.box = hub, store, Outbox(store)
        self._link = hub.enroll(store)

    def greet(self) -> None:
        """Say hello and take the answer in."""
        store = self._store
        self.box.forget_flight()
        hello = Hello(bytes(16), store.now(), store.epoch, {}, b"", "", tuple(store.lives.all()))
        self._exchange(hello)

    def send(self, *, lose_receipts: bool = False) -> None:
        """Send what the window takes."""
        while piece := self.box.next():
            self._exchange(piece.content, lose_receipts)

    def _exchange(self, content: Hello | Records | object, lose: bool = False) -> None:
        identity = self._store.identity
        message = pack_message(content, sender=identity.name, key=identity.private)  # type: ignore[arg-type]
        known = {self._link.hub_name: self._link.hub_key}
        for answer in operations.take_messages(self._hub.config, [message]):
            receipt = unpack_message(answer, known.get, recipient=identity.name).content
            assert isinstance(receipt, Receipt)
            if not lose:
                self.box.receive(receipt)

    def sync(self) -> None:
        """Until nothing waits."""
        for _ in range(10):
            self.greet()
            self.send()
            if not any(one.queued for one in outbox.status(self._store)):
                return
        raise AssertionError(outbox.status(self._store))


@pytest.fixture
def hub(tmp_path: Path) -> HubEnd:
    return HubEnd(tmp_path / "hub", 1)


@pytest.fixture
def pair(tmp_path: Path, open_store: Callable[..., Store]) -> Callable[[int], tuple[Store, Store]]:
    """A store with so many reports, and its copy on another device."""

    def copied(reports: int) -> tuple[Store, Store]:
        name = uuid.uuid4().hex
        first = open_store(folder=name)
        if reports:
            first.append_many([make_item(patient=PATIENT) for _ in range(reports)])
        first.close()
        shutil.copytree(tmp_path / name, tmp_path / f"{name}-copy")
        return open_store(folder=name), open_store(folder=f"{name}-copy")

    return copied


def accepted(*stores: Store) -> list[uuid.UUID]:
    found = {report.id for store in stores for report in store.reports(1000)}
    return sorted(found)


def at_the_hub(hub: HubEnd) -> list[uuid.UUID]:
    return sorted(report.id for report in hub.reports())


def test_both_copies_count_once_and_the_conflict_is_audited(
    hub: HubEnd, pair: Callable[[int], tuple[Store, Store]]
) -> None:
    one, two = pair(3)
    one.append_many([make_item(patient=PATIENT) for _ in range(2)])
    two.append_many([make_item(patient=PATIENT) for _ in range(4)])
    ends = [Link(hub, one), Link(hub, two)]
    for end in (*ends, *ends):
        end.sync()
    assert at_the_hub(hub) == accepted(one, two)
    assert len(at_the_hub(hub)) == 3 + 2 + 4
    assert outbox.dead_letters(one) == outbox.dead_letters(two) == []
    assert one.epoch != two.epoch
    assert [(note.what, "report/4" in note.detail) for note in two.notes()] == [("copied", True)]
    assert one.notes() == []
    database = Database(hub.config.url)
    with database.read() as connection:
        audited = connection.execute(select(schema.audit.c.action)).scalars().all()
    database.close()
    assert audited.count("conflict") == 2


def test_what_the_other_copy_sent_is_not_taken_for_receipted(
    hub: HubEnd, pair: Callable[[int], tuple[Store, Store]]
) -> None:
    one, two = pair(0)
    one.append(make_item())
    two.append(make_item())
    Link(hub, one).sync()
    end = Link(hub, two)
    end.greet()
    assert outbox.status(two)[0].queued == 1, "the hub has a record of this key, and it is not ours"
    end.sync()
    assert at_the_hub(hub) == accepted(one, two)


def test_a_record_taken_for_receipted_and_then_refused_as_a_conflict_is_sent_under_a_new_key(
    hub: HubEnd, pair: Callable[[int], tuple[Store, Store]]
) -> None:
    one, two = pair(0)
    one.append(make_item())
    two.append(make_item())
    Link(hub, one).sync()
    two.write(lambda db: db.execute("UPDATE record SET state = 1") and None)
    two.append(make_item())
    Link(hub, two).sync()
    two.write(lambda db: db.execute("UPDATE record SET state = 0 WHERE seq = 1") and None)
    Link(hub, two).sync()
    assert at_the_hub(hub) == accepted(one, two)


def test_lives_say_what_every_epoch_has_and_what_waits(pair: Callable[[int], tuple[Store, Store]]) -> None:
    store, _ = pair(3)
    first = store.epoch
    assert store.lives.all() == [Life(first, "report", 1, 3, 1)]
    store.write(lambda db: store.lives.settle_conflict(db, first, "report", 2, 1))
    store.append_many([make_item(), make_item(RecordClass.VITALS)])
    store.write(lambda db: db.execute("UPDATE record SET state = 1 WHERE seq = 1 AND cls = 'report'") and None)
    assert store.lives.all() == [
        Life(first, "report", 1, 3, 3),
        Life(store.epoch, "report", 2, 4, 2),
        Life(store.epoch, "vitals", 1, 1, 1),
    ]


def test_restored_hub_gets_back_what_was_sent_under_both_epochs(
    hub: HubEnd, pair: Callable[[int], tuple[Store, Store]], tmp_path: Path
) -> None:
    one, two = pair(2)
    ends = [Link(hub, one), Link(hub, two)]
    kept = io.BytesIO()
    backup.back_up(hub.config, kept)
    one.append(make_item())
    two.append_many([make_item() for _ in range(2)])
    for end in (*ends, *ends):
        end.sync()
    assert at_the_hub(hub) == accepted(one, two)
    shutil.rmtree(tmp_path / "hub")
    backup.restore(hub.config, io.BytesIO(kept.getvalue()))
    for end in (*ends, *ends):
        end.sync()
    assert at_the_hub(hub) == accepted(one, two)


STEPS = st.lists(
    st.tuples(st.sampled_from(["accept", "greet", "send", "lose"]), st.integers(0, 1), st.integers(1, 3)), max_size=10
)


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
def test_whatever_two_copies_do_every_record_ends_at_the_hub_once(
    pair: Callable[[int], tuple[Store, Store]], tmp_path: Path, steps: list[tuple[str, int, int]]
) -> None:
    hub = HubEnd(tmp_path / uuid.uuid4().hex, 1)
    stores = pair(2)
    ends = [Link(hub, store) for store in stores]
    for step, which, count in steps:
        if step == "accept":
            stores[which].append_many([make_item(patient=PATIENT) for _ in range(count)])
        elif step == "greet":
            ends[which].greet()
        else:
            ends[which].box.forget_flight()
            ends[which].send(lose_receipts=step == "lose")
    for end in (*ends, *ends, *ends):
        end.sync()
    assert at_the_hub(hub) == accepted(*stores)
    assert sum(map(len, [store.reports(1000) for store in stores])) >= len(accepted(*stores))
    for store in stores:
        assert outbox.dead_letters(store) == []
        assert all(isinstance(one, ExamReport) for one in store.reports(1000))
        store.close()
