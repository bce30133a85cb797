"""Bluetooth sensors, live: the real bleak against a simulated BlueZ on a private D-Bus. Only the radio is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from aidpost.errors import DeviceError, DeviceNotFoundError, DeviceTimeoutError, NotPossibleError, UsageError
from aidpost.firmware_bridge import discovery
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.ports import _ble
from aidpost.firmware_bridge.simulators import sensors
from aidpost.firmware_bridge.simulators.bluez import Characteristic, FakeBluez, Sensor
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.firmware_bridge.sources import open_source
from aidpost.records import Origin, VitalKind, VitalSign


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ble, "SETTLE_S", 0.3)


def values(vitals: list[VitalSign]) -> dict[VitalKind, float | None]:
    return {vital.kind: vital.value for vital in vitals}


def test_a_blood_pressure_through_real_bleak(bus: str, clock: Clock) -> None:
    cuff = sensors.blood_pressure_cuff(readings=[(142, 91, 78, DeviceTime(2026, 11, 22, 9, 30, 0))])
    with FakeBluez(bus, (cuff,)):
        vitals = open_source(f"ble:{cuff.address}?wait=60", clock=clock).read_vitals()
    assert values(vitals) == {
        VitalKind.SYSTOLIC_BP: 142, VitalKind.DIASTOLIC_BP: 91, VitalKind.MEAN_BP: 108, VitalKind.PULSE_RATE: 78
    }  # fmt: skip
    first = vitals[0]
    assert (first.origin, first.device_time, first.device.serial) == (Origin.LIVE, "2026-11-22T09:30:00", "SIM-1")
    assert (first.device.manufacturer, first.device.address) == ("Aidpost", cuff.address)


def test_a_cuffs_memory_comes_oldest_first_each_with_its_own_time(bus: str, clock: Clock) -> None:
    times = [DeviceTime(2026, 11, day, 8, 0, 0) for day in (1, 2, 22)]
    cuff = sensors.blood_pressure_cuff(readings=[(120 + n, 80, 70, time) for n, time in enumerate(times)])
    with FakeBluez(bus, (cuff,)):
        vitals = open_source("ble:blood-pressure?wait=60", clock=clock).read_vitals()
    systolic = [v for v in vitals if v.kind is VitalKind.SYSTOLIC_BP]
    assert [v.value for v in systolic] == [120, 121, 122]
    assert [v.device_time[:10] for v in systolic] == ["2026-11-01", "2026-11-02", "2026-11-22"]
    assert len({v.group for v in systolic}) == 3


def test_the_right_one_of_several_sensors_is_read_by_kind(bus: str, clock: Clock) -> None:
    everything = (
        sensors.heart_rate_strap(rates=[64] * 40),
        sensors.thermometer(celsius=38.4),
        sensors.pulse_oximeter(spo2=93, pulse=101),
    )
    with FakeBluez(bus, everything):
        assert values(open_source("ble:heart-rate?wait=60", clock=clock).read_vitals()) == {VitalKind.HEART_RATE: 64}
        assert values(open_source("ble:thermometer?wait=60", clock=clock).read_vitals()) == {
            VitalKind.TEMPERATURE: 38.4
        }
        oximetry = values(open_source("ble:oximeter?wait=60", clock=clock).read_vitals())
    assert oximetry == {VitalKind.SPO2: 93, VitalKind.PULSE_RATE: 101}


def test_glucose_records_resume_after_the_last_stored_one(bus: str, clock: Clock) -> None:
    meter = sensors.glucose_meter(mmol=[5.4, 6.1, 11.2, -5.0])
    with FakeBluez(bus, (meter,)):
        every = open_source("ble:glucose?wait=60", clock=clock).read_vitals()
        later = open_source("ble:glucose?wait=60&since=2", clock=clock).read_vitals()
        none = open_source("ble:glucose?wait=60&since=4", clock=clock).read_vitals()
    # the fourth is of control solution, and nobody's
    assert [v.value for v in every] == [5.4, 6.1, 11.2]
    assert [(v.value, v.context) for v in later] == [(11.2, "sequence 3")]
    assert none == []


def test_polar_ecg_is_exact_to_the_count(bus: str, clock: Clock) -> None:
    counts = [round(500 * np.sin(n / 10)) for n in range(730)]
    with FakeBluez(bus, (sensors.polar_h10(counts=counts),)):
        recording = open_source("ble:polar?wait=60", clock=clock).read_ecg(4)
    assert (recording.fs_hz, recording.lsb_mv, recording.missing) == (130, (0.001,), ())
    assert recording.samples[0].tolist() == counts[:520]


def test_a_sensor_that_goes_away_after_its_reading_is_no_failure(bus: str, clock: Clock) -> None:
    cuff = sensors.blood_pressure_cuff()
    leaving = Sensor(cuff.address, cuff.name, cuff.services, drops_after=1)
    with FakeBluez(bus, (leaving,)):
        vitals = open_source(f"ble:{cuff.address}?wait=60", clock=clock).read_vitals()
    assert values(vitals)[VitalKind.SYSTOLIC_BP] == 142


def test_sensors_that_are_absent_silent_refusing_or_unknown(
    bus: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ble, "ATTEMPTS", 2)
    monkeypatch.setattr(_ble, "CONNECT_S", 3.0)
    silent = Sensor("AA:00:00:00:00:11", "silent", {"180D": (Characteristic("2A37", ("notify",)),)})
    refusing = Sensor("AA:00:00:00:00:12", "refusing", {"1810": ()}, connectable=False)
    lamp = Sensor("AA:00:00:00:00:13", "lamp", {"FFE0": (Characteristic("FFE1"),)})
    garbled = Sensor(
        "AA:00:00:00:00:14", "garbled", {"1810": (Characteristic("2A35", ("indicate",), sends=(b"\x03\x01",)),)}
    )
    with FakeBluez(bus, (silent, refusing, lamp, garbled)):
        # what is expected to be found and to speak gets long enough on a busy machine, the rest not to wait for nothing
        for address, options, kind, cause in (
            ("AA:00:00:00:00:99", "scan=1", DeviceNotFoundError, "no such sensor"),
            (silent.address, "wait=1", DeviceTimeoutError, "sent nothing"),
            (refusing.address, "wait=1", DeviceError, "refuses"),
            (lamp.address, "wait=1", DeviceError, "no measurement that is known"),
            (garbled.address, "wait=3", DeviceTimeoutError, "1 values"),
        ):
            with pytest.raises(kind, match=cause) as caught:
                open_source(f"ble:{address}?{options}", clock=clock).read_vitals()
            assert caught.value.remedy


def test_a_scan_names_sensors_and_their_kinds(bus: str) -> None:
    with FakeBluez(bus, (sensors.heart_rate_strap(), sensors.polar_h10())):
        found = asyncio.run(discovery.bluetooth_sensors(2.0))
    assert {(item.source, item.details) for item in found} == {
        ("ble:AA:00:00:00:00:01", "heart-rate"),
        ("ble:AA:00:00:00:00:06", "polar"),
    }


def test_bluetooth_that_is_off_or_missing_is_not_possible_here(bus: str, clock: Clock) -> None:
    with pytest.raises(NotPossibleError, match="Bluetooth"):
        open_source("ble:heart-rate?scan=1", clock=clock).read_vitals()
    with pytest.raises(NotPossibleError, match="Bluetooth"):
        asyncio.run(discovery.bluetooth_sensors(0.5))
    with FakeBluez(bus, (), powered=False), pytest.raises(NotPossibleError, match="Bluetooth"):
        open_source("ble:heart-rate?scan=1", clock=clock).read_vitals()


def test_an_address_that_is_none_is_a_usage_error(clock: Clock) -> None:
    with pytest.raises(UsageError, match="neither an address nor a kind"):
        open_source("ble:somewhere", clock=clock)


def test_the_installed_bleak_has_what_this_leans_on() -> None:
    from bleak import BleakClient, BleakScanner
    from bleak.exc import BleakBluetoothNotAvailableError, BleakError

    assert issubclass(BleakBluetoothNotAvailableError, BleakError)
    for name in ("connect", "disconnect", "start_notify", "read_gatt_char", "write_gatt_char"):
        assert callable(getattr(BleakClient, name))
    for name in ("find_device_by_address", "find_device_by_filter"):
        assert callable(getattr(BleakScanner, name))
