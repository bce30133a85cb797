"""What every board's decoder shares: the values it gives, and the search for frames in a stream of bytes."""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import NamedTuple, Protocol

from aidpost.errors import UnreadableInputError

MAX_GARBAGE = 4096
"""Bytes of rubbish that are reported at the latest, even though no frame has followed yet."""


class Block(NamedTuple):
    """What one frame brought.

    `samples` are n tuples with the counts of each channel; `lost` is how many samples are known to be missing before
    them; `off` are the channels without contact, whose counts mean nothing; `readings` are numbers that the board
    worked out itself, in the unit that their name says, None where it says that it has none. `restarted` says that a
    numbered board counts from the beginning again, so that its numbers do not tell what is missing before.
    """

    samples: tuple[tuple[int, ...], ...]
    lost: int = 0
    off: tuple[int, ...] = ()
    readings: tuple[tuple[str, float | None], ...] = ()
    restarted: bool = False


class Corrupt(NamedTuple):
    """Bytes that were no frame, and why; `dropped` is how many."""

    reason: str
    dropped: int


class Announcement(NamedTuple):
    """What a board says of itself: its name, rate, channels and what a count of each is worth, in microvolt."""

    name: str
    fs_hz: float
    leads: tuple[str, ...]
    uv_per_count: tuple[float, ...]


class BoardDecoder(Protocol):
    """A decoder of one board's stream."""

    def feed(self, data: bytes) -> SequenceOf[Block | Corrupt | Announcement]:
        """The frames that are complete with `data`, in order, with what could not be read between them."""


class _Wait(NamedTuple):
    """The frame may go on: more bytes are needed."""


class _Bad(NamedTuple):
    """No frame starts here."""

    reason: str


class _Frame(NamedTuple):
    """A frame of that many bytes. `block` is None for one that carries nothing of interest."""

    length: int
    block: Block | None


WAIT = _Wait()
Step = _Wait | _Bad | _Frame


def bad(reason: str) -> Step:
    """There is no frame here, because of `reason`."""
    return _Bad(reason)


def frame(length: int, block: Block | None) -> Step:
    """There is a frame of `length` bytes."""
    return _Frame(length, block)


class FrameDecoder:
    """Finds frames that begin with `sync` in a stream. A subclass says in `parse` what stands at a position.

    After a bad frame the search goes on one byte later, since a sync may stand inside what was taken for a frame. What
    is skipped is reported once, before the next frame, so that the result does not depend on how the stream was cut.
    """

    sync: bytes = b""
    frame_length: int = 0
    """Bytes of a frame where frames are not numbered, so that lost ones are told from the garbage; else 0."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._garbage, self._reason, self._seen = 0, "", False

    def parse(self, buffer: bytearray, position: int) -> Step:
        """What stands in `buffer` at `position`, where `sync` has been found."""
        raise NotImplementedError

    def feed(self, data: bytes) -> list[Block | Corrupt]:
        out: list[Block | Corrupt] = []
        buffer = self._buffer
        buffer += data
        position = 0
        while True:
            start = self._find(buffer, position)
            if start > position:
                self._skip(start - position, "no frame begins here", out)
                position = start
            if len(buffer) - position < len(self.sync) or not len(buffer) - position:
                break
            step = self.parse(buffer, position)
            if isinstance(step, _Frame):
                self._emit(step.block, out)
                position += step.length
            elif isinstance(step, _Bad):
                self._skip(1, step.reason, out)
                position += 1
            else:
                break
        del buffer[:position]
        return out

    def _find(self, buffer: bytearray, position: int) -> int:
        """Where the next sync, or a part of it at the end, begins."""
        start = buffer.find(self.sync, position)
        if start >= 0:
            return start
        for length in range(len(self.sync) - 1, 0, -1):
            if buffer.endswith(self.sync[:length]) and len(buffer) - length >= position:
                return len(buffer) - length
        return len(buffer)

    def _skip(self, count: int, reason: str, out: list[Block | Corrupt]) -> None:
        self._garbage += count
        self._reason = self._reason or reason
        # reported at exactly this size, however the stream was cut
        while self._garbage >= MAX_GARBAGE:
            out.append(Corrupt(self._reason, MAX_GARBAGE))
            self._garbage -= MAX_GARBAGE

    def _emit(self, block: Block | None, out: list[Block | Corrupt]) -> None:
        lost = 0
        if self._garbage:
            out.append(Corrupt(self._reason, self._garbage))
            if self._seen and self.frame_length:
                lost = max(1, round(self._garbage / self.frame_length))
            self._garbage, self._reason = 0, ""
        if block is None:
            return
        if lost:
            block = block._replace(lost=block.lost + lost * max(1, len(block.samples)))
        self._seen = True
        out.append(block)


class Sequence:
    """Counts frames lost from a number that runs modulo `modulus`; the same frame twice is a duplicate."""

    def __init__(self, modulus: int) -> None:
        self.modulus = modulus
        self._last: int | None = None
        self._payload: bytes = b""

    def lost_before(self, number: int, payload: bytes) -> int | None:
        """Frames missing between the last and this one; None if this is the last once more."""
        last, self._last = self._last, number
        previous, self._payload = self._payload, payload
        if last is None:
            return 0
        if number == last:
            return None if payload == previous else self.modulus - 1
        return (number - last - 1) % self.modulus


def signed(value: int, bits: int) -> int:
    """The two's complement number in the low `bits` of a value that is not negative."""
    return value - (1 << bits) if value >> (bits - 1) else value


class DecodeError(UnreadableInputError):
    """A characteristic's value that does not follow its specification: too short, or out of range."""

    code = "undecodable"

    def __init__(self, target: str, cause: str) -> None:
        super().__init__(operation="decoding", target=target, cause=cause, remedy="Read it from the device again.")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.target, self.cause)
