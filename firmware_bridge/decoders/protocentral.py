"""ProtoCentral's boards: HealthyPi v3, v4, 5 and 6, ADS1292R, ADS1293, MAX30001, MAX30003.

All frame alike: `0A FA`, length of the payload (u16), type, payload, `00 0B`. There is no checksum and no number, so a
frame counts only with a length that its type has, and with its tail in place; what was lost is told from the bytes
between frames and by the port from the time between them.

What the boards send and this does not report: bytes 17 and 18 of HealthyPi v4 are the constants 80 and 120, no blood
pressure; the temperature of HealthyPi 5's OV3 PPG packet lacks its low byte.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from aidpost.firmware_bridge.decoders.base import WAIT, Block, FrameDecoder, Step, bad, frame

HEADER, TAIL = b"\x0a\xfa", b"\x00\x0b"
OVERHEAD = 7
DATA, STATUS = 2, 3
MAX_PAYLOAD = 256

Payload = Callable[[bytes], Block]

_HEALTHYPI4 = struct.Struct("<hhiihBBBBBB")
_HEALTHYPI5 = struct.Struct("<iiBiihBBB")


def _reading(value: float, absent: float = 0) -> float | None:
    return None if value == absent else float(value)


def healthypi4(payload: bytes) -> Block:
    """20 bytes: ECG and respiration counts, PPG, temperature, rates, and the contact bits."""
    ecg, respiration, _, _, temperature, breaths, spo2, rate, _, _, status = _HEALTHYPI4.unpack(payload)
    ecg_off, probe_off = bool(status & 1), bool(status & 2)
    return Block(
        samples=((ecg, respiration),),
        off=(0, 1) if ecg_off else (),
        readings=(
            ("temperature_cel", _reading(temperature / 100)),
            ("respiratory_rate_per_min", None if ecg_off else _reading(breaths)),
            ("spo2_percent", None if probe_off else _reading(spo2)),
            ("heart_rate_per_min", None if ecg_off else _reading(rate)),
        ),
    )


def healthypi5(payload: bytes) -> Block:
    """22 bytes of the OpenView stream; a SpO2 of 25 means that no finger is there."""
    ecg, impedance, _, _, _, temperature, spo2, rate, breaths = _HEALTHYPI5.unpack(payload)
    return Block(
        samples=((ecg, impedance),),
        readings=(
            ("temperature_cel", _reading(temperature / 100)),
            ("respiratory_rate_per_min", _reading(breaths)),
            ("spo2_percent", None if spo2 == 25 else _reading(spo2)),
            ("heart_rate_per_min", _reading(rate)),
        ),
    )


def healthypi5_ov3(payload: bytes) -> Block:
    """50 bytes, type 3: eight ECG samples; respiration impedance, at half the rate, is left out."""
    values = struct.unpack("<12iBB", payload)
    readings = (("heart_rate_per_min", _reading(values[12])), ("respiratory_rate_per_min", _reading(values[13])))
    return Block(samples=tuple((count,) for count in values[:8]), readings=readings)


def healthypi6(payload: bytes) -> Block:
    """31 bytes: three ECG channels; the layout beyond them is known by offset only."""
    one, two, three = struct.unpack_from("<3i", payload)
    rate, spo2, breaths, temperature = struct.unpack_from("<hBBh", payload, 25)
    return Block(
        samples=((one, two, three),),
        readings=(
            ("heart_rate_per_min", _reading(rate)),
            ("spo2_percent", _reading(spo2)),
            ("respiratory_rate_per_min", _reading(breaths)),
            ("temperature_cel", _reading(temperature / 100)),
        ),
    )


def ads1292r(payload: bytes) -> Block:
    """9 bytes: ECG, respiration, then respiratory rate before heart rate (their viewer reads them the other way)."""
    ecg, respiration, breaths, rate, _ = struct.unpack("<hhHHB", payload)
    readings = (("respiratory_rate_per_min", _reading(breaths)), ("heart_rate_per_min", _reading(rate)))
    return Block(samples=((ecg, respiration),), readings=readings)


def ads1293(payload: bytes) -> Block:
    """Three channels of 32 bits."""
    return Block(samples=(struct.unpack_from("<3i", payload),))


def max30003(payload: bytes) -> Block:
    """12 bytes: ECG, RR interval in milliseconds, heart rate."""
    ecg, interval, rate = struct.unpack("<3i", payload)
    readings = (("rr_interval_ms", _reading(interval)), ("heart_rate_per_min", _reading(rate)))
    return Block(samples=((ecg,),), readings=readings)


def max30001(payload: bytes) -> Block:
    """9 bytes: ECG, impedance and a tag."""
    ecg, impedance = struct.unpack_from("<2i", payload)
    return Block(samples=((ecg, impedance),))


_KINDS: dict[str, dict[tuple[int, int], Payload]] = {
    "healthypi4": {(DATA, 20): healthypi4},
    "healthypi5": {(DATA, 22): healthypi5, (STATUS, 50): healthypi5_ov3},
    "healthypi6": {(DATA, 31): healthypi6},
    "ads1292r": {(DATA, 9): ads1292r},
    "ads1293": {(DATA, 12): ads1293},
    "max30003": {(DATA, 12): max30003},
    "max30001": {(DATA, 9): max30001},
}
_OTHER_TYPES = {1, 3, 4, 5, 6}
"""Command, status, progress, log index and response: frames without samples, passed over."""


class ProtocentralDecoder(FrameDecoder):
    """The stream of one of these boards, by its name."""

    sync = HEADER

    def __init__(self, board: str) -> None:
        super().__init__()
        self._kinds = _KINDS[board]
        self.frame_length = min(length for _, length in self._kinds) + OVERHEAD

    def parse(self, buffer: bytearray, position: int) -> Step:
        if len(buffer) < position + 5:
            return WAIT
        length, kind = buffer[position + 2] | buffer[position + 3] << 8, buffer[position + 4]
        payload = self._kinds.get((kind, length))
        if payload is None and (kind not in _OTHER_TYPES or length > MAX_PAYLOAD):
            return bad(f"no frame of type {kind} has {length} bytes")
        total = length + OVERHEAD
        if len(buffer) < position + total:
            return WAIT
        if buffer[position + total - 2 : position + total] != TAIL:
            return bad("the frame's tail 00 0B is missing")
        body = bytes(buffer[position + 5 : position + 5 + length])
        return frame(total, payload(body) if payload else None)


def encode_frame(payload: bytes, kind: int = DATA) -> bytes:
    """The bytes that a board sends for a payload; for simulators and tests."""
    return HEADER + struct.pack("<HB", len(payload), kind) + payload + TAIL


def encode_healthypi4(
    ecg: int,
    respiration: int = 0,
    *,
    temperature_cel: float = 0,
    respiratory_rate: int = 0,
    spo2: int = 0,
    rate: int = 0,
    status: int = 0,
) -> bytes:
    """A frame of HealthyPi v4, its two constants included."""
    payload = _HEALTHYPI4.pack(
        ecg, respiration, 0, 0, round(temperature_cel * 100), respiratory_rate, spo2, rate, 80, 120, status
    )
    return encode_frame(payload)
