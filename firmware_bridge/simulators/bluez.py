"""A BlueZ that does not exist: the part of its D-Bus interface that a Bluetooth client uses, with simulated sensors.

Any BlueZ client works against it unmodified, if DBUS_SYSTEM_BUS_ADDRESS names the bus it is on: a private dbus-daemon,
never the system's. Sensors advertise while a client scans, and send what they have to a client that subscribes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType

from dbus_fast import BusType
from dbus_fast.aio import MessageBus
from dbus_fast.service import ServiceInterface

from aidpost.firmware_bridge.simulators._bluez_objects import (
    ADAPTER,
    AdapterObject,
    CharacteristicObject,
    DeviceObject,
    ServiceObject,
)
from aidpost.firmware_bridge.simulators.sensor import Link, Sensor, long_uuid

ADVERTISE_S = 0.1


class FakeBluez:
    """Simulated sensors on the D-Bus at `address`, in a thread; used as a context manager. `link` is the way from them,
    a perfect one where it is left out.

    Raises
    ------
    OSError
        Nothing listens at that address.
    """

    def __init__(
        self, address: str, sensors: tuple[Sensor, ...], *, powered: bool = True, link: Link | None = None
    ) -> None:
        self._address, self._sensors = address, sensors
        self._adapter = AdapterObject(powered)
        self._devices = {sensor.address: DeviceObject(sensor, self._adapter, link) for sensor in sensors}
        self._loop = asyncio.new_event_loop()
        self._ready, self._done = threading.Event(), asyncio.Event()
        self._bus: MessageBus | None = None
        self._known: set[str] = set()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="simulated BlueZ", daemon=True)

    def __enter__(self) -> FakeBluez:
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    def send(self, address: str, uuid: str, value: bytes) -> None:
        """Let a sensor send a value now, to whoever has subscribed."""
        characteristic = self._devices[address].characteristics[long_uuid(uuid)]
        self._loop.call_soon_threadsafe(characteristic.send, value)

    def paired(self, address: str) -> bool:
        """Whether a client has paired with a sensor."""
        return self._devices[address].paired

    def connected(self, address: str) -> bool:
        """Whether a client is connected to a sensor."""
        return self._devices[address].connected

    def value(self, address: str, uuid: str) -> bytes:
        """What a characteristic holds now: what a client has written into it, say."""
        return self._devices[address].characteristics[long_uuid(uuid)].held

    def drop(self, address: str) -> None:
        """Let a sensor go out of range."""
        self._loop.call_soon_threadsafe(self._devices[address].drop)

    def power(self, on: bool) -> None:
        """Switch the adapter off, as by its switch or when a USB one browns out: connections end, and BlueZ forgets the
        devices that it found. Switched on again, they are there once they advertise."""

        def switch() -> None:
            for device in self._devices.values():
                device.drop()
                if not on:
                    self._forget(device)
            self._adapter.power(on)

        self._loop.call_soon_threadsafe(switch)

    def _forget(self, device: DeviceObject) -> None:
        if self._bus is not None:
            for path in [path for path, _ in self._objects_of(device)]:
                self._bus.unexport(path)
            self._known.discard(device.path)

    def _remember(self, device: DeviceObject) -> None:
        if self._bus is not None and device.path not in self._known:
            for path, interface in self._objects_of(device):
                self._bus.export(path, interface)
            self._known.add(device.path)

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            try:
                self._loop.run_until_complete(self._serve())
            except Exception as error:  # noqa: BLE001 (handed to the thread that started this one)
                self._failure = error
            finally:
                self._ready.set()

    async def _serve(self) -> None:
        bus = await MessageBus(bus_address=self._address, bus_type=BusType.SYSTEM).connect()
        self._bus = bus
        bus.export(ADAPTER, self._adapter)
        for device in self._devices.values():
            self._remember(device)
        await bus.request_name("org.bluez")
        self._ready.set()
        while not self._done.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._done.wait(), ADVERTISE_S)
            if self._adapter.scanning:
                for device in self._devices.values():
                    self._remember(device)
                    device.advertise()
        for device in self._devices.values():
            for characteristic in device.characteristics.values():
                characteristic.stop()
        bus.disconnect()
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]

    def _objects_of(self, device: DeviceObject) -> list[tuple[str, ServiceInterface]]:
        """A device's objects, the same ones each time."""
        if device.objects:
            return device.objects
        device.objects.append((device.path, device))
        handle = 0  # BlueZ puts the attribute's handle into its path, and clients tell attributes by it
        for uuid, characteristics in device.sensor.services.items():
            handle += 1
            service_path = f"{device.path}/service{handle:04x}"
            device.objects.append((service_path, ServiceObject(uuid, device)))
            for model in characteristics:
                handle += 2
                characteristic = CharacteristicObject(model, service_path, device)
                device.characteristics[long_uuid(model.uuid)] = characteristic
                device.objects.append((f"{service_path}/char{handle:04x}", characteristic))
        return device.objects
