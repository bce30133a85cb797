"""What a hub wants a device to take up: collected whole in whatever order, taken up once, told to the hub."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from device_records import KEY, FakeClock, make_item
from hub_end import HubEnd
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.errors import StorageFullError, StoreError, UpdateRefusedError
from aidpost.records import BlobRef, Timestamp, decode, encode
from aidpost.sync import _schema, keys, stick
from aidpost.sync._asking import Asking
from aidpost.sync._space import Budget
from aidpost.sync.applier import Applier, Subject, Taken
from aidpost.sync.bodies import Delivery, Outcome
from aidpost.sync.deliveries import MOST_ATTEMPTS, Ready
from aidpost.sync.envelope import CHUNK, BlobHeld, Chunk, Chunks, Envelope, pack_message
from aidpost.sync.hub import deliveries as hub_deliveries
from aidpost.sync.hub import operations
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.service import HubService
from aidpost.sync.hub.stick import import_stick
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

from .test_down import EPOCH, Captured, wait_for

AT = Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=1, boot=0, synced=True)


def body_of(size: int, seed: int = 1) -> bytes:
    return hashlib.shake_128(seed.to_bytes(4, "big")).digest(size)


def make_delivery(
    content: bytes, seq: int = 1, subject: str = "config", *, large: bool = False, **more: Any
) -> Envelope:
    """An envelope as the hub makes it; a large one names its content and does not have it."""
    blob = BlobRef(sha256=hashlib.sha256(content).hexdigest(), size=len(content), media_type="x/y") if large else None
    fields = {"id": uuid.uuid4(), "subject": subject, "version": f"v{seq}", "serial": seq, "at": AT}
    record = Delivery(**(fields | {"body": b"" if large else content, "blob": blob} | more))
    return Envelope(EPOCH, subject, seq, "Delivery", None, None, encode(record))


def chunks_of(content: bytes) -> list[Chunk]:
    sha256 = hashlib.sha256(content).digest()
    return [Chunk(sha256, len(content), at, content[at : at + CHUNK]) for at in range(0, len(content), CHUNK)]


def outcomes(store: Store) -> list[tuple[str, str, str]]:
    rows = store.read("SELECT seq FROM record WHERE kind = 'Outcome' ORDER BY seq")
    found = [decode(Outcome, one.body) for one in store.envelopes("review-ack", [row[0] for row in rows])]
    return [(one.subject, one.version, one.state) for one in found]


class Taker:
    """A handler that notes what it was given."""

    def __init__(self, answer: Callable[[Ready], Taken] = lambda _: Taken()) -> None:
        self.taken: list[bytes] = []
        self._answer = answer

    def __call__(self, one: Ready) -> Taken:
        self.taken.append(one.read())
        return self._answer(one)


# -- collecting


def test_small_delivery_is_ready_when_it_is_kept(store: Store) -> None:
    store.inbox.keep([make_delivery(b"language = 'fr'")], 1)
    [ready] = store.deliveries.ready()
    assert (ready.subject, ready.version, ready.read()) == ("config", "v1", b"language = 'fr'")
    assert store.deliveries.wanted(1000) is None


def test_large_delivery_is_ready_only_when_all_of_it_is_here(store: Store, tmp_path: Path) -> None:
    content = body_of(3 * CHUNK + 7)
    store.inbox.keep([make_delivery(content, large=True)], 1)
    for number, chunk in enumerate(reversed(chunks_of(content))):
        assert store.deliveries.ready() == []
        wanted = store.deliveries.wanted(1000)
        assert wanted is not None
        assert sum(stop - start for start, stop in wanted.ranges) == max(0, number * CHUNK - CHUNK + 7 if number else 0)
        store.deliveries.keep_chunks([chunk])
    [ready] = store.deliveries.ready()
    assert ready.read() == content
    ready.copy_to(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert [one.complete for one in store.deliveries.complete()] == [True]


@settings(deadline=None, max_examples=30)
@given(
    size=st.integers(1, 5 * CHUNK),
    order=st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["good", "other", "longer", "reopen"])), max_size=25),
)
def test_chunks_repeated_reordered_foreign_or_cut_off_by_a_restart_give_the_content_or_nothing(
    size: int, order: list[tuple[int, str]]
) -> None:
    content, clock = body_of(size), FakeClock()
    parts = chunks_of(content)
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(Path(folder), KEY, clock=clock, name="unit-1")
        store.inbox.keep([make_delivery(content, large=True)], 1)
        given: set[int] = set()
        for index, how in order:
            part = parts[index % len(parts)]
            if how == "reopen":
                store.close()
                store = Store.open(Path(folder), KEY, clock=clock, name="unit-1")
            elif how == "good":
                assert store.deliveries.keep_chunks([part]) is (part.offset not in given)
                given.add(part.offset)
            else:  # of a body that nobody announced, or one that says another size
                changes = {"sha256": bytes(32)} if how == "other" else {"size": size + CHUNK}
                assert not store.deliveries.keep_chunks([msgspec.structs.replace(part, **changes)])
            ready = store.deliveries.ready()
            assert [one.read() for one in ready] == ([content] if len(given) == len(parts) else [])
        store.deliveries.keep_chunks(parts)
        assert [one.read() for one in store.deliveries.ready()] == [content]
        store.close()


def test_content_with_another_hash_is_asked_for_again_and_refused_at_last(store: Store) -> None:
    content = body_of(2 * CHUNK)
    store.inbox.keep([make_delivery(content, large=True)], 1)
    first, second = chunks_of(content)
    forged = msgspec.structs.replace(second, data=bytes(len(second.data)))
    for _ in range(MOST_ATTEMPTS):
        wanted = store.deliveries.wanted(1000)
        assert wanted is not None
        assert wanted.ranges == ()
        store.deliveries.keep_chunks([first, forged])
        assert store.deliveries.ready() == []
    assert store.deliveries.wanted(1000) is None
    assert outcomes(store) == [("config", "v1", "refused")]
    assert store.read("SELECT count(*) FROM delivery_chunk") == [(0,)]


def test_chunks_lie_sealed_and_one_moved_to_another_place_is_not_taken(store: Store) -> None:
    content = b"to be found nowhere ".ljust(CHUNK, b".") + body_of(CHUNK)
    store.inbox.keep([make_delivery(content, large=True)], 1)
    store.deliveries.keep_chunks(chunks_of(content))
    assert all(b"to be found" not in part.read_bytes() for part in store.folder.glob("store.sqlite3*"))
    for change in ("99 - start", "start - 99 + 16384"):  # the two change places
        store.write(lambda db, change=change: db.execute(f"UPDATE delivery_chunk SET start = {change}"))  # type: ignore[misc]
    taker = Taker()
    assert Applier(store, {"config": Subject(taker)}).turn() == 0
    assert (taker.taken, store.deliveries.ready()) == ([], [])
    store.deliveries.keep_chunks(chunks_of(content))
    assert Applier(store, {"config": Subject(taker)}).turn() == 1
    assert taker.taken == [content]


def test_a_full_disk_keeps_no_chunk_and_asks_again(open_store: Callable[..., Store]) -> None:
    content = body_of(2 << 20)
    store = open_store(budget=Budget(bytes=1 << 20))
    store.inbox.keep([make_delivery(content, large=True)], 1)
    asking = Asking(store, 32768, 0)
    assert asking.due(1.0)
    with pytest.raises(StorageFullError):
        asking.arrived(Chunks(tuple(chunks_of(content)[:60])), 1.1)
    assert asking.due(2.0) == ()
    [again] = asking.due(20.0)
    assert again.ranges == ()


@pytest.mark.parametrize("changes", [{"cls": "rules"}, {"patient": uuid.UUID(int=3)}, {"body": b"\x80"}])
def test_a_delivery_that_contradicts_its_envelope_is_rejected(store: Store, changes: dict[str, Any]) -> None:
    receipt = store.inbox.keep([msgspec.structs.replace(make_delivery(b"x"), **changes)], 1)
    assert [one.code for one in receipt.rejected] == ["invalid"]
    assert store.deliveries.ready() == []


def test_another_delivery_under_a_known_key_is_a_conflict(store: Store) -> None:
    store.inbox.keep([make_delivery(b"one")], 1)
    assert store.inbox.keep([make_delivery(b"two")], 1).rejected[0].code == "conflict"
    assert [one.read() for one in store.deliveries.ready()] == [b"one"]


# -- taking up


def test_each_is_taken_up_once_and_the_hub_is_told(store: Store) -> None:
    store.inbox.keep([make_delivery(b"one", 1, "round"), make_delivery(b"two", 2, "round")], 1)
    taker = Taker()
    applier = Applier(store, {"round": Subject(taker, latest=False)})
    assert (applier.turn(), applier.turn()) == (2, 0)
    store.inbox.keep(
        [make_delivery(b"one", 1, "round")], 2
    )  # the same key: rejected as a conflict or held, never again
    assert applier.turn() == 0
    assert taker.taken == [b"one", b"two"]
    assert outcomes(store) == [("round", "v1", "applied"), ("round", "v2", "applied")]


@settings(deadline=None, max_examples=25)
@given(order=st.permutations([1, 2, 3, 4, 5]), turns=st.sets(st.integers(0, 4)))
def test_of_settings_only_the_newest_counts_in_whichever_order_they_come(order: list[int], turns: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder), KEY, clock=FakeClock(), name="u") as store:
        taker = Taker()
        applier = Applier(store, {"config": Subject(taker)})
        for number, serial in enumerate(order):
            store.inbox.keep([make_delivery(b"%d" % serial, serial)], 1)
            if number in turns:
                applier.turn()
        applier.turn()
        assert taker.taken == sorted(set(taker.taken))
        assert taker.taken[-1] == b"5"
        assert store.deliveries.last_applied("config") == 5
        states = {version: state for _, version, state in outcomes(store)}
        assert len(outcomes(store)) == 5
        assert {one for one, state in states.items() if state == "applied"} == {f"v{int(one)}" for one in taker.taken}


def test_a_refusal_and_a_fault_of_a_handler_are_told_and_stop_no_other(store: Store) -> None:
    def refuse(_: Ready) -> Taken:
        raise UpdateRefusedError(operation="x", target="y", cause="it is not signed", remedy="Sign it.")

    def fail(_: Ready) -> Taken:
        raise ZeroDivisionError

    store.inbox.keep([make_delivery(b"1", 1, "rules"), make_delivery(b"2", 1, "broken"), make_delivery(b"3")], 1)
    subjects = {"rules": Subject(refuse), "broken": Subject(fail), "config": Subject(Taker())}
    assert Applier(store, subjects).turn() == 3
    assert set(outcomes(store)) == {
        ("rules", "v1", "refused"),
        ("broken", "v1", "refused"),
        ("config", "v1", "applied"),
    }


def test_what_nobody_here_takes_up_waits_for_a_version_that_does(store: Store) -> None:
    store.inbox.keep([make_delivery(b"later", 1, "tele-visit")], 1)
    assert Applier(store, {}).turn() == 0
    taker = Taker()
    assert Applier(store, {"tele-visit": Subject(taker)}).turn() == 1


def test_a_handler_may_ask_to_be_called_later(store: Store) -> None:
    store.inbox.keep([make_delivery(b"x")], 1)
    answers = iter([Taken("later")] * (MOST_ATTEMPTS + 2) + [Taken()])
    applier = Applier(store, {"config": Subject(Taker(lambda _: next(answers)))})
    assert [applier.turn() for _ in range(MOST_ATTEMPTS + 3)] == [0] * (MOST_ATTEMPTS + 2) + [1]


def test_a_full_disk_while_taking_up_refuses_nothing(store: Store) -> None:
    def full(_: Ready) -> Taken:
        raise StorageFullError(operation="x", target="y", cause="full")

    store.inbox.keep([make_delivery(b"x")], 1)
    for _ in range(MOST_ATTEMPTS + 1):
        with pytest.raises(StoreError):
            Applier(store, {"config": Subject(full)}).turn()
    assert outcomes(store) == []
    assert Applier(store, {"config": Subject(Taker())}).turn() == 1


def test_items_of_a_handler_go_up_in_the_transaction_of_the_outcome(store: Store) -> None:
    item = make_item()
    store.inbox.keep([make_delivery(b"x", 1, "round")], 1)
    Applier(store, {"round": Subject(lambda _: Taken(items=[item]), latest=False)}).turn()
    assert store.reports() == [item.record]
    assert outcomes(store) == [("round", "v1", "applied")]


DIES = """
import os, signal, sys
from pathlib import Path
from aidpost.sync import keys
from aidpost.sync.applier import Applier, Subject, Taken
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

folder, where = Path(sys.argv[1]), sys.argv[2]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def take_up(one):
    if where == "before the work":
        die()
    with (folder / "done").open("a") as file:
        file.write(f"{one.id}\\n")
    if where == "behind the work":
        die()
    return Taken()
store = Store.open(folder, keys.DeviceKey(bytes(range(32)), "test"), clock=SystemClock())
append = store.append_many
if where == "before the note":
    store.append_many = die
elif where == "in the transaction":
    store.append_many = lambda items, also: append(items, lambda db: (also(db), die()))
elif where == "behind the note":
    store.append_many = lambda items, also: (append(items, also), die())
Applier(store, {"config": Subject(take_up)}).turn()
"""


@pytest.mark.parametrize(
    ("where", "works"),
    [
        ("before the work", 1),
        ("behind the work", 2),
        ("before the note", 2),
        ("in the transaction", 2),
        ("behind the note", 1),
    ],
)
def test_killed_at_each_step_of_taking_up_it_ends_applied_and_told_once(tmp_path: Path, where: str, works: int) -> None:
    with Store.open(tmp_path, KEY, clock=FakeClock(), name="unit-1") as store:
        store.inbox.keep([make_delivery(b"x")], 1)
    died = subprocess.run([sys.executable, "-c", DIES, str(tmp_path), where], timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    with Store.open(tmp_path, KEY, clock=FakeClock(), name="unit-1") as store:
        done: list[str] = []
        Applier(store, {"config": Subject(lambda one: done.append(str(one.id)) or Taken())}).turn()
        assert outcomes(store) == [("config", "v1", "applied")]
    before = (tmp_path / "done").read_text().split() if (tmp_path / "done").exists() else []
    assert len(before) + len(done) == works
    assert len({*before, *done}) == 1


def test_what_kills_the_process_each_time_is_given_up(tmp_path: Path) -> None:
    with Store.open(tmp_path, KEY, clock=FakeClock(), name="unit-1") as store:
        store.inbox.keep([make_delivery(b"x")], 1)
    for _ in range(MOST_ATTEMPTS):
        died = subprocess.run([sys.executable, "-c", DIES, str(tmp_path), "before the work"], timeout=120, check=False)
        assert died.returncode == -signal.SIGKILL
    subprocess.run([sys.executable, "-c", DIES, str(tmp_path), "before the work"], timeout=120, check=True)
    with Store.open(tmp_path, KEY, clock=FakeClock(), name="unit-1") as store:
        assert outcomes(store) == [("config", "v1", "refused")]


def test_a_recovered_store_takes_up_nothing_twice(tmp_path: Path) -> None:
    with Store.open(tmp_path, KEY, clock=FakeClock(), name="unit-1") as store:
        store.inbox.keep([make_delivery(b"one", 1, "round")], 1)
        Applier(store, {"round": Subject(Taker(), latest=False)}).turn()
        store.inbox.keep([make_delivery(b"two", 2, "round")], 1)
        [(page,)] = store.read("SELECT rootpage FROM sqlite_schema WHERE name = 'intake'")
    with (tmp_path / "store.sqlite3").open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(os.urandom(4096))
    with Store.open(tmp_path, KEY, clock=FakeClock(), name="unit-1") as store:
        assert [note.what for note in store.notes()] == ["damaged"]
        taker = Taker()
        Applier(store, {"round": Subject(taker, latest=False)}).turn()
        assert taker.taken == [b"two"]


def test_what_the_version_before_kept_as_bytes_is_taken_up(
    tmp_path: Path, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as older:
        older.setattr(_schema, "_ADDITIONS", _schema._ADDITIONS[:2])
        old = open_store()
        old.inbox.keep([make_delivery(b"x")], 1)
        old.close()
    taker = Taker()
    assert Applier(open_store(), {"config": Subject(taker)}).turn() == 1


# -- the sender's side of it


def test_chunks_of_another_signer_or_for_another_device_are_not_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, captured = body_of(CHUNK), Captured(store, monkeypatch)
    store.inbox.keep([make_delivery(content, large=True)], 1)
    for signer, recipient in [(keys.Identity.create("hub"), "unit-1"), (captured.hub, "unit-2"), (captured.hub, "")]:
        message = pack_message(Chunks(tuple(chunks_of(content))), sender="hub", key=signer.private, recipient=recipient)
        captured.publisher._arrived.put(message)
        captured.publisher._take_arrived()
        assert store.deliveries.ready() == []
    good = pack_message(Chunks(tuple(chunks_of(content))), sender="hub", key=captured.hub.private, recipient="unit-1")
    captured.publisher._arrived.put(good[:-1])
    captured.publisher._take_arrived()
    assert store.deliveries.ready() == []
    captured.publisher._arrived.put(good)
    captured.publisher._take_arrived()
    assert [one.read() for one in store.deliveries.ready()] == [content]


def test_an_ask_is_repeated_ever_more_slowly_and_widens_while_answers_come_at_once(store: Store) -> None:
    content = body_of(40 * CHUNK)
    parts = chunks_of(content)
    store.inbox.keep([make_delivery(content, large=True)], 1)
    asking = Asking(store, 2 * CHUNK, 0)
    assert [at for at in range(100) if asking.due(float(at))] == [0, 10, 30, 70]
    asking.begin()
    rooms = []
    for number in range(5):
        [asked] = asking.due(200.0 + number)
        rooms.append(asked.room // CHUNK)
        asking.arrived(Chunks((parts[number],)), 200.1 + number)
    assert rooms == [2, 4, 8, 16, 16]
    asking.arrived(Chunks((parts[9],)), 230.0)
    [asked] = asking.due(231.0)
    assert asked.room == 8 * CHUNK


def test_a_body_that_was_whole_before_its_check_is_checked_when_it_comes_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = body_of(2 * CHUNK)
    store.inbox.keep([make_delivery(content, large=True)], 1)
    with monkeypatch.context() as cut:
        cut.setattr(store.deliveries, "_check", _cut)
        with pytest.raises(InterruptedError):
            store.deliveries.keep_chunks(chunks_of(content))
    assert store.deliveries.ready() == []
    assert not store.deliveries.keep_chunks(chunks_of(content)), "nothing of it was new"
    assert [one.read() for one in store.deliveries.ready()] == [content]


def _cut(*_: object) -> None:
    raise InterruptedError


def test_an_answer_that_comes_twice_is_followed_by_one_ask(store: Store) -> None:
    content = body_of(8 * CHUNK)
    parts = chunks_of(content)
    store.inbox.keep([make_delivery(content, large=True)], 1)
    asking = Asking(store, 2 * CHUNK, 0)
    asking.soon()
    assert asking.due(0.0)
    asking.soon()  # more came down while the answer is under way
    assert asking.due(0.1) == ()
    asking.arrived(Chunks(tuple(parts[:2])), 0.2)
    assert asking.due(0.3)
    asking.arrived(Chunks(tuple(parts[:2])), 0.4)
    assert asking.due(0.5) == ()
    asking.arrived(Chunks(tuple(parts[2:4])), 0.6)
    [asked] = asking.due(0.7)
    assert (asked.ranges, asked.room) == (((0, 4 * CHUNK),), 8 * CHUNK)
    asking.refused()
    assert asking.due(0.8)


def test_what_the_hub_withdrew_is_given_up(store: Store) -> None:
    content = body_of(CHUNK)
    store.inbox.keep([make_delivery(content, large=True)], 1)
    store.deliveries.give_up(hashlib.sha256(content).digest(), "the hub has withdrawn it")
    assert store.deliveries.wanted(1) is None
    assert outcomes(store) == [("config", "v1", "superseded")]


# -- both ends


class Hub:
    """The hub's service on Mosquitto, and what it sends down."""

    def __init__(self, end: HubEnd) -> None:
        self.end, self.database = end, Database(end.config.url)
        self.service = HubService(end.config, self.database, BlobFiles(end.config.blobs))
        self.service.start()
        wait_for(lambda: self.service.connected, "the hub is connected")

    def send(self, content: bytes, subject: str = "round", version: str = "1") -> uuid.UUID:
        with self.database.write() as connection:
            number = hub_deliveries.send(
                connection, self.database.epoch, "unit-1", subject, version, content, by="root", now_ms=now_ms()
            )
        self.service.wake()
        return number

    def sent(self) -> dict[str, hub_deliveries.Sent]:
        return {one.subject: one for one in operations.fleet(self.end.config)}

    def stop(self) -> None:
        self.service.stop()
        self.database.close()


@pytest.fixture
def hub(tmp_path: Path, mosquitto: Any) -> Iterator[Hub]:
    made = Hub(HubEnd(tmp_path / "hub", mosquitto.port))
    yield made
    made.stop()


@pytest.mark.parametrize("size", [20, 700_000])
def test_over_mosquitto_it_is_taken_up_once_and_the_hub_shows_it(hub: Hub, store: Store, size: int) -> None:
    link, content, taker = hub.end.enroll(store), body_of(size), Taker()
    hub.send(content)
    with Publisher(store, link) as publisher, Applier(store, {"round": Subject(taker)}):
        wait_for(lambda: hub.sent()["round"].state == "applied", "the hub has the outcome", 60)
        assert publisher.wait_until_empty(30)
    assert taker.taken == [content]
    assert hub.sent()["round"].held_bytes == size
    with hub.database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM delivery_bodies").scalar() == 0


def test_cut_off_in_the_middle_and_restarted_it_goes_on_where_it_was(
    hub: Hub, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, content = open_store(), body_of(3_000_000)
    link = hub.end.enroll(store)
    hub.send(content)
    asked: list[int] = []
    answer = hub_deliveries.chunks

    def counting(connection: Any, blob: BlobHeld) -> Any:
        found = answer(connection, blob)
        asked.append(len(found.chunks) if found else 0)
        return found

    monkeypatch.setattr(hub_deliveries, "chunks", counting)
    for part in (1, 2, 3):
        enough = part * 40
        with Publisher(store, link):
            wait_for(lambda enough=enough: sum(asked) >= enough, "some of it came", 60)  # type: ignore[misc]
        store.close()
        store = open_store()
    taker = Taker()
    with Publisher(store, link), Applier(store, {"round": Subject(taker)}):
        wait_for(lambda: hub.sent()["round"].state == "applied", "the hub has the outcome", 60)
    assert taker.taken == [content]
    # what was on its way when the connection ended goes twice, and no more: at most one answer each time
    assert sum(asked) <= -(-len(content) // CHUNK) + 3 * 16


def test_by_stick_alone_there_and_back(tmp_path: Path, store: Store) -> None:
    end, content, taker = HubEnd(tmp_path / "hub", 1), body_of(700_000), Taker()
    link = end.enroll(store)
    database = Database(end.config.url)
    with database.write() as connection:
        hub_deliveries.send(connection, database.epoch, "unit-1", "release", "2", content, by="root", now_ms=now_ms())
    path = tmp_path / "stick.aidpost"

    def carry() -> None:
        stick.export_stick(store, path, hub_name=link.hub_name, hub_key=link.hub_key)
        done = import_stick(end.config, path)
        stick.import_receipts(store, done.receipts, hub_name=link.hub_name, hub_key=link.hub_key)

    carry()
    assert Applier(store, {"release": Subject(taker)}).turn() == 1
    assert taker.taken == [content]
    carry()
    [sent] = operations.fleet(end.config)
    assert (sent.state, sent.held_bytes) == ("applied", 700_000)
    database.close()
