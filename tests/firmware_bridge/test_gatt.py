"""Bluetooth characteristics, by the vectors of Nordic's, Polar's and blessed's own test suites and the HL7 PHD guide.

Marked [own] where the bytes were worked out from the specification's layout, because nobody publishes any.
"""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.errors import UsageError
from aidpost.firmware_bridge.decoders import polar, pulse_oximeter, viatom
from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.blood_pressure import decode_blood_pressure, encode_blood_pressure
from aidpost.firmware_bridge.decoders.catalogue import CHARACTERISTICS, decode
from aidpost.firmware_bridge.decoders.device_info import decode_current_time
from aidpost.firmware_bridge.decoders.gatt import DeviceTime, Reader
from aidpost.firmware_bridge.decoders.heart_rate import decode_heart_rate
from aidpost.firmware_bridge.decoders.medfloat import Number, encode_float32, encode_sfloat, float32, sfloat
from aidpost.firmware_bridge.decoders.nonin import decode_nonin
from aidpost.firmware_bridge.decoders.thermometer import decode_temperature
from aidpost.firmware_bridge.decoders.weight import decode_body_composition, decode_weight
from aidpost.firmware_bridge.gatt_vitals import Context, vital_signs_of
from aidpost.records import AbsentReason, Device, Origin, Timestamp, VitalKind

CONTEXT = Context(
    at=Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=True), origin=Origin.LIVE, device=Device(name="test")
)


def h(text: str) -> bytes:
    return bytes.fromhex(text)


# ---- IEEE 11073-20601 floats


@pytest.mark.parametrize(
    ("word", "text"),
    [(0x008A, "138"), (0xF0BD, "18.9"), (0x000B, "11"), (0xF06F, "11.1"), (0xF00C, "1.2"), (0xC00B, "0.0011"),
     (0x200A, "1.0E+3"), (0x0201, "513"), (0x0002, "2"), (0xF014, "2.0"), (0xE0C8, "2.00"), (0x1002, "2E+1"),
     (0x2002, "2E+2"), (0x04D2, "1234"), (0x0B2E, "-1234")],
)  # fmt: skip
def test_sfloat_keeps_the_value_and_its_precision(word: int, text: str) -> None:
    assert str(sfloat(word).value) == text


@pytest.mark.parametrize(
    ("word", "value"),
    [(0xFE000EB0, "37.60"), (0xFF000014, "2.0"), (0xFE0000C8, "2.00"), (0x01000002, "2E+1"), (0x00FFFB2E, "-1234"),
     (0x04030201, "1.97121E+9")],
)  # fmt: skip
def test_float_keeps_the_value_and_its_precision(word: int, value: str) -> None:
    assert str(float32(word).value) == value


@pytest.mark.parametrize(
    ("low", "reason"),
    [(-1, AbsentReason.NOT_A_NUMBER), (0, AbsentReason.ERROR), (-2, AbsentReason.POSITIVE_INFINITY),
     (2, AbsentReason.NEGATIVE_INFINITY), (1, AbsentReason.ERROR)],
)  # fmt: skip
def test_special_values_are_answers_not_numbers(low: int, reason: AbsentReason) -> None:
    assert sfloat(0x0800 + low) == Number(None, reason)
    assert float32(0x00800000 + low) == Number(None, reason)
    # they are defined for exponent 0 only
    assert sfloat(0x1800 + low).value is not None


@given(st.integers(-2000, 2000), st.integers(0, 3))
def test_medfloats_are_encoded_as_they_are_decoded(mantissa: int, decimals: int) -> None:
    value = float(Decimal(mantissa).scaleb(-decimals))
    for encoder, decoder in ((encode_sfloat, sfloat), (encode_float32, float32)):
        assert decoder(int.from_bytes(encoder(value, decimals), "little")).value == Decimal(mantissa).scaleb(-decimals)


def test_date_time_2a08() -> None:
    assert str(Reader("t", h("E20704110F3300")).date_time()) == "2018-04-17T15:51:00"
    assert str(Reader("t", h("00000000121A20")).date_time()) == "0000-00-00T18:26:32"


# ---- Heart Rate


@pytest.mark.parametrize(
    ("data", "rate", "contact", "energy", "intervals"),
    [("0055", 85, None, None, ()), ("04FF", 255, False, None, ()), ("1E5532002100", 85, True, 50, (33,)),
     ("018080", 32896, None, None, ()), ("090000FFFF", 0, None, 65535, ()), ("0800 7F80", 0, None, 32895, ()),
     ("1000FFFF", 0, None, None, (65535,))],
)  # fmt: skip
def test_2a37(data: str, rate: int, contact: bool | None, energy: int | None, intervals: tuple[int, ...]) -> None:
    found = decode_heart_rate(h(data))
    assert (found.heart_rate_per_min, found.contact, found.energy, found.rr_1024) == (rate, contact, energy, intervals)


def test_2a37_rr_intervals_are_1024ths_of_a_second() -> None:
    assert decode_heart_rate(h("1E5532002100")).rr_ms == (pytest.approx(32.2, abs=0.03),)


def test_2a37_with_announced_intervals_missing_is_invalid() -> None:
    with pytest.raises(DecodeError, match="RR"):
        decode_heart_rate(h("170101"))


def test_a_heart_rate_without_contact_is_absent() -> None:
    (vital,) = vital_signs_of(decode_heart_rate(h("04FF")), CONTEXT)
    assert (vital.value, vital.absent, vital.status) == (None, AbsentReason.ERROR, ("no skin contact",))


# ---- Blood Pressure


def test_2a35_with_every_field() -> None:
    found = decode_blood_pressure(h("1E 8A00 5800 7800 0000 04 11 14 29 3B 3C00 01 2700"))
    assert [n.value for n in (found.systolic, found.diastolic, found.mean)] == [138, 88, 120]
    assert (found.unit, str(found.time), found.user) == ("mm[Hg]", "0000-04-17T20:41:59", 1)
    assert found.status == ("body movement", "cuff too loose", "irregular pulse", "improper position")
    assert found.pulse_per_min == Number(Decimal(60))


def test_2a35_kilopascal_becomes_mmhg() -> None:
    found = decode_blood_pressure(h("15 6FF0 0000 0000 3C00 1200"))
    assert (found.systolic.value, found.unit, found.status) == (
        Decimal("11.1"),
        "kPa",
        ("cuff too loose", "pulse below range"),
    )
    vitals = {v.kind: v for v in vital_signs_of(found, CONTEXT)}
    assert vitals[VitalKind.SYSTOLIC_BP].value == pytest.approx(83.2568)
    assert vitals[VitalKind.SYSTOLIC_BP].measured == "11.1 kPa"


@pytest.mark.parametrize("data", ["", "00", "03 BDF0 0B00 9FF0", "00 BDF0 0B00 9F"])
def test_2a35_cut_off_is_invalid(data: str) -> None:
    with pytest.raises(DecodeError, match="needs"):
        decode_blood_pressure(h(data))


def test_2a35_without_a_result_is_absent_and_never_2047() -> None:
    vitals = vital_signs_of(decode_blood_pressure(h("04 FF07 FF07 FF07 FF07")), CONTEXT)
    assert {v.kind for v in vitals} == {VitalKind.SYSTOLIC_BP, VitalKind.DIASTOLIC_BP, VitalKind.PULSE_RATE}
    assert all(v.value is None and v.absent is AbsentReason.NOT_A_NUMBER for v in vitals)
    assert len({v.group for v in vitals}) == 1


def test_2a35_is_encoded_as_it_is_decoded() -> None:
    time = DeviceTime(2026, 11, 22, 4, 5, 6)
    found = decode_blood_pressure(encode_blood_pressure(138, 88, 104, 61, time, 4))
    assert (found.systolic.value, found.pulse_per_min, found.time) == (138, Number(Decimal(61)), time)
    assert found.status == ("irregular pulse",)


# ---- Health Thermometer


def test_2a1c() -> None:
    found = decode_temperature(h("06 B00E00FE DC070C050B321B 04"))
    assert (str(found.temperature.value), found.unit, str(found.time)) == ("37.60", "Cel", "2012-12-05T11:50:27")
    assert found.site == "finger"
    with pytest.raises(DecodeError, match="type"):
        decode_temperature(h("06 B00E00FE DC070C050B321B"))


def test_2a1c_fahrenheit_becomes_celsius() -> None:  # [own]
    (vital,) = vital_signs_of(decode_temperature(h("01") + encode_float32(98.6, 1)), CONTEXT)
    assert (vital.value, vital.unit, vital.measured) == (37.0, "Cel", "98.6 [degF]")


# ---- Pulse oximetry


def test_2a5e_and_2a5f() -> None:  # [own]: no third party publishes vectors
    spot = pulse_oximeter.decode_spot_check(h("00 6200 4800"))
    assert (spot.spo2_percent.value, spot.pulse_per_min.value, spot.blocked_by) == (98, 72, ())
    nothing = pulse_oximeter.decode_continuous(h("00 FF07 FF07"))
    assert [v.absent for v in vital_signs_of(nothing, CONTEXT)] == [AbsentReason.NOT_A_NUMBER] * 2
    full = pulse_oximeter.decode_continuous(h("1F 6200 4800 6100 4900 6000 4A00 2000 200000 0AF0"))
    assert (full.fast, full.slow) == (
        (Number(Decimal(97)), Number(Decimal(73))),
        (Number(Decimal(96)), Number(Decimal(74))),
    )
    assert (full.status, full.sensor_status, full.amplitude_percent) == (
        ("ongoing",),
        ("low perfusion",),
        Number(Decimal("1.0")),
    )


def test_a_spot_check_from_storage_without_a_time_is_not_of_now() -> None:
    """PLXS 1.0.1: measurement status bit 9 says that a measurement comes from storage."""
    at = Timestamp(wall_ms=1_700_000_000_000, monotonic_ms=0, boot=0, synced=True)
    context = Context(at=at, origin=Origin.LIVE, device=Device(name="oximeter"))
    for status, time in ((1 << 9, "time unknown"), (1 << 8, "")):
        spot = pulse_oximeter.decode_spot_check(h("02 6200 4800") + status.to_bytes(2, "little"))
        assert {one.device_time for one in vital_signs_of(spot, context)} == {time}


@pytest.mark.parametrize("bit", [10, 11, 12, 13, 15])
def test_demonstration_and_invalid_oximetry_never_becomes_a_patients_result(bit: int) -> None:
    found = pulse_oximeter.decode_spot_check(h("02 6200 4800") + (1 << bit).to_bytes(2, "little"))
    assert found.blocked_by
    assert vital_signs_of(found, CONTEXT) == []


def test_nonin() -> None:  # [own]
    found = decode_nonin(h("0A 14 1E 00FA 0001 61 0048"))
    assert (found.spo2_percent.value, found.pulse_per_min.value, found.amplitude_percent.value) == (
        97,
        72,
        Decimal("2.5"),
    )
    assert (found.battery_v, found.status) == (3.0, ("smart point", "sensor connected"))
    assert decode_nonin(h("0A 08 1E 0000 0001 7F 01FF")).spo2_percent.value is None


# ---- Scales


@pytest.mark.parametrize(
    ("data", "kilogram", "centimetre"),
    [
        ("00B036", 70.0, None),
        ("013D3D", 71.1098, None),
        ("02B036E7070C190E1E2D", 70.0, None),
        ("08B036F500D606", 70.0, 175.0),
    ],
)
def test_2a9d(data: str, kilogram: float, centimetre: float | None) -> None:
    vitals = {v.kind: v.value for v in vital_signs_of(decode_weight(h(data)), CONTEXT)}
    assert vitals[VitalKind.WEIGHT] == pytest.approx(kilogram, abs=0.001)
    assert vitals.get(VitalKind.HEIGHT) == centimetre


def test_2a9d_in_pounds_and_unsuccessful() -> None:
    assert decode_weight(h("01543D")).weight.value == Decimal("157.00")
    (failed,) = vital_signs_of(decode_weight(h("00FFFF")), CONTEXT)
    assert (failed.value, failed.absent) == (None, AbsentReason.ERROR)


def test_2a9c() -> None:
    assert decode_body_composition(h("0000 3200")).fat_percent.value == Decimal("5.0")
    found = decode_body_composition(h("0C00 7800 05 4006"))
    assert (found.fat_percent.value, found.user, found.basal_metabolism_kj) == (Decimal("12.0"), 5, 1600)
    found = decode_body_composition(h("3000 6400 C800 B80B"))
    assert (found.muscle_percent, found.muscle_mass) == (Number(Decimal("20.0")), Number(Decimal("15.000")))
    found = decode_body_composition(h("000E 4600 401F B036 E803"))
    assert (found.impedance_ohm, found.weight, found.height) == tuple(
        Number(Decimal(v)) for v in ("800.0", "70.000", "1.000")
    )


# ---- Small services


def test_2a2b() -> None:
    found = decode_current_time(h("E907010F0E1E2D032101"))
    assert (str(found.time), found.weekday, found.fraction, found.reasons) == (
        "2025-01-15T14:30:45",
        3,
        33,
        ("manual",),
    )


def test_2a19_beyond_100_is_invalid() -> None:
    assert decode("2A19", "64")["value"] == 100
    with pytest.raises(DecodeError):
        decode("2A19", "65")


# ---- Polar and Viatom


def test_polar_ecg_frame() -> None:
    found = polar.decode_polar_ecg(h("00 0094357700000000 00 0280FF 028000"))
    assert (found.last_ns, found.counts) == (2_000_000_000, (-32766, 32770))
    assert polar.decode_polar_ecg(polar.encode_polar_ecg(5, (1, -2, 70_000))) == polar.PolarEcg(5, (1, -2, 70_000))
    for wrong in ("00 0094357700000000 00 0280", "00 0094357700000000 80 0280FF", "02 0094357700000000 00 0280FF", ""):
        with pytest.raises(DecodeError):
            polar.decode_polar_ecg(h(wrong))


def test_polar_sample_times_are_spread_over_the_frame() -> None:
    frame = polar.PolarEcg(10_000_000_000, (0,) * 10)
    assert polar.sample_times_ns(0, frame) == tuple(n * 1e9 for n in range(1, 11))


def test_polar_control_point() -> None:
    assert h("02000001820001010E00") == polar.START_ECG
    found = polar.decode_polar_response(h("F001020000FFFFFF"))
    assert (found.status, found.more, found.parameters) == ("ok", False, b"\xff\xff\xff")
    assert polar.decode_polar_response(h("F001060700")).status == "invalid resolution"
    settings = polar.decode_polar_settings(h("00013400 01011000 0204F500F401E803D007 040103"))
    assert settings == {
        "sample_rate_hz": (52,),
        "resolution_bit": (16,),
        "range": (245, 500, 1000, 2000),
        "channels": (3,),
    }


def test_viatom_requests() -> None:
    assert viatom.oxy_request(0x17) == h("AA17E8000000001B")
    assert viatom.oxy_request(0x1B, b"\0") == h("AA1BE4000001000 05E".replace(" ", ""))
    assert viatom.er_request(0xE1, sequence=2) == h("A5E11E00020000BF")


def test_viatom_replies_are_put_together_from_pieces() -> None:  # [own]
    body = bytes([0x55, 0, 0xFF, 0, 0, 7, 0, 97, 72, 0, 80, 0, 12, 1])
    reply = body + bytes([viatom.crc8(body)])
    for size in (1, 3, 20):
        assembler, found = viatom.ViatomAssembler(), []
        stream = b"\x55\x01" + reply + reply[:-1] + b"\0" + reply
        for start in range(0, len(stream), size):
            found += assembler.feed(stream[start : start + size])
        assert [viatom.decode_oxy_real_time(r.payload).spo2_percent.value for r in found] == [97, 97]
        assert assembler.dropped == 2 + len(reply)


# ---- The catalogue


def test_decode_speaks_json() -> None:
    found = decode("0x2A35", "1E 8A00 5800 FF07 0000 04 11 14 29 3B 3C00 01 2700")
    assert found["value"]["systolic"] == 138
    assert found["value"]["mean"] == {"absent": "not-a-number"}
    assert decode("00002a37-0000-1000-8000-00805f9b34fb", "0055")["value"]["heart_rate_per_min"] == 85
    board = decode("healthypi4", "0AFA140002 6400 CEFF 10270000 204E0000 740E 10 62 48 50 78 00 000B")
    assert board["samples"] == [[100, -50]]
    assert board["millivolts"]["I"] == [1.231]


@pytest.mark.parametrize(("what", "data"), [("2A99", "00"), ("toaster", "00"), ("2A37", "xyz")])
def test_decode_of_the_unknown_is_a_usage_error(what: str, data: str) -> None:
    with pytest.raises(UsageError):
        decode(what, data)


@pytest.mark.parametrize("what", CHARACTERISTICS)
@given(data=st.binary(max_size=40))
def test_arbitrary_bytes_are_decoded_or_refused(what: str, data: bytes) -> None:
    try:
        found = decode(what, data.hex())
    except DecodeError:
        return
    assert found["what"] == what
