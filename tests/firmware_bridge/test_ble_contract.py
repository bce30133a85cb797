"""What holds for every Bluetooth sensor of vital signs, all of them read at once by real bleak over a bad link: values
lost, damaged, doubled, late and overtaken never become another value, and what can be had is had."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import nonin
from aidpost.firmware_bridge.gatt_vitals import MEASUREMENTS
from aidpost.firmware_bridge.ports import _ble, _ble_loop
from aidpost.firmware_bridge.ports.ble import PROFILES
from aidpost.firmware_bridge.simulators import sensors
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.firmware_bridge.simulators.sensor import Link, Sensor
from aidpost.firmware_bridge.together import read_together

EXPECTED: dict[str, list[tuple[str, float]]] = {
    "heart-rate": [("heart_rate", 72)],
    "blood-pressure": [("systolic_bp", 142), ("diastolic_bp", 91), ("mean_bp", 108), ("pulse_rate", 78)],
    "thermometer": [("temperature", 37.2)],
    "oximeter": [("spo2", 97), ("pulse_rate", 74)],
    "glucose": [("glucose", 5.4), ("glucose", 6.1), ("glucose", 11.2)],
    "cgm": [("glucose", 5.3286), ("glucose", 5.7171), ("glucose", 6.5497)],
    "body-composition": [("weight", 68.5), ("body_fat", 27.5)],
    "nonin": [("spo2", 96), ("pulse_rate", 70), ("perfusion_index", 3.21)],
    "viatom": [("spo2", 94), ("pulse_rate", 67)],
}
RESUMED = ("glucose", "cgm")
"""What is lost on the way is asked for again."""
REPEATED = ("heart-rate", "oximeter", "nonin", "viatom")
"""What is lost on the way comes again by itself."""


def air() -> tuple[Sensor, ...]:
    return (
        sensors.heart_rate_strap(rates=[72] * 900),
        sensors.blood_pressure_cuff(),
        sensors.thermometer(),
        sensors.continuous_oximeter(spo2=[97] * 900),
        sensors.glucose_meter(),
        sensors.glucose_sensor(),
        sensors.scale(),
        sensors.nonin_oximeter(spo2=96, pulse=70, count=900),
        sensors.viatom_oximeter(readings=[(94, 67)]),
    )


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        monkeypatch.setattr(_ble, "SETTLE_S", 0.5)
        yield address


def read(
    bus: str, clock: Clock, link: Link | None, wait_s: int = 30
) -> dict[str, list[tuple[str, float | None]] | str]:
    """What each kind of sensor gave, or why it gave nothing."""
    asked = [f"ble:{kind}?wait={wait_s}" for kind in EXPECTED]
    with FakeBluez(bus, air(), link=link):
        readings = list(read_together(asked, clock=clock))
    return {
        one.source.removeprefix("ble:").split("?")[0]: str(one.error)
        if one.error
        else [(vital.kind.value, vital.value) for vital in one.vitals]
        for one in readings
    }


def test_all_that_is_under_way_shares_one_loop_which_ends_with_the_last() -> None:
    """bleak's table of managers is no thread's: several loops at once tripped over it."""
    loops, together = [], threading.Barrier(4)

    async def work() -> None:
        loops.append(asyncio.get_running_loop())
        await asyncio.to_thread(together.wait, 60)

    threads = [threading.Thread(target=_ble_loop.run, args=(work,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(loops) == 4
    assert len(set(map(id, loops))) == 1
    assert loops[0].is_closed()


def test_work_that_is_given_up_lets_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    begun = threading.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            said.append("let go")

    def interrupted(future: Future[None], timeout: float | None = None) -> None:
        monkeypatch.undo()
        assert begun.wait(60)
        raise KeyboardInterrupt

    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _ble_loop.run(work)
    assert said == ["let go"]


def test_every_kind_of_sensor_is_held_to_the_contract() -> None:
    streams = {"polar", "movesense"}  # ECG: test_contract
    alike = {"weight"}  # the scale of "body-composition"
    assert {*EXPECTED, *streams, *alike} == set(PROFILES)
    simulated = {one.uuid for sensor in air() for found in sensor.services.values() for one in found}
    assert set(MEASUREMENTS) - {nonin.MEASUREMENT, "2A5E"} <= simulated  # a spot check: test_ble


def test_over_a_good_link(bus: str, clock: Clock) -> None:
    assert read(bus, clock, None) == EXPECTED


def test_values_that_come_twice_are_one(bus: str, clock: Clock) -> None:
    assert read(bus, clock, lambda _, value: [value, value]) == EXPECTED


def test_values_that_are_held_up_and_overtaken_are_all_there(bus: str, clock: Clock) -> None:
    """Of every two of a characteristic the first is held up until the second has come; answers are not."""
    held: dict[str, bytes] = {}

    def link(uuid: str, value: bytes) -> list[bytes]:
        if uuid not in ("2AA7", "2A37", "2A5F"):
            return [value]
        return [value, held.pop(uuid)] if uuid in held else (held.update({uuid: value}) or [])

    found = read(bus, clock, link)
    # three records: the third is held up for ever in the first attempt, and asked for again
    assert found == EXPECTED


def test_a_first_value_that_is_lost_is_asked_for_again_comes_again_or_is_said_to_lack(bus: str, clock: Clock) -> None:
    lost: set[str] = set()

    def link(uuid: str, value: bytes) -> list[bytes]:
        if uuid == "2A52" or uuid in lost:
            return [value]
        lost.add(uuid)
        return []

    found = read(bus, clock, link, wait_s=10)
    for kind in (*RESUMED, *REPEATED):
        assert found[kind] == EXPECTED[kind]
    for kind in set(EXPECTED) - {*RESUMED, *REPEATED}:
        assert isinstance(found[kind], str), kind
        assert "sent nothing" in str(found[kind])


@pytest.mark.parametrize("seed", range(2))
def test_damage_never_ends_a_reading_without_saying_why(bus: str, clock: Clock, seed: int) -> None:
    """Bits change on the way, which Bluetooth's own checksum nearly always finds: no sensor without an E2E-CRC can
    tell. What holds then: no reading breaks, those with an E2E-CRC are right, and every value is a plausible number."""
    rng = random.Random(seed)

    def link(uuid: str, value: bytes) -> list[bytes]:
        if uuid == "2A52" or rng.random() > 0.2:
            return [value]
        spoilt = bytearray(value)
        kind = rng.randrange(3)
        if kind == 0:
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del spoilt[rng.randrange(len(spoilt)) :]
        else:
            spoilt += rng.randbytes(3)
        return [bytes(spoilt)]

    found = read(bus, clock, link)
    assert set(found) == set(EXPECTED)
    cgm = found["cgm"]
    assert cgm == EXPECTED["cgm"] or "arrived whole" in str(cgm)
    for one in found.values():
        assert isinstance(one, str) or all(value is None or abs(value) < 1e9 for _, value in one)
