"""From a board's blocks to one recording that says exactly what is missing."""

from __future__ import annotations

import math
import uuid
from array import array
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from aidpost.firmware_bridge.boards import BOARDS, Board
from aidpost.firmware_bridge.decoders.base import Announcement, Block, Corrupt
from aidpost.firmware_bridge.sources import SourceSpec
from aidpost.records import Device, EcgRecording, Origin, Span, Timestamp

STALL_S = 0.3
"""A silence this long is looked at: did the board's samples all come afterwards, or are they gone?"""
BURST_S = 0.25
"""What was held up (a USB hub, a busy machine) comes in several reads: the look is taken when they have all come."""

BOARD_OPTIONS = ("device", "gain", "uv_per_count", "fs", "leads")


def board_of(spec: SourceSpec) -> Board:
    """The board that a source's `device=` names.

    Raises
    ------
    UsageError
        It names none, or an unknown one.
    """
    name = spec.get("device")
    if name not in BOARDS:
        cause = f"there is no board {name!r}" if name else "which board it is has not been said"
        raise spec.usage_error(cause, f"Add ?device= with one of {', '.join(BOARDS)}.")
    return BOARDS[name]


def scale_of(board: Board, spec: SourceSpec) -> float:
    """Microvolt a count: what the site has set, else the board's own at the gain that is set.

    Raises
    ------
    UsageError
        It is not known for this board and has not been set, or is out of range.
    """
    gain = spec.number("gain", board.gain, low=1e-3, high=1e6)
    if board.uv_per_count is None and not spec.get("uv_per_count"):
        cause = f"what a count of {board.title} is worth is not known"
        raise spec.usage_error(cause, "Apply a 1 mV signal, and add uv_per_count= as calibration finds it.")
    return spec.number("uv_per_count", (board.uv_per_count or 0) * board.gain / gain, low=1e-6, high=1e6)


class _Stall(NamedTuple):
    """A silence: where it is in the recording, from when to when it lasted, when it is looked at, and whether the board
    counts its frames from the beginning after it."""

    position: int
    began_s: float
    ended_s: float
    looked_at_s: float
    restarted: bool = False


def _joined(spans: list[Span]) -> list[Span]:
    """Spans in order, those that touch made one."""
    out: list[Span] = []
    for start, stop in spans:
        if out and out[-1][1] == start:
            out[-1] = (out[-1][0], stop)
        else:
            out.append((start, stop))
    return out


class EcgAssembler:
    """Collects blocks. Lost samples take their place as zeros, inside a `missing` span.

    Parameters
    ----------
    board
        What sends.
    spec
        The source, with `gain`, `uv_per_count`, `fs` and `leads` where the site has set them.
    seconds
        The length after which nothing more is taken, so that memory stays bounded.
    """

    def __init__(self, board: Board, spec: SourceSpec, seconds: float) -> None:
        self.board, self._spec, self._seconds = board, spec, seconds
        self.fs_hz = spec.number("fs", board.fs_hz, low=1, high=10_000)
        scale = scale_of(board, spec)
        self.leads = tuple(spec.get("leads").split(",")) if spec.get("leads") else board.leads
        if len(self.leads) > len(board.leads) or len(set(self.leads)) < len(self.leads):
            raise spec.usage_error(f"leads={spec.get('leads')} does not name 1 to {len(board.leads)} channels")
        self._lsb_mv = (scale / 1000,) * len(self.leads)
        self._name = board.title
        self._clear()
        self._missing: list[Span] = []
        self.corrupt, self.lost = 0, 0
        # samples of a board that announces its scale mean nothing before it has
        self._announced = not board.announces
        self.readings: dict[str, float | None] = {}
        self._last_arrival: float | None = None
        self._stall: _Stall | None = None

    def _clear(self) -> None:
        self.limit = max(1, round(self._seconds * self.fs_hz))
        self._counts = [array("i") for _ in self.leads]
        self._off = [array("b") for _ in self.leads]

    def _announce(self, board: Announcement) -> None:
        """Take rate, leads and scale from the board itself; only before the first sample, since they hold for all."""
        if len(self):
            return
        self.fs_hz, self._name = board.fs_hz, board.name or self._name
        named = self._spec.get("leads").split(",") if self._spec.get("leads") else []
        self.leads = tuple(named or board.leads)[: len(board.leads)]
        self._lsb_mv = tuple(scale / 1000 for scale in board.uv_per_count[: len(self.leads)])
        self._announced = True
        self._clear()

    def __len__(self) -> int:
        return len(self._counts[0])

    def tail(self, start: int) -> tuple[list[float], bool]:
        """The first channel's samples from `start` on, in millivolt before any filter, and whether the last of them had
        no contact: for a live trace."""
        scale = self._lsb_mv[0]
        return [count * scale for count in self._counts[0][start:]], bool(len(self._off[0]) and self._off[0][-1])

    @property
    def full(self) -> bool:
        """Whether the limit is reached, and nothing is left to look at."""
        return len(self) >= self.limit and self._stall is None

    def _room(self) -> int:
        """How many samples may still be taken: some more than the limit until a silence has been looked at."""
        return self.limit - len(self) + (0 if self._stall is None else math.ceil(2 * BURST_S * self.fs_hz))

    def add(self, items: Iterable[Block | Corrupt | Announcement], time_s: float | None = None) -> None:
        """Take what a decoder gave for bytes that arrived at `time_s` on a monotonic clock (None: time unknown).

        Losses that the frames tell of are counted as told. What they cannot tell, a silence after which fewer samples
        follow than have passed, is filled in from the clock.
        """
        blocks: list[Block] = []
        for item in items:
            if isinstance(item, Corrupt):
                self.corrupt += item.dropped
            elif isinstance(item, Announcement):
                if not blocks:  # samples that came before it keep the scale that they had
                    self._announce(item)
            elif self._announced and item.samples:
                blocks.append(item)
        if time_s is not None and blocks:
            self._notice(time_s)
        if self._stall is not None and any(block.restarted for block in blocks):
            self._stall = self._stall._replace(restarted=True)
        for block in blocks:
            self._lose(block.lost)
            self._take(block)
        if self._stall is not None and time_s is not None and time_s >= self._stall.looked_at_s:
            self._settle(time_s)

    def _notice(self, time_s: float) -> None:
        """Remember where a silence was, to look at when what comes after it has come."""
        last, self._last_arrival = self._last_arrival, time_s
        if last is None or time_s - last < STALL_S:
            return
        if self._stall is not None:
            self._settle(last)
        self._stall = _Stall(len(self), last, time_s, time_s + BURST_S)

    def _settle(self, time_s: float) -> None:
        """Put what is short after a silence into its place: as much as the time until `time_s` lacks samples."""
        stall, self._stall = self._stall, None
        if stall is None:
            return
        silence = stall.ended_s - stall.began_s
        short = (time_s - stall.began_s) * self.fs_hz - (len(self) - stall.position)
        if short >= silence * self.fs_hz / 2:
            # a numbered frame already tells the loss modulo its number's range, unless the board began anew
            unit = 1 if stall.restarted else self.board.modulus or 1
            self._insert(stall.position, round(short / unit) * unit)
        for column in (*self._counts, *self._off):
            del column[self.limit :]
        self._missing = [(a, min(b, self.limit)) for a, b in self._missing if a < self.limit]

    def _insert(self, position: int, count: int) -> None:
        count = min(count, self.limit - position)
        if count <= 0:
            return
        for column in (*self._counts, *self._off):
            column[position:position] = array(column.typecode, bytes(count * column.itemsize))
        self.lost += count
        before = [span for span in self._missing if span[0] < position]
        after = [(a + count, b + count) for a, b in self._missing if a >= position]
        self._missing = _joined([*before, (position, position + count), *after])

    def finish(self, silence_s: float) -> None:
        """Mark as missing what should have come in a silence at the end."""
        self._settle(self._last_arrival or 0.0)
        self._lose(round(silence_s * self.fs_hz))

    def _lose(self, count: int) -> None:
        count = min(count, self._room())
        if count <= 0:
            return
        start = len(self)
        for counts, off in zip(self._counts, self._off, strict=True):
            counts.extend([0] * count)
            off.extend([0] * count)
        self.lost += count
        if self._missing and self._missing[-1][1] == start:
            self._missing[-1] = (self._missing[-1][0], start + count)
        else:
            self._missing.append((start, start + count))

    def _take(self, block: Block) -> None:
        for sample in block.samples:
            if self._room() <= 0:
                return
            for lead, counts in enumerate(self._counts):
                counts.append(sample[lead])
                self._off[lead].append(lead in block.off)
        self.readings.update(block.readings)

    def recording(self, *, at: Timestamp, origin: Origin, source: str) -> EcgRecording:
        """What has been collected; `at` is when the first sample arrived."""
        self._settle(self._last_arrival or 0.0)
        off: list[tuple[int, int, int]] = []
        for lead, flags in enumerate(self._off):
            edges = np.flatnonzero(np.diff(np.concatenate(([0], np.frombuffer(flags, np.int8), [0]))))
            off.extend((lead, int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True))
        return EcgRecording(
            id=uuid.uuid4(),
            samples=np.stack([np.array(counts, dtype=np.int32) for counts in self._counts]),
            fs_hz=self.fs_hz,
            leads=self.leads,
            lsb_mv=self._lsb_mv,
            baseline=(self.board.baseline,) * len(self.leads),
            at=at,
            origin=origin,
            device=Device(name=self._name, model=self.board.name),
            missing=tuple(self._missing),
            lead_off=tuple(off),
            source=source,
        )
