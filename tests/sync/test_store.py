"""The store keeps what it accepted, sealed, and refuses before it loses."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest
from device_records import KEY, NAME, FakeClock, make_blob, make_item

from aidpost.errors import KeyUnavailableError, SchemaError, StorageFullError, StoreDamagedError, StoreError
from aidpost.records import Device, ExamReport, Origin, Timestamp, VitalKind, VitalSign
from aidpost.sync import blobs, outbox
from aidpost.sync._space import Budget
from aidpost.sync.envelope import BlobHeld, Receipt, RecordClass
from aidpost.sync.keys import DeviceKey
from aidpost.sync.store import Item, Store

PHOTO = b"\xff\xd8 a photograph of a retina, plain as day " * 5_000


def test_what_was_accepted_is_there_after_opening_again(open_store: Callable[..., Store]) -> None:
    store = open_store()
    item = make_item(RecordClass.REPORT, PHOTO)
    key = store.append(item)
    store.close()
    again = open_store()
    assert again.report(item.record.exam.id) == item.record  # type: ignore[attr-defined]
    assert again.read_blob(item.blobs[0].ref.sha256) == PHOTO
    assert again.append(make_item()).seq == key.seq + 1
    assert again.epoch == key.epoch


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (65_530, 65_560), (70_000, None), (0, None), (199_990, 300_000)])
def test_part_of_a_blob_is_the_same_part_of_its_bytes(store: Store, start: int, stop: int | None) -> None:
    item = make_item(RecordClass.REPORT, PHOTO)
    store.append(item)
    assert store.read_blob(item.blobs[0].ref.sha256, start, stop) == PHOTO[start:stop]


def test_a_copied_card_yields_no_plaintext(store: Store, tmp_path: Path) -> None:
    store.append(make_item(RecordClass.REPORT, PHOTO))
    store.close()
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        content = path.read_bytes()
        assert NAME.encode() not in content
        assert PHOTO[:40] not in content


def test_another_device_key_opens_nothing(store: Store, open_store: Callable[..., Store]) -> None:
    store.append(make_item())
    store.close()
    with pytest.raises(KeyUnavailableError):
        open_store(key=DeviceKey(bytes(32), "wrong"))


def test_a_body_moved_to_another_row_does_not_open_and_everything_else_flows(store: Store) -> None:
    keys = [store.append(make_item(patient=uuid.UUID(int=7))) for _ in range(3)]
    with sqlite3.connect(store.path) as other:
        other.execute("UPDATE record SET body = (SELECT body FROM record WHERE seq = 1) WHERE seq = 2")
    other.close()
    found = store.envelopes("report", [key.seq for key in keys])
    assert [one.seq for one in found] == [1, 3]
    assert [(letter.seq, letter.code) for letter in outbox.dead_letters(store)] == [(2, "damaged")]


def test_erasing_a_patient_leaves_nothing_that_opens_and_a_tombstone(store: Store, tmp_path: Path) -> None:
    kept, gone = make_item(RecordClass.REPORT, PHOTO), make_item(RecordClass.REPORT, b"other" * 9_000)
    store.append_many([kept, gone])
    assert gone.patient is not None
    store.erase_patient(gone.patient, "supervisor")
    assert store.patient(gone.patient) is None
    with pytest.raises(StoreDamagedError):
        store.read_blob(gone.blobs[0].ref.sha256)
    assert store.read_blob(kept.blobs[0].ref.sha256) == PHOTO
    assert len([path for path in (tmp_path / "state/blobs").rglob("*") if path.is_file()]) == 1
    (tombstone,) = store.envelopes("alert", [1])
    assert tombstone.kind == "Erasure"
    with pytest.raises(StoreError, match="erased"):
        store.append(make_item(patient=gone.patient))


ERASE = """
import sys, uuid
from pathlib import Path
from aidpost.sync.clock import SystemClock
from aidpost.sync.keys import DeviceKey
from aidpost.sync.store import Store
with Store.open(Path(sys.argv[1]), DeviceKey(bytes.fromhex(sys.argv[2]), "test"), clock=SystemClock()) as store:
    store.erase_patient(uuid.UUID(sys.argv[3]))
"""


def test_what_another_process_erased_opens_no_longer_in_one_that_had_it_open(store: Store) -> None:
    kept, gone = make_item(RecordClass.REPORT, PHOTO), make_item(RecordClass.REPORT, b"other" * 9_000)
    store.append_many([kept, gone])
    assert gone.patient is not None
    assert kept.patient is not None
    drafts = {one: store.seal_for(one, b"draft", b"place") for one in (gone.patient, kept.patient)}
    assert store.open_for(gone.patient, drafts[gone.patient], b"place") == b"draft"
    rows = store.read("SELECT cls, seq, patient, body FROM record WHERE patient = ?", (gone.patient.bytes,))
    before = store.version()
    command = [sys.executable, "-c", ERASE, str(store.folder), KEY.secret.hex(), str(gone.patient)]
    subprocess.run(command, check=True, timeout=120)
    assert store.version() != before
    with pytest.raises(StoreError, match="erased"):
        store.open_for(gone.patient, drafts[gone.patient], b"place")
    for row in rows:  # as whoever has read them a moment before
        with pytest.raises(StoreError, match="erased"):
            store._open(*row)
    with pytest.raises(StoreError, match="erased"):
        store.seal_for(gone.patient, b"another step", b"place")
    with pytest.raises(StoreError, match="erased"):
        store.append(make_item(patient=gone.patient))
    assert store.open_for(kept.patient, drafts[kept.patient], b"place") == b"draft"
    assert store.read_blob(kept.blobs[0].ref.sha256) == PHOTO


def test_an_erased_patient_s_key_is_in_no_file(store: Store, tmp_path: Path) -> None:
    item = make_item()
    store.append(item)
    assert item.patient is not None
    query = "SELECT wrapped FROM patient_key WHERE patient = ?"
    wrapped = store.read(query, (item.patient.bytes,))[0][0]

    def found() -> bool:
        return any(wrapped in path.read_bytes() for path in (tmp_path / "state").rglob("*") if path.is_file())

    assert found()
    store.erase_patient(item.patient)
    assert store.read(query, (item.patient.bytes,)) == [(None,)]
    assert not found()


def test_a_group_is_accepted_whole_or_not_at_all(store: Store) -> None:
    erased = make_item()
    store.append(erased)
    assert erased.patient is not None
    store.erase_patient(erased.patient)
    before = outbox.status(store)
    with pytest.raises(StoreError):
        store.append_many([make_item(), make_item(patient=erased.patient), make_item()])
    assert [one.queued for one in outbox.status(store)] == [one.queued for one in before]


def test_bytes_that_are_not_the_ones_named_are_refused(store: Store) -> None:
    wrong = make_blob(PHOTO)._replace(data=PHOTO[:-1] + b"?")
    with pytest.raises(StoreError, match="not the ones named"):
        store.append(make_item()._replace(blobs=[wrong]))
    assert outbox.status(store) == []


def test_a_full_disk_refuses_before_anything_is_touched(open_store: Callable[..., Store]) -> None:
    tight = open_store(budget=Budget(bytes=1_000_000, reserve=0))
    tight.append(make_item(RecordClass.REPORT, PHOTO))
    with pytest.raises(StorageFullError) as caught:
        tight.append(make_item(RecordClass.REPORT, os.urandom(1_000_000)))
    assert caught.value.remedy
    assert [one.queued for one in outbox.status(tight)] == [1, 1]
    greedy = open_store(folder="other", budget=Budget(reserve=1 << 60))
    with pytest.raises(StorageFullError):
        greedy.append(make_item())


def test_a_full_disk_gives_up_what_the_hub_has_and_nothing_else(open_store: Callable[..., Store]) -> None:
    store = open_store(budget=Budget(bytes=1_100_000, reserve=0))
    items = [make_item(RecordClass.REPORT, os.urandom(300_000)) for _ in range(3)]
    store.append_many(items[:2])
    first, second = (bytes.fromhex(one.blobs[0].ref.sha256) for one in items[:2])
    with pytest.raises(StorageFullError):
        store.append(items[2])
    outbox.Outbox(store).receive(Receipt(b"hub-1234", blobs=(BlobHeld(first, ((0, 300_000),), True),)))
    store.append(items[2])
    assert [bool(store.read("SELECT 1 FROM blob WHERE sha256 = ?", (one,))) for one in (first, second)] == [False, True]
    assert store.read_blob(second.hex()) == items[1].blobs[0].data


def test_opening_a_second_time_leaves_a_photograph_being_written_alone(
    store: Store, open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_open(path: Path, pieces: Iterable[bytes]) -> None:
        path.write_bytes(b"".join(pieces))
        open_store()

    monkeypatch.setattr(blobs, "write_file", write_and_open)
    item = make_item(RecordClass.REPORT, PHOTO)
    store.append(item)
    assert store.read_blob(item.blobs[0].ref.sha256) == PHOTO


def test_two_processes_may_make_the_store_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from aidpost.sync.clock import SystemClock; from aidpost.sync.keys import DeviceKey\n"
        "from aidpost.sync.store import Store\n"
        "input()\n"
        "with Store.open(Path(sys.argv[1]), DeviceKey(bytes(32), 'test'), clock=SystemClock()) as s:\n"
        "    print(s.epoch.hex())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "new")]
    both = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    epochs = {one.communicate("go\n", timeout=60)[0] for one in both}
    assert [one.returncode for one in both] == [0] * 4
    assert len(epochs) == 1


def test_the_same_photograph_twice_is_one_file_sent_once(store: Store) -> None:
    patient = uuid.uuid4()
    for _ in range(2):
        store.append(make_item(RecordClass.REPORT, PHOTO, patient=patient))
    assert outbox.blob_status(store).queued == 1


def test_boots_are_counted_and_the_clock_is_never_trusted(open_store: Callable[..., Store], clock: FakeClock) -> None:
    first = open_store()
    assert first.now().boot == 1
    first.close()
    same = open_store()
    assert same.now().boot == 1
    same.close()
    clock.boot, clock.wall = "boot-2", 0
    later = open_store()
    assert (later.now().boot, later.now().synced) == (2, False)


def test_a_store_of_a_newer_version_is_left_alone(store: Store, open_store: Callable[..., Store]) -> None:
    store.close()
    with sqlite3.connect(store.path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(SchemaError, match="99"):
        open_store()


def test_a_damaged_photograph_is_an_error_and_not_a_wrong_picture(store: Store, tmp_path: Path) -> None:
    item = make_item(RecordClass.REPORT, PHOTO)
    store.append(item)
    (file,) = [path for path in (tmp_path / "state/blobs").rglob("*") if path.is_file()]
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    with pytest.raises(StoreDamagedError):
        store.read_blob(item.blobs[0].ref.sha256)


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, StorageFullError), (errno.EROFS, StoreError), (errno.EIO, StoreError)]
)
def test_photograph_that_a_card_does_not_take_is_refused_and_says_whether_room_would_help(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[StoreError]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    item = make_item(RecordClass.REPORT, PHOTO)
    with monkeypatch.context() as failing:
        failing.setattr(blobs, "write_file", refuse)
        with pytest.raises(StoreError, match=os.strerror(number)) as caught:
            store.append(item)
    assert type(caught.value) is kind
    assert store.reports() == []
    store.append(item)
    assert store.read_blob(item.blobs[0].ref.sha256) == PHOTO


def test_many_threads_share_commits_and_lose_nothing(store: Store) -> None:
    commits: list[str] = []
    store._writer.run(lambda db: db.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None))

    def work() -> None:
        for _ in range(25):
            store.append(make_item(patient=uuid.UUID(int=1)))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (status,) = outbox.status(store)
    assert status.queued == 200
    assert [one.seq for one in store.envelopes("report", list(range(1, 201)))] == list(range(1, 201))
    assert len(commits) < 200
    assert KEY.secret not in store.path.read_bytes()


def make_reading(value: float) -> VitalSign:
    return VitalSign(
        id=uuid.uuid4(),
        kind=VitalKind.PULSE_RATE,
        value=value,
        unit="/min",
        at=Timestamp(wall_ms=1, monotonic_ms=1, boot=1, synced=False),
        origin=Origin.LIVE,
        device=Device(name="cuff"),
    )


def test_a_patient_s_history_is_of_all_exams_and_what_was_assigned_each_reading_once(store: Store) -> None:
    first = make_item()
    assert isinstance(first.record, ExamReport)
    measured, assigned = make_reading(70), make_reading(80)
    report = msgspec.structs.replace(first.record, vitals=(measured,))
    corrected = msgspec.structs.replace(report, id=uuid.uuid4(), supersedes=report.id)
    patient = report.patient.id
    store.append_many([first._replace(record=report), make_item(), first._replace(record=corrected)])
    store.append(Item(RecordClass.VITALS, assigned, patient))
    assert {one.id for one in store.history(patient)} == {measured.id, assigned.id}
    assert store.history(uuid.uuid4()) == []


def test_a_damaged_record_of_a_patient_costs_only_itself_in_the_history(store: Store) -> None:
    patient = uuid.uuid4()
    keys = store.append_many([Item(RecordClass.VITALS, make_reading(value), patient) for value in (70, 80)])
    damage = "UPDATE record SET body = x'00' WHERE seq = ?"
    store.write(lambda db: db.execute(damage, (keys[0].seq,)) and None)
    assert [one.value for one in store.history(patient)] == [80]
