"""Each status bit that a Bluetooth sensor can set, by itself: it has its own name, and what may not become a patient's
result does not. The bits are those of the GATT Specification Supplement and PLXS 1.0.1; bytes are made from the layout.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aidpost.firmware_bridge.decoders import blood_pressure, cgm, glucose, nonin, pulse_oximeter, racp
from aidpost.firmware_bridge.decoders.medfloat import encode_sfloat
from aidpost.firmware_bridge.gatt_vitals import CgmReading, Context, vital_signs_of
from aidpost.inference.vitals import reliable
from aidpost.records import Device, Origin, Timestamp

CONTEXT = Context(
    at=Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=True), origin=Origin.LIVE, device=Device(name="test")
)


def _2a18(word: int) -> bytes:
    return b"\x0a\x01\x00" + bytes(7) + encode_sfloat(0.001, 4) + b"\x11" + word.to_bytes(2, "little")


def _2a35(word: int) -> bytes:
    return b"\x10" + encode_sfloat(120) + encode_sfloat(80) + encode_sfloat(93) + word.to_bytes(2, "little")


def _2a5e(word: int) -> bytes:
    return b"\x02" + encode_sfloat(98) + encode_sfloat(72) + word.to_bytes(2, "little")


def _2a5e_sensor(word: int) -> bytes:
    return b"\x04" + encode_sfloat(98) + encode_sfloat(72) + word.to_bytes(3, "little")


def _2a5f(word: int) -> bytes:
    return b"\x04" + encode_sfloat(98) + encode_sfloat(72) + word.to_bytes(2, "little")


def _nonin(word: int) -> bytes:
    return bytes([9, word, 30, 0, 100, 0, 1, 98, 0, 72])


CASES: dict[str, tuple[Callable[[int], tuple[str, ...]], dict[int, str]]] = {
    "2A18 sensor status": (lambda w: glucose.decode_glucose(_2a18(w)).status, glucose.STATUS),
    "2A35 measurement status": (lambda w: blood_pressure.decode_blood_pressure(_2a35(w)).status, blood_pressure.STATUS),
    "2A5E measurement status": (
        lambda w: pulse_oximeter.decode_spot_check(_2a5e(w)).status, pulse_oximeter.MEASUREMENT_STATUS
    ),
    "2A5E device and sensor status": (
        lambda w: pulse_oximeter.decode_spot_check(_2a5e_sensor(w)).sensor_status, pulse_oximeter.SENSOR_STATUS
    ),
    "2A5F measurement status": (
        lambda w: pulse_oximeter.decode_continuous(_2a5f(w)).status, pulse_oximeter.MEASUREMENT_STATUS
    ),
    "2AA7 annunciation": (
        lambda w: cgm.decode_cgm(cgm.encode_cgm(100, 5, crc=True, status=w))[0].status, cgm.ANNUNCIATION
    ),
    "2AA9 status": (
        lambda w: cgm.decode_cgm_status(cgm.with_crc(b"\x05\0" + w.to_bytes(3, "little"), True)).status,
        cgm.ANNUNCIATION,
    ),
    "Nonin": (lambda w: nonin.decode_nonin(_nonin(w)).status, nonin.STATUS),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_each_bit_has_its_own_name_and_no_bit_no_status(case: str) -> None:
    decode, names = CASES[case]
    assert decode(0) == ()
    assert [decode(1 << bit) for bit in names] == [(name,) for name in names.values()]
    together = sum(1 << bit for bit in names)
    assert decode(together) == tuple(names[bit] for bit in sorted(names))
    assert len(set(names.values())) == len(names)


def test_trap_t2_glucose_bit_5_is_too_high_and_bit_6_too_low() -> None:
    """The supplement; Nordic's library has them the other way round."""
    assert glucose.decode_glucose(_2a18(1 << 5)).status == ("result too high for the device",)
    assert glucose.decode_glucose(_2a18(1 << 6)).status == ("result too low for the device",)


def test_2a35_pulse_range_is_two_bits() -> None:
    found = [blood_pressure.decode_blood_pressure(_2a35(code << 3)).status for code in range(3)]
    assert found == [(), ("pulse above range",), ("pulse below range",)]


@pytest.mark.parametrize("decode", [pulse_oximeter.decode_spot_check, pulse_oximeter.decode_continuous])
def test_oximetry_that_is_a_demonstration_test_calibration_unavailable_or_invalid_is_nobodys(
    decode: Callable[[bytes], pulse_oximeter.PulseOximetry],
) -> None:
    make = _2a5e if decode is pulse_oximeter.decode_spot_check else _2a5f
    nobodys = {bit for bit in range(16) if not vital_signs_of(decode(make(1 << bit)), CONTEXT)}
    assert nobodys == {10, 11, 12, 13, 15}


def test_a_value_that_its_sensor_disowns_decides_nothing() -> None:
    """A fault is kept with the value, and no rule looks at it."""
    faults = (3, 5)  # sensor malfunction, general fault
    for bit in cgm.ANNUNCIATION:
        (record,) = cgm.decode_cgm(cgm.encode_cgm(40, 5, crc=False, status=1 << bit))
        usable, left_out = reliable(vital_signs_of(CgmReading(record, "", "interstitial fluid", ""), CONTEXT))
        assert (len(usable), len(left_out)) == ((0, 1) if bit in faults else (1, 0)), cgm.ANNUNCIATION[bit]


@pytest.mark.parametrize("code", racp.CODES)
def test_each_response_code_of_the_record_access_control_point(code: int) -> None:
    found = racp.decode_racp(bytes([racp.RESPONSE, racp.NULL, racp.REPORT, code]))
    assert (found.request, found.code, found.text) == (racp.REPORT, code, racp.CODES[code])
