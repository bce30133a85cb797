"""Records that Bluetooth sensors keep, through real bleak: none lost, none twice, whoever's they are. Glucose meters
(Glucose Service 1.0) and continuous glucose sensors (CGM Service 1.0.1, E2E-CRC)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.board.measurements import measured_now
from aidpost.errors import DeviceError, UsageError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import cgm
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.gatt_vitals import CgmReading, Context, vital_signs_of
from aidpost.firmware_bridge.marks import NONE, FileMarks
from aidpost.firmware_bridge.simulators import glucose, sensors
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.firmware_bridge.simulators.sensor import Characteristic, Sensor
from aidpost.firmware_bridge.sources import open_source
from aidpost.records import Device, Origin, Timestamp, VitalKind, VitalSign

METER, SENSOR = "AA:00:00:00:00:05", "AA:00:00:00:00:09"
AT = Timestamp(wall_ms=1_700_000_000_000, monotonic_ms=0, boot=0, synced=True)


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        yield address


@pytest.fixture
def marks(tmp_path: Path) -> FileMarks:
    return FileMarks(tmp_path / "marks.json")


def take(source: str, clock: Clock, marks: FileMarks, *, keep: bool = True) -> list[VitalSign]:
    """One reading, and that it was stored."""
    opened = open_source(f"{source}?wait=30", clock=clock, marks=marks)
    found = opened.read_vitals()
    if keep:
        marks.keep(opened.read_up_to)
    return found


def mmol(found: list[VitalSign]) -> list[float | None]:
    return [one.value for one in found]


def test_records_go_on_after_the_last_that_was_stored(bus: str, clock: Clock, marks: FileMarks) -> None:
    memory = [5.4, 6.1]
    with FakeBluez(bus, (glucose.meter(METER, memory),)):
        assert mmol(take("ble:glucose", clock, marks)) == [5.4, 6.1]
        assert take("ble:glucose", clock, marks) == []
        memory += [-5.0, 7.2]  # a control solution counts as a record, and is nobody's
        assert mmol(take("ble:glucose", clock, marks)) == [7.2]
        memory.append(8.8)
        again = FileMarks(marks._path)  # as after a restart
        assert mmol(take("ble:glucose", clock, again)) == [8.8]


def test_what_was_not_stored_comes_again_as_the_same_records(bus: str, clock: Clock, marks: FileMarks) -> None:
    with FakeBluez(bus, (glucose.meter(METER, [5.4, 6.1]),)):
        lost = take("ble:glucose", clock, marks, keep=False)  # the power went before they were stored
        again = take("ble:glucose", clock, marks)
    assert [one.id for one in lost] == [one.id for one in again]
    assert len({one.id for one in again}) == 2


def test_a_first_record_with_number_0_is_not_left_behind(bus: str, clock: Clock, marks: FileMarks) -> None:
    with FakeBluez(bus, (glucose.meter(METER, [5.4, 6.1], first=0),)):
        assert mmol(take("ble:glucose", clock, marks)) == [5.4, 6.1]


def test_a_meter_whose_memory_was_cleared_counts_from_the_beginning(bus: str, clock: Clock, marks: FileMarks) -> None:
    memory = [5.0] * 40
    with FakeBluez(bus, (glucose.meter(METER, memory),)):
        take("ble:glucose", clock, marks)
        memory[:] = [9.1, 9.2]
        assert mmol(take("ble:glucose", clock, marks)) == [9.1, 9.2]


def test_after_the_highest_number_a_meter_counts_from_0(bus: str, clock: Clock, marks: FileMarks) -> None:
    with FakeBluez(bus, (glucose.meter(METER, [5.4], first=0xFFFF),)):
        assert mmol(take("ble:glucose", clock, marks)) == [5.4]
    with FakeBluez(bus, (glucose.meter(METER, [6.6], first=0),)):
        assert mmol(take("ble:glucose", clock, marks)) == [6.6]


def test_a_records_context_tells_its_meal(bus: str, clock: Clock, marks: FileMarks) -> None:
    """2A34 is matched by its sequence number: 1 before, 2 after a meal, 3 fasting."""
    with FakeBluez(bus, (glucose.meter(METER, [5.4, 6.1, 7.0, 8.0], meals=(1, 2, 3)),)):
        found = take("ble:glucose", clock, marks)
    assert [one.context for one in found] == [
        "preprandial, sequence 1", "postprandial, sequence 2", "fasting, sequence 3", "sequence 4"
    ]  # fmt: skip


class Lossy:
    """What is sent over a bad link: of the first uploads some records are lost, damaged, doubled or late."""

    def __init__(self, sensor: Sensor, short: str, tricks: list[str]) -> None:
        self.tricks, self.short = tricks, short
        services = {
            uuid: tuple(
                replace(one, on_write=self._spoilt(one)) if one.uuid == "2A52" else one for one in characteristics
            )
            for uuid, characteristics in sensor.services.items()
        }
        self.sensor = replace(sensor, services=services)

    def _spoilt(self, control: Characteristic):  # type: ignore[no-untyped-def]
        def answer(command: bytes) -> list[tuple[str, bytes]]:
            assert control.on_write is not None
            notes = control.on_write(command)
            trick = self.tricks.pop(0) if command[0] == 1 and self.tricks else ""
            place = next((n for n, (uuid, _) in enumerate(notes) if uuid == self.short), None)
            if place is None or not trick:
                return notes
            if trick == "lost":
                return notes[:place] + notes[place + 1 :]
            if trick == "damaged":
                uuid, data = notes[place]
                return [*notes[:place], (uuid, data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]), *notes[place + 1 :]]
            if trick == "cut":
                return [*notes[:place], (notes[place][0], notes[place][1][:-1]), *notes[place + 1 :]]
            if trick == "doubled":
                return [*notes[: place + 1], notes[place], *notes[place + 1 :]]
            return [*notes[place + 1 : -1], notes[place], notes[-1]]  # late

        return answer


@pytest.mark.parametrize("trick", ["lost", "cut", "doubled", "late"])
def test_a_meters_records_over_a_bad_link(bus: str, clock: Clock, marks: FileMarks, trick: str) -> None:
    lossy = Lossy(glucose.meter(METER, [5.4, 6.1, 7.2]), "2A18", [trick, ""])
    with FakeBluez(bus, (lossy.sensor,)):
        assert mmol(take("ble:glucose", clock, marks)) == [5.4, 6.1, 7.2]
        assert take("ble:glucose", clock, marks) == []


@pytest.mark.parametrize("trick", ["lost", "damaged", "cut", "doubled", "late"])
def test_a_cgm_sensors_records_over_a_bad_link(bus: str, clock: Clock, marks: FileMarks, trick: str) -> None:
    lossy = Lossy(glucose.GlucoseSensor([90, 100, 110]).sensor(SENSOR), "2AA7", [trick, ""])
    with FakeBluez(bus, (lossy.sensor,)):
        assert [one.measured for one in take("ble:cgm", clock, marks)] == ["90 mg/dL", "100 mg/dL", "110 mg/dL"]
        assert take("ble:cgm", clock, marks) == []


def test_records_that_never_arrive_whole_are_not_taken_in_part(bus: str, clock: Clock, marks: FileMarks) -> None:
    lossy = Lossy(glucose.meter(METER, [5.4, 6.1, 7.2]), "2A18", ["lost"] * 3)
    with FakeBluez(bus, (lossy.sensor,)):
        with pytest.raises(DeviceError, match="of its 3 records 2 arrived whole in 3 attempts"):
            take("ble:glucose", clock, marks)
        assert mmol(take("ble:glucose", clock, marks)) == [5.4, 6.1, 7.2]


OXIMETER = "AA:00:00:00:00:0E"
MORNING, NOON = DeviceTime(2023, 11, 13, 8, 0, 0), DeviceTime(2023, 11, 14, 22, 10, 0)
"""Of the day before, and of three minutes before the clock of these tests."""


def spo2(found: list[VitalSign]) -> list[tuple[float | None, str]]:
    return [(one.value, one.device_time) for one in found if one.kind is VitalKind.SPO2]


def test_an_oximeters_spot_checks_come_whole_each_time_with_their_own_times(
    bus: str, clock: Clock, marks: FileMarks
) -> None:
    """Pulse Oximeter Service 1.0.1, RACP: all records, which have no numbers."""
    memory: list[tuple[int, int, DeviceTime | None]] = [(91, 88, MORNING), (97, 72, NOON)]
    with FakeBluez(bus, (sensors.oximeter_with_memory(OXIMETER, memory),)):
        found = take("ble:oximeter", clock, marks)
        assert spo2(found) == [(91, "2023-11-13T08:00:00"), (97, "2023-11-14T22:10:00")]
        assert [measured_now(one) for one in found] == [False, False, True, True]
        memory.append((95, 70, None))
        again = take("ble:oximeter", clock, marks)
        assert spo2(again)[:2] == spo2(found), "what was stored is known again by sensor, time and values"
        assert spo2(again)[2] == (95, "time unknown")
        assert not any(measured_now(one) for one in again[4:]), "a record without a time is not of now"


def test_what_an_oximeter_measures_while_it_gives_its_memory_is_taken_too(
    bus: str, clock: Clock, marks: FileMarks
) -> None:
    now = DeviceTime(2023, 11, 14, 22, 13, 0)
    live = sensors.oximeter_with_memory(OXIMETER, [(91, 88, MORNING)], sends=[sensors.spot_check(98, 65, now)] * 2)
    with FakeBluez(bus, (live,)):
        assert sorted(spo2(take("ble:oximeter", clock, marks))) == [
            (91, "2023-11-13T08:00:00"), (98, "2023-11-14T22:13:00")
        ]  # fmt: skip


@pytest.mark.parametrize("trick", ["lost", "cut", "doubled", "late"])
def test_an_oximeters_spot_checks_over_a_bad_link(bus: str, clock: Clock, marks: FileMarks, trick: str) -> None:
    memory = [(90 + n, 70, DeviceTime(2023, 11, 13, 8, n, 0)) for n in range(3)]
    lossy = Lossy(sensors.oximeter_with_memory(OXIMETER, memory), "2A5E", [trick, ""])
    with FakeBluez(bus, (lossy.sensor,)):
        assert sorted(value or 0 for value, _ in spo2(take("ble:oximeter", clock, marks))) == [90, 91, 92]


def test_an_oximeter_that_gives_no_memory_is_read_all_the_same(bus: str, clock: Clock, marks: FileMarks) -> None:
    for records in ([], None):
        memory: list[tuple[int, int, DeviceTime | None]] = []
        sensor = sensors.oximeter_with_memory(OXIMETER, memory, sends=[sensors.spot_check(98, 65)])
        if records is None:  # it refuses whatever it is asked
            refuses = Characteristic("2A52", ("write", "indicate"), on_write=lambda _: [("2A52", b"\x06\0\x04\2")])
            others = tuple(one for one in sensor.services["1822"] if one.uuid != "2A52")
            sensor = replace(sensor, services={**sensor.services, "1822": (*others, refuses)})
        with FakeBluez(bus, (sensor,)):
            assert [value for value, _ in spo2(take("ble:oximeter", clock, marks))] == [98]


def test_a_cgm_session_goes_on_from_the_last_stored_time_offset(bus: str, clock: Clock, marks: FileMarks) -> None:
    body = glucose.GlucoseSensor([96, 103, 118])
    with FakeBluez(bus, (body.sensor(SENSOR),)):
        first = take("ble:cgm", clock, marks)
        assert take("ble:cgm", clock, marks) == []
        body.measure(126)
        second = take("ble:cgm", clock, marks)
    assert mmol(first) == [5.3286, 5.7171, 6.5497]
    assert [one.measured for one in second] == ["126 mg/dL"]
    assert "minute 20 of the session" in second[0].context
    assert first[0].method == "continuous glucose sensor, interstitial fluid, subcutaneous"
    ids = [one.id for one in (*first, *second)]
    assert len(set(ids)) == 4


def test_how_old_a_cgm_record_is_its_own_counting_tells(bus: str, clock: Clock, marks: FileMarks) -> None:
    """The sensor's clock was never set: of five-minute records of an hour the last four are of this exam."""
    with FakeBluez(bus, (glucose.GlucoseSensor([100] * 12).sensor(SENSOR),)):
        found = take("ble:cgm", clock, marks)
    assert [measured_now(one) for one in found] == [False] * 8 + [True] * 4
    assert found[-1].device_time == "2023-11-14T22:13:20"  # the clock of these tests
    assert found[0].device_time == "2023-11-14T21:18:20"


def test_a_new_session_is_taken_from_its_beginning(bus: str, clock: Clock, marks: FileMarks) -> None:
    old = glucose.GlucoseSensor([90] * 5, start=DeviceTime(2026, 11, 1, 8, 0, 0))
    with FakeBluez(bus, (old.sensor(SENSOR),)):
        assert len(take("ble:cgm", clock, marks)) == 5
    new = glucose.GlucoseSensor([120] * 7, start=DeviceTime(2026, 11, 15, 8, 0, 0))
    with FakeBluez(bus, (new.sensor(SENSOR),)):
        assert len(take("ble:cgm", clock, marks)) == 7


class Unsure:
    """A clock that nobody set."""

    def now(self) -> Timestamp:
        return msgspec.structs.replace(AT, synced=False)


def test_a_new_session_of_which_nobody_knows_when_it_began(bus: str, marks: FileMarks) -> None:
    unset = glucose.GlucoseSensor([120] * 7)
    with FakeBluez(bus, (unset.sensor(SENSOR),)):
        before = take("ble:cgm", Unsure(), marks)
        unset.values[:] = [80] * 3  # counts less than it did: it cannot be the same one
        after = take("ble:cgm", Unsure(), marks)
    assert (len(before), mmol(after)) == (7, [4.4405] * 3)
    assert cgm.decode_cgm_session_start(unset.start).moment is None  # nor is it told what we do not know
    assert len({one.id for one in (*before, *after)}) == 10  # none is taken for one of the other session


def test_a_session_that_was_never_told_when_it_began_is_told(bus: str, clock: Clock, marks: FileMarks) -> None:
    """CGM Service 1.0.1: the client writes the session start time. By it a session is known from the next."""
    body = glucose.GlucoseSensor([100] * 12)
    with FakeBluez(bus, (body.sensor(SENSOR),)):
        assert len(take("ble:cgm", clock, marks)) == 12
        start = cgm.decode_cgm_session_start(body.start)
        assert str(start.time) == "2023-11-14T21:13:20"  # an hour before the clock of these tests
        body.measure(90)
        assert [one.measured for one in take("ble:cgm", clock, marks)] == ["90 mg/dL"]
        # another session, whose first record was read late: all of it is taken
        body.start = cgm.encode_cgm_session_start(DeviceTime(0, 0, 0, 0, 0, 0), None, crc=True)
        body.values[:] = [70] * 20
        assert len(take("ble:cgm", clock, marks)) == 20


def test_a_session_is_started_only_where_that_is_asked_for(bus: str, clock: Clock, marks: FileMarks) -> None:
    body = glucose.GlucoseSensor(running=False)
    with FakeBluez(bus, (body.sensor(SENSOR),)):
        with pytest.raises(DeviceError, match="no session runs on it") as caught:
            take("ble:cgm", clock, marks)
        assert "session=start" in caught.value.remedy
        assert not body.running
        opened = open_source("ble:cgm?session=start", clock=clock, marks=marks)
        assert opened.read_vitals() == []  # it has measured nothing yet
        assert body.running
        body.measure(101)
        assert [one.measured for one in opened.read_vitals()] == ["101 mg/dL"]
    # the operation was written with its CRC, and the start with this device's time
    assert body.asked == [cgm.with_crc(cgm.START_SESSION, True)]
    start = cgm.decode_cgm_session_start(body.start)
    assert (str(start.time), start.utc_offset_min) == ("2023-11-14T22:13:20", None)
    with pytest.raises(UsageError, match="session=stop"):
        open_source("ble:cgm?session=stop", clock=clock)


def test_a_sensor_that_refuses_to_start_says_why(bus: str, clock: Clock, marks: FileMarks) -> None:
    body = glucose.GlucoseSensor(running=False)
    body._operate = lambda command: [  # type: ignore[method-assign]
        ("2AAC", cgm.with_crc(bytes([0x1C, command[0], 4]), True))
    ]
    with FakeBluez(bus, (body.sensor(SENSOR),)), pytest.raises(DeviceError, match="start a session: not completed"):
        open_source("ble:cgm?session=start&wait=30", clock=clock, marks=marks).read_vitals()


def test_a_stopped_session_gives_what_it_kept_at_the_time_that_is_known(
    bus: str, clock: Clock, marks: FileMarks
) -> None:
    body = glucose.GlucoseSensor([90, 100], running=False, start=DeviceTime(2023, 11, 14, 20, 0, 0))
    with FakeBluez(bus, (body.sensor(SENSOR),)):
        found = take("ble:cgm", clock, marks)
    assert [one.device_time for one in found] == ["2023-11-14T20:05:00", "2023-11-14T20:10:00"]
    unknown = glucose.GlucoseSensor([90], running=False)
    with FakeBluez(bus, (unknown.sensor("AA:00:00:00:00:0B"),)):
        (one,) = take("ble:AA:00:00:00:00:0B", clock, marks)
    # never taken for "just now"
    assert (one.device_time, measured_now(one)) == ("minute 5 of a session", False)


def test_a_live_value_of_a_cgm_sensor_without_a_memory(bus: str, clock: Clock, marks: FileMarks) -> None:
    body = glucose.GlucoseSensor([90], crc=False)
    whole = body.sensor(SENSOR)
    bare = tuple(
        replace(one, sends=(body.measure(111),)) if one.uuid == "2AA7" else one
        for one in whole.services["181F"]
        if one.uuid != "2A52"
    )
    with FakeBluez(bus, (replace(whole, services={"181F": bare}),)):
        (one,) = take("ble:cgm", clock, marks)
    assert (one.measured, measured_now(one)) == ("111 mg/dL", True)


def test_marks_that_are_damaged_count_as_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "marks.json"
    for text in ("", "{", "[1]", '"x"', '{"a": "b"}', '{"a": 1.5}', '{"a": -7}', '{"a": 70000}', '{"a": true}'):
        path.write_text(text)
        assert FileMarks(path).last("a") == NONE
    FileMarks(path).keep({"a": 7})
    FileMarks(path).keep({"b": 0})
    FileMarks(path).keep({})
    assert json.loads(path.read_text()) == {"a": 7, "b": 0}
    with caplog.at_level(logging.WARNING):
        FileMarks(tmp_path / "none" / "marks.json").keep({"a": 1})
    assert "give records again" in caplog.text


@given(st.integers(0, 2045), st.integers(0, 0xFFFF), st.booleans(), st.integers(0, 2**24 - 1))
def test_a_cgm_record_is_read_as_it_was_sent(mg_per_dl: int, offset: int, crc: bool, status: int) -> None:
    (record,) = cgm.decode_cgm(cgm.encode_cgm(mg_per_dl, offset, crc=crc, status=status), crc=crc)
    assert (record.concentration_mg_per_dl.value, record.offset_min) == (mg_per_dl, offset)
    assert len(record.status) == status.bit_count()


@given(st.binary(min_size=9, max_size=9), st.integers(0, 10), st.integers(0, 7))
def test_a_session_start_that_is_damaged_is_found_out_by_its_crc(body: bytes, place: int, bit: int) -> None:
    sent = bytearray(cgm.with_crc(body, True))
    start = cgm.decode_cgm_session_start(bytes(sent))
    assert start == cgm.decode_cgm_session_start(body)
    sent[place] ^= 1 << bit
    with pytest.raises(cgm.DecodeError, match="E2E-CRC"):
        cgm.decode_cgm_session_start(bytes(sent))


def test_a_session_start_is_written_as_2aaa_lays_it_out() -> None:
    time = DeviceTime(2026, 11, 22, 9, 30, 0)
    assert cgm.encode_cgm_session_start(time, 330, crc=False).hex(" ") == "ea 07 0b 16 09 1e 00 16 00"
    assert cgm.decode_cgm_session_start(cgm.encode_cgm_session_start(time, -90, crc=True)).utc_offset_min == -90
    summer = cgm.decode_cgm_session_start(bytes.fromhex("ea070616091e000404"))
    assert (str(summer.time), summer.utc_offset_min) == ("2026-06-22T09:30:00", 120)
    assert cgm.decode_cgm_session_start(bytes(7) + b"\x80\xff").utc_offset_min is None
    assert cgm.decode_cgm_session_start(bytes(9)).moment is None


def test_a_control_solution_or_no_value_of_a_cgm_sensor_is_no_result() -> None:
    (record,) = cgm.decode_cgm(cgm.encode_cgm(float("nan"), 5, crc=False, status=1 << 3))
    context = Context(at=AT, origin=Origin.LIVE, device=Device(name="x"))
    (one,) = vital_signs_of(CgmReading(record, "", "interstitial fluid", ""), context)
    assert (one.value, one.status) == (None, ("sensor malfunction",))
    assert one.absent is not None
    assert vital_signs_of(CgmReading(record, "", "control solution", ""), context) == []
