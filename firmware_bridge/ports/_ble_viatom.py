"""Oximeters of Viatom and Wellue (O2Ring, Checkme O2): they say nothing by themselves, and answer when asked."""

from __future__ import annotations

import time
from typing import Any

from aidpost.errors import DeviceError, DeviceTimeoutError
from aidpost.firmware_bridge.decoders import viatom
from aidpost.firmware_bridge.decoders.base import DecodeError
from aidpost.firmware_bridge.gatt_vitals import is_settled
from aidpost.firmware_bridge.ports._ble_link import Inbox, Target, sensor_error, subscribe
from aidpost.firmware_bridge.states import STATES

EVERY_S = 0.5
"""How often it is asked, as its own application does."""
REQUEST = viatom.oxy_request(viatom.OXY_REAL_TIME, b"\0")


async def viatom_oximetry(
    target: Target, client: Any, inbox: Inbox, settle_s: float, longest_s: float
) -> viatom.ViatomOximetry:
    """The reading when it has settled; one without numbers where there is no finger for `longest_s`.

    Raises
    ------
    DeviceTimeoutError
        It does not answer within the source's `wait`.
    DeviceError
        It answers as a recorder of ECGs, which is not read.
    """
    assembler = viatom.ViatomAssembler()  # an answer comes in pieces of 20 bytes
    await subscribe(client, inbox, viatom.NOTIFY, assembler.feed)
    began, until = time.monotonic(), time.monotonic() + target.wait_s
    first_s: float | None = None
    latest: viatom.ViatomOximetry | None = None
    asked_s = 0.0
    while time.monotonic() < until:
        if time.monotonic() - asked_s >= EVERY_S:
            asked_s = time.monotonic()
            await client.write_gatt_char(viatom.WRITE, REQUEST)
        item = await inbox.get(EVERY_S)
        for reply in item[1] if item is not None else []:
            latest = _reading(target, reply, inbox) or latest
        if latest is None:
            continue
        first_s = time.monotonic() if first_s is None else first_s
        passed = time.monotonic() - first_s
        if passed > longest_s or (passed > settle_s and is_settled(latest)):
            break
    if latest is None:
        cause = f"it answered nothing in {time.monotonic() - began:.1f} s"
        raise sensor_error(DeviceTimeoutError, target, cause, "Put it on, and end its own application.")
    return latest


def _reading(target: Target, reply: viatom.ViatomReply, inbox: Inbox) -> viatom.ViatomOximetry | None:
    if reply.family != "oxy":
        raise sensor_error(DeviceError, target, "it is a recorder of ECGs", "See docs/sensors/viatom.")
    try:
        found = viatom.decode_oxy_real_time(reply.payload)
    except DecodeError:  # the answer to another question
        inbox.undecodable += 1
        return None
    STATES.told(target.spec, battery_percent=found.battery_percent, lead_off=() if found.worn else ("skin",))
    return found
