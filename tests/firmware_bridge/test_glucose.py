"""Glucose meters and continuous sensors: measurements, record access, and the E2E-CRC, by Nordic's vectors.

Marked [own] where the bytes were worked out from the specification's layout, because nobody publishes any.
"""

from __future__ import annotations

from decimal import Decimal

import pytest

from aidpost.firmware_bridge.decoders import cgm, glucose, racp
from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.medfloat import Number
from aidpost.firmware_bridge.gatt_vitals import Context, vital_signs_of
from aidpost.records import Device, Origin, Timestamp

CONTEXT = Context(
    at=Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=True), origin=Origin.LIVE, device=Device(name="test")
)


def h(text: str) -> bytes:
    return bytes.fromhex(text)


# ---- Glucose and record access


def test_2a18() -> None:
    found = glucose.decode_glucose(h("1B 0100 E307021B0B0A1E FBFF 1E00 12 0501"))
    assert (found.sequence, found.time_text, found.unit) == (1, "2019-02-27T11:05:30", "kg/L")
    assert (found.sample, found.site, found.context_follows) == ("capillary plasma", "finger", True)
    assert found.concentration == Number(Decimal(30))
    # GSS: bit 8 is "temperature too low"; 0x0105 has bits 0, 2 and 8
    assert found.status == ("battery low", "sample too small", "temperature too low")
    with pytest.raises(DecodeError):
        glucose.decode_glucose(h("1B 0100 E307021B0B0A1E FB"))


def test_2a18_units() -> None:  # [own]
    base = "0100 E307021B0B0A1E"
    (milligram,) = vital_signs_of(glucose.decode_glucose(h(f"02 {base} 5AB0 11")), CONTEXT)  # 90e-5 kg/L = 90 mg/dL
    assert milligram.value == pytest.approx(90 / 18.016, abs=1e-4)
    (millimol,) = vital_signs_of(glucose.decode_glucose(h(f"06 {base} 36C0 11")), CONTEXT)  # 54e-4 mol/L
    assert millimol.value == 5.4


@pytest.mark.parametrize("place", ["1A", "41"])
def test_control_solution_never_becomes_a_patients_result(place: str) -> None:
    found = glucose.decode_glucose(h(f"06 0100 E307021B0B0A1E 36C0 {place}"))
    assert found.is_control
    assert vital_signs_of(found, CONTEXT) == []


def test_2a34() -> None:  # [own]
    found = glucose.decode_glucose_context(h("5F 0700 01 1ED0 03 52 3C00 32 01 05A0 41F0"))
    assert (found.sequence, found.carbohydrate, found.meal) == (7, "breakfast", "fasting")
    assert found.carbohydrate_kg == Number(Decimal("0.030"))
    assert (found.tester, found.health, found.exercise_s, found.exercise_percent) == (
        "health professional",
        "none",
        60,
        50,
    )
    assert (found.medication, found.medication_unit, found.hba1c_percent) == (
        "rapid acting",
        "kg",
        Number(Decimal("6.5")),
    )


def test_2a51() -> None:
    assert glucose.decode_glucose_feature(h("F003")) == tuple(glucose.FEATURES[bit] for bit in range(4, 10))


@pytest.mark.parametrize(
    ("data", "request_code", "code"),
    [("06000101", 1, 1), ("06000C02", 12, 2), ("06000103", 1, 3), ("06000204", 2, 4), ("06000105", 1, 5),
     ("06000106", 1, 6), ("06000307", 3, 7), ("06000208", 2, 8), ("06000209", 2, 9), ("0600010A", 1, 10)],
)  # fmt: skip
def test_2a52_responses(data: str, request_code: int, code: int) -> None:
    found = racp.decode_racp(h(data))
    assert (found.request, found.code, found.text) == (request_code, code, racp.CODES[code])


@pytest.mark.parametrize(("data", "count"), [("050001", 1), ("05000102", 513), ("050004030201", 16909060)])
def test_2a52_number_of_records(data: str, count: int) -> None:
    assert racp.decode_racp(h(data)).count == count


@pytest.mark.parametrize("data", ["0101", "0103010200", "060101", "0500030201", ""])
def test_2a52_that_is_no_response_is_invalid(data: str) -> None:
    with pytest.raises(DecodeError):
        racp.decode_racp(h(data))


def test_2a52_commands() -> None:
    assert (h("0101"), h("0106"), h("0105")) == (racp.REPORT_ALL, racp.REPORT_LAST, racp.REPORT_FIRST)
    assert (racp.report_from(0x1234), racp.report_range(1, 2)) == (h("0103013412"), h("01040101000200"))
    assert (h("0401"), h("0300")) == (racp.COUNT_ALL, racp.ABORT_PROCEDURE)


# ---- Continuous glucose


def test_e2e_crc_is_crc16_mcrf4xx() -> None:
    assert cgm.e2e_crc(b"123456789") == 0x6F91
    assert cgm.e2e_crc(b"A") == 0x5C0A


def test_2aa7() -> None:
    (plain,) = cgm.decode_cgm(h("06 00 0C10 0600"))
    assert (plain.concentration_mg_per_dl.value, plain.offset_min) == (120, 6)
    assert cgm.decode_cgm(h("08 00 0C10 0600 596F"))[0] == plain
    assert len(cgm.decode_cgm(h("06 00 0C10 0600 08 00 0C10 0600 596F"))) == 2
    with pytest.raises(DecodeError, match="E2E-CRC"):
        cgm.decode_cgm(h("08 00 0C10 0600 586F"))
    with pytest.raises(DecodeError):
        cgm.decode_cgm(h("06 00 0C10 06"))


def test_2aa7_annunciation_octets_are_in_the_supplements_order() -> None:  # [own]
    (found,) = cgm.decode_cgm(h("09 E0 0C10 0600 01 02 04"))
    assert found.status == ("session stopped", "calibration not allowed", "below hypo")


def test_2aa8_2aa9_2aab() -> None:
    feature = cgm.decode_cgm_feature(h("6E9E01 16 8AC1"))
    assert (feature.sample, feature.site, "E2E-CRC" in feature.features) == ("arterial plasma", "finger", True)
    assert cgm.decode_cgm_run_time(h("020008C3")) == 2
    status = cgm.decode_cgm_status(h("0500 3F3FFF A7E0"))
    assert (status.offset_min, "session stopped" in status.status) == (5, True)
    for decoder, data in ((cgm.decode_cgm_run_time, "020008C4"), (cgm.decode_cgm_status, "05003F3FFFA7E1")):
        with pytest.raises(DecodeError, match="E2E-CRC"):
            decoder(h(data))


@pytest.mark.parametrize(
    ("data", "field", "value"),
    [("1C02013C3B", "response", "success"), ("1C0202A709", "response", "operation not supported"),
     ("030A8A75", "interval_min", 10), ("0C0BC034BE", "value", Number(Decimal("0.0011"))),
     ("090CF0", "value", Number(Decimal("1.2"))), ("0F0100", "level", "hypo"),
     ("120A20", "value", Number(Decimal("1E+3"))),
     ("150110", "value", Number(Decimal("1E+1"))), ("180A40", "value", Number(Decimal("1.0E+5")))],
)  # fmt: skip
def test_2aac(data: str, field: str, value: object) -> None:
    assert getattr(cgm.decode_cgm_control(h(data)), field) == value


def test_2aac_calibration() -> None:
    found = cgm.decode_cgm_control(h("06 0120 0A00 32 1400 0100 04 BFB2"))
    assert (found.value, found.calibration_time_min, found.next_calibration_min) == (Number(Decimal("1E+2")), 10, 20)
    assert (found.level, found.record, found.calibration_status) == ("calibration, capillary plasma, earlobe", 1, 4)
