"""Blood Pressure service 0x1810 (GATT Specification Supplement): 2A35, intermediate cuff 2A36, feature 2A49."""

from __future__ import annotations

from dataclasses import dataclass

from aidpost.firmware_bridge.decoders.gatt import DeviceTime, Reader, bit_names, scaled
from aidpost.firmware_bridge.decoders.medfloat import Number, encode_sfloat

MMHG_PER_KPA = "7.500617"
STATUS = {0: "body movement", 1: "cuff too loose", 2: "irregular pulse", 5: "improper position"}
PULSE_RANGE = {1: "pulse above range", 2: "pulse below range"}
FEATURES = {
    0: "body movement",
    1: "cuff fit",
    2: "irregular pulse",
    3: "pulse range",
    4: "position",
    5: "multiple bonds",
    6: "E2E-CRC",
    7: "user data",
    8: "user-facing time",
}


@dataclass(frozen=True)
class BloodPressure:
    """Pressures in the device's `unit` (mm[Hg] or kPa); `user` is None where unknown."""

    systolic: Number
    diastolic: Number
    mean: Number
    unit: str
    time: DeviceTime | None
    pulse_per_min: Number | None
    user: int | None
    status: tuple[str, ...]

    def mmhg(self, pressure: Number) -> Number:
        """One of its pressures in mmHg."""
        return scaled(pressure, MMHG_PER_KPA) if self.unit == "kPa" else pressure


def decode_blood_pressure(data: bytes) -> BloodPressure:
    """2A35; also 2A36, where `systolic` is the cuff's present pressure and the others say nothing.

    Raises
    ------
    DecodeError
        A field that the flags announce is not there.
    """
    reader = Reader("blood pressure measurement 2A35", data)
    flags = reader.u8("flags")
    systolic, diastolic, mean = (reader.sfloat(name) for name in ("systolic", "diastolic", "mean"))
    time = reader.date_time() if flags & 2 else None
    pulse = reader.sfloat("pulse rate") if flags & 4 else None
    user = reader.u8("user id") if flags & 8 else None
    word = reader.u16("measurement status") if flags & 16 else 0
    status = bit_names(word & ~0x18, STATUS)
    if word >> 3 & 3 in PULSE_RANGE:
        status += (PULSE_RANGE[word >> 3 & 3],)
    unit = "kPa" if flags & 1 else "mm[Hg]"
    return BloodPressure(systolic, diastolic, mean, unit, time, pulse, None if user == 0xFF else user, status)


def decode_blood_pressure_feature(data: bytes) -> tuple[str, ...]:
    """2A49: what the cuff can detect."""
    return Reader("blood pressure feature 2A49", data).flags(2, FEATURES, "features")


def encode_blood_pressure(
    systolic: int, diastolic: int, mean: int, pulse: int, time: DeviceTime | None = None, status: int = 0
) -> bytes:
    """2A35 in mmHg with pulse and status, as a cuff sends it; for simulators."""
    stamp = b"" if time is None else time.year.to_bytes(2, "little") + bytes(list(vars(time).values())[1:])
    values = b"".join(encode_sfloat(value) for value in (systolic, diastolic, mean))
    flags = 0x14 | (2 if time else 0)
    return bytes([flags]) + values + stamp + encode_sfloat(pulse) + status.to_bytes(2, "little")
