"""Reading the value of a Bluetooth characteristic field by field, and the types that several of them share."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.medfloat import Number, float32, sfloat


@dataclass(frozen=True)
class DeviceTime:
    """Date and time by the device's own clock, which has no zone and may be wrong. 0 means unknown in a date."""

    year: int
    month: int
    day: int
    hour: int
    minute: int
    second: int

    def __str__(self) -> str:
        return f"{self.year:04}-{self.month:02}-{self.day:02}T{self.hour:02}:{self.minute:02}:{self.second:02}"


def encode_date_time(time: DeviceTime) -> bytes:
    """Date Time 2A08, 7 bytes, as it is written to a device."""
    return time.year.to_bytes(2, "little") + bytes([time.month, time.day, time.hour, time.minute, time.second])


class Reader:
    """A cursor over a characteristic's bytes, little-endian. A field that is not all there raises `DecodeError`."""

    def __init__(self, what: str, data: bytes) -> None:
        self.what, self._data, self._position = what, data, 0

    @property
    def left(self) -> int:
        """Bytes not yet read."""
        return len(self._data) - self._position

    def take(self, count: int, field: str) -> bytes:
        if self.left < count:
            raise DecodeError(self.what, f"{field} needs {count} bytes at {self._position}, there are {self.left}")
        self._position += count
        return self._data[self._position - count : self._position]

    def unsigned(self, size: int, field: str) -> int:
        return int.from_bytes(self.take(size, field), "little")

    def signed(self, size: int, field: str) -> int:
        return int.from_bytes(self.take(size, field), "little", signed=True)

    def u8(self, field: str) -> int:
        return self.unsigned(1, field)

    def u16(self, field: str) -> int:
        return self.unsigned(2, field)

    def sfloat(self, field: str) -> Number:
        return sfloat(self.unsigned(2, field))

    def float32(self, field: str) -> Number:
        return float32(self.unsigned(4, field))

    def date_time(self, field: str = "time stamp") -> DeviceTime:
        return DeviceTime(self.u16(field), *self.take(5, field))

    def flags(self, size: int, names: dict[int, str], field: str) -> tuple[str, ...]:
        """The names of the bits that are set; a reserved one is "bit N"."""
        return bit_names(self.unsigned(size, field), names)

    def rest(self) -> bytes:
        return self.take(self.left, "the rest")


def bit_names(word: int, names: dict[int, str]) -> tuple[str, ...]:
    """The names of the bits that are set in a word; a reserved one is "bit N"."""
    return tuple(names.get(bit, f"bit {bit}") for bit in range(word.bit_length()) if word >> bit & 1)


def scaled(number: Number, factor: str) -> Number:
    """The number times a factor, exactly; what is no number stays so."""
    return number if number.value is None else Number(number.value * Decimal(factor))


def whole(count: int, factor: str, *, absent: int | None = None) -> Number:
    """A scaled integer field; `absent` is the count that means "unsuccessful"."""
    from aidpost.records import AbsentReason

    return Number(None, AbsentReason.ERROR) if count == absent else Number(Decimal(count) * Decimal(factor))
