"""Records that a sensor keeps, by its Record Access Control Point 2A52: glucose meters, continuous glucose sensors, and
oximeters that keep spot checks.

They are asked for from the last that was kept plus one. None is lost: their number is asked for first, and what did not
arrive, or arrived damaged, is asked for again. None is taken twice: a record that is sent again is the same record.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, NamedTuple

from aidpost.errors import DeviceError, DeviceLostError, DeviceTimeoutError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.decoders import cgm, glucose, racp
from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.decoders.pulse_oximeter import PulseOximetry
from aidpost.firmware_bridge.gatt_vitals import CgmReading, MealGlucose, StoredOximetry
from aidpost.firmware_bridge.ports._ble_link import (
    Inbox,
    Target,
    has,
    local_now,
    long_uuid,
    sensor_error,
    subscribe,
)
from aidpost.firmware_bridge.states import STATES

TRIES = 3
_STOPPED = cgm.ANNUNCIATION[0]
ANSWER_S = 30.0
"""By its specification a sensor answers a control point within 30 s."""

NumberOf = Callable[[Any], list[tuple[int, Any]]]
"""The records that are in a decoded value, with their numbers."""


class Kept(NamedTuple):
    """What a sensor had kept: the measurements, of each a key that is the same when it is sent again, and the mark from
    which to go on (its key and the last number), to be kept once the measurements are."""

    measurements: list[tuple[Any, str]]
    mark: tuple[str, int] | None


async def stored_glucose(target: Target, client: Any, inbox: Inbox, last: Callable[[str], int]) -> Kept:
    """The records of a glucose meter after the last kept; a record with the meal that its context tells of."""
    key = f"glucose {client.address}"
    since = target.since if target.since is not None else last(key)
    if has(client, "2A34"):
        await subscribe(client, inbox, "2A34", glucose.decode_glucose_context)
    await subscribe(client, inbox, "2A18", glucose.decode_glucose)
    await subscribe(client, inbox, "2A52", racp.decode_racp)
    contexts: dict[int, glucose.GlucoseContext] = {}

    def number_of(value: Any) -> list[tuple[int, Any]]:
        if isinstance(value, glucose.GlucoseContext):
            contexts[value.sequence] = value
        return [(value.sequence, value)] if isinstance(value, glucose.Glucose) else []

    records = await _records(target, client, inbox, _after(since), number_of)
    if not records and since >= 0 and target.since is None:
        newest: dict[int, Any] = {}
        with contextlib.suppress(DeviceError):  # not every meter knows this procedure
            await _procedure(target, client, inbox, racp.REPORT_LAST, 0, number_of, newest)
        if newest and max(newest) < since:  # its memory was cleared, and it counts from the beginning again
            records = await _records(target, client, inbox, 0, number_of)
    found = [
        (MealGlucose(record, contexts.get(number)), f"glucose {number} {record.base_time}")
        for number, record in records.items()
    ]
    return Kept(found, (key, max(records)) if records else None)


async def stored_spot_checks(target: Target, client: Any, inbox: Inbox) -> list[StoredOximetry]:
    """The spot checks that an oximeter keeps (Pulse Oximeter Service 1.0.1), and what it measures meanwhile; 2A5E is
    subscribed to.

    They have no numbers, and all of them are asked for each time: there is no mark to go on from, and who stores them
    must know them again. So what arrived is taken also where the rest never comes, or none where the oximeter does not
    give them: what it measures can be read all the same.

    Raises
    ------
    DeviceLostError
        It went out of range.
    """
    await subscribe(client, inbox, "2A52", racp.decode_racp)
    found: list[PulseOximetry] = []
    came: dict[int, PulseOximetry] = {}

    def in_order(value: Any) -> list[tuple[int, Any]]:
        return [(len(came), value)] if isinstance(value, PulseOximetry) else []

    reason = f"its spot checks did not arrive whole in {TRIES} attempts"
    try:
        for _ in range(TRIES):
            found, damaged = _joined(found, came), inbox.undecodable
            came.clear()
            expected = await _procedure(target, client, inbox, racp.COUNT_ALL, 0, in_order, came)
            await _procedure(target, client, inbox, racp.REPORT_ALL, 0, in_order, came)
            if inbox.undecodable == damaged and len(came) >= (expected or 0):
                reason = ""
                break
    except DeviceLostError:
        raise
    except DeviceError as error:
        reason = error.cause
    if reason:
        STATES.told(target.spec, reason=reason)
    return [StoredOximetry(one) for one in _joined(found, came)]


def _joined(before: list[PulseOximetry], came: Mapping[int, PulseOximetry]) -> list[PulseOximetry]:
    """What was sent in several attempts: each with a time of its own once. Of what has none, two may be alike and not
    the same: the last attempt's count."""
    found = [one for one in before if one.time is not None]
    for one in came.values():
        if one.time is None or one not in found:
            found.append(one)
    return found


async def cgm_session(target: Target, client: Any, inbox: Inbox, clock: Clock, last: Callable[[str], int]) -> Kept:
    """The records of a continuous glucose sensor's session after the last kept, by their time offset.

    What it measures while they are sent counts as well. A session is started only where `target` asks for that.

    Raises
    ------
    DeviceError
        No session runs, or it refuses to start one; records did not arrive whole.
    """
    feature = await _read(target, client, "2AA8", cgm.decode_cgm_feature)
    await subscribe(client, inbox, "2AA7", lambda data: cgm.decode_cgm(data, crc=feature.crc))
    status = await _read(target, client, "2AA9", cgm.decode_cgm_status)
    if _STOPPED in status.status and target.start_session:
        await _start(target, client, inbox, clock, feature.crc)
        status = await _read(target, client, "2AA9", cgm.decode_cgm_status)
    began = await _began(target, client, clock, status, feature.crc)
    key = f"cgm {client.address} {began.isoformat() if began else 'unset'}"
    since = target.since if target.since is not None else last(key)
    if target.since is None and status.offset_min < since:
        since = -1  # another session, which nobody has told when it began

    def number_of(value: Any) -> list[tuple[int, Any]]:
        return [(record.offset_min, record) for record in value] if isinstance(value, tuple) else []

    if has(client, "2A52"):
        await subscribe(client, inbox, "2A52", racp.decode_racp)
        records = await _records(target, client, inbox, _after(since), number_of)
    else:
        records = await _next_live(target, inbox, since, number_of)
    if not records and _STOPPED in status.status:
        remedy = "Start a session with its own reader, or add session=start to the source."
        raise sensor_error(DeviceError, target, "no session runs on it", remedy)
    times = _Times(clock, max([status.offset_min, *records]), _STOPPED in status.status, began)
    found = [
        # where nobody knows when sessions began, one may have the minutes of another: the value tells them apart
        (CgmReading(record, times.of(offset), feature.sample, feature.site), f"{key} {offset}{'' if began else record}")
        for offset, record in records.items()
    ]
    return Kept(found, (key, max(records)) if records else None)


class _Times:
    """When records were measured. How old one is, a running session's own counting tells, whatever the sensor's clock;
    one that has stopped counts no more, and only when it began can tell."""

    def __init__(self, clock: Clock, counted_min: int, stopped: bool, began: datetime | None) -> None:
        arrived = clock.now()
        zone = timezone(timedelta(minutes=arrived.utc_offset_min or 0))
        now = datetime.fromtimestamp(arrived.wall_ms / 1000, zone).replace(tzinfo=None, microsecond=0)
        self._began = began if stopped else now - timedelta(minutes=counted_min)

    def of(self, offset_min: int) -> str:
        """Of a record; words that are no time where that cannot be known."""
        if self._began is None:
            return f"minute {offset_min} of a session"
        return (self._began + timedelta(minutes=offset_min)).isoformat()


async def _read(target: Target, client: Any, short: str, decoder: Callable[[bytes], Any]) -> Any:
    """A characteristic's value; read again where it came damaged."""
    for attempt in range(TRIES):
        data = bytes(await client.read_gatt_char(long_uuid(short)))
        try:
            return decoder(data)
        except DecodeError as error:
            if attempt == TRIES - 1:
                cause = f"{error.target} cannot be read: {error.cause}"
                raise sensor_error(
                    DeviceError, target, cause, "Try again; replace the sensor if it stays so."
                ) from None
    raise AssertionError


async def _began(target: Target, client: Any, clock: Clock, status: cgm.CgmStatus, crc: bool) -> datetime | None:
    """When the session began, by the sensor; None where it does not know. One that runs and was never told is told,
    where our clock can be trusted: by its start it is known from another session."""
    from bleak.exc import BleakError

    if not has(client, "2AAA"):
        return None
    start = await _read(target, client, "2AAA", cgm.decode_cgm_session_start)
    now = local_now(clock)
    if start.moment is None and now is not None and _STOPPED not in status.status:
        begun = datetime.fromisoformat(str(now[0])) - timedelta(minutes=status.offset_min)
        with contextlib.suppress(BleakError):  # one that refuses is read all the same
            await _tell_start(client, DeviceTime(*begun.timetuple()[:6]), clock, crc)
        start = await _read(target, client, "2AAA", cgm.decode_cgm_session_start)
    moment: datetime | None = start.moment
    return moment


async def _tell_start(client: Any, begun: DeviceTime, clock: Clock, crc: bool) -> None:
    stamp = cgm.encode_cgm_session_start(begun, clock.now().utc_offset_min, crc=crc)
    await client.write_gatt_char(long_uuid("2AAA"), stamp, response=True)


async def _start(target: Target, client: Any, inbox: Inbox, clock: Clock, crc: bool) -> None:
    """Start a session, and tell the sensor what time it is, where ours can be trusted."""
    await subscribe(client, inbox, "2AAC", lambda data: cgm.decode_cgm_control(data, crc=crc))
    await client.write_gatt_char(long_uuid("2AAC"), cgm.with_crc(cgm.START_SESSION, crc), response=True)
    until = time.monotonic() + ANSWER_S
    while True:
        item = await inbox.get(max(0.0, until - time.monotonic()))
        if item is None:
            raise sensor_error(DeviceTimeoutError, target, "it does not say whether a session started", "Try again.")
        if isinstance(item[1], cgm.CgmControl) and item[1].request == cgm.START_SESSION[0]:
            break
    if item[1].response != "success":
        remedy = "Start the session with its own reader."
        raise sensor_error(DeviceError, target, f"it refuses to start a session: {item[1].response}", remedy)
    now = local_now(clock)
    if now is not None and has(client, "2AAA"):
        await _tell_start(client, now[0], clock, crc)


def _after(number: int) -> int:
    """The first number to be asked for; after the highest there is, a sensor counts from 0 again."""
    return (number + 1) & 0xFFFF


async def _next_live(target: Target, inbox: Inbox, since: int, number_of: NumberOf) -> dict[int, Any]:
    """What a sensor without a memory measures next."""
    until = time.monotonic() + target.wait_s
    while True:
        item = await inbox.get(max(0.0, until - time.monotonic()))
        if item is None:
            raise sensor_error(DeviceTimeoutError, target, f"it sent nothing in {target.wait_s:g} s", "Wait for it.")
        records = {number: record for number, record in number_of(item[1]) if number > since}
        if records:
            return records


async def _records(target: Target, client: Any, inbox: Inbox, first: int, number_of: NumberOf) -> dict[int, Any]:
    """Every record from number `first` on, by number, in order.

    Raises
    ------
    DeviceError
        It refuses; or some did not arrive whole, however often they were asked for.
    """
    records: dict[int, Any] = {}
    for _ in range(TRIES):
        expected = await _procedure(target, client, inbox, racp.count_from(first), first, number_of, records)
        damaged, before = inbox.undecodable, len(records)
        await _procedure(target, client, inbox, racp.report_from(first), first, number_of, records)
        if inbox.undecodable == damaged and len(records) >= (expected or 0):
            return dict(sorted(records.items()))
        await asyncio.sleep(0 if len(records) > before else 0.5)
    cause = f"of its {expected or 'unknown number of'} records {len(records)} arrived whole in {TRIES} attempts"
    raise sensor_error(DeviceError, target, cause, "Bring it nearer and try again: nothing of it was taken.")


async def _procedure(
    target: Target,
    client: Any,
    inbox: Inbox,
    command: bytes,
    first: int,
    number_of: NumberOf,
    records: dict[int, Any],
) -> int | None:
    """One procedure of the control point, to its end; what is sent meanwhile goes into `records`. Gives the number that
    it answered with (None: it cannot count)."""
    await client.write_gatt_char(long_uuid("2A52"), command, response=True)
    while True:
        item = await inbox.get(min(target.wait_s, ANSWER_S))
        if item is None:
            raise sensor_error(DeviceTimeoutError, target, "it stopped in the middle of its records", "Try again.")
        value = item[1]
        if not isinstance(value, racp.RacpResponse):
            records.update({number: one for number, one in number_of(value) if number >= first})
        elif value.count is not None and command[0] == racp.COUNT:
            return value.count
        elif value.request != command[0]:
            continue  # the end of a procedure before
        elif value.code in (racp.SUCCESS, racp.NO_RECORDS):
            return 0
        elif command[0] == racp.COUNT:
            return None
        else:
            cause = f"it refuses its records: {value.text}"
            raise sensor_error(DeviceError, target, cause, "Take them from its display.")
