"""Vital signs from Bluetooth sensors: what they measure, or have kept. Decoding is in `decoders`, meaning in
`gatt_vitals`, the way to the sensor in `_ble_link`."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, NamedTuple

from aidpost.errors import DeviceError, DeviceLostError, DeviceTimeoutError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import nonin, viatom
from aidpost.firmware_bridge.decoders.heart_rate import HeartRate
from aidpost.firmware_bridge.gatt_vitals import MEASUREMENTS, Context, is_settled, vital_signs_of
from aidpost.firmware_bridge.marks import Marks
from aidpost.firmware_bridge.ports._ble_link import (
    Inbox,
    Target,
    describe,
    has,
    linked,
    sensor_error,
    set_clock,
    subscribe,
)
from aidpost.firmware_bridge.ports._ble_records import Kept, cgm_session, stored_glucose, stored_spot_checks
from aidpost.firmware_bridge.ports._ble_viatom import viatom_oximetry
from aidpost.records import Origin, VitalSign

CONTINUOUS = frozenset({"2A37", "2A5F", nonin.MEASUREMENT})
"""These repeat every second: the last of `SETTLE_S` counts. The others are one measurement each, all of which count."""
SETTLE_S = 3.0
LONGEST_SETTLE_S = 15.0
"""A continuous sensor that has no number by then (a finger that is cold, or not in) gives that it has none."""
QUIET_S = 1.5
"""After the last stored measurement, a sensor that uploads its memory is silent for so long."""


class Read(NamedTuple):
    """Vital signs, and the marks that are to be kept once they are stored."""

    vitals: list[VitalSign]
    marks: dict[str, int]


async def read_vitals(target: Target, clock: Clock, marks: Marks) -> Read:
    """Every measurement that the sensor gives: one, its memory, or the settled value of a continuous one.

    A link that breaks before anything came is made again until `wait_s` have passed.

    Raises
    ------
    DeviceNotFoundError, DeviceTimeoutError, DeviceLostError, DeviceError
        Not there; silent for `wait_s`; gone before it gave one; a kind that nobody here reads.
    NotPossibleError
        There is no Bluetooth here.
    """
    until = time.monotonic() + target.wait_s

    async def read(client: Any, lost: asyncio.Event) -> Read:
        device = await describe(target, client)
        await set_clock(client, clock)
        inbox = Inbox(target, lost)
        if has(client, "2AA7"):
            kept = await cgm_session(target, client, inbox, clock, marks.last)
        elif has(client, "2A18"):
            kept = await stored_glucose(target, client, inbox, marks.last)
        elif has(client, viatom.NOTIFY):
            reading = await viatom_oximetry(target, client, inbox, SETTLE_S, LONGEST_SETTLE_S)
            kept = Kept([(reading, "")], None)
        else:
            kept = Kept([(one, "") for one in await _measurements(target, client, inbox)], None)
        at, vitals = clock.now(), []
        for measurement, record in kept.measurements:
            context = Context(at=at, origin=Origin.LIVE, device=device, source=target.name, record=record)
            vitals += vital_signs_of(measurement, context)
        return Read(vitals, dict([kept.mark]) if kept.mark else {})

    return await linked(target, lambda: until, read)


async def _measurements(target: Target, client: Any, inbox: Inbox) -> list[Any]:
    names = [name for name in MEASUREMENTS if name != "2A18" and has(client, name)]
    if not names:
        services = ", ".join(str(service.uuid) for service in client.services)
        raise sensor_error(
            DeviceError, target, f"it has no measurement that is known ({services})", "See docs/sensors."
        )
    kept: list[Any] = []
    if "2A5E" in names and has(client, "2A52"):
        names.remove("2A5E")
        await subscribe(client, inbox, "2A5E", MEASUREMENTS["2A5E"])
        kept = await stored_spot_checks(target, client, inbox)
    for name in names:
        await subscribe(client, inbox, name, MEASUREMENTS[name])
    # one that has given its memory need not measure as well
    first = await inbox.get(min(target.wait_s, QUIET_S) if kept else target.wait_s)
    if first is None and kept:
        return kept
    if first is None:
        cause = f"it sent nothing in {target.wait_s:g} s"
        cause += f" that could be read ({inbox.undecodable} values)" if inbox.undecodable else ""
        raise sensor_error(DeviceTimeoutError, target, cause, "Start a measurement on it.")
    stored = [one.measurement for one in kept]
    return [*kept, *(one for one in await _collect(inbox, first) if one not in stored)]


async def _collect(inbox: Inbox, first: tuple[str, Any]) -> list[Any]:
    """Single measurements until the sensor is quiet; of each continuous one the last when it has settled."""
    latest: dict[str, Any] = {}
    single: list[Any] = []
    intervals: list[int] = []
    began, item = time.monotonic(), first
    while True:
        name, measurement = item
        passed = time.monotonic() - began
        if name not in CONTINUOUS:
            if measurement not in single:  # an indication whose confirmation was lost comes again
                single.append(measurement)
        else:
            if is_settled(measurement) or not (name in latest and is_settled(latest[name])):
                latest[name] = measurement
            if isinstance(measurement, HeartRate) and is_settled(measurement):
                intervals += measurement.rr_1024  # each comes once: those of the last notification are not all
            if passed > LONGEST_SETTLE_S or (passed > SETTLE_S and all(map(is_settled, latest.values()))):
                break
        try:
            following = await inbox.get(QUIET_S)
        except DeviceLostError:  # a cuff switches off after its last reading
            break
        if following is None:
            break
        item = following
    beats = tuple(intervals)
    return [*single, *(replace(one, rr_1024=beats) if isinstance(one, HeartRate) else one for one in latest.values())]
