"""Bluetooth sensors, live: the real bleak against a simulated BlueZ on a private D-Bus. Only the radio is missing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dbus_fast import DBusError

from aidpost.errors import DeviceError, DeviceNotFoundError, DeviceTimeoutError, NotPossibleError, UsageError
from aidpost.firmware_bridge import discovery
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import polar, viatom
from aidpost.firmware_bridge.decoders.device_info import decode_current_time
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.ports import _ble, _ble_link
from aidpost.firmware_bridge.simulators import sensors
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.firmware_bridge.simulators.sensor import Characteristic, Sensor
from aidpost.firmware_bridge.sources import open_source
from aidpost.firmware_bridge.states import STATES
from aidpost.firmware_bridge.together import read_together
from aidpost.records import AbsentReason, Origin, Timestamp, VitalKind, VitalSign


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


def test_a_straps_intervals_are_kept_each_once_and_none_without_contact(bus: str, clock: Clock) -> None:
    rates = (71, 72, 73)
    worn, off = sensors.heart_rate_strap(rates=rates), sensors.heart_rate_strap("AA:00:00:00:00:21", contact=False)
    with FakeBluez(bus, (worn, off)):
        (reading,) = open_source(f"ble:{worn.address}?wait=60", clock=clock).read_vitals()
        (nothing,) = open_source(f"ble:{off.address}?wait=60", clock=clock).read_vitals()
    assert reading.rr_ms == tuple(round(60 * 1024 / rate) * 1000 / 1024 for rate in rates)
    assert (nothing.value, nothing.rr_ms) == (None, ())


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
    monkeypatch.setattr(_ble_link, "ATTEMPTS", 2)
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


def test_2a2b_a_sensors_clock_is_set_where_ours_can_be_trusted(bus: str) -> None:
    class Ours:
        def __init__(self, synced: bool) -> None:
            self.synced = synced

        def now(self) -> Timestamp:
            return Timestamp(wall_ms=1_700_000_000_000, monotonic_ms=0, boot=0, synced=self.synced, utc_offset_min=330)

    cuff = sensors.blood_pressure_cuff()
    with FakeBluez(bus, (cuff,)) as bluez:
        for synced in (False, True):
            assert bluez.value(cuff.address, "2A2B") == bytes(10)
            open_source(f"ble:{cuff.address}?wait=60", clock=Ours(synced)).read_vitals()
        set_to = decode_current_time(bluez.value(cuff.address, "2A2B"))
    # 2023-11-14 22:13:20 UTC, five and a half hours further east a Wednesday
    assert (str(set_to.time), set_to.weekday, set_to.reasons) == ("2023-11-15T03:43:20", 3, ("manual",))


def test_2a2b_a_sensor_that_refuses_to_be_set_is_read_all_the_same(bus: str, clock: Clock) -> None:
    def refuse(_: bytes) -> list[tuple[str, bytes]]:
        raise DBusError("org.bluez.Error.NotPermitted", "Write not permitted")

    cuff = sensors.blood_pressure_cuff()
    services = {**cuff.services, "1805": (Characteristic("2A2B", ("read", "write"), on_write=refuse),)}
    with FakeBluez(bus, (Sensor(cuff.address, cuff.name, services),)):
        vitals = open_source(f"ble:{cuff.address}?wait=60", clock=clock).read_vitals()
    assert values(vitals)[VitalKind.SYSTOLIC_BP] == 142


def test_a_sensor_that_wants_to_be_paired_first_says_so(bus: str, clock: Clock) -> None:
    """What BlueZ answers to a read that needs encryption is no failure of the program."""

    def refuse(_: bytes) -> list[tuple[str, bytes]]:
        raise DBusError("org.bluez.Error.NotAuthorized", "Read not permitted: insufficient authentication")

    control = Characteristic("2A52", ("write", "indicate"), on_write=refuse)
    meter = Sensor("AA:00:00:00:00:55", "shy", {"1808": (Characteristic("2A18", ("notify",)), control)})
    with FakeBluez(bus, (meter,)), pytest.raises(DeviceError, match="refuses to be read") as caught:
        open_source(f"ble:{meter.address}?wait=60", clock=clock).read_vitals()
    assert "devices pair" in caught.value.remedy


def test_a_radio_that_is_busy_is_tried_again_by_the_connector(bus: str, clock: Clock) -> None:
    cuff = sensors.blood_pressure_cuff()
    busy = Sensor(cuff.address, cuff.name, cuff.services, refuses=4)
    with FakeBluez(bus, (busy,)):
        vitals = open_source(f"ble:{cuff.address}?wait=60", clock=clock).read_vitals()
    assert values(vitals)[VitalKind.SYSTOLIC_BP] == 142


def test_without_the_library_it_is_said_how_to_get_it(bus: str, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeBluez(bus, (sensors.thermometer(),)):
        for name in ("bleak_retry_connector", "bleak.exc"):
            with monkeypatch.context() as patch:
                patch.setitem(sys.modules, name, None)
                with pytest.raises(NotPossibleError, match="not installed") as caught:
                    open_source("ble:thermometer", clock=clock).read_vitals()
            assert "aidpost[bluetooth]" in caught.value.remedy


def test_a_continuous_oximeter_counts_when_it_has_settled(bus: str, clock: Clock) -> None:
    nan = float("nan")
    finger = sensors.continuous_oximeter(spo2=[nan, nan, 91, 96, 97, *[98] * 400])
    with FakeBluez(bus, (finger,)):
        vitals = open_source("ble:oximeter?wait=60", clock=clock).read_vitals()
    assert values(vitals) == {VitalKind.SPO2: 98, VitalKind.PULSE_RATE: 74}
    assert vitals[0].status == ("fully qualified",)


def test_an_oximeter_that_is_off_the_finger_gives_that_it_has_no_value(
    bus: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ble, "LONGEST_SETTLE_S", 1.0)
    with FakeBluez(bus, (sensors.continuous_oximeter(spo2=[float("nan")] * 900),)):
        vitals = open_source("ble:oximeter?wait=60", clock=clock).read_vitals()
    assert {v.kind: (v.value, v.absent) for v in vitals} == {
        VitalKind.SPO2: (None, AbsentReason.NOT_A_NUMBER),
        VitalKind.PULSE_RATE: (None, AbsentReason.NOT_A_NUMBER),
    }
    assert STATES.of(["ble:oximeter?wait=60"])[0].lead_off == ("skin",)


def test_a_viatom_oximeter_is_asked_until_it_has_a_number(bus: str, clock: Clock) -> None:
    """Its answer, with a second of waveform, comes in eight pieces; at first there is no finger."""
    ring = sensors.viatom_oximeter(readings=[(0xFF, 0xFFFF)] * 3 + [(95, 66)], wave=bytes(range(125)))
    with FakeBluez(bus, (ring,)):
        vitals = open_source("ble:viatom?wait=60", clock=clock).read_vitals()
    assert values(vitals) == {VitalKind.SPO2: 95, VitalKind.PULSE_RATE: 66}
    (state,) = STATES.of(["ble:viatom?wait=60"])
    assert (state.battery_percent, state.lead_off) == (64, ())


def test_a_viatom_device_that_answers_nothing_or_records_ecgs(bus: str, clock: Clock) -> None:
    def ring(address: str, answer: bytes) -> Sensor:
        notes = [(viatom.NOTIFY, answer)] if answer else []
        write = Characteristic(viatom.WRITE, ("write",), on_write=lambda _: notes)
        return Sensor(address, "ring", {viatom.SERVICE: (write, Characteristic(viatom.NOTIFY, ("notify",)))})

    silent = ring("AA:00:00:00:00:31", b"")
    recorder = ring("AA:00:00:00:00:32", viatom.er_request(0x03, bytes(22)))
    with FakeBluez(bus, (silent, recorder)):
        with pytest.raises(DeviceTimeoutError, match="answered nothing"):
            open_source(f"ble:{silent.address}?wait=2", clock=clock).read_vitals()
        with pytest.raises(DeviceError, match="recorder of ECGs"):
            open_source(f"ble:{recorder.address}?wait=60", clock=clock).read_vitals()


def test_an_oximeter_whose_finger_comes_late_is_waited_for(bus: str, clock: Clock) -> None:
    late = sensors.continuous_oximeter(spo2=[*[float("nan")] * 20, *[95] * 400])
    with FakeBluez(bus, (late,)):
        vitals = open_source("ble:oximeter?wait=60", clock=clock).read_vitals()
    assert values(vitals)[VitalKind.SPO2] == 95


def test_several_sensors_are_read_at_once_and_one_that_fails_keeps_none_from_it(bus: str, clock: Clock) -> None:
    air = (
        sensors.blood_pressure_cuff(),
        sensors.thermometer(celsius=38.4),
        sensors.continuous_oximeter(spo2=[97] * 900),
        sensors.glucose_meter(mmol=[6.1]),
        Sensor("AA:00:00:00:00:77", "refusing", {"181D": ()}, connectable=False),
    )
    asked = ["ble:blood-pressure", "ble:thermometer", "ble:weight?scan=1", "ble:oximeter", "ble:glucose"]
    with FakeBluez(bus, air):
        readings = sorted(read_together(asked, clock=clock, patience_s=60), key=lambda one: one.number)
    assert [one.source for one in readings] == asked
    assert [values(list(one.vitals)).get(kind) for one, kind in zip(readings, (
        VitalKind.SYSTOLIC_BP, VitalKind.TEMPERATURE, VitalKind.WEIGHT, VitalKind.SPO2, VitalKind.GLUCOSE
    ), strict=True)] == [142, 38.4, None, 97, 6.1]  # fmt: skip
    assert [one.error is None for one in readings] == [True, True, False, True, True]
    assert "refuses" in str(readings[2].error)


def test_a_sensor_that_is_asked_twice_is_read_one_time_after_the_other(bus: str, clock: Clock) -> None:
    with FakeBluez(bus, (sensors.thermometer(),)):
        readings = list(read_together(["ble:thermometer", "ble:thermometer"], clock=clock, patience_s=60))
    assert [[v.value for v in one.vitals] for one in readings] == [[37.2], [37.2]]
    assert list(read_together([], clock=clock)) == []


def test_how_long_a_silent_sensor_is_waited_for_is_configured(bus: str, clock: Clock) -> None:
    silent = Sensor("AA:00:00:00:00:11", "silent", {"180D": (Characteristic("2A37", ("notify",)),)})
    with FakeBluez(bus, (silent,)):
        (one,) = read_together(["ble:heart-rate"], clock=clock, patience_s=1.5)
        (own,) = read_together(["ble:heart-rate?wait=0.5"], clock=clock, patience_s=1.5)
    assert "nothing in 1.5 s" in str(one.error)
    assert "nothing in 0.5 s" in str(own.error)


def test_an_adapter_that_goes_off_while_a_cuff_pumps_is_waited_for(bus: str, clock: Clock) -> None:
    cuff = sensors.blood_pressure_cuff()
    pumping = Characteristic("2A35", ("indicate",), sends=cuff.services["1810"][0].sends, interval_s=2.0)
    slow = Sensor(cuff.address, cuff.name, {**cuff.services, "1810": (pumping,)})
    with FakeBluez(bus, (slow,)) as bluez, when_connected(bluez, slow.address, lambda: off_and_on(bluez)):
        vitals = open_source(f"ble:{slow.address}?wait=60", clock=clock).read_vitals()
    assert values(vitals)[VitalKind.SYSTOLIC_BP] == 142


def test_an_adapter_that_goes_off_in_an_ecg_leaves_a_gap_of_that_length(bus: str, clock: Clock) -> None:
    strap = Strap()
    with FakeBluez(bus, (strap.sensor(),)) as bluez, strap.streaming(bluez):
        outage = when_connected(bluez, strap.address, lambda: off_and_on(bluez, after=lambda: strap.sent > 200))
        with outage:
            recording = open_source(f"ble:{strap.address}?wait=60", clock=clock).read_ecg(12)
    assert len(recording.missing) >= 1
    got, where = recording.samples[0], np.flatnonzero(np.isfinite(recording.millivolts(0)))
    # the strap counts its samples from when it was switched on: each stands exactly where its number says
    assert (got[where] - got[where[0]] == where - where[0]).all()
    assert 200 < len(where) < 12 * 130 - 100


def test_a_strap_that_never_comes_back_leaves_what_came_and_the_rest_is_missing(
    bus: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    strap = Strap()
    with FakeBluez(bus, (strap.sensor(),)) as bluez, strap.streaming(bluez):

        def leave() -> None:
            wait_for(lambda: strap.sent > 150)
            bluez.power(False)

        with when_connected(bluez, strap.address, leave):
            recording = open_source(f"ble:{strap.address}?wait=60&scan=1", clock=clock).read_ecg(6)
    start, stop = recording.missing[-1]
    assert stop == len(recording.samples[0]) == 6 * 130
    got = recording.samples[0][:start]
    assert len(got) > 100
    assert (np.diff(got[: recording.missing[0][0]]) == 1).all()


def wait_for(state: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not state():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.02)


def off_and_on(bluez: FakeBluez, after: Callable[[], bool] = lambda: True) -> None:
    wait_for(after)
    bluez.power(False)
    time.sleep(1.5)
    bluez.power(True)


@contextlib.contextmanager
def when_connected(bluez: FakeBluez, address: str, do: Callable[[], None]) -> Iterator[None]:
    """Do it in a thread once a client has connected."""

    def run() -> None:
        wait_for(lambda: bluez.connected(address))
        do()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


class Strap:
    """A Polar H10 whose ECG goes on while nobody listens, as that of a worn one does: each sample is its number."""

    address = "AA:00:00:00:00:66"
    size = 26

    def __init__(self) -> None:
        self.sent, self._end = 0, threading.Event()

    def sensor(self) -> Sensor:
        ok = (polar.CONTROL, bytes([0xF0, 2, 0, 0, 0]))
        control = Characteristic(polar.CONTROL, ("read", "write", "indicate"), b"\x0f\x01", on_write=lambda _: [ok])
        return Sensor(
            self.address, "Polar H10 SIM", {polar.SERVICE: (control, Characteristic(polar.DATA, ("notify",)))}
        )

    @contextlib.contextmanager
    def streaming(self, bluez: FakeBluez) -> Iterator[None]:
        thread = threading.Thread(target=self._stream, args=(bluez,))
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()

    def _stream(self, bluez: FakeBluez) -> None:
        began, number = time.monotonic(), 0
        while not self._end.wait(max(0.0, began + (number + self.size) / 130 - time.monotonic())):
            counts = tuple(range(number, number + self.size))
            number += self.size
            bluez.send(self.address, polar.DATA, polar.encode_polar_ecg(round(number / 130 * 1e9), counts))
            self.sent += self.size if bluez.connected(self.address) else 0


def test_the_installed_bleak_has_what_this_leans_on() -> None:
    from bleak import BleakClient, BleakScanner
    from bleak.exc import BleakBluetoothNotAvailableError, BleakError

    assert issubclass(BleakBluetoothNotAvailableError, BleakError)
    for name in ("connect", "disconnect", "start_notify", "read_gatt_char", "write_gatt_char"):
        assert callable(getattr(BleakClient, name))
    for name in ("find_device_by_address", "find_device_by_filter"):
        assert callable(getattr(BleakScanner, name))
