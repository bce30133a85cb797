"""Finding, connecting and reading Bluetooth sensors with bleak. Decoding is in `decoders`, meaning in `gatt_vitals`."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np

from aidpost.errors import (
    AidpostError,
    DeviceError,
    DeviceLostError,
    DeviceNotFoundError,
    DeviceTimeoutError,
    NotPossibleError,
)
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import glucose, nonin, polar, racp
from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.device_info import decode_text, encode_current_time
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.gatt_vitals import MEASUREMENTS, Context, vital_signs_of
from aidpost.records import Device, EcgRecording, Origin, Span, Timestamp, VitalSign

POLAR_SERVICE, NONIN_SERVICE = polar.SERVICE, nonin.SERVICE
CONTINUOUS = frozenset({"2A37", "2A5F", nonin.MEASUREMENT})
"""These repeat every second: the last of `SETTLE_S` counts. The others are one measurement each, all of which count."""
SETTLE_S = 3.0
QUIET_S = 1.5
"""After the last stored measurement, a sensor that uploads its memory is silent for so long."""
STREAM_SILENCE_S = 5.0
ATTEMPTS = 3
CONNECT_S = 10.0


@dataclass(frozen=True)
class Target:
    """Which sensor, by `address` or by advertised `service`, and how long to wait for it."""

    address: str
    service: str
    scan_s: float
    wait_s: float
    since: int
    name: str


def _long(short: str) -> str:
    return f"0000{short.lower()}-0000-1000-8000-00805f9b34fb" if len(short) == 4 else short.lower()


def _error(kind: type[AidpostError], target: Target, cause: str, remedy: str) -> AidpostError:
    return kind(operation="reading a Bluetooth sensor", target=target.name, cause=cause, remedy=remedy)


@contextlib.asynccontextmanager
async def _connected(target: Target) -> AsyncIterator[tuple[Any, asyncio.Event]]:
    """A connected client and the event that it is lost; each step of the recovery ladder is another attempt."""
    from bleak import BleakClient
    from bleak.exc import BleakError

    lost = asyncio.Event()
    for attempt in range(ATTEMPTS):
        device = await _find(target)
        client = BleakClient(device, disconnected_callback=lambda _: lost.set(), timeout=CONNECT_S)
        try:
            await client.connect()
            break
        except (BleakError, TimeoutError, asyncio.TimeoutError, EOFError) as error:
            if attempt == ATTEMPTS - 1:
                remedy = "Wake the sensor, bring it nearer, and try again."
                raise _error(DeviceError, target, f"it refuses the connection ({error})", remedy) from error
            await asyncio.sleep(0.5 * 2**attempt)
    lost.clear()
    try:
        yield client, lost
    finally:
        with contextlib.suppress(BleakError, EOFError):
            await client.disconnect()


async def _find(target: Target) -> Any:
    from bleak import BleakScanner
    from bleak.exc import BleakBluetoothNotAvailableError, BleakError

    try:
        if target.address:
            found = await BleakScanner.find_device_by_address(target.address, timeout=target.scan_s)
        else:
            wanted = _long(target.service)
            found = await BleakScanner.find_device_by_filter(
                lambda device, advertisement: wanted in advertisement.service_uuids, timeout=target.scan_s
            )
    except BleakBluetoothNotAvailableError as error:
        raise _error(
            NotPossibleError, target, f"Bluetooth is not available ({error})", "Switch Bluetooth on."
        ) from error
    except (BleakError, OSError, EOFError) as error:
        remedy = "Switch Bluetooth on; on a Pi: sudo systemctl start bluetooth."
        raise _error(NotPossibleError, target, f"Bluetooth does not answer ({error})", remedy) from error
    if found is None:
        remedy = "Wake the sensor (for a cuff, start a measurement), bring it nearer, and check its address."
        raise _error(DeviceNotFoundError, target, f"no such sensor in {target.scan_s:g} s", remedy)
    return found


async def _describe(client: Any) -> Device:
    """Who it is, by Device Information; what it does not say stays empty."""
    from bleak.exc import BleakError

    texts = {}
    for name, short in (("manufacturer", "2A29"), ("model", "2A24"), ("serial", "2A25"), ("firmware", "2A26")):
        if client.services.get_characteristic(_long(short)) is not None:
            with contextlib.suppress(BleakError):
                texts[name] = decode_text(bytes(await client.read_gatt_char(_long(short))))
    return Device(name=client.name or texts.get("model") or "Bluetooth sensor", address=client.address, **texts)


async def _set_clock(client: Any, clock: Clock) -> None:
    """Set the sensor's clock where it lets us and ours can be trusted."""
    from bleak.exc import BleakError

    characteristic, now = client.services.get_characteristic(_long("2A2B")), clock.now()
    if characteristic is None or "write" not in characteristic.properties or not now.synced:
        return
    local = datetime.fromtimestamp(now.wall_ms / 1000, timezone.utc) + timedelta(minutes=now.utc_offset_min or 0)
    stamp = DeviceTime(local.year, local.month, local.day, local.hour, local.minute, local.second)
    with contextlib.suppress(BleakError):  # many refuse; the reading does not depend on it
        await client.write_gatt_char(characteristic, encode_current_time(stamp, local.isoweekday()), response=True)


class _Inbox:
    """Decoded measurements of one connection, with when each arrived. A value that cannot be decoded is counted."""

    def __init__(self, target: Target, lost: asyncio.Event) -> None:
        self._target, self._lost = target, lost
        self._queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.undecodable = 0

    def put(self, name: str, decoder: Callable[[bytes], Any], data: bytes) -> None:
        try:
            self._queue.put_nowait((name, decoder(data)))
        except DecodeError:
            self.undecodable += 1

    async def get(self, seconds: float) -> tuple[str, Any] | None:
        """The next one; None after `seconds`.

        Raises
        ------
        DeviceLostError
            The connection is gone, and nothing is left to take.
        """
        get, lost = asyncio.ensure_future(self._queue.get()), asyncio.ensure_future(self._lost.wait())
        try:
            done, _ = await asyncio.wait({get, lost}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if get in done:
                return get.result()
            if lost in done:
                raise _error(DeviceLostError, self._target, "it went away", "Bring it nearer and try again.")
            return None
        finally:
            get.cancel()
            lost.cancel()


async def read_vitals(target: Target, clock: Clock) -> list[VitalSign]:
    """Every measurement that the sensor gives: one, its memory, or the settled value of a continuous one.

    Raises
    ------
    DeviceNotFoundError, DeviceTimeoutError, DeviceLostError, DeviceError
        Not there; silent for `wait_s`; gone before it gave one; a kind that nobody here reads.
    NotPossibleError
        There is no Bluetooth here.
    """
    async with _connected(target) as (client, lost):
        device = await _describe(client)
        await _set_clock(client, clock)
        inbox = _Inbox(target, lost)
        if client.services.get_characteristic(_long("2A18")) is not None:
            found = await _stored_glucose(target, client, inbox)
        else:
            found = await _measurements(target, client, inbox)
        context = Context(at=clock.now(), origin=Origin.LIVE, device=device, source=target.name)
        return [vital for measurement in found for vital in vital_signs_of(measurement, context)]


async def _subscribe(client: Any, inbox: _Inbox, name: str, decoder: Callable[[bytes], Any]) -> None:
    await client.start_notify(_long(name), lambda _, data: inbox.put(name, decoder, bytes(data)))


async def _measurements(target: Target, client: Any, inbox: _Inbox) -> list[Any]:
    names = [
        name for name in MEASUREMENTS if name != "2A18" and client.services.get_characteristic(_long(name)) is not None
    ]
    if not names:
        services = ", ".join(str(service.uuid) for service in client.services)
        raise _error(DeviceError, target, f"it has no measurement that is known ({services})", "See docs/sensors.")
    for name in names:
        await _subscribe(client, inbox, name, MEASUREMENTS[name])
    first = await inbox.get(target.wait_s)
    if first is None:
        cause = f"it sent nothing in {target.wait_s:g} s"
        cause += f" that could be read ({inbox.undecodable} values)" if inbox.undecodable else ""
        raise _error(DeviceTimeoutError, target, cause, "Start a measurement on it.")
    latest: dict[str, Any] = {}
    single: list[Any] = []
    item: tuple[str, Any] | None = first
    settled = time.monotonic() + SETTLE_S
    while item is not None:
        name, measurement = item
        if name in CONTINUOUS:
            latest[name] = measurement
            if time.monotonic() > settled:
                break
        else:
            single.append(measurement)
        with contextlib.suppress(DeviceLostError):  # a cuff switches off after its last reading
            item = await inbox.get(QUIET_S)
            continue
        break
    return [*single, *latest.values()]


async def _stored_glucose(target: Target, client: Any, inbox: _Inbox) -> list[glucose.Glucose]:
    """The records after `since`, by the record access procedure; one procedure at a time."""
    await _subscribe(client, inbox, "2A18", glucose.decode_glucose)
    await _subscribe(client, inbox, "2A52", racp.decode_racp)
    await client.write_gatt_char(_long("2A52"), racp.report_from(target.since + 1), response=True)
    records: dict[int, glucose.Glucose] = {}
    while True:
        item = await inbox.get(target.wait_s)
        if item is None:
            raise _error(DeviceTimeoutError, target, "it stopped in the middle of its records", "Try again.")
        _, value = item
        if isinstance(value, glucose.Glucose):
            if value.sequence > target.since:
                records[value.sequence] = value  # a repeated record is the same record
        elif value.code in (racp.SUCCESS, racp.NO_RECORDS):
            return list(records.values())
        else:
            raise _error(DeviceError, target, f"it refuses its records: {value.text}", "Take them from its display.")


async def read_ecg(target: Target, clock: Clock, seconds: float) -> EcgRecording:
    """The ECG of a Polar H10: 130 Hz, microvolt. Frames that were lost are found by the strap's own time.

    Raises
    ------
    DeviceError
        It has no ECG, or refuses to start it (a strap needs skin contact first); and its subclasses as for vital signs.
    """
    async with _connected(target) as (client, lost):
        if client.services.get_characteristic(polar.DATA) is None:
            raise _error(DeviceError, target, "it has no ECG", "A Polar H10 has; for others see docs/sensors.")
        device, inbox = await _describe(client), _Inbox(target, lost)
        await _subscribe(client, inbox, polar.CONTROL, polar.decode_polar_response)
        await _subscribe(client, inbox, polar.DATA, polar.decode_polar_ecg)
        await client.write_gatt_char(polar.CONTROL, polar.START_ECG, response=True)
        trace = _PolarTrace(round(seconds * polar.FS_HZ))
        at = await _follow(target, clock, inbox, trace)
        return EcgRecording(
            id=uuid.uuid4(),
            samples=trace.samples(),
            fs_hz=polar.FS_HZ,
            leads=("chest strap",),
            lsb_mv=(polar.UV_PER_COUNT / 1000,),
            baseline=(0,),
            at=at,
            origin=Origin.LIVE,
            device=device,
            missing=tuple(trace.missing),
            source=target.name,
        )


async def _follow(target: Target, clock: Clock, inbox: _Inbox, trace: _PolarTrace) -> Timestamp:
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
        if isinstance(item[1], polar.PolarResponse):
            if item[1].status not in ("ok", "already in state"):
                raise _error(DeviceError, target, f"it does not start: {item[1].status}", "Moisten the strap.")
            continue
        if not len(trace):
            at = clock.now()
        trace.add(item[1])
    if not len(trace):
        raise _error(DeviceTimeoutError, target, "it sent no ECG", "Wear it on the skin, moistened.")
    return at


class _PolarTrace:
    """Samples in a row; a jump of the strap's clock beyond a frame's own length is samples that were lost."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts: list[int] = []
        self.missing: list[Span] = []
        self._last_ns: int | None = None

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def full(self) -> bool:
        return len(self._counts) >= self._limit

    def add(self, frame: polar.PolarEcg) -> None:
        last, self._last_ns = self._last_ns, frame.last_ns
        if last is not None and frame.last_ns > last:
            gap = round((frame.last_ns - last) * 1e-9 * polar.FS_HZ) - len(frame.counts)
            # the strap's rate may be 2 % off: what is lost is at least half a frame
            if gap > max(2, len(frame.counts) // 2):
                gap = min(gap, self._limit - len(self._counts))
                if gap > 0:
                    self.missing.append((len(self._counts), len(self._counts) + gap))
                    self._counts += [0] * gap
        self._counts += frame.counts[: max(0, self._limit - len(self._counts))]

    def samples(self) -> np.ndarray:
        return np.array([self._counts], dtype=np.int32)
