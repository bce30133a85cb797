"""Which sensors are alive, in the words of the screen: what the ports reported, and what is plugged in just now."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import NamedTuple

from aidpost.board.console.words import N_
from aidpost.errors import AidpostError, DeviceLostError, DeviceNotFoundError, DeviceTimeoutError
from aidpost.firmware_bridge.sources import plugged_in
from aidpost.firmware_bridge.states import FRESH_S, STATES, Link, SensorState, SensorStates


class Standing(enum.Enum):
    """How a sensor is, in the words of the screen."""

    FLOWING = N_("sends now")
    THERE = N_("there")
    WAITED_FOR = N_("is being waited for")
    UNTRIED = N_("not tried yet")
    NO_CONTACT = N_("no contact")
    SILENT = N_("silent")
    GONE = N_("unplugged")
    OUT_OF_REACH = N_("not in reach")
    BROKEN = N_("does not work")

    @property
    def light(self) -> str:
        """ "good", "bad", or "idle" where nothing is known against it."""
        if self in (Standing.FLOWING, Standing.THERE):
            return "good"
        return "idle" if self in (Standing.UNTRIED, Standing.WAITED_FOR) else "bad"


class Alike(NamedTuple):
    """That nothing but the `socket` tells a board from others. `better` is its name by the socket, where it is set up
    by one that may change."""

    number: int
    socket: str
    better: str


class Sensor(NamedTuple):
    """One SOURCE as it is now. `uses` are what the screen takes from it; `heard_s` seconds since the last data and
    `battery` percent, each None where not known; `trouble` what went wrong the last time."""

    source: str
    uses: tuple[str, ...]
    name: str
    standing: Standing
    is_read: bool
    heard_s: float | None
    battery: int | None
    trouble: str
    alike: Alike | None = None


def look(sources: Mapping[str, tuple[str, ...]], states: SensorStates = STATES) -> list[Sensor]:
    """How each source is: source -> what it is used for. Nothing is opened."""
    found = []
    for (source, uses), state in zip(sources.items(), states.of(sources), strict=True):
        try:
            there = plugged_in(source)
        except AidpostError:  # misspelt in the configuration, which the state says
            there = None
        standing = _standing(state, there)
        trouble = state.reason if standing.light == "bad" and standing is not Standing.GONE else ""
        name = state.name or source.split("?")[0]
        about = (state.is_read, state.heard_ago_s, state.battery_percent, trouble)
        found.append(Sensor(source, uses, name, standing, *about, _alike(source)))
    return found


def _alike(source: str) -> Alike | None:
    if not source.startswith("serial:"):
        return None
    from aidpost.firmware_bridge import usb_boards  # pySerial, which a start has no need of

    port = source.removeprefix("serial:").split("?")[0]
    boards = usb_boards.plugged_in()
    board = usb_boards.board_at(port, boards)
    same = usb_boards.alike(board.make, boards) if board is not None else []
    if board is None or len(same) < 2:
        return None
    return Alike(len(same), board.socket, "" if "/by-path/" in port else usb_boards.by_socket(port))


def _standing(state: SensorState, there: bool | None) -> Standing:
    if there is False:
        return Standing.GONE
    if state.link is Link.FAILED:
        return _after(state.fault, there)
    if state.link in (Link.CONNECTED, Link.IDLE) and state.heard_ago_s is not None and state.heard_ago_s <= FRESH_S:
        return Standing.NO_CONTACT if state.lead_off else Standing.FLOWING
    if state.link is Link.UNTRIED:
        return Standing.THERE if there else Standing.UNTRIED
    waiting = {Link.WAITING: Standing.WAITED_FOR, Link.SILENT: Standing.SILENT}
    return waiting.get(state.link, Standing.THERE)


def _after(fault: str, there: bool | None) -> Standing:
    if fault in (DeviceNotFoundError.__name__, DeviceLostError.__name__):
        # it was pulled out while it was read, and is there again
        return Standing.THERE if there else Standing.OUT_OF_REACH
    return Standing.SILENT if fault == DeviceTimeoutError.__name__ else Standing.BROKEN
