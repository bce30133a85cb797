"""Pairing with a Bluetooth sensor, and recording the bytes that it sends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from aidpost.errors import DeviceError, DeviceTimeoutError
from aidpost.firmware_bridge.capture import CaptureHeader, CaptureWriter, Chunk
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import racp
from aidpost.firmware_bridge.ports._ble_ecg import kind_of
from aidpost.firmware_bridge.ports._ble_link import Target, connected, describe, long_uuid, sensor_error
from aidpost.records import Device

_BASE = "-0000-1000-8000-00805f9b34fb"


def short_uuid(uuid: str) -> str:
    """A UUID as captures and decoders name it: four digits where it is one of Bluetooth's own."""
    return uuid[4:8].upper() if uuid.endswith(_BASE) and uuid.startswith("0000") else uuid.lower()


async def pair(target: Target) -> Device:
    """Pair with the sensor, so that it knows this device from now on; gives who it is.

    Raises
    ------
    DeviceError
        It refuses, or wants a code that nobody here can type in.
    """
    async with connected(target) as (client, _):
        from bleak.exc import BleakError

        try:
            await client.pair()
        except (BleakError, NotImplementedError, EOFError) as error:
            remedy = "Put it into pairing mode; where it wants a code, pair it with bluetoothctl."
            raise sensor_error(DeviceError, target, f"it refuses to pair ({error})", remedy) from error
        return await describe(target, client)


async def record(target: Target, clock: Clock, path: Path, seconds: float) -> int:
    """Write every notification and indication of `seconds` to a capture; gives how many.

    A meter is asked for its records, a strap for its ECG: they send nothing by themselves. A sensor that goes away
    leaves what it sent.

    Raises
    ------
    DeviceError
        Nothing on it can be subscribed to; or it sent nothing (`DeviceTimeoutError`).
    """
    async with connected(target) as (client, lost):
        found = [
            item
            for service in client.services
            for item in service.characteristics
            if {"notify", "indicate"} & set(item.properties)
        ]
        if not found:
            raise sensor_error(DeviceError, target, "it sends nothing that can be subscribed to", "See docs/sensors.")
        device, now, began, count = await describe(target, client), clock.now(), time.monotonic(), 0
        names = tuple(dict.fromkeys(short_uuid(str(item.uuid)) for item in found))
        header = CaptureHeader(device.name, device.address, now.wall_ms, now.boot, names)
        with CaptureWriter(path, header) as writer:

            def write(name: str, data: bytearray) -> None:
                nonlocal count
                writer.write(Chunk(round((time.monotonic() - began) * 1e6), bytes(data), name))
                count += 1

            for item in found:
                name = short_uuid(str(item.uuid))
                await client.start_notify(item, lambda _, data, name=name: write(name, data))
            if "2A52" in names:
                await client.write_gatt_char(long_uuid("2A52"), racp.report_from(0), response=True)
            ecg = kind_of(lambda uuid: short_uuid(uuid) in names)
            if ecg is not None:
                await client.write_gatt_char(ecg.control, ecg.start, response=True)
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(lost.wait(), seconds)
    if not count:
        path.unlink()
        raise sensor_error(DeviceTimeoutError, target, f"it sent nothing in {seconds:g} s", "Start a measurement.")
    return count
