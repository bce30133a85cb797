"""Aidpost's own board protocol, version 1, for people who build a board (docs/sensors/own-firmware.md).

Frames are COBS-stuffed and end with a zero byte, so that the next frame is found whatever happened to the last one.
Each carries a CRC-32. A hello says what the board is: rate, channels and what a count is worth; a sample counter tells
exactly what was lost.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from aidpost.firmware_bridge.decoders.base import MAX_GARBAGE, Announcement, Block, Corrupt, signed

VERSION = 1
HELLO, SAMPLES = 1, 2
MAX_CHANNELS = 16
MAX_PACKET = 512
MAX_FRAME = MAX_PACKET + MAX_PACKET // 254 + 1
_SAMPLES = struct.Struct("<IHBB")


def cobs_encode(data: bytes) -> bytes:
    """Consistent overhead byte stuffing (Cheshire and Baker 1999), without the closing zero."""
    out = bytearray()
    for run in data.split(b"\0"):
        start = 0
        while len(run) - start >= 254:
            out += b"\xff" + run[start : start + 254]
            start += 254
        out += bytes([len(run) - start + 1]) + run[start:]
    return bytes(out)


def cobs_decode(data: bytes) -> bytes | None:
    """What was stuffed; None if the lengths do not add up."""
    out, position = bytearray(), 0
    while position < len(data):
        code = data[position]
        run = data[position + 1 : position + code]
        if code == 0 or len(run) != code - 1:
            return None
        out += run
        position += code
        if code < 0xFF and position < len(data):
            out.append(0)
    return bytes(out)


class OwnDecoder:
    """The stream of a board that speaks this protocol."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._expected: int | None = None
        self._channels = 0
        self._first, self._overlong = True, 0

    def feed(self, data: bytes) -> list[Block | Corrupt | Announcement]:
        out: list[Block | Corrupt | Announcement] = []
        start = 0
        while (end := data.find(b"\0", start)) >= 0:
            self._grow(data[start:end], out)
            self._frame(out)
            start = end + 1
        self._grow(data[start:], out)
        return out

    def _grow(self, data: bytes, out: list[Block | Corrupt | Announcement]) -> None:
        """Keep the part of a frame; what is longer than any frame is counted, and dropped up to the next zero."""
        self._buffer += data
        if len(self._buffer) > MAX_FRAME or self._overlong:
            self._overlong += len(self._buffer)
            self._buffer.clear()
            while self._overlong > MAX_GARBAGE:
                out.append(Corrupt("no frame ends here", MAX_GARBAGE))
                self._overlong -= MAX_GARBAGE

    def _frame(self, out: list[Block | Corrupt | Announcement]) -> None:
        stuffed, overlong = bytes(self._buffer), self._overlong
        self._buffer.clear()
        first, self._first, self._overlong = self._first, False, 0
        if not stuffed and not overlong:
            return
        packet = cobs_decode(stuffed) if not overlong else None
        if packet is None or len(packet) < 5 or zlib.crc32(packet[:-4]) != int.from_bytes(packet[-4:], "little"):
            # the first frame is usually one that began before the port was opened
            if not first:
                out.append(Corrupt("the frame's CRC is wrong", len(stuffed) + overlong + 1))
            return
        found = self._packet(packet[0], packet[1:-4])
        out.append(found if found is not None else Corrupt("the packet's fields do not add up", len(stuffed) + 1))

    def _packet(self, kind: int, body: bytes) -> Block | Announcement | None:
        try:
            return self._hello(body) if kind == HELLO else self._samples(body) if kind == SAMPLES else None
        except (struct.error, IndexError):
            return None

    def _hello(self, body: bytes) -> Announcement | None:
        version, rate_mhz, channels = struct.unpack_from("<BIB", body)
        if version != VERSION or not rate_mhz or not 1 <= channels <= MAX_CHANNELS:
            return None
        labels, scales, position = [], [], 6
        for _ in range(channels):
            (scale,) = struct.unpack_from("<I", body, position)
            label, position = _text(body, position + 4)
            labels.append(label)
            scales.append(scale / 1e6)
        name, position = _text(body, position)
        if position != len(body) or not all(scales) or len(set(labels)) < channels:
            return None
        self._channels = channels
        return Announcement(name, rate_mhz / 1000, tuple(labels), tuple(scales))

    def _samples(self, body: bytes) -> Block | None:
        first, off, count, channels = _SAMPLES.unpack_from(body)
        values = body[_SAMPLES.size :]
        if not count or not 1 <= channels <= MAX_CHANNELS or len(values) != 3 * count * channels:
            return None
        numbers = [signed(int.from_bytes(values[n : n + 3], "little"), 24) for n in range(0, len(values), 3)]
        samples = tuple(tuple(numbers[n : n + channels]) for n in range(0, len(numbers), channels))
        expected, self._expected = self._expected, (first + count) & 0xFFFFFFFF
        lost = 0 if expected is None else (first - expected) & 0xFFFFFFFF
        restarted = lost >= 1 << 31  # behind what has been seen: the same packet again, or a board that has restarted
        if restarted and (expected or 0) - first == count:
            self._expected = expected
            return Block(())
        contactless = tuple(n for n in range(channels) if off >> n & 1)
        return Block(samples, lost=0 if restarted else lost, off=contactless, restarted=restarted)


def _text(body: bytes, position: int) -> tuple[str, int]:
    length = body[position]
    text = body[position + 1 : position + 1 + length]
    if len(text) != length:
        raise IndexError(position)
    return text.decode("ascii", "replace"), position + 1 + length


def _frame(packet: bytes) -> bytes:
    return cobs_encode(packet + zlib.crc32(packet).to_bytes(4, "little")) + b"\0"


def encode_hello(name: str, fs_hz: float, labels: Sequence[str], uv_per_count: Sequence[float]) -> bytes:
    """The frame that announces a board; the C encoder in `firmware/` makes the same bytes."""
    packet = struct.pack("<BBIB", HELLO, VERSION, round(fs_hz * 1000), len(labels))
    for label, scale in zip(labels, uv_per_count, strict=True):
        packet += struct.pack("<IB", round(scale * 1e6), len(label)) + label.encode("ascii")
    return _frame(packet + bytes([len(name)]) + name.encode("ascii"))


def encode_samples(first: int, samples: Sequence[Sequence[int]], off: int = 0) -> bytes:
    """A frame of samples, `first` being the number of the first since the board started."""
    packet = bytes([SAMPLES]) + _SAMPLES.pack(first & 0xFFFFFFFF, off, len(samples), len(samples[0]))
    packet += b"".join((count & 0xFFFFFF).to_bytes(3, "little") for sample in samples for count in sample)
    return _frame(packet)
