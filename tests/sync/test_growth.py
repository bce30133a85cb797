"""What a backlog costs: nothing that is asked again and again reads the records that wait, or those that are kept."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from device_records import make_item
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aidpost.errors import StoreError
from aidpost.sync import _schema, outbox
from aidpost.sync.envelope import Held, Receipt, RecordClass, Reject, records_check
from aidpost.sync.outbox import Outbox
from aidpost.sync.ranges import from_numbers
from aidpost.sync.store import Store

HUB = b"hub-1234"
PATIENT = uuid.UUID(int=9)


def counted(store: Store) -> dict[str, tuple[int, int, int]]:
    """Queued, receipted and dead of each class, by reading every record."""
    rows = store.read("SELECT cls, sum(state = 0), sum(state = 1), sum(state = 2) FROM record GROUP BY cls")
    return {cls: (queued, receipted, dead) for cls, queued, receipted, dead in rows}


def said(store: Store) -> dict[str, tuple[int, int, int]]:
    return {one.cls: (one.queued, one.receipted, one.dead) for one in outbox.status(store)}


def held(store: Store, cls: str, *seqs: int) -> Held:
    return Held(store.epoch, cls, from_numbers(seqs), records_check(e.hash for e in store.envelopes(cls, seqs)))


def test_nothing_that_is_asked_again_and_again_reads_the_records(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.append_many([make_item(cls, patient=PATIENT) for cls in RecordClass for _ in range(5)])
    asked: list[str] = []
    read = store._reader.execute

    class Watched:
        def execute(self, query: str, values: Any = ()) -> Any:
            asked.extend(row[3] for row in read(f"EXPLAIN QUERY PLAN {query}", values))
            return read(query, values)

    monkeypatch.setattr(store, "_reader", Watched())
    box = Outbox(store)
    wanted = tuple(Held(store.epoch, cls.value, ((1, 6),)) for cls in RecordClass)
    assert box.gone(Receipt(HUB, wanted=wanted)) is None
    assert box.next() is not None
    outbox.status(store)
    outbox.dead_letters(store)
    store.lives.all()
    store.history(PATIENT)
    store.last_report_of(PATIENT)
    store.reports(3)
    store.space.days_left()
    scans = [plan for plan in asked if "SCAN record" in plan and "COVERING" not in plan]
    assert scans == ["SCAN record USING INDEX record_report"], "newest first, as far as is asked"
    whole = [plan for plan in asked if "record" in plan and "PRIMARY KEY (cls=?)" in plan]
    assert whole == []


STEPS = st.lists(
    st.tuples(st.sampled_from(["append", "receipt", "reject", "want", "erase", "retry", "drop"]), st.integers(0, 12)),
    max_size=25,
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(STEPS)
def test_the_tally_is_what_reading_every_record_says(open_store: Callable[..., Store], steps: Any) -> None:
    store = open_store(uuid.uuid4().hex)
    box, patients = Outbox(store), [uuid.uuid4() for _ in range(13)]
    for step, number in steps:
        one = (Held(store.epoch, "report", ((number, number + 2),)),)
        if step == "append":
            try:
                store.append(make_item(patient=patients[number]))
            except StoreError:
                continue  # erased before
        elif step == "receipt":
            box.receive(Receipt(HUB, held=(held(store, "report", number + 1),)))
        elif step == "reject":
            code = "conflict" if number % 2 else "invalid"
            box.receive(Receipt(HUB, rejected=(Reject(store.epoch, "report", number + 1, code, "no"),)))
        elif step == "want":
            box.receive(Receipt(HUB, wanted=one, answers=bytes(16)))
        elif step == "erase":
            store.erase_patient(patients[number])
        elif step == "retry":
            outbox.retry(store)
        else:
            store.space._drop_records(1)
        assert said(store) == counted(store)
    gaps = box.gone(Receipt(HUB, wanted=(Held(store.lives.first, "report", ((1, 30),)),)))
    mine = {seq for (seq,) in store.read("SELECT seq FROM record WHERE cls = 'report' AND epoch IS NULL")}
    total = store.read("SELECT last FROM sequence WHERE cls = 'report'")
    expected = set(range(1, 30)) - mine
    # a hub wants nothing beyond what the hello says was given out
    known = {seq for seq in expected if total and seq <= total[0][0]}
    told = {seq for one in gaps.dropped for start, stop in one.ranges for seq in range(start, stop)} if gaps else set()
    assert known == {seq for seq in told if total and seq <= total[0][0]}


def test_what_the_version_before_wrote_is_counted_when_this_one_opens_it(
    store: Store, open_store: Callable[..., Store], tmp_path: Path
) -> None:
    store.append_many([make_item(patient=PATIENT) for _ in range(6)])
    box = Outbox(store)
    box.receive(Receipt(HUB, held=(held(store, "report", 1, 2),)))
    gone = make_item()
    store.append(gone)
    assert gone.patient is not None
    store.erase_patient(gone.patient)
    names = "SELECT type, name FROM sqlite_schema WHERE name IN ('tally', 'class_came', 'record_moved', 'record_went',"
    names += " 'record_state', 'record_patient', 'record_report', 'blob_state', 'received_patient', 'received_proof')"
    added = store.read(names)
    for kind, name in sorted(added, reverse=True):
        store.write(lambda db, what=f"DROP {kind} {name}": db.execute(what) and None)  # type: ignore[misc]
    store.write(lambda db: db.execute("ALTER TABLE received DROP COLUMN proof") and None)
    back = "UPDATE meta SET value = value - 3 WHERE name = 'additions'"
    store.write(lambda db: db.execute(back) and None)
    before = said(store)
    assert before == counted(store), "the doctor may look before this version has opened it"
    store.close()
    with open_store() as again:
        assert said(again) == before
        assert len(added) == 10
        assert again.read("SELECT value FROM meta WHERE name = 'additions'") == [(str(len(_schema._ADDITIONS)),)]
