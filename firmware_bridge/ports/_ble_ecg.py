"""ECG from Bluetooth sensors that stream one: Polar H10 and Movesense."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from aidpost.errors import DeviceError, DeviceTimeoutError, NotPossibleError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import movesense, polar
from aidpost.firmware_bridge.ports._ble_link import Inbox, Target, describe, linked, sensor_error, subscribe
from aidpost.records import Device, EcgRecording, Origin, Span, Timestamp

STREAM_SILENCE_S = 5.0
"""Longest silence in a recording before it is ended with what there is."""
SLACK_S = 2.0
"""By how much frames may be held up on their way."""


@dataclass(frozen=True)
class EcgKind:
    """How a kind of sensor streams. `uv_per_count` is None where it is not known, and the site must measure it.

    `frame` makes of a decoded value its time in seconds (which wraps at `wraps_s`, 0: never) and its counts; None of
    one that is no frame. `refusal` says why a value refuses to start, or nothing.
    """

    title: str
    lead: str
    data: str
    control: str
    answers: str
    start: bytes
    fs_hz: float
    uv_per_count: float | None
    decode: Callable[[bytes], Any]
    decode_answer: Callable[[bytes], Any]
    frame: Callable[[Any], tuple[float, tuple[int, ...]] | None]
    refusal: Callable[[Any], str]
    wraps_s: float = 0


def _polar_refusal(value: Any) -> str:
    refused = isinstance(value, polar.PolarResponse) and value.status not in ("ok", "already in state")
    return value.status if refused else ""


def _movesense_refusal(value: Any) -> str:
    refused = isinstance(value, movesense.MovesenseResponse) and value.status >= 300
    return f"status {value.status}" if refused else ""


KINDS = (
    EcgKind(
        title="Polar H10",
        lead="chest strap",
        data=polar.DATA,
        control=polar.CONTROL,
        answers=polar.CONTROL,
        start=polar.START_ECG,
        fs_hz=polar.FS_HZ,
        uv_per_count=polar.UV_PER_COUNT,
        decode=polar.decode_polar_ecg,
        decode_answer=polar.decode_polar_response,
        frame=lambda v: (v.last_ns * 1e-9, v.counts) if isinstance(v, polar.PolarEcg) else None,
        refusal=_polar_refusal,
    ),
    EcgKind(
        title="Movesense",
        lead="chest strap",
        data=movesense.NOTIFY,
        control=movesense.WRITE,
        answers="",
        start=movesense.START_ECG,
        fs_hz=movesense.FS_HZ,
        uv_per_count=None,
        decode=movesense.decode_movesense,
        decode_answer=movesense.decode_movesense,
        frame=lambda v: (v.time_ms * 1e-3, v.counts) if isinstance(v, movesense.MovesenseEcg) else None,
        refusal=_movesense_refusal,
        wraps_s=2**32 * 1e-3,
    ),
)


def kind_of(characteristics: Callable[[str], bool]) -> EcgKind | None:
    """The kind of a sensor that has those characteristics; None where it streams no known ECG."""
    return next((kind for kind in KINDS if characteristics(kind.data)), None)


class Trace:
    """Samples, each in its place by the sensor's own clock: what is lost is missing, what comes twice is taken once,
    and what comes late is put where it belongs.

    The clock of this device says whether the sensor's can be believed: one that has jumped (a sensor that restarted, a
    damaged time) is not, and the time that has passed here takes its place.
    """

    def __init__(self, kind: EcgKind, limit: int) -> None:
        self._kind, self._limit = kind, limit
        self._counts: list[int] = []
        self.missing: list[Span] = []
        self._last_s: float | None = None
        self._arrived_s: float | None = None
        self._again = False

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return len(self._counts) >= self._limit

    def resume(self) -> None:
        """The link was made again: the sensor may have restarted meanwhile."""
        self._again = True

    def add(self, time_s: float, counts: tuple[int, ...], arrived_s: float | None = None) -> None:
        """Take a frame with the sensor's own time, and when it arrived by a monotonic clock (None: not known)."""
        last, before = self._last_s, self._arrived_s
        again, self._again = self._again, False
        if last is None:
            self._last_s, self._arrived_s = time_s, arrived_s
            return self._append(counts)
        passed = time_s - last
        if self._kind.wraps_s and passed < -self._kind.wraps_s / 2:
            passed += self._kind.wraps_s
        here = None if arrived_s is None or before is None else arrived_s - before
        believed = here is None or self._plausible(passed, here, again)
        if believed and passed <= 0:
            return self._late(passed, counts)
        self._last_s, self._arrived_s = time_s, arrived_s
        assert believed or here is not None
        gap = round((passed if believed else here or 0.0) * self._kind.fs_hz) - len(counts)
        # the sensor's rate may be 2 % off: what is lost is at least half a frame
        if gap > max(2, len(counts) // 2):
            self._lose(gap)
        return self._append(counts)

    def _plausible(self, passed_s: float, here_s: float, again: bool) -> bool:
        """Whether the sensor's clock may have gone on by `passed_s` while ours did by `here_s`. Frames are held up on
        their way, and then come together: only too much time, or a jump back, cannot be."""
        if passed_s > here_s * 1.05 + SLACK_S or passed_s < -SLACK_S:
            return False
        return not again or passed_s > max(0.0, here_s * 0.95 - SLACK_S)

    def _append(self, counts: tuple[int, ...]) -> None:
        self._counts += counts[: max(0, self._limit - len(self._counts))]

    def _lose(self, gap: int) -> None:
        gap = min(gap, self._limit - len(self._counts))
        if gap > 0:
            start = len(self._counts)
            if self.missing and self.missing[-1][1] == start:
                start = self.missing.pop()[0]
            self._counts += [0] * gap
            self.missing.append((start, len(self._counts)))

    def _late(self, passed_s: float, counts: tuple[int, ...]) -> None:
        """A frame of a time that is past: into the gap that it left, or it is there already."""
        stop = len(self._counts) - round(-passed_s * self._kind.fs_hz)
        for number, (gap_start, gap_stop) in enumerate(self.missing):
            # the place is known to half a frame, and a frame that fits into the gap belongs there
            slack = len(counts) // 2
            start = min(max(stop - len(counts), gap_start), gap_stop - len(counts))
            if start >= gap_start and abs(start + len(counts) - stop) <= slack:
                self._counts[start : start + len(counts)] = counts
                left = [(gap_start, start), (start + len(counts), gap_stop)]
                self.missing[number : number + 1] = [span for span in left if span[0] < span[1]]
                return

    def finish(self, silence_s: float) -> None:
        """Mark as missing what should have come in a silence at the end."""
        self._lose(round(silence_s * self._kind.fs_hz))

    def recording(
        self, *, uv_per_count: float, at: Timestamp, origin: Origin, device: Device, source: str
    ) -> EcgRecording:
        """What has been collected; `at` is when the first frame arrived."""
        return EcgRecording(
            id=uuid.uuid4(),
            samples=np.array([self._counts], dtype=np.int32),
            fs_hz=self._kind.fs_hz,
            leads=(self._kind.lead,),
            lsb_mv=(uv_per_count / 1000,),
            baseline=(0,),
            at=at,
            origin=origin,
            device=device,
            missing=tuple(self.missing),
            source=source,
        )


async def read_ecg(target: Target, clock: Clock, seconds: float, uv_per_count: float | None) -> EcgRecording:
    """The ECG of a sensor that streams one. Frames that were lost are found by the sensor's own time.

    A link that breaks (the adapter went off, the sensor out of range) is made again until the recording's time is over;
    what was not recorded meanwhile is missing in it.

    Raises
    ------
    DeviceError
        It has no ECG, what a count is worth is not known, or it refuses to start (a strap needs skin contact first);
        and its subclasses as for vital signs.
    """
    stream = _Stream(target, clock, seconds, uv_per_count)
    try:
        await linked(target, stream.until, stream.follow)
    except (DeviceError, NotPossibleError):
        if stream.trace is None or not len(stream.trace):
            raise
    return stream.recording()


class _Stream:
    """One recording, over as many links as it takes."""

    def __init__(self, target: Target, clock: Clock, seconds: float, uv_per_count: float | None) -> None:
        self._target, self._clock, self._seconds, self._scale = target, clock, seconds, uv_per_count
        self._began = self._first = self._last = time.monotonic()
        self._at, self._device = clock.now(), Device(name=target.name)
        self.trace: Trace | None = None

    def until(self) -> float:
        """When to give up: as long as the first frame may take, then as long as the recording should be."""
        if self.trace is None or not len(self.trace):
            return self._began + self._target.wait_s
        return self._first + self._seconds

    async def follow(self, client: Any, lost: asyncio.Event) -> None:
        """Start the ECG, and take it until the recording is full or its time over."""
        target = self._target
        kind = kind_of(lambda name: client.services.get_characteristic(name) is not None)
        if kind is None:
            raise sensor_error(DeviceError, target, "it has no ECG", "A Polar H10 has; for others see docs/sensors.")
        scale = self._scale or kind.uv_per_count
        if scale is None:
            cause = f"what a count of {kind.title} is worth is not known"
            raise sensor_error(DeviceError, target, cause, "Measure a 1 mV signal, and add uv_per_count=.")
        self._device, inbox = await describe(target, client), Inbox(target, lost)
        self._scale = scale
        if kind.answers:
            await subscribe(client, inbox, kind.answers, kind.decode_answer)
        await subscribe(client, inbox, kind.data, kind.decode)
        await client.write_gatt_char(kind.control, kind.start, response=True)
        if self.trace is None:
            self.trace = Trace(kind, round(self._seconds * kind.fs_hz))
        self.trace.resume()
        await self._take(inbox, self.trace, kind)

    async def _take(self, inbox: Inbox, trace: Trace, kind: EcgKind) -> None:
        while not trace.full:
            item = await inbox.get(self._target.wait_s if not len(trace) else STREAM_SILENCE_S)
            if item is None and not len(trace):
                remedy = "Wear it on the skin, moistened."
                raise sensor_error(DeviceTimeoutError, self._target, "it sent no ECG", remedy)
            if item is None:
                return
            refusal, frame = kind.refusal(item[1]), kind.frame(item[1])
            if refusal:
                raise sensor_error(DeviceError, self._target, f"it does not start: {refusal}", "Moisten the strap.")
            if frame is None:
                continue
            now = time.monotonic()
            if not len(trace):
                self._at, self._first = self._clock.now(), now
            self._last = now
            trace.add(*frame, now)

    def recording(self) -> EcgRecording:
        """What came, and what should have come and did not."""
        assert self.trace is not None
        assert self._scale is not None
        self.trace.finish(time.monotonic() - self._last)
        return self.trace.recording(
            uv_per_count=self._scale,
            at=self._at,
            origin=Origin.LIVE,
            device=self._device,
            source=self._target.name,
        )
