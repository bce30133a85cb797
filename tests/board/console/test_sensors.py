"""Which sensors are alive: by what was heard of them, by what is plugged in, and never by guess."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_records import KEY
from hypothesis import given
from hypothesis import strategies as st

from aidpost.board.configuration import Configuration, SensorsSection
from aidpost.board.console._sensors import reach
from aidpost.board.console.live import Camera
from aidpost.board.console.people import Known
from aidpost.board.console.sensors import Sensor, Standing, look
from aidpost.board.console.workspace import Workspace
from aidpost.errors import AidpostError, DeviceError, DeviceLostError, DeviceNotFoundError, DeviceTimeoutError
from aidpost.firmware_bridge.simulators import sensors as simulated
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.boards import BoardSimulator
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.firmware_bridge.sources import parse_source
from aidpost.firmware_bridge.states import FRESH_S, STATES, SensorStates
from aidpost.records import Patient
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

from .conftest import Dead

BLE = "ble:heart-rate"
FAULTS: list[tuple[type[AidpostError], Standing]] = [
    (DeviceNotFoundError, Standing.OUT_OF_REACH),
    (DeviceLostError, Standing.OUT_OF_REACH),
    (DeviceTimeoutError, Standing.SILENT),
    (DeviceError, Standing.BROKEN),
]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    STATES.clear()
    yield
    STATES.clear()


def fault(kind: type[AidpostError]) -> AidpostError:
    return kind(operation="reading", target=BLE, cause="as it says", remedy="")


class Desk:
    """States and a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.states = SensorStates(lambda: self.now)

    def heard(self, source: str = BLE, lead_off: tuple[str, ...] = ()) -> None:
        self.states.heard(parse_source(source))
        self.states.told(parse_source(source), lead_off=lead_off)

    def how(self, source: str = BLE) -> Sensor:
        (found,) = look({source: ("Vital signs",)}, self.states)
        return found


@pytest.mark.parametrize(("kind", "standing"), FAULTS)
def test_what_went_wrong_is_shown_until_it_answers_again(kind: type[AidpostError], standing: Standing) -> None:
    desk = Desk()
    assert desk.how().standing is Standing.UNTRIED
    with pytest.raises(kind), desk.states.reading(parse_source(BLE)):
        raise fault(kind)
    desk.now += 1000
    assert (desk.how().standing, desk.how().trouble) == (standing, "as it says")
    with desk.states.reading(parse_source(BLE)):
        desk.heard()
        desk.states.told(parse_source(BLE), name="strap", battery_percent=15)
    assert (desk.how().standing, desk.how().trouble, desk.how().battery) == (Standing.FLOWING, "", 15)
    desk.now += FRESH_S + 1
    assert (desk.how().standing, desk.how().heard_s, desk.how().name) == (Standing.THERE, FRESH_S + 1, "strap")


def test_one_that_is_read_is_waited_for_until_it_answers_and_silent_when_it_stops() -> None:
    desk = Desk()
    with desk.states.reading(parse_source(BLE)):
        assert (desk.how().standing, desk.how().is_read) == (Standing.WAITED_FOR, True)
        desk.heard()
        desk.now += FRESH_S + 0.1
        assert desk.how().standing is Standing.SILENT
        desk.heard(lead_off=("skin",))
        assert desk.how().standing is Standing.NO_CONTACT
    assert not desk.how().is_read


def test_what_is_plugged_in_is_looked_up_each_time(tmp_path: Path) -> None:
    desk, port = Desk(), tmp_path / "ttyACM0"
    source = f"serial:{port}?device=healthypi4"
    assert desk.how(source).standing is Standing.GONE
    port.touch()
    assert desk.how(source).standing is Standing.THERE
    desk.heard(source)
    port.unlink()
    assert desk.how(source).standing is Standing.GONE, "whatever was heard a second ago"
    desk.states.failed(parse_source(source), fault(DeviceLostError))
    port.touch()
    assert desk.how(source).standing is Standing.THERE


def test_source_that_is_misspelt_does_not_work_and_says_why() -> None:
    found = Desk().how("serail:/dev/ttyACM0")
    assert found.standing is Standing.BROKEN
    assert "serail" in found.trouble


@given(st.lists(st.sampled_from(["heard", "off", "wait", *(kind.__name__ for kind, _ in FAULTS)]), max_size=12))
def test_nothing_is_called_alive_that_was_not_heard_within_seconds(events: list[str]) -> None:
    desk, last = Desk(), -1000.0
    kinds = {kind.__name__: kind for kind, _ in FAULTS}
    for event in events:
        if event == "wait":
            desk.now += FRESH_S
        elif event in kinds:
            desk.states.failed(parse_source(BLE), fault(kinds[event]))
            last = -1000.0
        else:
            with desk.states.reading(parse_source(BLE)):
                desk.heard(lead_off=("skin",) if event == "off" else ())
            last = desk.now
        standing = desk.how().standing
        assert (standing in (Standing.FLOWING, Standing.NO_CONTACT)) == (desk.now - last <= FRESH_S)
        assert standing.light in ("good", "bad", "idle")


# real workers


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store:
        made = Workspace(Configuration(), store, Dead(), practice=False)
        yield made
        made.close()


def set_up(workspace: Workspace, **sensors: object) -> uuid.UUID:
    workspace.configuration = Configuration(sensors=SensorsSection(**sensors))  # type: ignore[arg-type]
    return workspace.begin(Known(patient=Patient(id=uuid.uuid4(), name="Amina")), "Rose").exam.id


def test_board_that_is_tried_answers_and_one_that_sends_nothing_is_silent(workspace: Workspace) -> None:
    camera = Camera(workspace.store)
    with BoardSimulator("healthypi4", [0] * 100_000) as board:
        source = f"serial:{board.port}?device=healthypi4"
        set_up(workspace, ecg=source)
        assert workspace.sensors_now()[0].standing is Standing.THERE
        reach(workspace, camera, source)
        (found,) = workspace.sensors_now()
        assert found.standing is Standing.FLOWING
        assert found.heard_s is not None
        assert "HealthyPi" in found.name
        board.pause()
        reach(workspace, camera, source)
        assert workspace.sensors_now()[0].standing is Standing.SILENT
        board.unplug()
        assert workspace.sensors_now()[0].standing is Standing.GONE


def test_bluetooth_sensor_says_its_battery_and_is_out_of_reach_when_it_is_away(workspace: Workspace, bus: str) -> None:
    strap = simulated.heart_rate_strap()
    source = f"ble:{strap.address}?wait=60&scan=20"
    exam = set_up(workspace, vitals=(source,))
    camera = Camera(workspace.store)
    with FakeBluez(bus, (strap,)):
        reach(workspace, camera, source)
        assert workspace.sensors_now()[0].battery == 87
        workspace.read_sensors(exam)
        (found,) = workspace.sensors_now()
        assert (found.standing, found.battery, found.uses) == (Standing.FLOWING, 87, ("Vital signs",))
    away = f"ble:{strap.address}?wait=1&scan=0.5"
    set_up(workspace, vitals=(away,))
    with FakeBluez(bus, ()):
        reach(workspace, camera, away)
    assert workspace.sensors_now()[0].standing is Standing.OUT_OF_REACH
