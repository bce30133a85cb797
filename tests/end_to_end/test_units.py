"""A unit changes nothing: the same patient, measured in kPa, mg/dL, degrees Fahrenheit or pounds."""

from __future__ import annotations

import uuid

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aidpost.firmware_bridge.decoders.medfloat import encode_float32, encode_sfloat
from aidpost.firmware_bridge.gatt_vitals import MEASUREMENTS, Context, vital_signs_of
from aidpost.inference._rules import RULES, rule_book
from aidpost.inference.triage import triage
from aidpost.records import Device, Origin, Patient, Timestamp, VitalSign

NOW = Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=0, boot=1, synced=True)
PATIENT = Patient(id=uuid.UUID(int=1), birth_date="1970")
LIMITS = sorted(limit.value for path in RULES.glob("*.toml") for limit in rule_book(path.stem).limits.values())
# NEWS2's bands of systolic pressure and temperature
BANDS = sorted({*LIMITS, 90.5, 100.5, 110.5, 219.5, 35.05, 36.05, 38.05, 39.05})


def read(characteristic: str, data: bytes) -> list[VitalSign]:
    context = Context(at=NOW, origin=Origin.LIVE, device=Device(name="sensor"))
    return vital_signs_of(MEASUREMENTS[characteristic](data), context)


def assert_same_conclusion(one: list[VitalSign], other: list[VitalSign]) -> None:
    """Where the two encodings' own rounding does not lie on different sides of a limit."""
    assert [sign.kind for sign in one] == [sign.kind for sign in other]
    for a, b in zip(one, other, strict=True):
        assert a.value is not None
        assert b.value is not None
        low, high = sorted((a.value, b.value))
        assume(not any(low <= limit <= high for limit in BANDS) or low == high)
    first, second = (triage(patient=PATIENT, at=NOW, vitals=vitals) for vitals in (one, other))
    assert first.triage.level is second.triage.level
    assert [finding.code for finding in first.findings] == [finding.code for finding in second.findings]


def pressure(flags: int, values: tuple[float, ...], decimals: int) -> list[VitalSign]:
    return read("2A35", bytes([flags]) + b"".join(encode_sfloat(value, decimals) for value in values))


@settings(max_examples=150, deadline=None)
@given(st.integers(60, 270), st.integers(30, 150))
def test_kilopascal_and_millimetres_of_mercury(systolic: int, diastolic: int) -> None:
    mmhg = (systolic, diastolic, diastolic)
    kpa = tuple(round(value / 7.500617, 1) for value in mmhg)
    assert_same_conclusion(pressure(0, mmhg, 0), pressure(1, kpa, 1))


@settings(max_examples=150, deadline=None)
@given(st.integers(950, 1080))
def test_fahrenheit_and_celsius(tenths: int) -> None:
    fahrenheit = tenths / 10
    celsius = (fahrenheit - 32) * 5 / 9
    one = read("2A1C", b"\x01" + encode_float32(fahrenheit, 1))
    assert_same_conclusion(one, read("2A1C", b"\x00" + encode_float32(celsius, 4)))


@settings(max_examples=150, deadline=None)
@given(st.integers(25, 600))
def test_milligrams_and_millimoles(milligrams: int) -> None:
    head = b"\x01\x00\xe9\x07\x0a\x09\x08\x35\x14"  # sequence 1, 2025-10-09 08:53:20
    in_mass = b"\x02" + head + encode_sfloat(milligrams / 1e5, 5) + b"\x11"
    in_moles = b"\x06" + head + encode_sfloat(milligrams / 18016, 4) + b"\x11"
    assert_same_conclusion(read("2A18", in_mass), read("2A18", in_moles))


@settings(max_examples=100, deadline=None)
@given(st.floats(30, 200))
def test_pounds_and_kilograms(kilograms: float) -> None:
    metric = b"\x00" + round(kilograms / 0.005).to_bytes(2, "little")
    imperial = b"\x01" + round(kilograms / 0.45359237 / 0.01).to_bytes(2, "little")
    assert_same_conclusion(read("2A9D", metric), read("2A9D", imperial))
