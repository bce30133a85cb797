"""Battery 2A19, Device Information 0x180A, Current Time 2A2B (GATT Specification Supplement)."""

from __future__ import annotations

from dataclasses import dataclass

from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.gatt import DeviceTime, Reader, bit_names, encode_date_time

ADJUST_REASONS = {0: "manual", 1: "external reference", 2: "time zone", 3: "daylight saving"}


def decode_battery(data: bytes) -> int:
    """2A19, percent.

    Raises
    ------
    DecodeError
        It is empty or beyond 100.
    """
    level = Reader("battery level 2A19", data).u8("level")
    if level > 100:
        raise DecodeError("battery level 2A19", f"{level} % is beyond 100 %")
    return level


def decode_text(data: bytes) -> str:
    """2A24 to 2A29: a UTF-8 string; some devices pad it with zeros."""
    return data.split(b"\0")[0].decode("utf-8", "replace").strip()


@dataclass(frozen=True)
class CurrentTime:
    """The device's clock; `weekday` is 1 (Monday) to 7, 0 unknown, `fraction` in 1/256 s."""

    time: DeviceTime
    weekday: int
    fraction: int
    reasons: tuple[str, ...]


def decode_current_time(data: bytes) -> CurrentTime:
    """2A2B.

    Raises
    ------
    DecodeError
        It is shorter than 10 bytes.
    """
    reader = Reader("current time 2A2B", data)
    time, weekday, fraction = reader.date_time("time"), reader.u8("weekday"), reader.u8("fraction")
    return CurrentTime(time, weekday, fraction, bit_names(reader.u8("reason"), ADJUST_REASONS))


def encode_current_time(time: DeviceTime, weekday: int) -> bytes:
    """2A2B, to set a device's clock by."""
    return encode_date_time(time) + bytes([weekday, 0, 1])
