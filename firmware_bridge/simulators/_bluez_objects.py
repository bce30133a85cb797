"""The objects that BlueZ shows on the D-Bus: an adapter, and each device with its services and characteristics."""

from __future__ import annotations

import asyncio
from typing import Annotated

from dbus_fast import DBusError, PropertyAccess
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

from aidpost.firmware_bridge.simulators.sensor import Characteristic, Link, Sensor, long_uuid

READ = PropertyAccess.READ
ADAPTER = "/org/bluez/hci0"
Strings = Annotated[list[str], DBusSignature("as")]
Nothing = Annotated[None, DBusSignature("")]  # dbus-fast cannot read a plain None as an annotation


class AdapterObject(ServiceInterface):
    """The radio; `scanning` counts who looks for sensors."""

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


class DeviceObject(ServiceInterface):
    """A sensor, as found. `link` is the way from it, `sent` how many values it has sent."""

    def __init__(self, sensor: Sensor, adapter: AdapterObject, link: Link | None) -> None:
        super().__init__("org.bluez.Device1")
        self.adapter, self.link, self.refused = adapter, link, 0
        self.sensor, self.path = sensor, f"{ADAPTER}/dev_{sensor.address.replace(':', '_')}"
        self.connected, self.paired, self.trusted, self.rssi = False, False, False, -60
        self.characteristics: dict[str, CharacteristicObject] = {}
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


class ServiceObject(ServiceInterface):
    """One service of a sensor."""

    def __init__(self, uuid: str, device: DeviceObject) -> None:
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


class CharacteristicObject(ServiceInterface):
    """One characteristic: read, written, and sent to whoever has subscribed."""

    def __init__(self, model: Characteristic, service_path: str, device: DeviceObject) -> None:
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
