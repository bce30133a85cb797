"""Glucose service 0x1808 (GATT Specification Supplement): measurement 2A18, its context 2A34, feature 2A51.

A reading of control solution is the meter's self-test, and never a patient's: `is_control` says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from aidpost.firmware_bridge.decoders.gatt import DeviceTime, Reader, scaled
from aidpost.firmware_bridge.decoders.medfloat import Number

MG_PER_MMOL = "18.016"
SAMPLES = (
    *("reserved 0", "capillary whole blood", "capillary plasma", "venous whole blood", "venous plasma"),
    *("arterial whole blood", "arterial plasma", "undetermined whole blood", "undetermined plasma"),
    *("interstitial fluid", "control solution"),
)
SITES = {1: "finger", 2: "alternate site", 3: "earlobe", 4: "control solution", 5: "subcutaneous", 15: "not available"}
STATUS = {
    0: "battery low",
    1: "sensor malfunction",
    2: "sample too small",
    3: "strip insertion error",
    4: "wrong strip type",
    5: "result too high for the device",
    6: "result too low for the device",
    7: "temperature too high",
    8: "temperature too low",
    9: "read interrupted",
    10: "general fault",
    11: "time fault",
}
FEATURES = {
    0: "low battery",
    1: "sensor malfunction",
    2: "sample size",
    3: "strip insertion",
    4: "strip type",
    5: "result high or low",
    6: "temperature high or low",
    7: "read interrupted",
    8: "general fault",
    9: "time fault",
    10: "multiple bonds",
}
CARBOHYDRATES = dict(enumerate(("breakfast", "lunch", "dinner", "snack", "drink", "supper", "brunch"), 1))
MEALS = dict(enumerate(("before meal", "after meal", "fasting", "casual", "bedtime"), 1))
TESTERS = {1: "self", 2: "health professional", 3: "laboratory", 15: "not available"}
HEALTH = {1: "minor issues", 2: "major issues", 3: "during menses", 4: "under stress", 5: "none", 15: "not available"}
MEDICATIONS = dict(enumerate(("rapid acting", "short acting", "intermediate", "long acting", "premixed"), 1))


@dataclass(frozen=True)
class Glucose:
    """`concentration` is as sent, in `unit` (kg/L or mol/L). The device's time is base time plus offset."""

    sequence: int
    base_time: DeviceTime
    offset_min: int
    concentration: Number | None
    unit: str
    sample: str
    site: str
    status: tuple[str, ...]
    context_follows: bool

    @property
    def is_control(self) -> bool:
        """Whether it is of control solution, not of a patient."""
        return "control solution" in (self.sample, self.site)

    @property
    def mmol_per_l(self) -> Number | None:
        """The concentration in mmol/L; kg/L becomes mg/dL (times 100,000), which is divided by 18.016."""
        if self.concentration is None or self.concentration.value is None:
            return self.concentration
        if self.unit == "mol/L":
            return scaled(self.concentration, "1000")
        return Number(self.concentration.value * 100_000 / Decimal(MG_PER_MMOL))

    @property
    def time_text(self) -> str:
        """The device's time of the reading; the base time as sent where it is no date."""
        base = self.base_time
        try:
            moment = datetime(base.year, base.month, base.day, base.hour, base.minute, base.second)
            return (moment + timedelta(minutes=self.offset_min)).isoformat()
        except (ValueError, OverflowError):
            return str(base)


def decode_glucose(data: bytes) -> Glucose:
    """2A18.

    Raises
    ------
    DecodeError
        A field that the flags announce is not there.
    """
    reader = Reader("glucose measurement 2A18", data)
    flags = reader.u8("flags")
    sequence = reader.u16("sequence number")
    base = reader.date_time("base time")
    offset = reader.signed(2, "time offset") if flags & 1 else 0
    concentration, sample, site = None, "", ""
    if flags & 2:
        concentration = reader.sfloat("concentration")
        code = reader.u8("type and location")
        sample = SAMPLES[code & 15] if code & 15 < len(SAMPLES) else f"reserved {code & 15}"
        site = SITES.get(code >> 4, f"reserved {code >> 4}")
    status = reader.flags(2, STATUS, "sensor status") if flags & 8 else ()
    unit = "mol/L" if flags & 4 else "kg/L"
    return Glucose(sequence, base, offset, concentration, unit, sample, site, status, bool(flags & 16))


@dataclass(frozen=True)
class GlucoseContext:
    """What goes with the measurement of the same sequence number. Carbohydrate is in kg, medication in its `unit`."""

    sequence: int
    carbohydrate: str
    carbohydrate_kg: Number | None
    meal: str
    tester: str
    health: str
    exercise_s: int | None
    exercise_percent: int | None
    medication: str
    medication_amount: Number | None
    medication_unit: str
    hba1c_percent: Number | None


def decode_glucose_context(data: bytes) -> GlucoseContext:
    """2A34. An exercise of FFFF seconds is an overrun.

    Raises
    ------
    DecodeError
        A field that the flags announce is not there.
    """
    reader = Reader("glucose context 2A34", data)
    flags = reader.u8("flags")
    sequence = reader.u16("sequence number")
    if flags & 0x80:
        reader.u8("extended flags")
    carbohydrate, carbohydrate_kg = "", None
    if flags & 1:
        carbohydrate = _named(CARBOHYDRATES, reader.u8("carbohydrate id"))
        carbohydrate_kg = reader.sfloat("carbohydrate")
    meal = _named(MEALS, reader.u8("meal")) if flags & 2 else ""
    who = reader.u8("tester and health") if flags & 4 else None
    exercise = (reader.u16("exercise duration"), reader.u8("exercise intensity")) if flags & 8 else (None, None)
    medication, amount = "", None
    if flags & 0x10:
        medication = _named(MEDICATIONS, reader.u8("medication id"))
        amount = reader.sfloat("medication")
    return GlucoseContext(
        sequence=sequence,
        carbohydrate=carbohydrate,
        carbohydrate_kg=carbohydrate_kg,
        meal=meal,
        tester="" if who is None else _named(TESTERS, who & 15),
        health="" if who is None else _named(HEALTH, who >> 4),
        exercise_s=exercise[0],
        exercise_percent=exercise[1],
        medication=medication,
        medication_amount=amount,
        medication_unit="L" if flags & 0x20 else "kg",
        hba1c_percent=reader.sfloat("HbA1c") if flags & 0x40 else None,
    )


def _named(names: dict[int, str], code: int) -> str:
    return names.get(code, f"reserved {code}")


def decode_glucose_feature(data: bytes) -> tuple[str, ...]:
    """2A51: what the meter can detect."""
    return Reader("glucose feature 2A51", data).flags(2, FEATURES, "features")
