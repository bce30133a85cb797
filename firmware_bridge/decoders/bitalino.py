"""BITalino (r)evolution: frames without a start byte, ended by a 4-bit number and a 4-bit CRC.

Each frame is as long as its channels need. Nothing marks where one begins: the CRC over the whole tells, and after a
bad one the search goes on a byte later. A 4-bit CRC passes one wrong frame in 16, so while the decoder is not in step
it asks for the next frame to fit too.
"""

from __future__ import annotations

from aidpost.firmware_bridge.decoders.base import WAIT, Block, FrameDecoder, Sequence, Step, bad, frame

MODULUS = 16
# For each channel, from its high bits to its low ones: byte counted from the end, lowest bit in it, number of bits
_CHANNELS: tuple[tuple[tuple[int, int, int], ...], ...] = (
    ((2, 0, 4), (3, 2, 6)),
    ((3, 0, 2), (4, 0, 8)),
    ((5, 0, 8), (6, 6, 2)),
    ((6, 0, 6), (7, 4, 4)),
    ((7, 0, 4), (8, 6, 2)),
    ((8, 0, 6),),
)


def frame_bytes(channels: int) -> int:
    """The length of a frame of 1 to 6 channels."""
    return -(-(12 + 10 * channels) // 8) if channels <= 4 else 8


def _table() -> tuple[int, ...]:
    out = []
    for crc in range(16):
        for _ in range(4):
            crc = crc << 1 ^ (0x13 if crc & 8 else 0)
        out.append(crc & 0x0F)
    return tuple(out)


_CRC4 = _table()
"""What four bits do to a CRC-4 of polynomial x^4+x+1."""


def crc4(data: bytes) -> int:
    """CRC-4 (x^4+x+1, initially 0) over all bits but the last nibble, which holds it."""
    crc = 0
    for byte in data[:-1]:
        crc = _CRC4[_CRC4[crc ^ byte >> 4] ^ byte & 15]
    return _CRC4[crc ^ data[-1] >> 4]


class BitalinoDecoder(FrameDecoder):
    """The stream of a BITalino with that many analogue channels."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.channels, self.length = channels, frame_bytes(channels)
        self._sequence, self._in_step = Sequence(MODULUS), False

    def parse(self, buffer: bytearray, position: int) -> Step:
        length = self.length
        wanted = length if self._in_step else 2 * length
        if len(buffer) < position + wanted:
            return WAIT
        data = bytes(buffer[position : position + length])
        if crc4(data) != data[-1] & 0x0F:
            self._in_step = False
            return bad(f"the CRC is {data[-1] & 0x0F:X}, not {crc4(data):X}")
        if not self._in_step:
            following = bytes(buffer[position + length : position + 2 * length])
            if crc4(following) != following[-1] & 0x0F or ((following[-1] >> 4) - (data[-1] >> 4)) & 0x0F != 1:
                return bad("the frame after it does not fit")
            self._in_step = True
        lost = self._sequence.lost_before(data[-1] >> 4, data)
        if lost is None:
            return frame(length, None)
        return frame(length, self._block(data, lost))

    def _block(self, data: bytes, lost: int) -> Block:
        counts = tuple(_gather(data, pieces) for pieces in _CHANNELS[: self.channels])
        digital = (("digital_i1", float(data[-2] >> 7)), ("digital_i2", float(data[-2] >> 6 & 1)))
        return Block((counts,), lost=lost, readings=digital)


def _gather(data: bytes, pieces: tuple[tuple[int, int, int], ...]) -> int:
    value = 0
    for byte, low, width in pieces:
        value = value << width | data[-byte] >> low & (1 << width) - 1
    return value


def encode_bitalino(number: int, counts: tuple[int, ...], digital: int = 0) -> bytes:
    """A frame as the board sends it: sequence number, four digital lines (I1 I2 O1 O2) and the channels."""
    data = bytearray(frame_bytes(len(counts)))
    data[-1], data[-2] = (number & 0x0F) << 4, (digital & 0x0F) << 4
    for count, pieces in zip(counts, _CHANNELS, strict=False):
        left = sum(width for _, _, width in pieces)
        for byte, low, width in pieces:
            left -= width
            data[-byte] |= (count >> left & (1 << width) - 1) << low
    data[-1] |= crc4(bytes(data))
    return bytes(data)
