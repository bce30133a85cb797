"""Whose reading is it? A meter's memory, read during somebody else's exam: it waits for a person, once, whatever the
power does. The meter is behind real bleak on a simulated BlueZ."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from device_records import KEY

from aidpost.board.configuration import Configuration, SensorsSection
from aidpost.board.console.workspace import Workspace
from aidpost.errors import AidpostError
from aidpost.firmware_bridge.marks import NoMarks
from aidpost.firmware_bridge.simulators import glucose, sensors
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.inference.worker import InferenceWorker
from aidpost.records import VitalKind
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

from .conftest import begin

METER = "AA:00:00:00:00:05"
CONFIGURATION = Configuration(
    sensors=SensorsSection(vitals=("ble:weight?scan=0.5", "ble:glucose", "ble:thermometer")),
)


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address


def opened(store: Store, worker: InferenceWorker) -> Workspace:
    return Workspace(CONFIGURATION, store, worker, practice=False)


def read(workspace: Workspace, exam: uuid.UUID) -> None:
    """The scale is not there, which is said, and keeps nothing else from being read."""
    with pytest.raises(AidpostError, match="no such sensor"):
        workspace.read_sensors(exam)


def values(workspace: Workspace) -> list[float]:
    """Of what waits to be assigned."""
    return [one.value or 0 for waiting in workspace.tray.waiting() for one in waiting.readings]


def test_as_stored_reading_in_bs_exam_waits_and_comes_once(bus: str, tmp_path: Path, worker: InferenceWorker) -> None:
    memory = [7.7, -5.0]  # A's, of another day; and a control solution
    air = (glucose.meter(METER, memory), sensors.thermometer(celsius=38.4))
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store, FakeBluez(bus, air):
        workspace = opened(store, worker)
        a, b = begin(workspace, "A"), begin(workspace, "B")
        read(workspace, b)
        assert [one.kind for one in workspace.drafts.get(b).vitals] == [VitalKind.TEMPERATURE]
        (waiting,) = workspace.tray.waiting()[0].readings
        assert (waiting.value, waiting.device_time) == (7.7, "2026-11-22T08:01:00")
        workspace.tray.give([waiting.id], a, "Rose")
        assert [one.value for one in workspace.drafts.get(a).vitals] == [7.7]
        workspace.close()
        again = opened(store, worker)  # the device was switched off
        read(again, b)
        assert again.tray.waiting() == []
        memory.append(8.8)
        read(again, b)
        assert values(again) == [8.8]
        again.close()


def test_a_power_cut_before_the_mark_is_kept_brings_nothing_twice(
    bus: str, tmp_path: Path, worker: InferenceWorker
) -> None:
    air = (glucose.meter(METER, [7.7, 6.6]), sensors.thermometer())
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store, FakeBluez(bus, air):
        workspace = opened(store, worker)
        exam = begin(workspace, "B")
        workspace.marks = NoMarks()  # type: ignore[assignment]  # cut off before it was written
        read(workspace, exam)
        workspace.close()
        again = opened(store, worker)
        read(again, exam)
        assert sorted(values(again)) == [6.6, 7.7]
        again.close()


def test_a_failing_disk_loses_no_reading(bus: str, tmp_path: Path, worker: InferenceWorker) -> None:
    air = (glucose.meter(METER, [7.7]), sensors.thermometer())
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store, FakeBluez(bus, air):
        workspace = opened(store, worker)
        exam, keep = begin(workspace, "B"), workspace.tray.keep

        def fail(_: object) -> None:
            raise OSError(28, "No space left on device")

        workspace.tray.keep = fail  # type: ignore[method-assign]
        with pytest.raises(OSError, match="No space left"):
            workspace.read_sensors(exam)
        workspace.tray.keep = keep  # type: ignore[method-assign]
        read(workspace, exam)
        assert values(workspace) == [7.7]
        workspace.close()


def test_how_the_sensors_are_can_be_shown_at_once(bus: str, tmp_path: Path, worker: InferenceWorker) -> None:
    from aidpost.firmware_bridge.states import STATES, Link

    STATES.clear()
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store:
        with FakeBluez(bus, (glucose.meter(METER, [7.7]), sensors.thermometer())):
            workspace = opened(store, worker)
            read(workspace, begin(workspace, "B"))
        links = [one.link for one in STATES.of(msgspec.structs.replace(CONFIGURATION).sensors.sources)]
        workspace.close()
    assert links == [Link.FAILED, Link.IDLE, Link.IDLE]
