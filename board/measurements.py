"""What a sensor measured at once, and by what it is known again when the sensor sends it again."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from aidpost.records import VitalKind, VitalSign

_NEAR_MIN = 15


@dataclass(frozen=True)
class Measurement:
    """What a sensor measured at once: the readings of one `group`, or a single one."""

    readings: tuple[VitalSign, ...]

    @property
    def id(self) -> uuid.UUID:
        """By which a page names it."""
        return self.readings[0].group or self.readings[0].id

    @property
    def sensor(self) -> str:
        """Which sensor, as far as it can be told from another."""
        device = self.readings[0].device
        return device.address or device.serial or f"{device.manufacturer} {device.model} {device.name}"

    @property
    def time(self) -> str:
        """When, by the sensor's own clock."""
        return self.readings[0].device_time

    @property
    def pressure(self) -> tuple[VitalSign, VitalSign] | None:
        """Upper and lower blood pressure, which are read together; None where there are not both."""
        found = {one.kind: one for one in self.readings}
        upper, lower = found.get(VitalKind.SYSTOLIC_BP), found.get(VitalKind.DIASTOLIC_BP)
        return (upper, lower) if upper is not None and lower is not None else None

    @property
    def others(self) -> tuple[VitalSign, ...]:
        """The readings that are not in `pressure`."""
        return tuple(one for one in self.readings if one not in (self.pressure or ()))

    @property
    def numbered(self) -> bool:
        """Whether the sensor numbers it: its id is made of the number then, and is the same when it comes again (see
        `gatt_vitals.Context`)."""
        return bool(self.time) and self.readings[0].id.version == 5

    @property
    def identity(self) -> tuple[str, str] | None:
        """Where and when it was measured, and that with every value; None of one without a time of its own, which was
        made just now and never comes again."""
        if not self.time:
            return None
        if self.numbered:
            number = str(min(one.id for one in self.readings))
            return number, number
        ordered = sorted(self.readings, key=lambda one: one.kind.value)
        moment = "\n".join([self.sensor, self.time, *(one.kind.value for one in ordered)])
        return moment, "\n".join([moment, *(str(one.absent.value if one.absent else one.value) for one in ordered)])


def measurements(readings: Iterable[VitalSign]) -> list[Measurement]:
    """Readings by what was measured at once, in their order."""
    found: dict[uuid.UUID, list[VitalSign]] = defaultdict(list)
    for one in readings:
        found[one.group or one.id].append(one)
    return [Measurement(tuple(group)) for group in found.values()]


def measured_now(reading: VitalSign) -> bool:
    """Whether a reading can be of this exam, by the device's own clock.

    A reading without a time of its own was just made. One with a time counts only within `_NEAR_MIN` of its arrival:
    a stored one, or one from a clock that nobody set, is for a person to assign.
    """
    if not reading.device_time:
        return True
    zone = timezone(timedelta(minutes=reading.at.utc_offset_min or 0))
    arrived = datetime.fromtimestamp(reading.at.wall_ms / 1000, zone).replace(tzinfo=None)
    try:
        measured = datetime.fromisoformat(reading.device_time).replace(tzinfo=None)
    except ValueError:
        return False
    return abs(arrived - measured) <= timedelta(minutes=_NEAR_MIN)


def not_heard_before(arrived: Sequence[VitalSign], known: Iterable[VitalSign]) -> list[VitalSign]:
    """Readings without those of measurements that are among `known`: cuffs and meters send their memory again and
    again. A measurement that shares its sensor, its time and its kinds with another one of other values is not
    recognised by them, since that sensor's clock stands still."""
    before = {one.identity for one in measurements(known)}
    new = measurements(arrived)
    said: dict[str, set[str]] = defaultdict(set)
    for moment, whole in filter(None, (*before, *(one.identity for one in new))):
        said[moment].add(whole)
    return [
        reading
        for one in new
        if one.identity is None or one.identity not in before or len(said[one.identity[0]]) > 1
        for reading in one.readings
    ]


def stays_known(reading: VitalSign) -> bool:
    """Whether a reading that is taken out of an exam must wait for a person: its sensor may never send it again, or it
    is perhaps another person's."""
    return bool(reading.device_time) and (reading.id.version == 5 or not measured_now(reading))
