"""Simulated Bluetooth sensors for `simulators.bluez`: what a strap, a cuff, a meter and their like say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan, nan

from aidpost.firmware_bridge.decoders import movesense, nonin, polar, viatom
from aidpost.firmware_bridge.decoders.blood_pressure import encode_blood_pressure
from aidpost.firmware_bridge.decoders.gatt import DeviceTime, encode_date_time
from aidpost.firmware_bridge.decoders.heart_rate import encode_heart_rate
from aidpost.firmware_bridge.decoders.medfloat import encode_float32, encode_sfloat
from aidpost.firmware_bridge.simulators import glucose
from aidpost.firmware_bridge.simulators.sensor import Characteristic, Sensor

NOTIFY, INDICATE = ("notify",), ("indicate",)


def device_information(model: str, serial: str = "SIM-1") -> dict[str, tuple[Characteristic, ...]]:
    """Device Information and Battery, as most sensors have them."""
    texts = {"2A29": "Aidpost", "2A24": model, "2A25": serial, "2A26": "1.0"}
    return {
        "180A": tuple(Characteristic(uuid, value=text.encode()) for uuid, text in texts.items()),
        "180F": (Characteristic("2A19", value=bytes([87])),),
    }


def heart_rate_strap(
    address: str = "AA:00:00:00:00:01", rates: Sequence[int] = (71, 72, 73), contact: bool = True
) -> Sensor:
    """A strap that sends those rates, one after the other, with an RR interval each."""
    sends = tuple(encode_heart_rate(rate, (round(60 * 1024 / rate),), contact=contact) for rate in rates)
    measurement = Characteristic("2A37", NOTIFY, sends=sends)
    return Sensor(address, "Simulated strap", {"180D": (measurement,), **device_information("strap")})


def blood_pressure_cuff(
    address: str = "AA:00:00:00:00:02",
    readings: Sequence[tuple[int, int, int, DeviceTime | None]] = ((142, 91, 78, None),),
) -> Sensor:
    """A cuff that uploads (systolic, diastolic, pulse, its own time), oldest first."""
    sends = tuple(encode_blood_pressure(s, d, round(d + (s - d) / 3), p, time) for s, d, p, time in readings)
    services = {
        "1810": (Characteristic("2A35", INDICATE, sends=sends), Characteristic("2A49", value=b"\x04\0")),
        "1805": (Characteristic("2A2B", ("read", "write"), value=bytes(10)),),
    }
    return Sensor(address, "Simulated cuff", {**services, **device_information("cuff")})


def thermometer(address: str = "AA:00:00:00:00:03", celsius: float = 37.2) -> Sensor:
    """An ear thermometer with one reading."""
    sends = (b"\x04" + encode_float32(celsius, 1) + b"\x03",)
    services = {"1809": (Characteristic("2A1C", INDICATE, sends=sends),)}
    return Sensor(address, "Simulated thermometer", {**services, **device_information("thermometer")})


def pulse_oximeter(address: str = "AA:00:00:00:00:04", spo2: int = 97, pulse: int = 74) -> Sensor:
    """An oximeter with one spot check."""
    sends = (spot_check(spo2, pulse),)
    services = {"1822": (Characteristic("2A5E", INDICATE, sends=sends),)}
    return Sensor(address, "Simulated oximeter", {**services, **device_information("oximeter")})


def oximeter_with_memory(
    address: str = "AA:00:00:00:00:0E",
    readings: Sequence[tuple[int, int, DeviceTime | None]] = ((93, 88, DeviceTime(2026, 11, 22, 8, 0, 0)),),
    sends: Sequence[bytes] = (),
) -> Sensor:
    """An oximeter that keeps spot checks of (SpO2, pulse, its own time) and gives them when it is asked; `sends` it
    measures meanwhile. The memory may grow, if `readings` is a list."""

    def records() -> dict[int, glucose.Notes]:
        return {number: [("2A5E", spot_check(*one))] for number, one in enumerate(readings)}

    services = {
        "1822": (
            Characteristic("2A5E", INDICATE, sends=tuple(sends)),
            Characteristic("2A60", value=bytes([0b1100, 0])),  # measurement storage and time stamps
            glucose.record_access(records, filters=False),
        )
    }
    return Sensor(address, "Simulated oximeter", {**services, **device_information("oximeter")})


def spot_check(spo2: int, pulse: int, time: DeviceTime | None = None) -> bytes:
    """A spot check 2A5E, with the oximeter's own time where it has one."""
    stamp = b"" if time is None else encode_date_time(time)
    return bytes([time is not None]) + encode_sfloat(spo2) + encode_sfloat(pulse) + stamp


def continuous_oximeter(
    address: str = "AA:00:00:00:00:0A", spo2: Sequence[float] = (nan, nan, 95, 96, 96), pulse: int = 74
) -> Sensor:
    """An oximeter on a finger: one continuous measurement after the other, NaN and an early estimate at first, then
    fully qualified ones. It says that it is off the finger where there is no number."""
    sends = tuple(_continuous(value, pulse, early=number < 3) for number, value in enumerate(spo2))
    services = {"1822": (Characteristic("2A5F", NOTIFY, sends=sends), Characteristic("2A60", value=b"\x03\0"))}
    return Sensor(address, "Simulated oximeter", {**services, **device_information("oximeter")})


def _continuous(spo2: float, pulse: int, *, early: bool) -> bytes:
    if isnan(spo2):  # NaN twice; measurement ongoing; unconnected to the user
        return bytes([0x0C]) + b"\xff\x07" * 2 + (1 << 5).to_bytes(2, "little") + (1 << 11).to_bytes(3, "little")
    status = 1 << 6 if early else 1 << 8
    return bytes([0x0C]) + encode_sfloat(spo2) + encode_sfloat(pulse) + status.to_bytes(2, "little") + bytes(3)


def nonin_oximeter(address: str = "AA:00:00:00:00:0C", spo2: int = 96, pulse: int = 71, count: int = 1200) -> Sensor:
    """A Nonin 3230 on a finger: that many measurements, the first five while it still searches."""
    sends = tuple(_nonin(number, spo2, pulse) for number in range(count))
    services = {nonin.SERVICE: (Characteristic(nonin.MEASUREMENT, NOTIFY, sends=sends),)}
    return Sensor(address, "Nonin3230 SIM", {**services, **device_information("3230")})


def _nonin(number: int, spo2: int, pulse: int) -> bytes:
    searching = number < 5
    state = 1 << 4 | (1 << 3 if searching else 1 << 2)  # the sensor is connected; searching, or at its smart point
    value, rate = (nonin.MISSING_SPO2, nonin.MISSING_PULSE) if searching else (spo2, pulse)
    head = bytes([9, state, 30]) + (321).to_bytes(2, "big") + (number & 0xFFFF).to_bytes(2, "big")
    return head + bytes([value]) + rate.to_bytes(2, "big")


def viatom_oximeter(
    address: str = "AA:00:00:00:00:0D",
    readings: Sequence[tuple[int, int]] = ((0xFF, 0xFFFF), (95, 66), (94, 67)),
    wave: bytes = b"",
) -> Sensor:
    """A Viatom or Wellue oximeter: of those readings one more at each question, the last again and again. 255 and 65535
    are no finger."""
    asked = 0

    def answer(command: bytes) -> list[tuple[str, bytes]]:
        nonlocal asked
        if command != viatom.oxy_request(viatom.OXY_REAL_TIME, b"\0"):
            return []
        spo2, pulse = readings[min(asked, len(readings) - 1)]
        asked += 1
        whole = viatom.encode_oxy_real_time(spo2, pulse, 64, worn=spo2 != 0xFF, wave=wave)
        return [(viatom.NOTIFY, whole[n : n + 20]) for n in range(0, len(whole), 20)]

    write = Characteristic(viatom.WRITE, ("write", "write-without-response"), on_write=answer, interval_s=0.01)
    return Sensor(address, "O2Ring SIM", {viatom.SERVICE: (write, Characteristic(viatom.NOTIFY, NOTIFY))})


def glucose_meter(address: str = "AA:00:00:00:00:05", mmol: Sequence[float] = (5.4, 6.1, 11.2)) -> Sensor:
    """A meter whose memory holds those readings; the last is of control solution when it is negative."""
    return glucose.meter(address, mmol, meals=(0, 2), information=device_information("meter"))


def glucose_sensor(address: str = "AA:00:00:00:00:09", mg_per_dl: Sequence[float] = (96, 103, 118)) -> Sensor:
    """A continuous glucose sensor with E2E-CRC, in whose session those values were measured."""
    return glucose.GlucoseSensor(mg_per_dl).sensor(address, device_information("CGM"))


def polar_h10(address: str = "AA:00:00:00:00:06", counts: Sequence[int] = ()) -> Sensor:
    """A chest strap whose ECG, in microvolt, starts when it is asked for."""
    size = 73
    frames = []
    for end in range(size, len(counts) + 1, size):
        last_ns = round(end / polar.FS_HZ * 1e9)
        frames.append((polar.DATA, polar.encode_polar_ecg(last_ns, tuple(counts[end - size : end]))))

    def answer(command: bytes) -> list[tuple[str, bytes]]:
        ok = (polar.CONTROL, bytes([0xF0, command[0], command[1], 0, 0]))
        return [ok, *frames] if command == polar.START_ECG else [ok]

    control = Characteristic(polar.CONTROL, ("read", "write", "indicate"), b"\x0f\x01", on_write=answer)
    services = {polar.SERVICE: (control, Characteristic(polar.DATA, NOTIFY))}
    return Sensor(address, "Polar H10 SIM", {**services, **device_information("H10")})


def movesense_strap(address: str = "AA:00:00:00:00:07", counts: Sequence[int] = ()) -> Sensor:
    """A Movesense sensor whose ECG, in counts, starts when it is subscribed to."""
    size = 16
    frames = [
        (movesense.NOTIFY, movesense.encode_movesense(round(n * 1000 / movesense.FS_HZ), tuple(counts[n : n + size])))
        for n in range(0, len(counts) - size + 1, size)
    ]

    def answer(command: bytes) -> list[tuple[str, bytes]]:
        known = command == movesense.START_ECG
        ok = (movesense.NOTIFY, bytes([movesense.RESPONSE, command[1]]) + (200 if known else 404).to_bytes(2, "little"))
        return [ok, *frames] if known else [ok]

    write = Characteristic(movesense.WRITE, ("write",), on_write=answer)
    services = {movesense.SERVICE: (write, Characteristic(movesense.NOTIFY, NOTIFY))}
    return Sensor(address, "Movesense SIM", {**services, **device_information("Movesense")})


def scale(address: str = "AA:00:00:00:00:08", kilograms: float = 68.5, fat_percent: float = 27.5) -> Sensor:
    """A scale that measures weight and body composition: 5 g and 0.1 % a count."""
    weight = b"\0" + round(kilograms / 0.005).to_bytes(2, "little")
    composition = b"\0\0" + round(fat_percent * 10).to_bytes(2, "little")
    services = {
        "181D": (Characteristic("2A9D", INDICATE, sends=(weight,)),),
        "181B": (Characteristic("2A9C", INDICATE, sends=(composition,)),),
    }
    return Sensor(address, "Simulated scale", {**services, **device_information("scale")})


def _ramp() -> list[int]:
    return [n % 800 - 400 for n in range(8000)]


SENSORS: dict[str, Callable[[], Sensor]] = {
    "heart-rate": lambda: heart_rate_strap(rates=[71, 72, 73] * 400),
    "blood-pressure": blood_pressure_cuff,
    "thermometer": thermometer,
    "oximeter": pulse_oximeter,
    "continuous-oximeter": lambda: continuous_oximeter(spo2=[nan, nan, 95, 96, 97] * 400),
    "oximeter-memory": oximeter_with_memory,
    "nonin": nonin_oximeter,
    "viatom": viatom_oximeter,
    "glucose": glucose_meter,
    "cgm": glucose_sensor,
    "polar": lambda: polar_h10(counts=_ramp()),
    "movesense": lambda: movesense_strap(counts=_ramp()),
    "scale": scale,
}
"""The sensors that `aidpost devices simulate` can put into the air."""
