"""An exam whose vital signs come from five Bluetooth sensors at once, as it is typed; only the radio is simulated."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from aidpost.board.cli import cli
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.ports import _ble
from aidpost.firmware_bridge.simulators import glucose, sensors
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.sync import keys, outbox
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

ASKED = ("ble:cgm", "ble:oximeter", "ble:heart-rate", "ble:blood-pressure", "ble:thermometer")


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        monkeypatch.setattr(_ble, "SETTLE_S", 0.5)
        yield address


def exam(folder: Path, *sources: str) -> dict[str, Any]:
    arguments = [text for source in sources for text in ("--vitals", source)]
    done = CliRunner().invoke(cli, ["--state-dir", str(folder), "exam", *arguments, "--json"])
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def kept_outside(state: Path) -> int:
    """How many readings were kept under nobody's name."""
    key = keys.from_file(state / "device.key", create=False)
    with Store.open(state, key, clock=SystemClock()) as store:
        return {one.cls: one.queued for one in outbox.status(store)}.get("vitals", 0)


def test_five_sensors_at_once_and_a_cgm_session_that_goes_on(bus: str, tmp_path: Path) -> None:
    body = glucose.GlucoseSensor([90] * 10 + [61, 58])
    air = (
        body.sensor(),
        sensors.continuous_oximeter(spo2=[float("nan"), 92, 93, *[94] * 900]),
        sensors.heart_rate_strap(rates=[88] * 900),
        sensors.blood_pressure_cuff(),
        sensors.thermometer(celsius=38.4),
    )
    state = tmp_path / "state"
    with FakeBluez(bus, air):
        report = exam(state, *ASKED)
        found: dict[str, list[float]] = {}
        for one in report["vitals"]:
            found.setdefault(one["kind"], []).append(one["value"])
        # of an hour's session the quarter of an hour that is this exam's; the rest is for a person to assign
        assert found["glucose"] == [4.9956, 3.3859, 3.2194]
        assert (found["spo2"], found["heart_rate"], found["temperature"]) == ([94], [88], [38.4])
        assert found["systolic_bp"] == [142]
        assert report["origin"] == "live"
        assert any("glucose" in finding["text"].lower() for finding in report["findings"])
        again = exam(state, "ble:cgm", "ble:thermometer")
        assert [one["kind"] for one in again["vitals"]] == ["temperature"]
        body.measure(75)
        later = exam(state, "ble:cgm")
        assert [one["measured"] for one in later["vitals"]] == ["75 mg/dL"]
    assert kept_outside(state) == 9


def test_a_cuff_that_sends_its_memory_again_gives_nobody_the_pressure_of_the_patient_before(
    bus: str, tmp_path: Path
) -> None:
    now = datetime.now()
    just, long_ago = (
        DeviceTime(one.year, one.month, one.day, one.hour, one.minute, one.second)
        for one in (now - timedelta(minutes=2), now - timedelta(days=2))
    )
    memory = [(171, 99, 91, long_ago), (142, 91, 78, just)]
    state = tmp_path / "state"
    with FakeBluez(bus, (sensors.blood_pressure_cuff(readings=memory),)):
        first = exam(state, "ble:blood-pressure")
        assert [one["value"] for one in first["vitals"] if one["kind"] == "systolic_bp"] == [142]
        outside = kept_outside(state)
        assert outside > 0, "what it measured days ago is for a person to assign"
        second = exam(state, "ble:blood-pressure", "sim:vitals?seed=2")
        assert "AA:00:00:00:00:02" not in {one["device"]["address"] for one in second["vitals"]}
    assert kept_outside(state) == outside, "once"
