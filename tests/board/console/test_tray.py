"""Readings that a sensor sends again and again: what somebody decided about one is not asked again, and none is lost
without a word."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from device_records import KEY
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from aidpost.board.configuration import Configuration, SensorsSection
from aidpost.board.console import tray
from aidpost.board.console.workspace import Arrived, Workspace
from aidpost.board.measurements import Measurement, measurements
from aidpost.errors import StoreError, UsageError
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.simulators import sensors
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.records import VITAL_UNITS, Device, Origin, VitalKind, VitalSign
from aidpost.sync._patient_keys import NOBODY
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

from .conftest import Dead, begin

CUFF = Device(name="Cuff", address="AA:00:00:00:00:02", serial="SIM-1")
LAST_YEAR = "2025-03-01T08:00:00"


def opened(store: Store, configuration: Configuration | None = None) -> Workspace:
    return Workspace(configuration or Configuration(), store, Dead(), practice=False)


@pytest.fixture
def workspace(store: Store) -> Iterator[Workspace]:
    made = opened(store)
    yield made
    made.close()


def sent(workspace: Workspace, *uploads: tuple[str, int], device: Device = CUFF) -> list[VitalSign]:
    """What a cuff sends: of each (time, upper pressure) three readings with ids of their own, as each upload has."""
    out = []
    for time, upper in uploads:
        group = uuid.uuid4()
        for kind, value in (
            (VitalKind.SYSTOLIC_BP, upper),
            (VitalKind.DIASTOLIC_BP, 80),
            (VitalKind.PULSE_RATE, 70),
        ):
            out.append(
                VitalSign(
                    id=uuid.uuid4(),
                    kind=kind,
                    value=float(value),
                    unit=VITAL_UNITS[kind],
                    at=workspace.store.now(),
                    origin=Origin.LIVE,
                    device=device,
                    group=group,
                    device_time=time,
                )
            )
    return out


def upload(workspace: Workspace, exam: uuid.UUID, *uploads: tuple[str, int], device: Device = CUFF) -> Arrived:
    return workspace.keep_readings(exam, sent(workspace, *uploads, device=device), {})


def uppers(measurements: Sequence[Measurement]) -> list[int]:
    return sorted(int(one.readings[0].value or 0) for one in measurements)


def in_exam(workspace: Workspace, exam: uuid.UUID) -> list[int]:
    return uppers(measurements(workspace.drafts.get(exam).vitals))


def waiting(workspace: Workspace) -> list[int]:
    return uppers(workspace.tray.waiting())


def thrown(workspace: Workspace) -> list[int]:
    return uppers([one.measurement for one in workspace.tray.thrown()])


def ids(workspace: Workspace, *wanted: int) -> list[uuid.UUID]:
    return [one.id for one in workspace.tray.waiting() if one.readings[0].value in wanted]


def audited(workspace: Workspace) -> list[tuple[str, str]]:
    return [(str(worker), str(what)) for worker, what in workspace.database.read("SELECT worker, what FROM audit")]


def now_text(workspace: Workspace) -> str:
    at = workspace.store.now()
    return (datetime(1970, 1, 1) + timedelta(milliseconds=at.wall_ms, minutes=at.utc_offset_min or 0)).isoformat()


def test_a_cuffs_memory_is_asked_about_once_whatever_was_decided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = [(188, 104, 90, DeviceTime(2025, 3, 1, 8, 0, 0)), (131, 84, 66, DeviceTime(2025, 3, 2, 9, 30, 0))]
    configuration = Configuration(sensors=SensorsSection(vitals=("ble:blood-pressure",)))
    with private_bus(tmp_path) as address, Store.open(tmp_path / "one", KEY, clock=SystemClock(), name="u") as store:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        with FakeBluez(address, (sensors.blood_pressure_cuff(readings=memory),)):
            workspace = opened(store, configuration)
            exam = begin(workspace)
            assert workspace.read_sensors(exam) == Arrived(8, 0)
            assert waiting(workspace) == [131, 188]
            workspace.tray.throw_away(ids(workspace, 188), "Rose")
            workspace.tray.give(ids(workspace, 131), exam, "Rose")
            workspace.close()
            again = opened(store, configuration)  # the device was switched off
            assert again.read_sensors(exam) == Arrived(0, 2), "said, not passed over in silence"
            assert again.tray.waiting() == []
            again.finish(exam)
            other = begin(again, "Joseph")
            assert again.read_sensors(other) == Arrived(0, 2)
            assert again.tray.waiting() == []
            assert again.drafts.get(other).vitals == ()
            (gone,) = again.tray.thrown()
            assert (gone.worker, gone.again) == ("Rose", 2)
            assert gone.measurement.time == "2025-03-01T08:00:00"
            again.close()


def test_thrown_away_can_be_taken_back_by_somebody_else_after_a_power_cut(store: Store) -> None:
    workspace = opened(store)
    exam = begin(workspace)
    upload(workspace, exam, (LAST_YEAR, 188), ("2025-03-02T08:00:00", 131))
    workspace.tray.throw_away(ids(workspace, 188, 131), "Rose")
    assert waiting(workspace) == []
    again = opened(store)
    assert thrown(again) == [131, 188]
    again.tray.take_back([one.measurement.id for one in again.tray.thrown()], "Amani")
    assert (waiting(again), thrown(again)) == ([131, 188], [])
    assert upload(again, exam, (LAST_YEAR, 188)) == Arrived(0, 1), "it waits already"
    assert audited(again) == [("Rose", "assigned a reading")] * 2 + [("Amani", "took a reading back")] * 2
    workspace.close()
    again.close()


def test_all_that_is_ticked_is_given_in_one_step_and_taken_back_in_one(workspace: Workspace) -> None:
    exam = begin(workspace)
    upload(workspace, exam, *((f"2025-03-0{day}T08:00:00", 120 + day) for day in range(1, 6)))
    workspace.tray.give(ids(workspace, 121, 122, 123), exam, "Rose")
    assert (in_exam(workspace, exam), waiting(workspace)) == ([121, 122, 123], [124, 125])
    workspace.answer(exam, "pacemaker", "no")
    workspace.tray.undo("Amani")
    assert in_exam(workspace, exam) == [121, 122, 123], "another worker undoes nothing of it"
    workspace.tray.undo("Rose")
    assert (in_exam(workspace, exam), waiting(workspace)) == ([], [121, 122, 123, 124, 125])
    assert workspace.drafts.get(exam).answer("pacemaker") == "no", "what came after stays"
    workspace.tray.throw_away(ids(workspace, 124), "Rose")
    workspace.tray.undo("Rose")
    assert 124 in waiting(workspace)
    workspace.tray.undo("Rose")
    assert waiting(workspace) == [121, 122, 123, 124, 125]


def test_the_exams_own_undo_lets_what_was_given_wait_again(workspace: Workspace) -> None:
    exam = begin(workspace)
    upload(workspace, exam, (LAST_YEAR, 188))
    workspace.tray.give(ids(workspace, 188), exam, "Rose")
    workspace.undo(exam)
    assert (in_exam(workspace, exam), waiting(workspace)) == ([], [188])


def test_of_a_finished_exam_nothing_is_taken_back(workspace: Workspace) -> None:
    exam = begin(workspace)
    upload(workspace, exam, (LAST_YEAR, 131))
    workspace.tray.give(ids(workspace, 131), exam, "Rose")
    workspace.finish(exam)
    with pytest.raises(UsageError, match="finished"):
        workspace.tray.undo("Rose")
    assert waiting(workspace) == []


def test_a_disk_that_fails_when_the_exam_is_queued_already_queues_it_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    exam = begin(workspace)
    upload(workspace, exam, (LAST_YEAR, 131))
    workspace.tray.give(ids(workspace, 131), exam, "Rose")
    write = workspace.database.write

    def fail_once(work: Any) -> Any:
        monkeypatch.setattr(workspace.database, "write", write)
        raise StoreError(operation="writing", target="console.sqlite3", cause="the disk is full")

    monkeypatch.setattr(workspace.database, "write", fail_once)
    workspace.finish(exam)
    assert (workspace.drafts.find(exam), len(workspace.store.reports())) == (None, 1)
    upload(workspace, begin(workspace, "Joseph"), (LAST_YEAR, 131))
    assert waiting(workspace) == [131], "asked about once more, and not lost"


def test_as_reading_of_minutes_ago_is_not_bs(workspace: Workspace) -> None:
    a, b = begin(workspace, "A"), begin(workspace, "B")
    time = now_text(workspace)
    assert upload(workspace, a, (time, 131)) == Arrived(0, 0)
    assert in_exam(workspace, a) == [131]
    assert upload(workspace, b, (time, 131)) == Arrived(0, 1)
    assert in_exam(workspace, b) == []
    workspace.undo(a)
    assert upload(workspace, a, (time, 131)) == Arrived(0, 0), "what was undone is read again"
    assert in_exam(workspace, a) == [131]


def test_a_clock_that_stands_still_identifies_nothing(workspace: Workspace) -> None:
    exam = begin(workspace)
    upload(workspace, exam, (LAST_YEAR, 131))
    workspace.tray.throw_away(ids(workspace, 131), "Rose")
    assert upload(workspace, exam, (LAST_YEAR, 131)) == Arrived(0, 1)
    assert upload(workspace, exam, (LAST_YEAR, 142), (LAST_YEAR, 131)) == Arrived(6, 0)
    assert waiting(workspace) == [131, 142], "at one time it measured two different things: 131 may be somebody else's"
    assert upload(workspace, exam, (LAST_YEAR, 131)) == Arrived(0, 1), "it is not shown twice"


def test_two_sensors_and_two_kinds_are_never_the_same_measurement(workspace: Workspace) -> None:
    exam = begin(workspace)
    upload(workspace, exam, (LAST_YEAR, 131))
    workspace.tray.throw_away(ids(workspace, 131), "Rose")
    other = Device(name="Cuff", address="AA:00:00:00:00:77", serial="SIM-1")
    assert upload(workspace, exam, (LAST_YEAR, 131), device=other) == Arrived(3, 0)
    readings = [one for one in sent(workspace, (LAST_YEAR, 131)) if one.kind is not VitalKind.PULSE_RATE]
    assert workspace.keep_readings(exam, readings, {}) == Arrived(2, 0)


def test_a_reading_of_another_time_belongs_to_nobody_until_a_person_assigns_it(workspace: Workspace) -> None:
    first, second = begin(workspace, "Amina"), begin(workspace, "Joseph")
    upload(workspace, first, (LAST_YEAR, 188))
    fresh = opened(workspace.store)
    assert waiting(fresh) == [188]
    fresh.close()
    assert workspace.drafts.get(first).vitals == workspace.drafts.get(second).vitals == ()
    workspace.tray.give(ids(workspace, 188), second, "Rose")
    assert (in_exam(workspace, first), in_exam(workspace, second), waiting(workspace)) == ([], [188], [])


def test_cut_off_between_the_exam_and_the_tray_a_reading_is_in_the_exam_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = opened(store)
    exam = begin(workspace)
    upload(workspace, exam, (LAST_YEAR, 188))

    def cut(*_: object) -> None:
        raise StoreError(operation="writing", target="console.sqlite3", cause="the power went")

    monkeypatch.setattr(workspace.tray, "_decided", cut)
    with pytest.raises(StoreError):
        workspace.tray.give(ids(workspace, 188), exam, "Rose")
    again = opened(store)
    assert (in_exam(again, exam), waiting(again)) == ([188], [])
    again.finish(exam)
    assert again.tray.waiting() == []
    workspace.close()
    again.close()


def test_what_is_remembered_of_a_finished_exam_says_nothing_and_outlives_the_patient(workspace: Workspace) -> None:
    exam = begin(workspace, "Wanjiru")
    patient = workspace.drafts.get(exam).patient.id
    upload(workspace, exam, (LAST_YEAR, 131))
    workspace.tray.give(ids(workspace, 131), exam, "Rose")
    workspace.finish(exam)
    workspace.store.erase_patient(patient)
    rows = workspace.database.read("SELECT mark, moment, worker, sealed FROM settled")
    assert [(len(mark), len(moment), worker, sealed) for mark, moment, worker, sealed in rows] == [(16, 16, "", None)]
    content = b"".join(path.read_bytes() for path in workspace.store.folder.rglob("*") if path.is_file())
    assert LAST_YEAR.encode() not in content
    other = begin(workspace, "Joseph")
    assert upload(workspace, other, (LAST_YEAR, 131)) == Arrived(0, 1), "an erased patient's reading does not come back"


def test_a_store_of_its_own_key_recognises_by_its_own_hash_only(workspace: Workspace, tmp_path: Path) -> None:
    exam = begin(workspace)
    upload(workspace, exam, (LAST_YEAR, 131))
    workspace.tray.throw_away(ids(workspace, 131), "Rose")
    with Store.open(tmp_path / "other", KEY, clock=SystemClock(), name="unit-2") as store:
        other = opened(store)
        there = begin(other)
        upload(other, there, (LAST_YEAR, 131))
        other.tray.throw_away(ids(other, 131), "Rose")
        marks = [one.database.read("SELECT mark FROM settled") for one in (workspace, other)]
        other.close()
    assert marks[0] != marks[1]


def test_the_oldest_that_no_sensor_sends_any_more_is_forgotten_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tray, "THROWN_KEPT", 3)
    exam = begin(workspace)
    for day in range(1, 4):
        upload(workspace, exam, (f"2025-03-0{day}T08:00:00", 120 + day))
        workspace.tray.throw_away(ids(workspace, 120 + day), "Rose")
    upload(workspace, exam, ("2025-03-01T08:00:00", 121))
    upload(workspace, exam, ("2025-03-04T08:00:00", 124))
    workspace.tray.throw_away(ids(workspace, 124), "Rose")
    assert thrown(workspace) == [121, 123, 124], "121 came again since"


def test_damaged_rows_keep_no_other_reading_from_its_exam(workspace: Workspace) -> None:
    exam = begin(workspace)
    upload(workspace, exam, (LAST_YEAR, 188))
    workspace.tray.throw_away(ids(workspace, 188), "Rose")
    torn = workspace.store.seal_for(NOBODY, b"torn", b"elsewhere")
    row = (uuid.uuid4().bytes, NOBODY.bytes, torn)
    workspace.database.write(lambda db: db.execute("INSERT INTO unassigned VALUES (?, ?, ?)", row))
    workspace.database.write(lambda db: db.execute("UPDATE settled SET sealed = ?", (torn,)))
    assert (workspace.tray.waiting(), workspace.tray.thrown()) == ([], [])
    assert upload(workspace, exam, (now_text(workspace), 131)) == Arrived(0, 0)
    assert in_exam(workspace, exam) == [131]


TIMES = [f"2025-03-0{day}T08:00:00" for day in range(1, 6)]


class NoReadingIsLost(RuleBasedStateMachine):
    """Whatever people, cuffs and the power do, in any order: every measurement that came is in one place, once."""

    @initialize()
    def begin(self) -> None:
        self.folder = TemporaryDirectory()
        self.store = Store.open(Path(self.folder.name), KEY, clock=SystemClock(), name="unit-1")
        self.workspace = opened(self.store)
        self.exam = begin(self.workspace)
        self.came: set[str] = set()
        self.finished: list[str] = []

    def teardown(self) -> None:
        if hasattr(self, "workspace"):
            self.workspace.close()
            self.store.close()
            self.folder.cleanup()

    @rule(times=st.sets(st.sampled_from(TIMES), min_size=1))
    def a_cuff_sends_its_memory(self, times: set[str]) -> None:
        upload(self.workspace, self.exam, *((time, 120 + TIMES.index(time)) for time in sorted(times)))
        self.came |= times

    @rule(data=st.data())
    def somebody_decides(self, data: st.DataObject) -> None:
        ids = [one.id for one in self.workspace.tray.waiting()]
        if ids:
            chosen = data.draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
            if data.draw(st.booleans()):
                self.workspace.tray.give(chosen, self.exam, "Rose")
            else:
                self.workspace.tray.throw_away(chosen, "Rose")

    @rule()
    def and_undoes_it(self) -> None:
        try:
            self.workspace.tray.undo("Rose")
        except UsageError as error:
            assert error.cause == "the exam is finished"  # noqa: PT017 (the other way is no error)

    @rule()
    def undo_in_the_exam(self) -> None:
        self.workspace.undo(self.exam)

    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        gone = [one.measurement.id for one in self.workspace.tray.thrown()]
        if gone:
            self.workspace.tray.take_back([data.draw(st.sampled_from(gone))], "Rose")

    @rule()
    def finish(self) -> None:
        self.finished += self._times(measurements(self.workspace.drafts.get(self.exam).vitals))
        self.workspace.finish(self.exam)
        self.exam = begin(self.workspace)

    @rule()
    def the_power_goes(self) -> None:
        self.workspace.close()
        self.workspace = opened(self.store)

    @invariant()
    def every_measurement_is_in_one_place(self) -> None:
        if not hasattr(self, "workspace"):
            return
        found = self._times(self.workspace.tray.waiting())
        found += self._times([one.measurement for one in self.workspace.tray.thrown()])
        found += self._times(measurements(self.workspace.drafts.get(self.exam).vitals))
        assert sorted(found + self.finished) == sorted(self.came)

    def _times(self, found: Sequence[Measurement]) -> list[str]:
        assert all(len(one.readings) == 3 for one in found), "a measurement stays whole"
        return [one.time for one in found]


TestNoReadingIsLost = NoReadingIsLost.TestCase
TestNoReadingIsLost.settings = settings(max_examples=20, stateful_step_count=20)
