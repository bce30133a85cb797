"""One way for every microcontroller: what is connected, does this firmware belong there, write, and who is it now."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from aidpost.board.firmware import tools, uf2_drive
from aidpost.board.firmware.images import Firmware
from aidpost.board.firmware.stm32 import write_stm32
from aidpost.errors import DeviceError, UsageError
from aidpost.firmware_bridge.decoders.base import Announcement
from aidpost.firmware_bridge.decoders.own import OwnDecoder

_USB: tuple[tuple[int, int | None, str, str], ...] = (
    (0x303A, None, "esp", ""),
    (0x0483, None, "stm32", ""),
    (0x2E8A, None, "uf2", ""),
    (0x2341, 0x0043, "avr", "atmega328p"),
    (0x2341, 0x0001, "avr", "atmega328p"),
    (0x2341, 0x0042, "avr", "atmega2560"),
    (0x2341, 0x0010, "avr", "atmega2560"),
    (0x2341, 0x8036, "avr", "atmega32u4"),
)
"""USB vendor, product -> kind and part, where the number belongs to the board. Bridges (CP210x, CH340, FTDI) tell
nothing of what is behind them."""


class Connected(msgspec.Struct, frozen=True, kw_only=True):
    """A board that firmware may be written to; kind and chip are empty where the connection does not tell."""

    where: str
    kind: str
    chip: str
    name: str


def connected(ports: Sequence[Any] | None = None, root: Path = Path("/")) -> list[Connected]:
    """Serial ports and boot loaders' drives; opens nothing."""
    if ports is None:
        from serial.tools import list_ports

        ports = list_ports.comports()
    found = []
    for port in sorted(ports, key=lambda one: str(one.device)):
        known = [one for one in _USB if one[0] == port.vid and one[1] in {None, port.pid}]
        kind, chip = known[0][2:] if known else ("", "")
        found.append(Connected(where=port.device, kind=kind, chip=chip, name=port.product or port.description or ""))
    found += [Connected(where=one.folder, kind="uf2", chip=one.chip, name=one.board) for one in uf2_drive.drives(root)]
    return found


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What was done: bytes written in this run (0: the chip held it all), and what the board says of itself since."""

    where: str
    kind: str
    chip: str
    written: int
    answer: str


def choose(firmware: Firmware, found: Sequence[Connected], where: str) -> Connected:
    """The board that is meant, if the firmware can belong there.

    Raises
    ------
    UsageError
        None or several could be meant, or the one named is of another kind.
    """
    if where:
        named = [one for one in found if one.where == where]
        one = named[0] if named else Connected(where=where, kind="", chip="", name="")
        if one.kind and one.kind != firmware.kind:
            cause = f"it is for {firmware.target}, and at {where} is {one.name or one.kind}"
            raise UsageError(
                operation="checking the firmware",
                target=firmware.path,
                cause=cause,
                remedy="Take the firmware that was built for this board.",
            )
        return one
    fitting = [one for one in found if one.kind == firmware.kind]
    if len(fitting) != 1:
        listed = ", ".join(one.where for one in fitting) or "none"
        raise UsageError(
            operation="looking for the board",
            target=firmware.target,
            cause=f"boards that are surely of this kind: {listed}",
            remedy="Name it: --to PORT, or --to FOLDER of its drive. aidpost board firmware list shows what is there.",
        )
    return fitting[0]


def write(
    firmware: Firmware,
    board: Connected,
    report: Callable[[int, int], None] = lambda done, total: None,
    *,
    chip: str = "",
    baud: int | None = None,
    expect: str = "",
    answer_s: float = 5.0,
    esptool_options: Sequence[str] = (),
) -> Written:
    """Write, read back, start, and ask the board who it is.

    Parameters
    ----------
    chip
        The chip that must be there: an ESP32's name, an STM32's product id (`0x410`), an AVR's part.
    expect
        What the board's announcement must contain (Aidpost's own protocol); empty: anything, or nothing.

    Raises
    ------
    UsageError
        Another chip is there, or the firmware is for another.
    DeviceError
        It cannot be written, does not hold what was written, or does not come up as `expect`.
    """
    where = board.where
    rate: dict[str, Any] = {"baud": baud} if baud else {}
    if chip and firmware.kind in {"esp", "uf2"} and chip != firmware.target:
        raise firmware.refused(f"it is for {firmware.target}, not for {chip}")
    found = chip or board.chip or firmware.target
    if firmware.kind == "stm32":
        written, found = write_stm32(firmware, where, chip, report, **rate)
    elif firmware.kind == "esp":
        written = tools.write_esp(firmware, where, report, options=esptool_options, **rate)
    elif firmware.kind == "avr":
        written = tools.write_avr(firmware, where, chip or board.chip, **rate)
    else:
        written = uf2_drive.write_uf2(firmware, uf2_drive.drive(Path(where)), report)
    answer = "" if firmware.kind == "uf2" else ask(where, answer_s if expect else min(answer_s, 1.5))
    if expect and expect not in answer:
        raise DeviceError(
            operation="asking the board who it is",
            target=where,
            cause=f"it says {answer!r}, and {expect!r} was expected" if answer else "it does not announce itself",
            remedy="The firmware is written and compared. Reset the board; if it stays silent, it is the wrong one.",
        )
    return Written(where=where, kind=firmware.kind, chip=found, written=written, answer=answer)


def ask(port: str, seconds: float, baud: int = 115_200) -> str:
    """The name that the board announces (docs/sensors/own-firmware.md) within so many seconds; empty if it does not."""
    import serial

    end, decoder = time.monotonic() + seconds, OwnDecoder()
    with contextlib.suppress(serial.SerialException, OSError), serial.Serial(port, baud, timeout=0.1) as opened:
        while time.monotonic() < end:
            for block in decoder.feed(opened.read(4096)):
                if isinstance(block, Announcement):
                    return re.sub(r"[^ -~]", "?", block.name)
    return ""
