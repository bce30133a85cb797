"""Which board is behind a serial port, and whether it is the same one when it is plugged in again.

A USB board is told by vendor, product and serial number. Boards without a serial number (or with that of all others of
their make) are alike; where several are plugged in, the socket tells them apart: the way through hubs that the kernel
calls `1-1.4`, and udev's /dev/serial/by-path names.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from serial.tools import list_ports

BY_PATH = Path("/dev/serial/by-path")


class UsbBoard(NamedTuple):
    """A USB device with a serial port. `make` is vendor, product and serial number; `socket` where it is plugged in,
    with the interface of a device that has several."""

    port: str
    make: tuple[int, int, str]
    socket: str


def plugged_in() -> list[UsbBoard]:
    """Every USB device with a serial port, by the port's name."""
    found = [
        UsbBoard(one.device, (one.vid, one.pid, one.serial_number or ""), getattr(one, "location", None) or "")
        for one in list_ports.comports()
        if one.vid is not None
    ]
    return sorted(found)


def board_at(port: str, boards: Sequence[UsbBoard] | None = None) -> UsbBoard | None:
    """The USB device behind a port, or behind a link to one; None where there is none."""
    names = (port, os.path.realpath(port))
    return next((one for one in (plugged_in() if boards is None else boards) if one.port in names), None)


def alike(make: tuple[int, int, str], boards: Sequence[UsbBoard] | None = None) -> list[UsbBoard]:
    """The devices that nothing but their sockets tells apart; one alone where there is no other."""
    return [one for one in (plugged_in() if boards is None else boards) if one.make == make]


def by_socket(port: str, links: Path = BY_PATH) -> str:
    """The name of a port by its socket, which stays over a restart; empty where udev has made none."""
    wanted = os.path.realpath(port)
    names = sorted(str(link) for link in links.glob("*") if os.path.realpath(link) == wanted)
    return names[0] if names else ""


class Remembered:
    """The board that a port was opened for, to be found again. Not for several threads.

    Parameters
    ----------
    port
        A name below `/by-path/` means that socket, and no other.
    """

    def __init__(self, port: str) -> None:
        self._board: UsbBoard | None = None
        self._by_socket, self._fixed = False, "/by-path/" in port
        self.look(port)

    def look(self, port: str) -> None:
        """It is behind this port now."""
        boards = plugged_in()
        found = board_at(port, boards)
        if found is not None:
            self._board = found
            self._by_socket = self._by_socket or len(alike(found.make, boards)) > 1

    def stranger(self, port: str) -> str:
        """Why what is behind a port now is not this board; empty where it is, or nothing is there to tell."""
        found = board_at(port)
        if self._board is None or found is None:
            return ""
        if found.make != self._board.make:
            return f"another device is {port} now"
        if self._by_socket and found.socket != self._board.socket:
            return f"another device of this make is {port} now: this one was in socket {self._board.socket}"
        return ""

    def port(self) -> str | None:
        """Under which name it is now: re-plugged, it often has another. None where it is not there, or cannot be told.
        Of boards that are alike it is the one in its socket, from when a second one was seen."""
        if self._board is None or self._fixed:
            return None
        found = alike(self._board.make)
        self._by_socket = self._by_socket or len(found) > 1
        own = [one for one in found if not self._by_socket or one.socket == self._board.socket]
        return own[0].port if len(own) == 1 else None
