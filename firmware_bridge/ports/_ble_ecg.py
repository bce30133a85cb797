"""ECG from Bluetooth sensors that stream one: Polar H10 and Movesense."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from aidpost.errors import DeviceError, DeviceLostError, DeviceTimeoutError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import movesense, polar
from aidpost.firmware_bridge.ports._ble import Inbox, Target, connected, describe, sensor_error, subscribe
from aidpost.records import Device, EcgRecording, Origin, Span, Timestamp

STREAM_SILENCE_S = 5.0


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
    """Samples in a row; a jump of the sensor's clock beyond a frame's own length is samples that were lost."""

    def __init__(self, kind: EcgKind, limit: int) -> None:
        self._kind, self._limit = kind, limit
        self._counts: list[int] = []
        self.missing: list[Span] = []
        self._last_s: float | None = None

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def full(self) -> bool:
        """Whether the limit is reached."""
        return len(self._counts) >= self._limit

    def add(self, time_s: float, counts: tuple[int, ...]) -> None:
        """Take a frame with the sensor's own time."""
        last, self._last_s = self._last_s, time_s
        if last is not None:
            passed = time_s - last
            if passed < 0 and self._kind.wraps_s:
                passed += self._kind.wraps_s
            gap = round(passed * self._kind.fs_hz) - len(counts)
            # the sensor's rate may be 2 % off: what is lost is at least half a frame
            if passed > 0 and gap > max(2, len(counts) // 2):
                gap = min(gap, self._limit - len(self._counts))
                if gap > 0:
                    self.missing.append((len(self._counts), len(self._counts) + gap))
                    self._counts += [0] * gap
        self._counts += counts[: max(0, self._limit - len(self._counts))]

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

    Raises
    ------
    DeviceError
        It has no ECG, what a count is worth is not known, or it refuses to start (a strap needs skin contact first);
        and its subclasses as for vital signs.
    """
    async with connected(target) as (client, lost):
        kind = kind_of(lambda name: client.services.get_characteristic(name) is not None)
        if kind is None:
            raise sensor_error(DeviceError, target, "it has no ECG", "A Polar H10 has; for others see docs/sensors.")
        scale = uv_per_count or kind.uv_per_count
        if scale is None:
            cause = f"what a count of {kind.title} is worth is not known"
            raise sensor_error(DeviceError, target, cause, "Measure a 1 mV signal, and add uv_per_count=.")
        device, inbox = await describe(target, client), Inbox(target, lost)
        if kind.answers:
            await subscribe(client, inbox, kind.answers, kind.decode_answer)
        await subscribe(client, inbox, kind.data, kind.decode)
        await client.write_gatt_char(kind.control, kind.start, response=True)
        trace = Trace(kind, round(seconds * kind.fs_hz))
        at = await _follow(target, clock, inbox, trace, kind)
        return trace.recording(uv_per_count=scale, at=at, origin=Origin.LIVE, device=device, source=target.name)


async def _follow(target: Target, clock: Clock, inbox: Inbox, trace: Trace, kind: EcgKind) -> Timestamp:
    """Fill the trace, and tell when its first frame came. A strap that goes away leaves what it sent."""
    at = clock.now()
    while not trace.full:
        try:
            item = await inbox.get(target.wait_s if not len(trace) else STREAM_SILENCE_S)
        except DeviceLostError:
            if not len(trace):
                raise
            return at
        if item is None:
            break
        refusal, frame = kind.refusal(item[1]), kind.frame(item[1])
        if refusal:
            raise sensor_error(DeviceError, target, f"it does not start: {refusal}", "Moisten the strap.")
        if frame is None:
            continue
        if not len(trace):
            at = clock.now()
        trace.add(*frame)
    if not len(trace):
        raise sensor_error(DeviceTimeoutError, target, "it sent no ECG", "Wear it on the skin, moistened.")
    return at
