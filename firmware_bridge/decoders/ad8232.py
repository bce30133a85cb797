"""AD8232 sketches (SparkFun's and their like): a decimal number a line, or `!` while an electrode is off.

A line of three, `t_us,adc,lead_off`, carries the board's own time: then the missing samples are counted from it.
"""

from __future__ import annotations

import re

from aidpost.firmware_bridge.decoders.base import MAX_GARBAGE, Block, Corrupt

MAX_LINE = 64
MAX_COUNT = 4095
"""Boards with a 12-bit converter run the same sketch."""

_LINE = re.compile(rb"(?:(?P<time>\d{1,10}),)?(?P<count>\d{1,5}|!)(?:,(?P<off>[01]))?")


class Ad8232Decoder:
    """Lines of text. `period_us` is the time between samples, for the sketches that send it."""

    def __init__(self, period_us: float = 4000.0) -> None:
        self._buffer = bytearray()
        self._period_us, self._last_us, self._last_count = period_us, -1, 0
        self._overlong, self._first = 0, True

    def feed(self, data: bytes) -> list[Block | Corrupt]:
        out: list[Block | Corrupt] = []
        for byte in data.splitlines(keepends=True):
            self._buffer += byte
            if self._buffer.endswith((b"\n", b"\r")):
                self._line(bytes(self._buffer).strip(), out)
                self._buffer.clear()
            elif len(self._buffer) > MAX_LINE:
                self._overlong += len(self._buffer)
                self._buffer.clear()
                while self._overlong >= MAX_GARBAGE:
                    out.append(Corrupt("no line ends here", MAX_GARBAGE))
                    self._overlong -= MAX_GARBAGE
        return out

    def _line(self, line: bytes, out: list[Block | Corrupt]) -> None:
        first, self._first = self._first, False
        if self._overlong:
            out.append(Corrupt("the line is too long for a sample", self._overlong + len(line)))
            self._overlong = 0
            return
        match = _LINE.fullmatch(line)
        if match is None or (match["time"] is not None and match["off"] is None):
            # the first line may be the end of one that began before the port was opened
            if line and not first:
                out.append(Corrupt("the line is no sample", len(line)))
            return
        off = match["count"] == b"!" or match["off"] == b"1"
        count = self._last_count if match["count"] == b"!" else int(match["count"])
        if count > MAX_COUNT:
            out.append(Corrupt("the number is beyond the converter's range", len(line)))
            return
        self._last_count = count
        out.append(Block(((count,),), lost=self._lost(match["time"]), off=(0,) if off else ()))

    def _lost(self, time: bytes | None) -> int:
        if time is None:
            return 0
        now, last = int(time), self._last_us
        self._last_us = now
        # micros() of an Arduino wraps at 32 bits
        return 0 if last < 0 else max(0, round(((now - last) & 0xFFFFFFFF) / self._period_us) - 1)
