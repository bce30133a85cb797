"""Continuous Glucose Monitoring service 0x181F (GATT Specification Supplement): 2AA7, 2AA8, 2AA9, 2AAA, 2AAB, 2AAC.

The E2E-CRC is CRC-16/MCRF4XX over all preceding bytes, little-endian, and present only if feature bit 12 is set.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.gatt import DeviceTime, Reader, bit_names, encode_date_time
from aidpost.firmware_bridge.decoders.glucose import SAMPLES, SITES
from aidpost.firmware_bridge.decoders.medfloat import Number

CRC_FEATURE = 12
FEATURES = {
    0: "calibration",
    1: "patient high or low alerts",
    2: "hypo alerts",
    3: "hyper alerts",
    4: "rate alerts",
    5: "device alert",
    6: "malfunction detection",
    7: "temperature",
    8: "result high or low",
    9: "low battery",
    10: "sensor type",
    11: "general fault",
    12: "E2E-CRC",
    13: "multiple bonds",
    14: "multiple sessions",
    15: "trend",
    16: "quality",
}
ANNUNCIATION = {
    0: "session stopped",
    1: "battery low",
    2: "wrong sensor type",
    3: "sensor malfunction",
    4: "device alert",
    5: "general fault",
    8: "time synchronisation required",
    9: "calibration not allowed",
    10: "calibration recommended",
    11: "calibration required",
    12: "temperature too high",
    13: "temperature too low",
    14: "calibration pending",
    16: "below patient low",
    17: "above patient high",
    18: "below hypo",
    19: "above hyper",
    20: "rate of decrease exceeded",
    21: "rate of increase exceeded",
    22: "below device range",
    23: "above device range",
}


def e2e_crc(data: bytes) -> int:
    """CRC-16/MCRF4XX: polynomial 1021 reflected, initially FFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x8408 if crc & 1 else 0)
    return crc


def with_crc(body: bytes, crc: bool) -> bytes:
    """What is written to a sensor, or sent by a simulated one: with its E2E-CRC where the sensor has that feature."""
    return body + e2e_crc(body).to_bytes(2, "little") if crc else body


def _checked(what: str, data: bytes) -> bytes:
    """The bytes before the CRC, which must be right."""
    body, sent = data[:-2], int.from_bytes(data[-2:], "little")
    if len(data) < 3 or e2e_crc(body) != sent:
        raise DecodeError(what, f"the E2E-CRC is {sent:04X}, not {e2e_crc(body):04X}")
    return body


@dataclass(frozen=True)
class CgmRecord:
    """One record of 2AA7, in mg/dL, minutes since the session's start, mg/dL/min and percent."""

    concentration_mg_per_dl: Number
    offset_min: int
    status: tuple[str, ...]
    trend: Number | None
    quality_percent: Number | None


def decode_cgm(data: bytes, *, crc: bool | None = None) -> tuple[CgmRecord, ...]:
    """2AA7: one or more records.

    `crc` says whether feature bit 12 is set; None takes a CRC for present where two bytes are left for it.

    Raises
    ------
    DecodeError
        A record is shorter than it says, or its CRC is wrong.
    """
    what, records, position = "CGM measurement 2AA7", [], 0
    while position < len(data):
        size = data[position]
        record = data[position : position + size]
        if size < 6 or len(record) < size:
            raise DecodeError(what, f"a record of {size} bytes has {len(data) - position}")
        records.append(_record(what, record, crc))
        position += size
    if not records:
        raise DecodeError(what, "it is empty")
    return tuple(records)


def _record(what: str, data: bytes, crc: bool | None) -> CgmRecord:
    flags = data[1]
    expected = 6 + sum(flags >> bit & 1 for bit in (5, 6, 7)) + 2 * (flags & 1) + 2 * (flags >> 1 & 1)
    if crc or (crc is None and len(data) == expected + 2):
        data = _checked(what, data)
    reader = Reader(what, data)
    reader.take(2, "size and flags")
    concentration, offset = reader.sfloat("concentration"), reader.u16("time offset")
    word = 0
    # the octets come in the order status, calibration and temperature, warning
    for flag, shift in ((7, 0), (6, 8), (5, 16)):
        if flags >> flag & 1:
            word |= reader.u8("annunciation") << shift
    trend = reader.sfloat("trend") if flags & 1 else None
    quality = reader.sfloat("quality") if flags & 2 else None
    return CgmRecord(concentration, offset, bit_names(word, ANNUNCIATION), trend, quality)


@dataclass(frozen=True)
class CgmFeature:
    """2AA8."""

    features: tuple[str, ...]
    sample: str
    site: str

    @property
    def crc(self) -> bool:
        """Whether everything that is sent and written carries an E2E-CRC."""
        return FEATURES[CRC_FEATURE] in self.features


def decode_cgm_feature(data: bytes) -> CgmFeature:
    """2AA8; its CRC field is FFFF where the device has none.

    Raises
    ------
    DecodeError
        It is not 6 bytes long, or its CRC is wrong.
    """
    reader = Reader("CGM feature 2AA8", data)
    word, code, sent = reader.unsigned(3, "features"), reader.u8("type and location"), reader.u16("CRC")
    if word >> CRC_FEATURE & 1 or sent != 0xFFFF:
        _checked(reader.what, data[:6])
    sample = SAMPLES[code & 15] if code & 15 < len(SAMPLES) else f"reserved {code & 15}"
    return CgmFeature(bit_names(word, FEATURES), sample, SITES.get(code >> 4, f"reserved {code >> 4}"))


@dataclass(frozen=True)
class CgmStatus:
    """2AA9: minutes since the session's start, and what is annunciated."""

    offset_min: int
    status: tuple[str, ...]


def decode_cgm_status(data: bytes) -> CgmStatus:
    """2AA9, with or without CRC.

    Raises
    ------
    DecodeError
        It is too short, or its CRC is wrong.
    """
    reader = Reader("CGM status 2AA9", _checked("CGM status 2AA9", data) if len(data) == 7 else data)
    return CgmStatus(reader.u16("time offset"), reader.flags(3, ANNUNCIATION, "status"))


@dataclass(frozen=True)
class CgmSessionStart:
    """2AAA: when the session began, by the sensor's clock. `utc_offset_min` is zone and daylight saving together, None
    where the sensor does not know."""

    time: DeviceTime
    utc_offset_min: int | None

    @property
    def moment(self) -> datetime | None:
        """The same as a date; None where nobody has set it, or it is none."""
        try:
            return datetime.fromisoformat(str(self.time))
        except ValueError:
            return None


def decode_cgm_session_start(data: bytes) -> CgmSessionStart:
    """2AAA, with or without CRC: date and time, zone (-128: unknown) and daylight saving (255: unknown) in quarters of
    an hour.

    Raises
    ------
    DecodeError
        It is too short, or its CRC is wrong.
    """
    what = "CGM session start 2AAA"
    reader = Reader(what, _checked(what, data) if len(data) == 11 else data)
    time, zone, saving = reader.date_time("start"), reader.signed(1, "time zone"), reader.u8("daylight saving")
    return CgmSessionStart(time, None if zone == -128 else 15 * (zone + (0 if saving == 255 else saving)))


def encode_cgm_session_start(time: DeviceTime, utc_offset_min: int | None, *, crc: bool) -> bytes:
    """2AAA, to tell a sensor when its session began: the offset is written as a zone without daylight saving."""
    zone = -128 if utc_offset_min is None else round(utc_offset_min / 15)
    return with_crc(encode_date_time(time) + zone.to_bytes(1, "little", signed=True) + bytes([0]), crc)


def encode_cgm(mg_per_dl: float, offset_min: int, *, crc: bool, status: int = 0) -> bytes:
    """One record of 2AA7 in whole mg/dL (NaN: none), as a sensor sends it, with those annunciation bits; for
    simulators."""
    octets = [(flag, status >> shift & 0xFF) for flag, shift in ((0x80, 0), (0x40, 8), (0x20, 16))]
    flags = sum(flag for flag, octet in octets if octet)
    word = 0x07FF if mg_per_dl != mg_per_dl else round(mg_per_dl) & 0xFFF
    body = bytes([flags]) + word.to_bytes(2, "little") + offset_min.to_bytes(2, "little")
    body += bytes(octet for _, octet in octets if octet)
    return with_crc(bytes([len(body) + 1 + 2 * crc]) + body, crc)


def decode_cgm_run_time(data: bytes) -> int:
    """2AAB: the session's run time in hours, with or without CRC.

    Raises
    ------
    DecodeError
        It is too short, or its CRC is wrong.
    """
    body = _checked("CGM session run time 2AAB", data) if len(data) == 4 else data
    return Reader("CGM session run time 2AAB", body).u16("run time")


RESPONSE_CODES = {
    1: "success",
    2: "operation not supported",
    3: "invalid operand",
    4: "not completed",
    5: "out of range",
}
START_SESSION, STOP_SESSION = b"\x1a", b"\x1b"
_INTERVAL, _CALIBRATION, _RESPONSE = 0x03, 0x06, 0x1C
_LEVELS = {
    0x09: "patient high",
    0x0C: "patient low",
    0x0F: "hypo",
    0x12: "hyper",
    0x15: "decrease rate",
    0x18: "increase rate",
}


@dataclass(frozen=True)
class CgmControl:
    """An indication of the control point 2AAC; which fields are set depends on the operation."""

    operation: int
    level: str = ""
    value: Number | None = None
    interval_min: int | None = None
    request: int | None = None
    response: str = ""
    calibration_time_min: int | None = None
    next_calibration_min: int | None = None
    record: int | None = None
    calibration_status: int | None = None


def decode_cgm_control(data: bytes, *, crc: bool | None = None) -> CgmControl:
    """2AAC, as indicated; `crc` as in `decode_cgm` (None: present where the length leaves room for it).

    Raises
    ------
    DecodeError
        It is too short, of an unknown operation, or its CRC is wrong.
    """
    what = "CGM control point 2AAC"
    operation = Reader(what, data).u8("operation")
    usual = {_RESPONSE: (3,), _INTERVAL: (2, 3), _CALIBRATION: (11,)}.get(
        operation, (3,) if operation in _LEVELS else ()
    )
    if not usual:
        raise DecodeError(what, f"operation {operation:02X} is no response")
    if crc or (crc is None and len(data) >= min(usual) + 2):
        data = _checked(what, data)
    reader = Reader(what, data[1:])
    if operation == _RESPONSE:
        request, code = reader.u8("request"), reader.u8("response code")
        return CgmControl(operation, request=request, response=RESPONSE_CODES.get(code, f"reserved {code}"))
    if operation == _INTERVAL:  # one byte by the service, two by the supplement
        return CgmControl(operation, interval_min=reader.unsigned(min(2, max(1, reader.left)), "interval"))
    value = reader.sfloat("level")
    if operation in _LEVELS:
        return CgmControl(operation, level=_LEVELS[operation], value=value)
    time, place = reader.u16("calibration time"), reader.u8("type and location")
    following, number, status = reader.u16("next calibration"), reader.u16("record"), reader.u8("status")
    sample = SAMPLES[place & 15] if place & 15 < len(SAMPLES) else f"reserved {place & 15}"
    return CgmControl(
        operation,
        level=f"calibration, {sample}, {SITES.get(place >> 4, 'reserved')}",
        value=value,
        calibration_time_min=time,
        next_calibration_min=following,
        record=number,
        calibration_status=status,
    )
