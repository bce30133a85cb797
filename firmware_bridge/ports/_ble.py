"""Finding, connecting and reading Bluetooth sensors with bleak. Decoding is in `decoders`, meaning in `gatt_vitals`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from aidpost.errors import (
    AidpostError,
    DeviceError,
    DeviceLostError,
    DeviceNotFoundError,
    DeviceTimeoutError,
    NotPossibleError,
)
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import glucose, nonin, racp
from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.device_info import decode_battery, decode_text, encode_current_time
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.gatt_vitals import MEASUREMENTS, Context, has_contact, vital_signs_of
from aidpost.firmware_bridge.sources import SourceSpec
from aidpost.firmware_bridge.states import STATES
from aidpost.records import Device, Origin, VitalSign

CONTINUOUS = frozenset({"2A37", "2A5F", nonin.MEASUREMENT})
"""These repeat every second: the last of `SETTLE_S` counts. The others are one measurement each, all of which count."""
SETTLE_S = 3.0
QUIET_S = 1.5
"""After the last stored measurement, a sensor that uploads its memory is silent for so long."""
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
    spec: SourceSpec

    @property
    def name(self) -> str:
        """The source's text."""
        return str(self.spec)


def long_uuid(short: str) -> str:
    """A characteristic's 128-bit UUID, lower case; 16 bits (four hexadecimal digits) lie in the Bluetooth base UUID."""
    return f"0000{short.lower()}-0000-1000-8000-00805f9b34fb" if len(short) == 4 else short.lower()


def sensor_error(kind: type[AidpostError], target: Target, cause: str, remedy: str) -> AidpostError:
    """The error of that kind about reading `target`; the caller raises it."""
    return kind(operation="reading a Bluetooth sensor", target=target.name, cause=cause, remedy=remedy)


@contextlib.asynccontextmanager
async def connected(target: Target) -> AsyncIterator[tuple[Any, asyncio.Event]]:
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
                raise sensor_error(DeviceError, target, f"it refuses the connection ({error})", remedy) from error
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
            wanted = long_uuid(target.service)
            found = await BleakScanner.find_device_by_filter(
                lambda device, advertisement: wanted in advertisement.service_uuids, timeout=target.scan_s
            )
    except BleakBluetoothNotAvailableError as error:
        raise sensor_error(
            NotPossibleError, target, f"Bluetooth is not available ({error})", "Switch Bluetooth on."
        ) from error
    except (BleakError, OSError, EOFError) as error:
        remedy = "Switch Bluetooth on; on a Pi: sudo systemctl start bluetooth."
        raise sensor_error(NotPossibleError, target, f"Bluetooth does not answer ({error})", remedy) from error
    if found is None:
        remedy = "Wake the sensor (for a cuff, start a measurement), bring it nearer, and check its address."
        raise sensor_error(DeviceNotFoundError, target, f"no such sensor in {target.scan_s:g} s", remedy)
    return found


async def describe(target: Target, client: Any) -> Device:
    """Who it is, by Device Information; what it does not say stays empty."""
    from bleak.exc import BleakError

    texts = {}
    for name, short in (("manufacturer", "2A29"), ("model", "2A24"), ("serial", "2A25"), ("firmware", "2A26")):
        if client.services.get_characteristic(long_uuid(short)) is not None:
            with contextlib.suppress(BleakError):
                texts[name] = decode_text(bytes(await client.read_gatt_char(long_uuid(short))))
    device = Device(name=client.name or texts.get("model") or "Bluetooth sensor", address=client.address, **texts)
    STATES.told(target.spec, name=device.name, battery_percent=await _battery(client))
    return device


async def reach(target: Target) -> Device:
    """Connect, and ask who it is and for its battery; nothing is measured. Raises as `read_vitals`."""
    async with connected(target) as (client, _):
        device = await describe(target, client)
        STATES.heard(target.spec)
        return device


async def _battery(client: Any) -> int | None:
    """Its battery in percent; None where it does not say."""
    from bleak.exc import BleakError

    if client.services.get_characteristic(long_uuid("2A19")) is None:
        return None
    try:
        return decode_battery(bytes(await client.read_gatt_char(long_uuid("2A19"))))
    except (BleakError, DecodeError):
        return None


async def _set_clock(client: Any, clock: Clock) -> None:
    """Set the sensor's clock where it lets us and ours can be trusted."""
    from bleak.exc import BleakError

    characteristic, now = client.services.get_characteristic(long_uuid("2A2B")), clock.now()
    if characteristic is None or "write" not in characteristic.properties or not now.synced:
        return
    local = datetime.fromtimestamp(now.wall_ms / 1000, timezone.utc) + timedelta(minutes=now.utc_offset_min or 0)
    stamp = DeviceTime(local.year, local.month, local.day, local.hour, local.minute, local.second)
    with contextlib.suppress(BleakError):  # many refuse; the reading does not depend on it
        await client.write_gatt_char(characteristic, encode_current_time(stamp, local.isoweekday()), response=True)


class Inbox:
    """Decoded measurements of one connection, with when each arrived. A value that cannot be decoded is counted."""

    def __init__(self, target: Target, lost: asyncio.Event) -> None:
        self._target, self._lost = target, lost
        self._queue: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.undecodable = 0

    def put(self, name: str, decoder: Callable[[bytes], Any], data: bytes) -> None:
        STATES.heard(self._target.spec)
        try:
            value = decoder(data)
        except DecodeError:
            self.undecodable += 1
            return
        self._queue.put_nowait((name, value))
        contact = has_contact(value)
        if contact is not None:
            STATES.told(self._target.spec, lead_off=() if contact else ("skin",))

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
                raise sensor_error(DeviceLostError, self._target, "it went away", "Bring it nearer and try again.")
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
    async with connected(target) as (client, lost):
        device = await describe(target, client)
        await _set_clock(client, clock)
        inbox = Inbox(target, lost)
        if client.services.get_characteristic(long_uuid("2A18")) is not None:
            found = await _stored_glucose(target, client, inbox)
        else:
            found = await _measurements(target, client, inbox)
        context = Context(at=clock.now(), origin=Origin.LIVE, device=device, source=target.name)
        return [vital for measurement in found for vital in vital_signs_of(measurement, context)]


async def subscribe(client: Any, inbox: Inbox, name: str, decoder: Callable[[bytes], Any]) -> None:
    """Put each notification of a characteristic, with its decoder, into the inbox from now on."""
    await client.start_notify(long_uuid(name), lambda _, data: inbox.put(name, decoder, bytes(data)))


async def _measurements(target: Target, client: Any, inbox: Inbox) -> list[Any]:
    names = [
        name
        for name in MEASUREMENTS
        if name != "2A18" and client.services.get_characteristic(long_uuid(name)) is not None
    ]
    if not names:
        services = ", ".join(str(service.uuid) for service in client.services)
        raise sensor_error(
            DeviceError, target, f"it has no measurement that is known ({services})", "See docs/sensors."
        )
    for name in names:
        await subscribe(client, inbox, name, MEASUREMENTS[name])
    first = await inbox.get(target.wait_s)
    if first is None:
        cause = f"it sent nothing in {target.wait_s:g} s"
        cause += f" that could be read ({inbox.undecodable} values)" if inbox.undecodable else ""
        raise sensor_error(DeviceTimeoutError, target, cause, "Start a measurement on it.")
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


async def _stored_glucose(target: Target, client: Any, inbox: Inbox) -> list[glucose.Glucose]:
    """The records after `since`, by the record access procedure; one procedure at a time."""
    await subscribe(client, inbox, "2A18", glucose.decode_glucose)
    await subscribe(client, inbox, "2A52", racp.decode_racp)
    await client.write_gatt_char(long_uuid("2A52"), racp.report_from(target.since + 1), response=True)
    records: dict[int, glucose.Glucose] = {}
    while True:
        item = await inbox.get(target.wait_s)
        if item is None:
            raise sensor_error(DeviceTimeoutError, target, "it stopped in the middle of its records", "Try again.")
        _, value = item
        if isinstance(value, glucose.Glucose):
            if value.sequence > target.since:
                records[value.sequence] = value  # a repeated record is the same record
        elif value.code in (racp.SUCCESS, racp.NO_RECORDS):
            return list(records.values())
        else:
            raise sensor_error(
                DeviceError, target, f"it refuses its records: {value.text}", "Take them from its display."
            )
