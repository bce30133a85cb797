"""Viatom and Wellue: oximeters (O2Ring, Checkme O2; frames 55) and ECG recorders (ER1, ER2, BP2; frames A5).

Replies come in pieces of up to 20 bytes and are put together by their length; a CRC-8 (polynomial 07) ends each.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from decimal import Decimal

from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.medfloat import Number
from aidpost.records import AbsentReason

SERVICE = "14839ac4-7d7e-415c-9a42-167340cf2339"
NOTIFY = "0734594a-a8e7-4b1a-a6b1-cd5243059a57"
WRITE = "8b00ace7-eb0b-49b0-bbe9-9aee0a26e1a3"
MAX_PAYLOAD = 8192
ECG_FS_HZ = 125.0
ECG_UV_PER_COUNT = 1.0035 * 1800 / (4096 * 178.74) * 1000
OXY_SENSORS, OXY_REAL_TIME = 0x17, 0x1B


def crc8(data: bytes) -> int:
    """CRC-8, polynomial 07, initially 0."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return crc


def oxy_request(command: int, data: bytes = b"", block: int = 0) -> bytes:
    """A request to the oximeter family."""
    body = bytes([0xAA, command, command ^ 0xFF]) + struct.pack("<HH", block, len(data)) + data
    return body + bytes([crc8(body)])


def er_request(command: int, data: bytes = b"", sequence: int = 0) -> bytes:
    """A request to the ECG recorders."""
    body = bytes([0xA5, command, command ^ 0xFF, 0, sequence]) + struct.pack("<H", len(data)) + data
    return body + bytes([crc8(body)])


@dataclass(frozen=True)
class ViatomReply:
    """A whole reply: `head` is its second byte, the status of an oximeter (0: ok) or the command of a recorder."""

    family: str
    head: int
    payload: bytes


class ViatomAssembler:
    """Puts replies together from notifications. What is no reply is dropped, a byte at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.dropped = 0

    def feed(self, data: bytes) -> list[ViatomReply]:
        """The replies that are complete with `data`."""
        out: list[ViatomReply] = []
        self._buffer += data
        while len(self._buffer) >= 8:
            lead, head, inverse = self._buffer[:3]
            (length,) = struct.unpack_from("<H", self._buffer, 5)
            if lead not in (0x55, 0xA5) or head ^ inverse != 0xFF or length > MAX_PAYLOAD:
                self._drop()
                continue
            if len(self._buffer) < 8 + length:
                break
            frame = bytes(self._buffer[: 8 + length])
            if crc8(frame[:-1]) != frame[-1]:
                self._drop()
                continue
            out.append(ViatomReply("oxy" if lead == 0x55 else "er", head, frame[7:-1]))
            del self._buffer[: 8 + length]
        return out

    def _drop(self) -> None:
        del self._buffer[0]
        self.dropped += 1


@dataclass(frozen=True)
class ViatomOximetry:
    """A reading; without a finger both numbers are absent."""

    spo2_percent: Number
    pulse_per_min: Number
    battery_percent: int
    worn: bool


def decode_oxy_real_time(payload: bytes) -> ViatomOximetry:
    """The payload of command 1B.

    Raises
    ------
    DecodeError
        It is shorter than 7 bytes.
    """
    if len(payload) < 7:
        raise DecodeError("Viatom real-time data", f"{len(payload)} bytes are no reading")
    spo2, pulse, battery = payload[0], int.from_bytes(payload[1:3], "little"), payload[3]
    return ViatomOximetry(_present(spo2, 0xFF), _present(pulse, 0xFFFF), battery, payload[6] == 1)


def encode_oxy_real_time(spo2: int, pulse: int, battery: int, *, worn: bool, wave: bytes = b"") -> bytes:
    """The whole answer to command 1B, as an oximeter sends it, with that waveform; for simulators."""
    payload = bytes([spo2]) + pulse.to_bytes(2, "little") + bytes([battery, 0, 20, int(worn), 0, 0, 0])
    payload += len(wave).to_bytes(2, "little") + wave
    body = b"\x55\x00\xff" + struct.pack("<HH", 0, len(payload)) + payload
    return body + bytes([crc8(body)])


def _present(value: int, missing: int) -> Number:
    return Number(None, AbsentReason.NOT_A_NUMBER) if value in (0, missing) else Number(Decimal(value))


@dataclass(frozen=True)
class ViatomEcg:
    """Samples at 125 Hz, `ECG_UV_PER_COUNT` each; lead-off as a state."""

    heart_rate_per_min: int
    lead_off: bool
    counts: tuple[int, ...]


def decode_er_real_time(payload: bytes) -> ViatomEcg:
    """The payload of an ER1's or ER2's command 03.

    Raises
    ------
    DecodeError
        It is shorter than its parameters and the samples that it announces.
    """
    if len(payload) < 22:
        raise DecodeError("Viatom ECG data", f"{len(payload)} bytes hold no parameter block")
    (count,) = struct.unpack_from("<H", payload, 20)
    if len(payload) < 22 + 2 * count:
        raise DecodeError("Viatom ECG data", f"{count} samples are announced, {(len(payload) - 22) // 2} are there")
    samples = struct.unpack_from(f"<{count}h", payload, 22)
    return ViatomEcg(int.from_bytes(payload[:2], "little"), payload[8] & 7 == 7, samples)
