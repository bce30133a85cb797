"""Pulse Oximeter service 0x1822 (PLXS 1.0.1): spot check 2A5E, continuous 2A5F, features 2A60.

Demonstration, testing, calibration, unavailable and invalid measurements never become a patient's: `blocked_by`.
"""

from __future__ import annotations

from dataclasses import dataclass

from aidpost.firmware_bridge.decoders.gatt import DeviceTime, Reader
from aidpost.firmware_bridge.decoders.medfloat import Number

MEASUREMENT_STATUS = {
    5: "ongoing",
    6: "early estimate",
    7: "validated",
    8: "fully qualified",
    9: "from storage",
    10: "demonstration",
    11: "testing",
    12: "calibration",
    13: "unavailable",
    14: "questionable",
    15: "invalid",
}
BLOCKING = frozenset({"demonstration", "testing", "calibration", "unavailable", "invalid"})
SENSOR_STATUS = {
    0: "extended display update",
    1: "equipment malfunction",
    2: "signal irregularity",
    3: "inadequate signal",
    4: "poor signal",
    5: "low perfusion",
    6: "erratic signal",
    7: "non-pulsatile signal",
    8: "questionable pulse",
    9: "analysis ongoing",
    10: "interference",
    11: "sensor unconnected to user",
    12: "unknown sensor",
    13: "sensor displaced",
    14: "sensor malfunction",
    15: "sensor disconnected",
}
FEATURES = {
    0: "measurement status",
    1: "sensor status",
    2: "storage",
    3: "time stamp",
    4: "fast",
    5: "slow",
    6: "pulse amplitude index",
    7: "multiple bonds",
}


@dataclass(frozen=True)
class PulseOximetry:
    """One measurement; `fast` and `slow` are (SpO2, pulse) with other averaging, None where not sent."""

    spo2_percent: Number
    pulse_per_min: Number
    time: DeviceTime | None = None
    clock_set: bool = True
    fast: tuple[Number, Number] | None = None
    slow: tuple[Number, Number] | None = None
    status: tuple[str, ...] = ()
    sensor_status: tuple[str, ...] = ()
    amplitude_percent: Number | None = None

    @property
    def blocked_by(self) -> tuple[str, ...]:
        """The states that forbid taking it for a patient's."""
        return tuple(state for state in self.status if state in BLOCKING)


def decode_spot_check(data: bytes) -> PulseOximetry:
    """2A5E.

    Raises
    ------
    DecodeError
        A field that the flags announce is not there.
    """
    reader = Reader("pulse oximeter spot check 2A5E", data)
    flags = reader.u8("flags")
    spo2, pulse = reader.sfloat("SpO2"), reader.sfloat("pulse rate")
    return PulseOximetry(
        spo2,
        pulse,
        time=reader.date_time() if flags & 1 else None,
        clock_set=not flags & 16,
        status=reader.flags(2, MEASUREMENT_STATUS, "measurement status") if flags & 2 else (),
        sensor_status=reader.flags(3, SENSOR_STATUS, "sensor status") if flags & 4 else (),
        amplitude_percent=reader.sfloat("pulse amplitude index") if flags & 8 else None,
    )


def decode_continuous(data: bytes) -> PulseOximetry:
    """2A5F.

    Raises
    ------
    DecodeError
        A field that the flags announce is not there.
    """
    reader = Reader("pulse oximeter continuous 2A5F", data)
    flags = reader.u8("flags")
    spo2, pulse = reader.sfloat("SpO2"), reader.sfloat("pulse rate")
    return PulseOximetry(
        spo2,
        pulse,
        fast=(reader.sfloat("fast SpO2"), reader.sfloat("fast pulse rate")) if flags & 1 else None,
        slow=(reader.sfloat("slow SpO2"), reader.sfloat("slow pulse rate")) if flags & 2 else None,
        status=reader.flags(2, MEASUREMENT_STATUS, "measurement status") if flags & 4 else (),
        sensor_status=reader.flags(3, SENSOR_STATUS, "sensor status") if flags & 8 else (),
        amplitude_percent=reader.sfloat("pulse amplitude index") if flags & 16 else None,
    )


def decode_plx_features(data: bytes) -> tuple[str, ...]:
    """2A60: what the oximeter sends."""
    return Reader("pulse oximeter features 2A60", data).flags(2, FEATURES, "features")
