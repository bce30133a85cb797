"""Nonin 3230 and 3150: the proprietary oximetry characteristic, 10 bytes, big-endian.

SpO2 127 and pulse 511 are taken for "missing"; Nonin's document was not at hand to confirm it.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from aidpost.firmware_bridge.decoders.gatt import Reader, bit_names
from aidpost.firmware_bridge.decoders.medfloat import Number
from aidpost.records import AbsentReason

SERVICE = "46a970e0-0d5f-11e2-8b5e-0002a5d5c51b"
MEASUREMENT = "0aad7ea0-0d60-11e2-8e3c-0002a5d5c51b"
STATUS = {1: "weak signal", 2: "smart point", 3: "searching", 4: "sensor connected", 5: "low battery", 6: "encrypted"}
MISSING_SPO2, MISSING_PULSE = 127, 511


@dataclass(frozen=True)
class NoninOximetry:
    """One measurement; `smart point` in the status means that the device calls it good enough to record."""

    spo2_percent: Number
    pulse_per_min: Number
    amplitude_percent: Number
    battery_v: float
    counter: int
    status: tuple[str, ...]


def decode_nonin(data: bytes) -> NoninOximetry:
    """The measurement characteristic.

    Raises
    ------
    DecodeError
        It is shorter than 10 bytes.
    """
    reader = Reader("Nonin oximetry measurement", data)
    body = reader.take(10, "measurement")
    spo2, pulse = body[7], int.from_bytes(body[8:10], "big")
    missing = Number(None, AbsentReason.NOT_A_NUMBER)
    return NoninOximetry(
        spo2_percent=missing if spo2 == MISSING_SPO2 else Number(Decimal(spo2)),
        pulse_per_min=missing if pulse == MISSING_PULSE else Number(Decimal(pulse)),
        amplitude_percent=Number(Decimal(int.from_bytes(body[3:5], "big")) / 100),
        battery_v=body[2] / 10,
        counter=int.from_bytes(body[5:7], "big"),
        status=bit_names(body[1], STATUS),
    )
