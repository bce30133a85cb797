"""From what a Bluetooth characteristic said to `VitalSign`, in the one unit that each kind is kept in.

What must not become a patient's result (control solution, a demonstration, a calibration) gives none, and a special
value of the device stays a value that is absent, with the reason.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from aidpost.firmware_bridge.decoders.blood_pressure import BloodPressure, decode_blood_pressure
from aidpost.firmware_bridge.decoders.cgm import CgmRecord
from aidpost.firmware_bridge.decoders.gatt import DeviceTime, scaled
from aidpost.firmware_bridge.decoders.glucose import MG_PER_MMOL, Glucose, GlucoseContext, decode_glucose
from aidpost.firmware_bridge.decoders.heart_rate import HeartRate, decode_heart_rate
from aidpost.firmware_bridge.decoders.medfloat import Number
from aidpost.firmware_bridge.decoders.nonin import MEASUREMENT as NONIN
from aidpost.firmware_bridge.decoders.nonin import NoninOximetry, decode_nonin
from aidpost.firmware_bridge.decoders.pulse_oximeter import PulseOximetry, decode_continuous, decode_spot_check
from aidpost.firmware_bridge.decoders.thermometer import Temperature, decode_temperature
from aidpost.firmware_bridge.decoders.viatom import ViatomOximetry
from aidpost.firmware_bridge.decoders.weight import (
    KG_PER_LB,
    M_PER_INCH,
    BodyComposition,
    Weight,
    decode_body_composition,
    decode_weight,
)
from aidpost.records import VITAL_UNITS, AbsentReason, Device, Origin, Timestamp, VitalKind, VitalSign

MEASUREMENTS: dict[str, Callable[[bytes], Any]] = {
    "2A37": decode_heart_rate,
    "2A35": decode_blood_pressure,
    "2A18": decode_glucose,
    "2A1C": decode_temperature,
    "2A5E": decode_spot_check,
    "2A5F": decode_continuous,
    "2A9D": decode_weight,
    "2A9C": decode_body_composition,
    NONIN: decode_nonin,
}
"""The characteristics that a vital sign is made of, by 16-bit or full UUID, and their decoders."""


TIME_UNKNOWN = "time unknown"
"""The `device_time` of what a sensor had kept without a time: none at all would say that it was measured just now."""

_RECORDS = uuid.UUID("5d0b4f0a-6a3c-4f0e-8f52-0d8f6c4c9b51")
"""The name space in which a sensor's stored record always has the same id."""


@dataclass(frozen=True)
class Context:
    """What all vital signs of one measurement share. `record` is the key of a record that the sensor keeps and may send
    again: its vital signs then have the same ids again."""

    at: Timestamp
    origin: Origin
    device: Device
    source: str = ""
    record: str = ""

    def id_of(self, kind: VitalKind) -> uuid.UUID:
        """The id of a vital sign of this measurement."""
        name = f"{self.device.address} {self.device.serial} {self.record} {kind.value}"
        return uuid.uuid5(_RECORDS, name) if self.record else uuid.uuid4()


@dataclass(frozen=True)
class CgmReading:
    """A record of a continuous glucose sensor, and when it was measured, by this device's local time."""

    record: CgmRecord
    time: str
    sample: str
    site: str


@dataclass(frozen=True)
class MealGlucose:
    """A meter's record with its context, where it sent one."""

    record: Glucose
    context: GlucoseContext | None


@dataclass(frozen=True)
class StoredOximetry:
    """A spot check that an oximeter had kept."""

    measurement: PulseOximetry


@dataclass(frozen=True)
class _Value:
    kind: VitalKind
    number: Number
    measured: str = ""


@dataclass(frozen=True)
class _Measurement:
    values: tuple[_Value, ...]
    time: str = ""
    status: tuple[str, ...] = ()
    method: str = ""
    context: str = ""
    rr_ms: tuple[float, ...] = ()


def vital_signs_of(measurement: object, context: Context) -> list[VitalSign]:
    """The vital signs of a decoded measurement, sharing a `group` where there are several; empty where it has none that
    may count.

    Raises
    ------
    TypeError
        It is of a type that nothing is made of.
    """
    found = _measurement(measurement)
    group = uuid.uuid4() if len(found.values) > 1 else None
    return [
        VitalSign(
            id=context.id_of(value.kind),
            kind=value.kind,
            value=None if value.number.value is None else float(round(value.number.value, 4)),
            unit=VITAL_UNITS[value.kind],
            at=context.at,
            origin=context.origin,
            device=context.device,
            method=found.method,
            absent=value.number.absent,
            status=found.status,
            group=group,
            context=found.context,
            measured=value.measured,
            device_time=found.time,
            source=context.source,
            rr_ms=found.rr_ms if value.kind is VitalKind.HEART_RATE else (),
        )
        for value in found.values
    ]


def has_contact(measurement: object) -> bool | None:
    """Whether the sensor that sent this measurement is on somebody; None where it does not tell."""
    if isinstance(measurement, HeartRate):
        return measurement.contact
    if isinstance(measurement, PulseOximetry) and measurement.sensor_status:
        return not _OFF & set(measurement.sensor_status)
    if isinstance(measurement, ViatomOximetry):
        return measurement.worn
    return None


_UNSETTLED = frozenset({"early estimate", "questionable", "analysis ongoing", "searching"})


def is_settled(measurement: object) -> bool:
    """Whether a continuous sensor has a number, and not only its first guess."""
    if isinstance(measurement, HeartRate):
        return measurement.contact is not False and measurement.heart_rate_per_min > 0
    if isinstance(measurement, PulseOximetry):
        states = {*measurement.status, *measurement.sensor_status}
        return measurement.spo2_percent.value is not None and not measurement.blocked_by and not states & _UNSETTLED
    if isinstance(measurement, NoninOximetry):
        return measurement.spo2_percent.value is not None and not _UNSETTLED & set(measurement.status)
    if isinstance(measurement, ViatomOximetry):
        return measurement.worn and measurement.spo2_percent.value is not None
    return True


_OFF = frozenset({"sensor unconnected to user", "sensor displaced", "sensor disconnected"})


def _time(time: DeviceTime | None) -> str:
    return "" if time is None else str(time)


def _sent(number: Number, unit: str) -> str:
    """The number as the device sent it, with its precision, and its unit."""
    return f"{number.absent.value if number.absent else number.value} {unit}"


@functools.singledispatch
def _measurement(value: object) -> _Measurement:
    raise TypeError(f"no vital sign is made of {type(value).__name__}")


@_measurement.register
def _(value: BloodPressure) -> _Measurement:
    pressures = [(VitalKind.SYSTOLIC_BP, value.systolic), (VitalKind.DIASTOLIC_BP, value.diastolic)]
    if value.mean.value is not None:  # many cuffs measure none, and then it is not a failed measurement
        pressures.append((VitalKind.MEAN_BP, value.mean))
    values = [_Value(kind, value.mmhg(number), _sent(number, value.unit)) for kind, number in pressures]
    if value.pulse_per_min is not None:
        values.append(_Value(VitalKind.PULSE_RATE, value.pulse_per_min))
    return _Measurement(tuple(values), _time(value.time), value.status, "oscillometric cuff")


@_measurement.register
def _(value: HeartRate) -> _Measurement:
    # a strap without skin contact repeats its last rate, or sends 0
    off = value.contact is False or value.heart_rate_per_min == 0
    number = Number(None, AbsentReason.ERROR) if off else _whole(value.heart_rate_per_min)
    status = ("no skin contact",) if value.contact is False else ()
    intervals = () if off else value.rr_ms
    return _Measurement(
        (_Value(VitalKind.HEART_RATE, number),), status=status, method="heart rate sensor", rr_ms=intervals
    )


def _whole(count: int) -> Number:
    return Number(Decimal(count))


@_measurement.register
def _(value: Temperature) -> _Measurement:
    sent = _sent(value.temperature, value.unit)
    return _Measurement((_Value(VitalKind.TEMPERATURE, value.celsius, sent),), _time(value.time), method=value.site)


@_measurement.register
def _(value: Glucose) -> _Measurement:
    if value.is_control or value.mmol_per_l is None or value.concentration is None:
        return _Measurement(())
    reading = _Value(VitalKind.GLUCOSE, value.mmol_per_l, _sent(value.concentration, value.unit))
    method = f"{value.sample}, {value.site}"
    return _Measurement((reading,), value.time_text, value.status, method, f"sequence {value.sequence}")


_MEALS = {"before meal": "preprandial", "after meal": "postprandial"}
"""As the rules call them; fasting, casual and bedtime are called the same."""


@_measurement.register
def _(value: MealGlucose) -> _Measurement:
    found, meal = _measurement(value.record), value.context.meal if value.context else ""
    if not meal:
        return found
    return replace(found, context=f"{_MEALS.get(meal, meal)}, {found.context}")


@_measurement.register
def _(value: CgmReading) -> _Measurement:
    record, number = value.record, value.record.concentration_mg_per_dl
    if value.sample == "control solution":
        return _Measurement(())
    sent = _sent(number, "mg/dL")
    mmol = number if number.value is None else Number(number.value / Decimal(MG_PER_MMOL))
    trend = record.trend.value if record.trend is not None else None
    said = f"minute {record.offset_min} of the session" + (f", {trend} mg/dL/min" if trend is not None else "")
    method = f"continuous glucose sensor, {value.sample}, {value.site}"
    return _Measurement((_Value(VitalKind.GLUCOSE, mmol, sent),), value.time, record.status, method, said)


@_measurement.register
def _(value: PulseOximetry) -> _Measurement:
    if value.blocked_by:
        return _Measurement(())
    values = [_Value(VitalKind.SPO2, value.spo2_percent), _Value(VitalKind.PULSE_RATE, value.pulse_per_min)]
    if value.amplitude_percent is not None:
        values.append(_Value(VitalKind.PERFUSION_INDEX, value.amplitude_percent))
    status = value.status + value.sensor_status + (() if value.clock_set else ("device clock not set",))
    time = _time(value.time) or (TIME_UNKNOWN if "from storage" in value.status else "")
    return _Measurement(tuple(values), time, status, "pulse oximeter")


@_measurement.register
def _(value: StoredOximetry) -> _Measurement:
    found = _measurement(value.measurement)
    return replace(found, time=found.time or TIME_UNKNOWN)


@_measurement.register
def _(value: NoninOximetry) -> _Measurement:
    values = (
        _Value(VitalKind.SPO2, value.spo2_percent),
        _Value(VitalKind.PULSE_RATE, value.pulse_per_min),
        _Value(VitalKind.PERFUSION_INDEX, value.amplitude_percent),
    )
    return _Measurement(values, status=value.status, method="pulse oximeter")


@_measurement.register
def _(value: ViatomOximetry) -> _Measurement:
    values = (_Value(VitalKind.SPO2, value.spo2_percent), _Value(VitalKind.PULSE_RATE, value.pulse_per_min))
    return _Measurement(values, status=() if value.worn else ("not worn",), method="pulse oximeter")


@_measurement.register
def _(value: Weight) -> _Measurement:
    imperial = value.unit != "kg"
    weight = scaled(value.weight, KG_PER_LB) if imperial else value.weight
    values = [_Value(VitalKind.WEIGHT, weight, _sent(value.weight, value.unit))]
    if value.height is not None and value.height.value:
        height = scaled(scaled(value.height, M_PER_INCH) if imperial else value.height, "100")
        values.append(_Value(VitalKind.HEIGHT, height, _sent(value.height, "[in_i]" if imperial else "m")))
    return _Measurement(tuple(values), _time(value.time), method="scale")


@_measurement.register
def _(value: BodyComposition) -> _Measurement:
    values = [_Value(VitalKind.BODY_FAT, value.fat_percent)]
    if value.weight is not None:
        weight = value.weight if value.unit == "kg" else scaled(value.weight, KG_PER_LB)
        values.append(_Value(VitalKind.WEIGHT, weight, _sent(value.weight, value.unit)))
    return _Measurement(tuple(values), _time(value.time), method="body composition scale")
