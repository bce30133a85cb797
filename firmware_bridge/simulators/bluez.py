"""A BlueZ that does not exist: the part of its D-Bus interface that a Bluetooth client uses, with simulated sensors.

Any BlueZ client works against it unmodified, if DBUS_SYSTEM_BUS_ADDRESS names the bus it is on: a private dbus-daemon,
never the system's. Sensors advertise while a client scans, and send what they have to a client that subscribes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Annotated

from dbus_fast import BusType, DBusError, PropertyAccess
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import (
    DBusBool,
    DBusBytes,
    DBusDict,
    DBusInt16,
    DBusObjectPath,
    DBusSignature,
    DBusStr,
    DBusUInt16,
)
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property

READ = PropertyAccess.READ
ADAPTER = "/org/bluez/hci0"
ADVERTISE_S = 0.1
BASE_UUID = "0000{}-0000-1000-8000-00805f9b34fb"
Strings = Annotated[list[str], DBusSignature("as")]
Nothing = Annotated[None, DBusSignature("")]  # dbus-fast cannot read a plain None as an annotation


def long_uuid(uuid: str) -> str:
    """A 16-bit UUID (four hexadecimal digits) in full, as BlueZ gives it; a full one as it is."""
    return BASE_UUID.format(uuid.lower()) if len(uuid) == 4 else uuid.lower()


@dataclass(frozen=True)
class Characteristic:
    """`value`, or what `on_read` gives, is read; `sends` follow each other, `interval_s` apart, to whoever subscribes;
    `on_write` gets what is written and gives (uuid, bytes) to be sent."""

    uuid: str
    flags: tuple[str, ...] = ("read",)
    value: bytes = b""
    sends: tuple[bytes, ...] = ()
    interval_s: float = 0.05
    on_write: Callable[[bytes], list[tuple[str, bytes]]] | None = None
    on_read: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Sensor:
    """A device: its services are UUIDs with their characteristics. After `drops_after` values sent it disconnects
    once. It refuses the first `refuses` connections, as a busy radio does."""

    address: str
    name: str
    services: dict[str, tuple[Characteristic, ...]] = field(default_factory=dict)
    drops_after: int | None = None
    connectable: bool = True
    pairable: bool = True
    refuses: int = 0


Link = Callable[[str, bytes], list[bytes]]
"""What becomes of a characteristic's value on its way: what arrives instead, nothing of one that is lost."""


class _Adapter(ServiceInterface):
    def __init__(self, powered: bool) -> None:
        super().__init__("org.bluez.Adapter1")
        self._powered, self.scanning = powered, 0

    @dbus_property(access=READ)
    def Address(self) -> DBusStr:
        return "00:00:00:00:00:01"

    @dbus_property(access=READ)
    def Powered(self) -> DBusBool:
        return self._powered

    @dbus_property(access=READ)
    def Discovering(self) -> DBusBool:
        return self.scanning > 0

    @dbus_property(access=READ)
    def Roles(self) -> Strings:
        return ["central", "peripheral"]

    def power(self, on: bool) -> None:
        """Switch the radio: a scan ends with it."""
        self._powered, self.scanning = on, 0
        self.emit_properties_changed({"Powered": on, "Discovering": False})

    @property
    def powered(self) -> bool:
        """Whether the radio is on."""
        return self._powered

    @dbus_method()
    def SetDiscoveryFilter(self, properties: DBusDict) -> Nothing:
        """Everything is found, whatever the filter."""

    @dbus_method()
    def StartDiscovery(self) -> Nothing:
        if not self._powered:
            raise DBusError("org.bluez.Error.NotReady", "Resource Not Ready")
        self.scanning += 1
        self.emit_properties_changed({"Discovering": True})

    @dbus_method()
    def StopDiscovery(self) -> Nothing:
        self.scanning = max(0, self.scanning - 1)
        self.emit_properties_changed({"Discovering": self.scanning > 0})

    @dbus_method()
    def RemoveDevice(self, device: DBusObjectPath) -> Nothing:
        """Kept: the simulated air does not forget."""


class _Device(ServiceInterface):
    def __init__(self, sensor: Sensor, adapter: _Adapter, link: Link | None) -> None:
        super().__init__("org.bluez.Device1")
        self.adapter, self.link, self.refused = adapter, link, 0
        self.sensor, self.path = sensor, f"{ADAPTER}/dev_{sensor.address.replace(':', '_')}"
        self.connected, self.paired, self.trusted, self.rssi = False, False, False, -60
        self.characteristics: dict[str, _Characteristic] = {}
        self.objects: list[tuple[str, ServiceInterface]] = []
        self.sent = 0

    @dbus_property(access=READ)
    def Address(self) -> DBusStr:
        return self.sensor.address

    @dbus_property(access=READ)
    def AddressType(self) -> DBusStr:
        return "public"

    @dbus_property(access=READ)
    def Name(self) -> DBusStr:
        return self.sensor.name

    @dbus_property(access=READ)
    def Alias(self) -> DBusStr:
        return self.sensor.name

    @dbus_property(access=READ)
    def Adapter(self) -> DBusObjectPath:
        return ADAPTER

    @dbus_property(access=READ)
    def RSSI(self) -> DBusInt16:
        return self.rssi

    @dbus_property(access=READ)
    def UUIDs(self) -> Strings:
        return [long_uuid(uuid) for uuid in self.sensor.services]

    @dbus_property(access=READ)
    def Connected(self) -> DBusBool:
        return self.connected

    @dbus_property(access=READ)
    def Paired(self) -> DBusBool:
        return self.paired

    @dbus_property()
    def Trusted(self) -> DBusBool:
        return self.trusted

    @Trusted.setter  # type: ignore[no-redef]
    def Trusted(self, value: DBusBool) -> None:
        self.trusted = value

    @dbus_property(access=READ)
    def ServicesResolved(self) -> DBusBool:
        return self.connected

    @dbus_method()
    def Connect(self) -> Nothing:
        if not self.adapter.powered:
            raise DBusError("org.bluez.Error.NotReady", "Resource Not Ready")
        if not self.sensor.connectable:
            raise DBusError("org.bluez.Error.Failed", "Software caused connection abort")
        if self.refused < self.sensor.refuses:
            self.refused += 1
            # BlueZ was connected for a moment, and says so after its answer
            loop = asyncio.get_running_loop()
            for delay_s, connected in ((0.01, True), (0.02, False)):
                loop.call_later(delay_s, self.emit_properties_changed, {"Connected": connected})
            raise DBusError("org.bluez.Error.Failed", "le-connection-abort-by-local")
        self.connected = True
        self.emit_properties_changed({"Connected": True, "ServicesResolved": True})

    @dbus_method()
    def Disconnect(self) -> Nothing:
        self.drop()

    @dbus_method()
    def Pair(self) -> Nothing:
        if not self.sensor.pairable:
            raise DBusError("org.bluez.Error.AuthenticationRejected", "Authentication Rejected")
        self.paired = True
        self.emit_properties_changed({"Paired": True})

    def drop(self) -> None:
        """Go out of range: subscriptions end with the connection."""
        if not self.connected:
            return
        self.connected = False
        for characteristic in self.characteristics.values():
            characteristic.stop()
        self.emit_properties_changed({"Connected": False, "ServicesResolved": False})

    def advertise(self) -> None:
        self.rssi = -60 if self.rssi == -61 else -61  # BlueZ reports a repeated advertisement by its strength
        self.emit_properties_changed({"RSSI": self.rssi})


class _Service(ServiceInterface):
    def __init__(self, uuid: str, device: _Device) -> None:
        super().__init__("org.bluez.GattService1")
        self._uuid, self._device = long_uuid(uuid), device

    @dbus_property(access=READ)
    def UUID(self) -> DBusStr:
        return self._uuid

    @dbus_property(access=READ)
    def Device(self) -> DBusObjectPath:
        return self._device.path

    @dbus_property(access=READ)
    def Primary(self) -> DBusBool:
        return True


class _Characteristic(ServiceInterface):
    def __init__(self, model: Characteristic, service_path: str, device: _Device) -> None:
        super().__init__("org.bluez.GattCharacteristic1")
        self._model, self._service_path, self._device = model, service_path, device
        self._value = model.value
        self._task: asyncio.Task[None] | None = None
        self._replying: asyncio.Task[None] | None = None

    @dbus_property(access=READ)
    def UUID(self) -> DBusStr:
        return long_uuid(self._model.uuid)

    @dbus_property(access=READ)
    def Service(self) -> DBusObjectPath:
        return self._service_path

    @dbus_property(access=READ)
    def Flags(self) -> Strings:
        return list(self._model.flags)

    @dbus_property(access=READ)
    def Value(self) -> DBusBytes:
        return self._value

    @dbus_property(access=READ)
    def Notifying(self) -> DBusBool:
        return self._task is not None

    @dbus_property(access=READ)
    def MTU(self) -> DBusUInt16:
        return 247

    @property
    def held(self) -> bytes:
        """Its value."""
        return self._value

    @dbus_method()
    def ReadValue(self, options: DBusDict) -> DBusBytes:
        return self._value if self._model.on_read is None else self._model.on_read()

    @dbus_method()
    def WriteValue(self, value: DBusBytes, options: DBusDict) -> Nothing:
        if self._model.on_write is None:
            self._value = bytes(value)
            return
        replies = self._model.on_write(bytes(value))
        self._device.characteristics[long_uuid(self._model.uuid)].send_later(replies)

    @dbus_method()
    def StartNotify(self) -> Nothing:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send())
            self.emit_properties_changed({"Notifying": True})

    @dbus_method()
    def StopNotify(self) -> Nothing:
        self.stop()

    def stop(self) -> None:
        for task in (self._task, self._replying):
            if task is not None:
                task.cancel()
        self._task = self._replying = None

    def send(self, value: bytes) -> None:
        """Notify or indicate, as the link lets it through; nothing if nobody has subscribed."""
        if self._task is not None:
            link = self._device.link
            for arrives in [value] if link is None else link(self._model.uuid, value):
                self._value = arrives
                self.emit_properties_changed({"Value": arrives})

    def send_later(self, replies: list[tuple[str, bytes]]) -> None:
        async def run() -> None:
            for uuid, value in replies:
                await asyncio.sleep(self._model.interval_s)
                self._device.characteristics[long_uuid(uuid)].send(value)

        self._replying = asyncio.get_running_loop().create_task(run())

    async def _send(self) -> None:
        for value in self._model.sends:
            await asyncio.sleep(self._model.interval_s)
            self.send(value)
            self._device.sent += 1
            if self._device.sensor.drops_after == self._device.sent:
                self._device.drop()
                return
        await asyncio.Event().wait()


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
        self._adapter = _Adapter(powered)
        self._devices = {sensor.address: _Device(sensor, self._adapter, link) for sensor in sensors}
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

    def _forget(self, device: _Device) -> None:
        if self._bus is not None:
            for path in [path for path, _ in self._objects_of(device)]:
                self._bus.unexport(path)
            self._known.discard(device.path)

    def _remember(self, device: _Device) -> None:
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

    def _objects_of(self, device: _Device) -> list[tuple[str, ServiceInterface]]:
        """A device's objects, the same ones each time."""
        if device.objects:
            return device.objects
        device.objects.append((device.path, device))
        handle = 0  # BlueZ puts the attribute's handle into its path, and clients tell attributes by it
        for uuid, characteristics in device.sensor.services.items():
            handle += 1
            service_path = f"{device.path}/service{handle:04x}"
            device.objects.append((service_path, _Service(uuid, device)))
            for model in characteristics:
                handle += 2
                characteristic = _Characteristic(model, service_path, device)
                device.characteristics[long_uuid(model.uuid)] = characteristic
                device.objects.append((f"{service_path}/char{handle:04x}", characteristic))
        return device.objects
