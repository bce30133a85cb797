"""Health Thermometer service 0x1809 (GATT Specification Supplement): 2A1C, intermediate 2A1E, type 2A1D."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from aidpost.firmware_bridge.decoders.gatt import DeviceTime, Reader
from aidpost.firmware_bridge.decoders.medfloat import Number

SITES = ("", "armpit", "body", "ear", "finger", "GI tract", "mouth", "rectum", "toe", "tympanum")


@dataclass(frozen=True)
class Temperature:
    """The number as sent, in `unit` (Cel or [degF]); `site` is empty where the device does not say."""

    temperature: Number
    unit: str
    time: DeviceTime | None
    site: str

    @property
    def celsius(self) -> Number:
        """The temperature in degrees Celsius."""
        value = self.temperature.value
        if value is None or self.unit == "Cel":
            return self.temperature
        return Number((value - 32) * 5 / Decimal(9))


def decode_temperature(data: bytes) -> Temperature:
    """2A1C and 2A1E.

    Raises
    ------
    DecodeError
        A field that the flags announce is not there.
    """
    reader = Reader("temperature measurement 2A1C", data)
    flags = reader.u8("flags")
    value = reader.float32("temperature")
    time = reader.date_time() if flags & 2 else None
    site = _site(reader.u8("type")) if flags & 4 else ""
    return Temperature(value, "[degF]" if flags & 1 else "Cel", time, site)


def decode_temperature_type(data: bytes) -> str:
    """2A1D: where it measures."""
    return _site(Reader("temperature type 2A1D", data).u8("type"))


def _site(code: int) -> str:
    return SITES[code] if code < len(SITES) else f"reserved {code}"
