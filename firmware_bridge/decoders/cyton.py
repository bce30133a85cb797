"""OpenBCI Cyton: 33-byte frames, eight 24-bit channels, a number that runs modulo 256.

A channel at the end of its range (7FFFFF or 800000) is railed: its electrode is off or its input saturated, so the
count is no measurement.
"""

from __future__ import annotations

from aidpost.firmware_bridge.decoders.base import WAIT, Block, FrameDecoder, Sequence, Step, bad, frame, signed

LENGTH = 33
CHANNELS = 8
RAILED = (0x7FFFFF, -0x800000)
STOPS = frozenset(range(0xC0, 0xC8))
ACCELERATION = 0xC0
G_PER_COUNT = 0.002 / 16


class CytonDecoder(FrameDecoder):
    """The stream of an eight-channel Cyton."""

    sync = b"\xa0"

    def __init__(self) -> None:
        super().__init__()
        self._sequence = Sequence(256)

    def parse(self, buffer: bytearray, position: int) -> Step:
        if len(buffer) < position + LENGTH:
            return WAIT
        data = bytes(buffer[position : position + LENGTH])
        if data[-1] not in STOPS:
            return bad(f"the stop byte is {data[-1]:02X}, not C0 to C7")
        lost = self._sequence.lost_before(data[1], data)
        if lost is None:
            return frame(LENGTH, None)
        counts = tuple(signed(int.from_bytes(data[n : n + 3], "big"), 24) for n in range(2, 26, 3))
        off = tuple(channel for channel, count in enumerate(counts) if count in RAILED)
        return frame(LENGTH, Block((counts,), lost=lost, off=off, readings=_acceleration(data)))


def _acceleration(data: bytes) -> tuple[tuple[str, float | None], ...]:
    axes = [int.from_bytes(data[n : n + 2], "big", signed=True) for n in (26, 28, 30)]
    if data[-1] != ACCELERATION or not any(axes):  # all zero: no new sample in this frame
        return ()
    names = ("acceleration_x_g", "acceleration_y_g", "acceleration_z_g")
    return tuple((name, axis * G_PER_COUNT) for name, axis in zip(names, axes, strict=True))


def encode_cyton(number: int, counts: tuple[int, ...]) -> bytes:
    """A frame as the board sends it, without acceleration; for simulators and tests."""
    body = b"".join((count & 0xFFFFFF).to_bytes(3, "big") for count in counts)
    return bytes([0xA0, number & 0xFF]) + body + bytes(6) + b"\xc0"
