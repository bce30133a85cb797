"""Polar H10's ECG (Polar measurement data, PMD): control point FB005C81, data FB005C82.

130 Hz, 14 bits, microvolt. A frame's time is that of its last sample, in nanoseconds since 2000 by a clock that is
unset unless a host sets it: only differences count.
"""

from __future__ import annotations

from dataclasses import dataclass

from aidpost.firmware_bridge.decoders.base import DecodeError, signed
from aidpost.firmware_bridge.decoders.gatt import Reader

SERVICE = "fb005c80-02e7-f387-1cad-8acd2d8df0c8"
CONTROL = "fb005c81-02e7-f387-1cad-8acd2d8df0c8"
DATA = "fb005c82-02e7-f387-1cad-8acd2d8df0c8"
FS_HZ = 130.0
UV_PER_COUNT = 1.0
START_ECG = bytes.fromhex("02000001820001010E00")
STOP_ECG = bytes.fromhex("0300")
ECG = 0
STATUS = (
    *("ok", "invalid operation", "invalid type", "not supported", "invalid length", "invalid parameter"),
    *("already in state", "invalid resolution", "invalid rate", "invalid range", "invalid MTU", "invalid channels"),
    *("invalid state", "in charger"),
)
_SETTING_SIZE = {0: 2, 1: 2, 2: 2, 4: 1, 5: 4}
_SETTING_NAME = {0: "sample_rate_hz", 1: "resolution_bit", 2: "range", 4: "channels", 5: "factor"}


@dataclass(frozen=True)
class PolarEcg:
    """`last_ns` is the time of the last sample; counts are microvolt."""

    last_ns: int
    counts: tuple[int, ...]


def decode_polar_ecg(data: bytes) -> PolarEcg:
    """A data frame of type ECG, uncompressed.

    Raises
    ------
    DecodeError
        Another type, a compressed frame, or a length that is no whole number of samples.
    """
    reader = Reader("Polar ECG frame", data)
    kind, last, form = reader.u8("type") & 0x3F, reader.unsigned(8, "time"), reader.u8("frame type")
    if kind != ECG or form != 0:
        raise DecodeError(reader.what, f"type {kind}, frame type {form:02X} is no plain ECG")
    if reader.left % 3:
        raise DecodeError(reader.what, f"{reader.left} bytes are no whole number of 3-byte samples")
    count = reader.left // 3
    return PolarEcg(last, tuple(signed(reader.unsigned(3, "sample"), 24) for _ in range(count)))


def sample_times_ns(previous_ns: int, frame: PolarEcg) -> tuple[float, ...]:
    """The time of each sample, spread evenly from the last frame's last sample to this one's."""
    step = (frame.last_ns - previous_ns) / max(1, len(frame.counts))
    return tuple(previous_ns + (k + 1) * step for k in range(len(frame.counts)))


@dataclass(frozen=True)
class PolarResponse:
    """The control point's answer."""

    operation: int
    type: int
    status: str
    more: bool
    parameters: bytes


def decode_polar_response(data: bytes) -> PolarResponse:
    """An indication of the control point.

    Raises
    ------
    DecodeError
        It does not begin with F0, or is too short.
    """
    reader = Reader("Polar control point", data)
    if reader.u8("F0") != 0xF0:
        raise DecodeError(reader.what, "it does not begin with F0")
    operation, kind, code = reader.u8("operation"), reader.u8("type"), reader.u8("status")
    more = bool(reader.u8("more")) if reader.left else False
    status = STATUS[code] if code < len(STATUS) else f"reserved {code}"
    return PolarResponse(operation, kind, status, more, reader.rest())


def decode_polar_settings(data: bytes) -> dict[str, tuple[int, ...]]:
    """The settings that a stream can have, as the control point lists them (type, count, values; again and again).

    Raises
    ------
    DecodeError
        A setting is cut off, or of an unknown kind, whose size is not known.
    """
    reader, out = Reader("Polar settings", data), {}
    while reader.left:
        code, count = reader.u8("setting"), reader.u8("count")
        if code not in _SETTING_SIZE:
            raise DecodeError(reader.what, f"setting {code} is unknown")
        out[_SETTING_NAME[code]] = tuple(reader.unsigned(_SETTING_SIZE[code], "value") for _ in range(count))
    return out


def encode_polar_ecg(last_ns: int, counts: tuple[int, ...]) -> bytes:
    """A data frame as the strap sends it; for simulators."""
    body = b"".join((count & 0xFFFFFF).to_bytes(3, "little") for count in counts)
    return bytes([ECG]) + last_ns.to_bytes(8, "little") + b"\0" + body
