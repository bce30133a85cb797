"""Heart Rate service 0x180D (GATT Specification Supplement 3.113): measurement 2A37 and sensor location 2A38."""

from __future__ import annotations

from dataclasses import dataclass

from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.gatt import Reader

LOCATIONS = ("other", "chest", "wrist", "finger", "hand", "ear lobe", "foot")


@dataclass(frozen=True)
class HeartRate:
    """`contact` is None where the sensor cannot tell. RR intervals are in 1/1024 s as sent, oldest first. The unit of
    `energy` (joule or kilojoule) differs between specifications, so it is the plain count."""

    heart_rate_per_min: int
    contact: bool | None
    energy: int | None
    rr_1024: tuple[int, ...]

    @property
    def rr_ms(self) -> tuple[float, ...]:
        """The RR intervals in milliseconds."""
        return tuple(rr * 1000 / 1024 for rr in self.rr_1024)


def decode_heart_rate(data: bytes) -> HeartRate:
    """2A37.

    Raises
    ------
    DecodeError
        A field that the flags announce is not there.
    """
    reader = Reader("heart rate measurement 2A37", data)
    flags = reader.u8("flags")
    rate = reader.u16("heart rate") if flags & 1 else reader.u8("heart rate")
    energy = reader.u16("energy expended") if flags & 8 else None
    intervals: tuple[int, ...] = ()
    if flags & 0x10:
        if reader.left < 2 or reader.left % 2:
            raise DecodeError(reader.what, f"RR intervals are announced, and {reader.left} bytes are left for them")
        intervals = tuple(reader.u16("RR interval") for _ in range(reader.left // 2))
    contact = bool(flags & 2) if flags & 4 else None
    return HeartRate(rate, contact, energy, intervals)


def decode_sensor_location(data: bytes) -> str:
    """2A38: where the sensor is worn."""
    code = Reader("sensor location 2A38", data).u8("location")
    return LOCATIONS[code] if code < len(LOCATIONS) else f"reserved {code}"


def encode_heart_rate(rate: int, rr_1024: tuple[int, ...] = (), *, contact: bool | None = None) -> bytes:
    """2A37 as a sensor sends it; for simulators."""
    flags = (1 if rate > 255 else 0) | (0x10 if rr_1024 else 0)
    flags |= 0 if contact is None else 6 if contact else 4
    body = rate.to_bytes(2 if rate > 255 else 1, "little") + b"".join(rr.to_bytes(2, "little") for rr in rr_1024)
    return bytes([flags]) + body
