"""Weight Scale 0x181D (2A9D) and Body Composition 0x181B (2A9C), GATT Specification Supplement.

Two things the specification leaves open: impedance is taken as 0.1 ohm a count, and FFFF as an unsuccessful
measurement.
"""

from __future__ import annotations

from dataclasses import dataclass

from aidpost.firmware_bridge.decoders.gatt import DeviceTime, Reader, whole
from aidpost.firmware_bridge.decoders.medfloat import Number

KG_PER_LB, M_PER_INCH = "0.45359237", "0.0254"
UNSUCCESSFUL = 0xFFFF


@dataclass(frozen=True)
class Weight:
    """Weight in `unit` (kg or [lb_av]), height in m or [in_i]."""

    weight: Number
    unit: str
    time: DeviceTime | None
    user: int | None
    bmi: Number | None
    height: Number | None


def decode_weight(data: bytes) -> Weight:
    """2A9D.

    Raises
    ------
    DecodeError
        A field that the flags announce is not there.
    """
    reader = Reader("weight measurement 2A9D", data)
    flags = reader.u8("flags")
    imperial = bool(flags & 1)
    weight = whole(reader.u16("weight"), "0.01" if imperial else "0.005", absent=UNSUCCESSFUL)
    time = reader.date_time() if flags & 2 else None
    user = reader.u8("user id") if flags & 4 else None
    bmi = whole(reader.u16("BMI"), "0.1") if flags & 8 else None
    height = whole(reader.u16("height"), "0.1" if imperial else "0.001") if flags & 8 else None
    return Weight(weight, "[lb_av]" if imperial else "kg", time, None if user == 0xFF else user, bmi, height)


@dataclass(frozen=True)
class BodyComposition:
    """Masses in `unit` (kg or [lb_av]), energy in kJ, impedance in ohm. `more_follows`: the next packet with the same
    time stamp completes it."""

    fat_percent: Number
    unit: str
    time: DeviceTime | None = None
    user: int | None = None
    basal_metabolism_kj: int | None = None
    muscle_percent: Number | None = None
    muscle_mass: Number | None = None
    fat_free_mass: Number | None = None
    soft_lean_mass: Number | None = None
    body_water_mass: Number | None = None
    impedance_ohm: Number | None = None
    weight: Number | None = None
    height: Number | None = None
    more_follows: bool = False


def decode_body_composition(data: bytes) -> BodyComposition:
    """2A9C.

    Raises
    ------
    DecodeError
        A field that the flags announce is not there.
    """
    reader = Reader("body composition measurement 2A9C", data)
    flags = reader.u16("flags")
    imperial = bool(flags & 1)
    mass = "0.01" if imperial else "0.005"

    def field(bit: int, name: str, factor: str) -> Number | None:
        return whole(reader.u16(name), factor) if flags >> bit & 1 else None

    fat = whole(reader.u16("body fat"), "0.1", absent=UNSUCCESSFUL)
    time = reader.date_time() if flags & 2 else None
    user = reader.u8("user id") if flags & 4 else None
    return BodyComposition(
        fat_percent=fat,
        unit="[lb_av]" if imperial else "kg",
        time=time,
        user=None if user == 0xFF else user,
        basal_metabolism_kj=reader.u16("basal metabolism") if flags & 8 else None,
        muscle_percent=field(4, "muscle percentage", "0.1"),
        muscle_mass=field(5, "muscle mass", mass),
        fat_free_mass=field(6, "fat free mass", mass),
        soft_lean_mass=field(7, "soft lean mass", mass),
        body_water_mass=field(8, "body water mass", mass),
        impedance_ohm=field(9, "impedance", "0.1"),
        weight=field(10, "weight", mass),
        height=field(11, "height", "0.1" if imperial else "0.001"),
        more_follows=bool(flags >> 12 & 1),
    )
