"""Damage to the disk costs what it hit: the rest is recovered, served and sent, and people are told."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from device_records import KEY, FakeClock, make_item
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from killed_at import killed_at

from aidpost.errors import AidpostError, StoreDamagedError
from aidpost.sync import outbox
from aidpost.sync._salvage import Pages
from aidpost.sync.envelope import Envelope, RecordClass
from aidpost.sync.store import Item, Store

PAGE = 4096
REPORTS = 40
ERASED = uuid.UUID(int=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of forty reports of as many patients, one of them with a photograph, vital signs, and one erasure."""
    folder = tmp_path_factory.mktemp("made") / "state"
    with Store.open(folder, KEY, clock=FakeClock(), name="unit-1") as store:
        for number in range(REPORTS):
            photos = [b"photograph" * 9_000] if number == 7 else []
            store.append(make_item(RecordClass.REPORT, *photos))
        store.append(make_item(RecordClass.ALERT, patient=ERASED))
        store.erase_patient(ERASED)
        store.write(lambda db: db.execute("UPDATE record SET state = 1, settled_ms = 5 WHERE seq < 20") and None)
    return folder


def everything(store: Store) -> dict[tuple[str, int], bytes]:
    """Each record that opens, by its place."""
    found: list[Envelope] = []
    for cls, last in store.read("SELECT cls, last FROM sequence"):
        found += store.envelopes(cls, range(1, last + 1))
    return {(one.cls, one.seq): one.hash for one in found}


@pytest.fixture
def whole(made: Path, tmp_path: Path) -> dict[tuple[str, int], bytes]:
    """What the store has before it is damaged."""
    shutil.copytree(made, tmp_path / "whole")
    with Store.open(tmp_path / "whole", KEY, clock=FakeClock()) as store:
        return everything(store)


def opened(folder: Path) -> Store:
    return Store.open(folder, KEY, clock=FakeClock())


def test_each_damaged_page_costs_the_records_on_it_and_no_other(
    made: Path, tmp_path: Path, whole: dict[tuple[str, int], bytes]
) -> None:
    assert len(whole) == REPORTS + 2
    pages = (made / "store.sqlite3").stat().st_size // PAGE
    times_lost = dict.fromkeys(whole, 0)
    for number in range(pages):
        state = tmp_path / f"page-{number}"
        shutil.copytree(made, state)
        with (state / "store.sqlite3").open("r+b") as file:
            file.seek(number * PAGE)
            file.write(random.Random(number).randbytes(PAGE))
        with opened(state) as store:
            left = everything(store)
            assert all(whole[place] == left[place] for place in left)
            for place in whole.keys() - left.keys():
                times_lost[place] += 1
            assert store.identity.name == "unit-1"
            notes = store.notes()
            assert [note.what for note in notes] == ["damaged"]
            if whole.keys() - left.keys():
                assert "damaged, erased or pruned: " in notes[0].detail
            # what is left goes to the hub again, whatever the damaged one said of receipts
            assert sum(one.queued for one in outbox.status(store)) == len(left)
            if ("image", 1) in left:
                assert store.read_blob(hashlib.sha256(b"photograph" * 9_000).hexdigest()) == b"photograph" * 9_000
            fresh = store.append(make_item())
            assert fresh.seq > REPORTS
            assert (state / "quarantine/1/store.sqlite3").read_bytes()[number * PAGE :][:PAGE] == random.Random(
                number
            ).randbytes(PAGE)
            with pytest.raises(AidpostError):
                store.append(make_item(patient=ERASED))
        shutil.rmtree(state)
    # a record lies on one page, or on the three of a long one (cell and overflow)
    assert max(times_lost.values()) <= 3
    assert sum(times_lost.values()) <= 1.5 * len(whole)


READ_ALL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from device_records import KEY, FakeClock
from aidpost.sync.store import Store
with Store.open(Path(sys.argv[1]), KEY, clock=FakeClock()) as store:
    for cls, last in store.read("SELECT cls, last FROM sequence"):
        for one in store.envelopes(cls, range(1, last + 1)):
            print(cls, one.seq, one.hash.hex())
"""


@pytest.fixture(scope="module")
def bad_sector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that gives an error for a block of a file."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    library = tmp_path_factory.mktemp("library") / "bad_sector.so"
    source = Path(__file__).parents[1] / "support" / "bad_sector.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def test_a_block_that_cannot_be_read_costs_the_records_on_it_and_no_other(
    made: Path, tmp_path: Path, whole: dict[tuple[str, int], bytes], bad_sector: Path
) -> None:
    pages, lost = (made / "store.sqlite3").stat().st_size // PAGE, 0
    for number in (0, *range(1, pages, 5)):
        state = tmp_path / f"block-{number}"
        shutil.copytree(made, state)
        fault = {"BAD_INODE": str((state / "store.sqlite3").stat().st_ino), "BAD_AT": str(number * PAGE)}
        done = subprocess.run(
            [sys.executable, "-c", READ_ALL, str(state), str(Path(__file__).parents[1] / "support")],
            env={**os.environ, **fault, "LD_PRELOAD": str(bad_sector)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        left = {(cls, int(seq)): bytes.fromhex(one) for cls, seq, one in map(str.split, done.stdout.splitlines())}
        assert all(whole[place] == left[place] for place in left)
        assert len(whole) - len(left) <= 8, f"all of what is on one page of {PAGE} bytes, at most"
        lost += len(whole) - len(left)
        with opened(state) as store:
            assert [note.what for note in store.notes()] == ["damaged"]
    assert lost > 0, "some of these blocks hold records"


def test_half_of_all_pages_and_the_header_may_go(
    made: Path, tmp_path: Path, whole: dict[tuple[str, int], bytes]
) -> None:
    content = bytearray((made / "store.sqlite3").read_bytes())
    chance = random.Random(4)
    with sqlite3.connect(made / "store.sqlite3") as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'spare_key'").fetchone()
    db.close()
    # the patients' keys stand twice: where both copies are gone there is nothing to be had
    pages = [number for number in range(1, len(content) // PAGE) if number != root - 1]
    for number in (0, *chance.sample(pages, len(content) // PAGE // 2)):
        content[number * PAGE : (number + 1) * PAGE] = chance.randbytes(PAGE)
    state = tmp_path / "half"
    shutil.copytree(made, state)
    (state / "store.sqlite3").write_bytes(content)
    with opened(state) as store:
        left = everything(store)
        assert len(left) >= len(whole) // 5
        assert all(whole[place] == left[place] for place in left)


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(at=st.floats(0, 1), length=st.integers(1, 20_000), seed=st.integers(0, 99), cut=st.booleans())
def test_whatever_is_overwritten_or_cut_off_nothing_wrong_is_served(
    made: Path, tmp_path: Path, whole: dict[tuple[str, int], bytes], at: float, length: int, seed: int, cut: bool
) -> None:
    state = tmp_path / uuid.uuid4().hex
    shutil.copytree(made, state)
    content = (state / "store.sqlite3").read_bytes()
    start = int(at * (len(content) - 1))
    noise = b"" if cut else random.Random(seed).randbytes(length)
    (state / "store.sqlite3").write_bytes(content[:start] + noise + (b"" if cut else content[start + length :]))
    with opened(state) as store:
        left = everything(store)
        assert all(whole[place] == left[place] for place in left)
        untouched = [place for place in whole if place in left]
        assert len(untouched) >= (0 if cut else len(whole) - 40 * (length // PAGE + 2))
    shutil.rmtree(state)


def test_rows_that_only_the_log_has_are_recovered(tmp_path: Path) -> None:
    state, image = tmp_path / "state", tmp_path / "image"
    with Store.open(state, KEY, clock=FakeClock(), name="unit-1") as store:
        store.append_many([make_item() for _ in range(5)])
        shutil.copytree(state, image)  # as a power cut leaves it, with its log
        expected = everything(store)
    assert (image / "store.sqlite3-wal").stat().st_size > PAGE
    (image / "store.sqlite3").write_bytes(os.urandom(3 * PAGE))
    with opened(image) as store:
        assert everything(store) == expected


def test_a_store_that_nothing_says_whose_it_is_is_left_as_it_is(made: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(made, state)
    (state / "store.base").unlink()
    noise = os.urandom((state / "store.sqlite3").stat().st_size)
    (state / "store.sqlite3").write_bytes(noise)
    with pytest.raises(StoreDamagedError, match="nothing left of it says whose") as caught:
        opened(state)
    assert "quarantine/1" in caught.value.remedy
    assert (state / "store.sqlite3").read_bytes() == noise


def test_a_damaged_store_that_another_process_has_open_is_not_exchanged_under_it(made: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(made, state)
    with opened(state):
        (state / "store.sqlite3").write_bytes(os.urandom(5 * PAGE))
        with pytest.raises(StoreDamagedError, match="another process"):
            opened(state)


OPEN = """
from device_records import KEY, FakeClock
from aidpost.sync.store import Store
"""


def test_killed_at_every_step_the_recovery_begins_again_or_ends(
    made: Path, tmp_path: Path, whole: dict[tuple[str, int], bytes]
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(made, damaged)
    with (damaged / "store.sqlite3").open("r+b") as file:
        file.write(os.urandom(PAGE))
    step, code = 0, -9
    while code == -9:
        step += 2
        state = tmp_path / f"killed-{step}"
        shutil.copytree(damaged, state)
        code = killed_at(step, state, OPEN, "Store.open(Path(folder), KEY, clock=FakeClock()).close()")
        with opened(state) as store:
            assert everything(store) == whole, step
            assert [note.what for note in store.notes()] == ["damaged"]
        shutil.rmtree(state)
    assert code == 0
    assert step > 12


def test_a_photograph_that_is_cut_off_is_set_aside_and_the_others_are_sent(
    tmp_path: Path, open_store: Callable[..., Store]
) -> None:
    store = open_store()
    bad, gone, good = (make_item(RecordClass.REPORT, name * 9_000) for name in (b"bad", b"gone", b"good"))
    store.append_many([bad, gone, good])
    files = [store.blobs.path(bytes.fromhex(i.blobs[0].ref.sha256), i.patient) for i in (bad, gone)]  # type: ignore[arg-type]
    store.close()
    files[0].write_bytes(files[0].read_bytes()[:-5])
    files[1].unlink()
    again = open_store()
    assert (outbox.blob_status(again).queued, outbox.blob_status(again).dead) == (1, 2)
    assert [note.detail for note in again.notes()] == [
        "2 photographs or waveforms are damaged or gone; the hub has not got 2 of them"
    ]
    assert [one.name for one in (tmp_path / "state/quarantine").iterdir()] == [files[0].name]
    again.close()
    assert len(open_store().notes()) == 1, "said once"


def test_erasing_a_patient_empties_the_quarantine(made: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(made, state)
    with (state / "store.sqlite3").open("r+b") as file:
        file.write(os.urandom(PAGE))
    with opened(state) as store:
        patient = store.reports()[0].patient.id
        query = "SELECT wrapped FROM patient_key WHERE patient = ?"
        (wrapped,) = store.read(query, (patient.bytes,))[0]
        store.erase_patient(patient)
    assert all(wrapped not in one.read_bytes() for one in state.rglob("*") if one.is_file())


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=9),
            st.integers(-(1 << 63), (1 << 63) - 1),
            st.none() | st.floats(allow_nan=False) | st.binary(max_size=9_000),
        ),
        max_size=30,
        unique_by=lambda row: (row[0], row[1]),
    )
)
def test_pages_give_what_sqlite_gives(tmp_path: Path, rows: list[tuple[str, int, object]]) -> None:
    path = tmp_path / f"{uuid.uuid4().hex}.sqlite3"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE t (a TEXT, b INTEGER, c, PRIMARY KEY (a, b)) WITHOUT ROWID")
    db.executemany("INSERT INTO t VALUES (?, ?, ?)", rows)
    db.commit()
    db.close()
    found = [row for row in Pages(path, path.with_suffix(".wal")).rows() if len(row) == 3]
    assert sorted(found, key=lambda row: (row[0].encode(), row[1])) == sorted(
        rows, key=lambda row: (row[0].encode(), row[1])
    )
    path.unlink()


def test_items_of_a_recovered_store_are_accepted_under_a_new_epoch(made: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    shutil.copytree(made, state)
    with (state / "store.sqlite3").open("r+b") as file:
        file.write(os.urandom(PAGE))
    with opened(state) as store:
        first = store.lives.first
        item = make_item()
        key = store.append(Item(RecordClass.REPORT, item.record, item.patient, item.exam))
        assert key.epoch != first
        assert {one.epoch for one in store.envelopes("report", range(1, key.seq))} == {first}
