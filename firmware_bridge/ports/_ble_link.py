"""The way to a Bluetooth sensor with bleak: found, connected by bleak-retry-connector, made again when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, TypeVar

from aidpost.errors import AidpostError, DeviceError, DeviceLostError, DeviceNotFoundError, NotPossibleError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.device_info import decode_battery, decode_text, encode_current_time
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.gatt_vitals import has_contact
from aidpost.firmware_bridge.sources import SourceSpec
from aidpost.firmware_bridge.states import STATES
from aidpost.records import Device

ATTEMPTS = 3
"""Of connecting; what BlueZ calls transient (a busy adapter, an abort) is tried further, as the connector sees fit."""
CONNECT_S = 60.0
"""The longest that all attempts may take."""
AGAIN_S = 0.5
"""Before a link that broke is made again."""
_CONNECTING = threading.Lock()
"""An adapter makes one connection at a time, and answers a second request with an error."""

T = TypeVar("T")


@dataclass(frozen=True)
class Target:
    """Which sensor, by `address` or by advertised `service`, and how long to wait for it. Records are asked for after
    `since` (None: after the last that was kept)."""

    address: str
    service: str
    scan_s: float
    wait_s: float
    since: int | None
    spec: SourceSpec
    start_session: bool = False

    @property
    def name(self) -> str:
        """The source's text."""
        return str(self.spec)


def long_uuid(short: str) -> str:
    """A characteristic's 128-bit UUID, lower case; 16 bits (four hexadecimal digits) lie in the Bluetooth base UUID."""
    return f"0000{short.lower()}-0000-1000-8000-00805f9b34fb" if len(short) == 4 else short.lower()


def has(client: Any, short: str) -> bool:
    """Whether a connected sensor has that characteristic."""
    return client.services.get_characteristic(long_uuid(short)) is not None


def sensor_error(kind: type[AidpostError], target: Target, cause: str, remedy: str) -> AidpostError:
    """The error of that kind about reading `target`; the caller raises it."""
    return kind(operation="reading a Bluetooth sensor", target=target.name, cause=cause, remedy=remedy)


@contextlib.asynccontextmanager
async def connected(target: Target) -> AsyncIterator[tuple[Any, asyncio.Event]]:
    """A connected client, and the event that it is lost.

    Raises
    ------
    DeviceNotFoundError, DeviceError
        It is not there, or refuses to be connected or to be read.
    DeviceLostError
        The link broke while it was used.
    NotPossibleError
        There is no Bluetooth here, it is off, or the library for it is not installed.
    """
    try:
        from bleak.exc import BleakError
    except ImportError as error:
        raise not_installed(target) from error
    device, lost = await _find(target), asyncio.Event()
    client = await _connect(target, device, lost)
    try:
        yield client, lost
    except (BleakError, EOFError, OSError) as error:
        if lost.is_set() or not client.is_connected:
            raise _gone(target) from error
        remedy = "Pair with it (aidpost devices pair), and try again."
        raise sensor_error(DeviceError, target, f"it refuses to be read ({error})", remedy) from error
    finally:
        with contextlib.suppress(BleakError, EOFError, OSError, asyncio.TimeoutError):
            await client.disconnect()


def not_installed(target: Target) -> AidpostError:
    """What is raised where bleak or its connector is not installed."""
    remedy = "pip install 'aidpost[bluetooth]'"
    return sensor_error(NotPossibleError, target, "the library for Bluetooth is not installed", remedy)


def _gone(target: Target) -> AidpostError:
    return sensor_error(DeviceLostError, target, "it went away", "Bring it nearer and try again.")


async def _connect(target: Target, device: Any, lost: asyncio.Event) -> Any:
    """A connected client: the one place where a connection is made."""
    from bleak.exc import BleakError

    try:
        from bleak_retry_connector import BleakClientWithServiceCache, establish_connection
    except ImportError as error:
        raise not_installed(target) from error
    while not _CONNECTING.acquire(blocking=False):
        await asyncio.sleep(0.05)
    try:
        # what a sensor had when it was last met may be of another firmware: its services are asked for afresh
        making = establish_connection(
            BleakClientWithServiceCache,
            device,
            target.name,
            disconnected_callback=lambda _: lost.set(),
            max_attempts=ATTEMPTS,
            use_services_cache=False,
        )
        client = await asyncio.wait_for(making, CONNECT_S)
    except (BleakError, TimeoutError, asyncio.TimeoutError, EOFError, OSError) as error:
        why = str(error) or type(error).__name__
        remedy = "Wake the sensor, bring it nearer, and try again."
        raise sensor_error(DeviceError, target, f"it refuses the connection ({why})", remedy) from error
    finally:
        _CONNECTING.release()
    lost.clear()  # of an attempt that failed
    if not client.is_connected:
        lost.set()
    return client


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


Work = Callable[[Any, asyncio.Event], Awaitable[T]]


async def linked(target: Target, until: Callable[[], float], work: Work[T]) -> T:
    """What `work` gives on a connected sensor. A link that breaks is made again as long as `until()`, a monotonic time,
    has not come: the adapter was off, or the sensor out of range. `work` then begins once more.

    Raises
    ------
    AidpostError
        As `connected`, of the first connection; later the last reason why there was none.
    """
    broke: AidpostError | None = None
    while True:
        # the first time as long as it takes; later no longer than is left
        scan_s = target.scan_s if broke is None else min(target.scan_s, max(AGAIN_S, until() - time.monotonic()))
        try:
            async with connected(replace(target, scan_s=scan_s)) as (client, lost):
                return await work(client, lost)
        except DeviceLostError as error:
            broke = error
        except (DeviceError, NotPossibleError) as error:
            if broke is None:
                raise
            broke = error
        if time.monotonic() >= until():
            raise broke
        STATES.told(target.spec, reason=broke.cause)
        await asyncio.sleep(AGAIN_S)


async def describe(target: Target, client: Any) -> Device:
    """Who it is, by Device Information; what it does not say stays empty."""
    from bleak.exc import BleakError

    texts = {}
    for name, short in (("manufacturer", "2A29"), ("model", "2A24"), ("serial", "2A25"), ("firmware", "2A26")):
        if has(client, short):
            with contextlib.suppress(BleakError):
                texts[name] = decode_text(bytes(await client.read_gatt_char(long_uuid(short))))
    device = Device(name=client.name or texts.get("model") or "Bluetooth sensor", address=client.address, **texts)
    STATES.told(target.spec, name=device.name, battery_percent=await _battery(client))
    return device


async def reach(target: Target) -> Device:
    """Connect, and ask who it is and for its battery; nothing is measured. Raises as `connected`."""
    async with connected(target) as (client, _):
        device = await describe(target, client)
        STATES.heard(target.spec)
        return device


async def _battery(client: Any) -> int | None:
    """Its battery in percent; None where it does not say."""
    from bleak.exc import BleakError

    if not has(client, "2A19"):
        return None
    try:
        return decode_battery(bytes(await client.read_gatt_char(long_uuid("2A19"))))
    except (BleakError, DecodeError):
        return None


def local_now(clock: Clock) -> tuple[DeviceTime, int] | None:
    """This device's local time and the weekday, to be written to a sensor; None where the clock cannot be trusted."""
    now = clock.now()
    if not now.synced:
        return None
    local = datetime.fromtimestamp(now.wall_ms / 1000, timezone.utc) + timedelta(minutes=now.utc_offset_min or 0)
    stamp = DeviceTime(local.year, local.month, local.day, local.hour, local.minute, local.second)
    return stamp, local.isoweekday()


async def set_clock(client: Any, clock: Clock) -> None:
    """Set the sensor's clock where it lets us and ours can be trusted."""
    from bleak.exc import BleakError

    characteristic, now = client.services.get_characteristic(long_uuid("2A2B")), local_now(clock)
    if characteristic is None or "write" not in characteristic.properties or now is None:
        return
    with contextlib.suppress(BleakError):  # many refuse; the reading does not depend on it
        await client.write_gatt_char(characteristic, encode_current_time(*now), response=True)


class Inbox:
    """Decoded measurements of one connection, with the characteristic of each. One that cannot be decoded is
    counted."""

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
                raise _gone(self._target)
            return None
        finally:
            get.cancel()
            lost.cancel()


async def subscribe(client: Any, inbox: Inbox, name: str, decoder: Callable[[bytes], Any]) -> None:
    """Put each notification of a characteristic, with its decoder, into the inbox from now on."""
    await client.start_notify(long_uuid(name), lambda _, data: inbox.put(name, decoder, bytes(data)))
