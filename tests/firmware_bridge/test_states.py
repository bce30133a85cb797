"""How each sensor is: what ports report, what is shown, and what another process reads of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from aidpost.board.cli import cli
from aidpost.board.configuration import SensorsSection
from aidpost.errors import DeviceError, DeviceLostError, DeviceNotFoundError
from aidpost.firmware_bridge import states
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.ports import _ble
from aidpost.firmware_bridge.ports import serial as port
from aidpost.firmware_bridge.simulators import sensors
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.boards import BoardSimulator
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.firmware_bridge.sources import open_source, parse_source
from aidpost.firmware_bridge.states import KEPT_IN, STATES, Link, SensorStates, read_kept

CUFF = parse_source("ble:blood-pressure")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    STATES.clear()
    yield
    STATES.clear()


class Time:
    """A clock that the test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(states, "time", self)

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1_700_000_000 + self.now


def test_connected_means_that_data_flows_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seen = Time(monkeypatch), SensorStates()

    def link() -> Link:
        return seen.of(["ble:blood-pressure"])[0].link

    assert link() is Link.UNTRIED
    with seen.reading(CUFF):
        assert link() is Link.WAITING
        clock.now += 60
        assert link() is Link.WAITING
        seen.heard(CUFF)
        assert link() is Link.CONNECTED
        clock.now += states.FRESH_S + 1
        assert link() is Link.SILENT
        seen.heard(CUFF)
        assert link() is Link.CONNECTED
    assert link() is Link.IDLE
    clock.now += 90
    (state,) = seen.of(["ble:blood-pressure"])
    assert (state.heard_ago_s, state.alive) == (90, False)
    with seen.reading(CUFF):  # that it was heard before says nothing about now
        assert link() is Link.WAITING


def test_why_not_is_kept_until_it_speaks_again() -> None:
    seen = SensorStates()
    error = DeviceLostError(operation="reading", target="cuff", cause="it went away", remedy="Bring it nearer.")
    with pytest.raises(DeviceLostError), seen.reading(CUFF):
        raise error
    (state,) = seen.now()
    assert (state.link, state.reason, state.remedy) == (Link.FAILED, "it went away", "Bring it nearer.")
    with seen.reading(CUFF):
        assert seen.now()[0].reason == "it went away"
        seen.heard(CUFF)
        assert (seen.now()[0].reason, seen.now()[0].remedy) == ("", "")
    with pytest.raises(KeyboardInterrupt), seen.reading(CUFF):  # says nothing about the sensor
        raise KeyboardInterrupt
    assert seen.now()[0].link is Link.IDLE


def test_a_sensor_that_two_read_is_open_until_both_have_let_go() -> None:
    seen = SensorStates()
    with seen.reading(CUFF):
        with seen.reading(CUFF):
            seen.heard(CUFF)
        assert seen.now()[0].link is Link.CONNECTED
    assert seen.now()[0].link is Link.IDLE


def test_what_is_no_device_or_no_source_says_so() -> None:
    simulated, wrong = SensorStates().of(["sim:ecg", "toaster:1"])
    assert simulated.link is Link.NO_DEVICE
    assert (wrong.link, bool(wrong.reason), bool(wrong.remedy)) == (Link.FAILED, True, True)


def test_another_process_reads_what_is_kept_and_no_more_than_is_true(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, seen, path = Time(monkeypatch), SensorStates(), tmp_path / KEPT_IN
    seen.keep_in(path)
    with seen.reading(CUFF):
        seen.told(CUFF, name="Cuff", battery_percent=87, lead_off=["skin"])
        seen.heard(CUFF)
        (kept,) = read_kept(path)
        assert (kept.link, kept.name, kept.battery_percent, kept.lead_off) == (Link.CONNECTED, "Cuff", 87, ("skin",))
        written = path.stat().st_mtime_ns
        for _ in range(50):
            seen.heard(CUFF)
        assert path.stat().st_mtime_ns == written  # a card is not written for each byte
        clock.now += 60  # the process hangs: nothing is written any more
        (late,) = read_kept(path)
        assert (late.link, late.heard_ago_s) == (Link.SILENT, 60)
        seen.heard(CUFF)
        assert read_kept(path)[0].link is Link.CONNECTED
    assert read_kept(path)[0].link is Link.IDLE


def test_states_of_a_process_that_has_ended_are_not_shown(tmp_path: Path) -> None:
    path = tmp_path / KEPT_IN
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    sensor = {"source": "ble:glucose", "link": "CONNECTED", "name": "", "heard_ms": 1, "battery_percent": None}
    document = {"pid": os.getpid(), "wall_ms": 1, "sensors": [{**sensor, "lead_off": None, "reason": "", "remedy": ""}]}
    path.write_text(json.dumps(document))
    assert len(read_kept(path)) == 1
    path.write_text(json.dumps({**document, "pid": int(ended.stdout)}))
    assert read_kept(path) == []
    for broken in ("", "{", "[]", '{"pid": 1}', '{"pid": "x", "wall_ms": 1, "sensors": []}', '{"sensors": 4}'):
        path.write_text(broken)
        assert read_kept(path) == []
    assert read_kept(tmp_path / "none") == []


def test_a_cuff_and_a_strap_say_their_battery_and_contact(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ble, "SETTLE_S", 0.3)
    strap = sensors.heart_rate_strap(rates=[64] * 200, contact=False)
    with private_bus(tmp_path) as address, FakeBluez(address, (sensors.blood_pressure_cuff(), strap)):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        open_source("ble:blood-pressure?wait=60", clock=clock).read_vitals()
        open_source("ble:heart-rate?wait=60", clock=clock).read_vitals()
        with pytest.raises(DeviceNotFoundError):
            open_source("ble:glucose?scan=0.5", clock=clock).read_vitals()
    cuff, worn, meter = STATES.of(["ble:blood-pressure?wait=60", "ble:heart-rate?wait=60", "ble:glucose?scan=0.5"])
    assert (cuff.link, cuff.name, cuff.battery_percent, cuff.lead_off) == (Link.IDLE, "Simulated cuff", 87, None)
    assert cuff.heard_ago_s is not None
    assert (worn.battery_percent, worn.lead_off) == (87, ("skin",))
    assert (meter.link, meter.reason, meter.heard_ms) == (Link.FAILED, "no such sensor in 0.5 s", None)
    assert meter.remedy


def test_a_board_that_streams_is_connected_and_says_which_lead_is_off(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port, "SILENCE_S", 1.0)
    with BoardSimulator("cyton", range(100_000)) as board:
        source = f"serial:{board.port}?device=cyton"
        opened, links = open_source(source, clock=clock), set()

        def watch(_: object) -> None:
            links.add(STATES.of([source])[0].link)
            if len(links) > 1:
                raise AssertionError("a link of another kind")

        opened.watcher = watch  # type: ignore[attr-defined]
        opened.read_ecg(1)
        assert links == {Link.CONNECTED}
        assert STATES.of([source])[0].link is Link.IDLE
        board.unplug()
        with pytest.raises(DeviceError):
            opened.read_ecg(2)
        opened.close()
    (state,) = STATES.of([source])
    assert (state.link, state.name) == (Link.FAILED, "OpenBCI Cyton")
    assert state.reason


def test_devices_list_shows_what_the_running_device_finds(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[sensors]\necg = "serial:/dev/ttyACM0"\nvitals = ["ble:blood-pressure"]\n')
    seen = SensorStates()
    seen.keep_in(tmp_path / KEPT_IN)
    seen.told(CUFF, name="Cuff", battery_percent=9)
    with pytest.raises(DeviceLostError), seen.reading(CUFF):
        raise DeviceLostError(operation="x", target="y", cause="it went away", remedy="Bring it nearer.")
    arguments = ["--config", str(tmp_path / "a.toml"), "--state-dir", str(tmp_path), "devices", "list"]
    said = CliRunner().invoke(cli, arguments, catch_exceptions=False).stdout.splitlines()
    assert said[1] == "  ble:blood-pressure  Cuff: failed (it went away), battery 9 %. Bring it nearer."
    assert said[2] == "  serial:/dev/ttyACM0  not tried yet"
    (first, second) = json.loads(CliRunner().invoke(cli, [*arguments, "--json"]).stdout)["sensors"]
    assert (first["link"], first["battery_percent"], first["reason"]) == ("failed", 9, "it went away")
    assert (second["link"], second["heard_ms"]) == ("not tried yet", None)


def test_reports_from_many_threads_are_all_counted() -> None:
    seen = SensorStates()

    def read(number: int) -> None:
        spec = parse_source(f"ble:AA:00:00:00:00:{number:02}")
        for _ in range(50):
            with seen.reading(spec):
                seen.heard(spec)

    threads = [threading.Thread(target=read, args=(n % 4,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [state.link for state in seen.now()] == [Link.IDLE] * 4


def test_a_devices_sources_are_listed_once() -> None:
    section = SensorsSection(ecg="a", fundus_left="b", fundus_right="b", vitals=("c", "a"))
    assert section.sources == ("c", "a", "b")
