"""Olimex SHIELD-EKG-EMG: 17-byte packets, version 2, six 10-bit channels, a number that runs modulo 256."""

from __future__ import annotations

import struct

from aidpost.firmware_bridge.decoders.base import WAIT, Block, FrameDecoder, Sequence, Step, bad, frame

LENGTH = 17
VERSION = 2
MAX_COUNT = 1023


class OlimexDecoder(FrameDecoder):
    """The stream of one or more stacked shields. There is no checksum: version, range and switch byte must fit."""

    sync = b"\xa5\x5a"

    def __init__(self) -> None:
        super().__init__()
        self._sequence = Sequence(256)

    def parse(self, buffer: bytearray, position: int) -> Step:
        if len(buffer) < position + LENGTH:
            return WAIT
        data = bytes(buffer[position : position + LENGTH])
        counts = struct.unpack_from(">6H", data, 4)
        if data[2] != VERSION or max(counts) > MAX_COUNT or data[16] > 0x0F:
            return bad("not a packet of version 2 with 10-bit channels")
        lost = self._sequence.lost_before(data[3], data)
        return frame(LENGTH, None if lost is None else Block((counts,), lost=lost))


def encode_olimex(number: int, counts: tuple[int, int, int, int, int, int]) -> bytes:
    """A packet as the shield sends it; for simulators and tests."""
    return b"\xa5\x5a" + struct.pack(">BB6HB", VERSION, number & 0xFF, *counts, 1)
