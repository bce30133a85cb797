"""The boot loader in every STM32's ROM, over its serial port (ST's AN3155). It is a client of our own, because the free
ones are under the GPL, need lines that a plain port may not have, and cannot go on where they stopped."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import serial

from aidpost.errors import DeviceError, DeviceLostError, DeviceNotFoundError, DeviceTimeoutError

BLOCK = 256
ACK, NACK = 0x79, 0x1F
_GET, _ID, _READ, _GO, _WRITE, _ERASE, _EXTENDED_ERASE = 0x00, 0x02, 0x11, 0x21, 0x31, 0x43, 0x44
ERASE_DEADLINE_S = 60.0
"""A mass erase of 2 MB takes up to 32 s (data sheets); the ROM says nothing meanwhile."""


class Bootloader:
    """A connection to the ROM's boot loader, opened and synchronised on entering.

    Raises
    ------
    DeviceNotFoundError
        There is no such port.
    DeviceTimeoutError
        Nobody answers as a boot loader does.
    """

    def __init__(self, port: str, baud: int = 115_200, deadline_s: float = 1.0) -> None:
        self._name, self._deadline_s = port, deadline_s
        try:
            self._port: Any = serial.Serial(
                port, baud, parity=serial.PARITY_EVEN, timeout=min(deadline_s, 0.1), write_timeout=5, exclusive=True
            )
        except (serial.SerialException, ValueError) as error:
            raise DeviceNotFoundError(
                operation="opening the port", target=port, cause=str(error), remedy="aidpost board firmware list"
            ) from None
        self._commands: frozenset[int] = frozenset()

    def __enter__(self) -> Bootloader:
        try:
            self._enter()
        except BaseException:
            self._port.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._port.close()

    def _enter(self) -> None:
        # stm32loader's convention: DTR on reset, RTS on BOOT0; a port without these lines is set by hand
        with contextlib.suppress(OSError, serial.SerialException):
            self._port.rts, self._port.dtr = False, True
            self._port.dtr = False
        end = time.monotonic() + 5 * self._deadline_s
        while time.monotonic() < end:
            self._port.reset_input_buffer()
            self._send(b"\x7f")
            # NACK: it was synchronised before, and took this for half a command
            if self._port.read(1) in (bytes([ACK]), bytes([NACK])):
                break
        else:
            raise DeviceTimeoutError(
                operation="waking the boot loader",
                target=self._name,
                cause="nothing on this port answers as an STM32's boot loader does",
                remedy="Hold BOOT0 high, press reset, and repeat. Check that RX and TX are crossed.",
            )
        count = self._command(_GET, 1)[0]
        self._commands = frozenset(self._take(count + 1)[1:])
        self._acknowledged("asking what it can do")

    def _take(self, size: int, deadline_s: float | None = None) -> bytes:
        # the port's own time-out stays as it is: setting it sets all of the port's attributes again
        end, got = time.monotonic() + (deadline_s or self._deadline_s), b""
        try:
            while len(got) < size and time.monotonic() < end:
                got += self._port.read(size - len(got))
        except serial.SerialException as error:
            raise DeviceLostError(
                operation="reading from the boot loader", target=self._name, cause=str(error), remedy=_AGAIN
            ) from None
        if len(got) < size:
            raise DeviceTimeoutError(
                operation="reading from the boot loader", target=self._name, cause="it fell silent", remedy=_AGAIN
            )
        return got

    def _send(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except (serial.SerialException, OSError) as error:
            raise DeviceLostError(
                operation="writing to the boot loader", target=self._name, cause=str(error), remedy=_AGAIN
            ) from None

    def _acknowledged(self, what: str, deadline_s: float | None = None) -> None:
        answer = self._take(1, deadline_s)[0]
        if answer != ACK:
            cause = "it refused" if answer == NACK else f"it answered 0x{answer:02x}"
            raise DeviceError(operation=what, target=self._name, cause=cause, remedy=_PROTECTED)

    def _command(self, code: int, answer: int = 0) -> bytes:
        self._send(bytes([code, code ^ 0xFF]))
        self._acknowledged(f"sending command 0x{code:02x}")
        return self._take(answer) if answer else b""

    def _address(self, address: int) -> None:
        raw = address.to_bytes(4, "big")
        self._send(raw + bytes([_xor(raw)]))
        self._acknowledged(f"addressing 0x{address:08x}")

    def product(self) -> int:
        """The product id, 0x410 for an STM32F103."""
        count = self._command(_ID, 1)[0]
        found = int.from_bytes(self._take(count + 1), "big")
        self._acknowledged("asking for its product id")
        return found

    def read(self, address: int, size: int) -> bytes:
        """Up to 256 bytes of memory."""
        self._command(_READ)
        self._address(address)
        self._send(bytes([size - 1, (size - 1) ^ 0xFF]))
        self._acknowledged("reading memory")
        return self._take(size)

    def write(self, address: int, data: bytes) -> None:
        """Up to 256 bytes into erased memory; a multiple of 4."""
        self._command(_WRITE)
        self._address(address)
        body = bytes([len(data) - 1]) + data
        self._send(body + bytes([_xor(body)]))
        self._acknowledged(f"writing 0x{address:08x}")

    def erase(self) -> None:
        """The whole flash."""
        if _EXTENDED_ERASE in self._commands:
            self._command(_EXTENDED_ERASE)
            self._send(b"\xff\xff\x00")
        else:
            self._command(_ERASE)
            self._send(b"\xff\x00")
        self._acknowledged("erasing", ERASE_DEADLINE_S)

    def go(self, address: int) -> None:
        """Start what was written."""
        self._command(_GO)
        self._address(address)


_AGAIN = "Check cable and supply, reset the board into its boot loader, and repeat: what is written already is kept."
_PROTECTED = "If it refuses again, its memory is protected: remove the protection with ST's own tool, which erases it."


def _xor(data: bytes) -> int:
    out = 0
    for byte in data:
        out ^= byte
    return out


def write_stm32(boot: Bootloader, address: int, content: bytes, report: Callable[[int, int], None]) -> int:
    """Write and read back; goes on where an earlier, interrupted write stopped. Gives the bytes written in this run.

    Raises
    ------
    DeviceError
        The chip refuses, or does not hold what was written.
    """
    padded = content + b"\xff" * (-len(content) % 4)
    blocks = [(at, padded[at : at + BLOCK]) for at in range(0, len(padded), BLOCK)]
    kept = 0
    while kept < len(blocks) and boot.read(address + blocks[kept][0], len(blocks[kept][1])) == blocks[kept][1]:
        kept += 1
    # flash is written once after each erase: what follows must still be blank
    if not all(_blank(boot.read(address + at, len(data))) for at, data in blocks[kept:]):
        boot.erase()
        kept = 0
    written = 0
    for at, data in blocks[kept:]:
        boot.write(address + at, data)
        written += len(data)
        report(at + len(data), len(padded))
    for at, data in blocks:
        if boot.read(address + at, len(data)) != data:
            raise DeviceError(
                operation="reading the firmware back",
                target=f"0x{address + at:08x}",
                cause="the chip does not hold what was written",
                remedy="Repeat at a lower --baud; if it happens again, the chip is worn or the supply too weak.",
            )
    return written


def _blank(data: bytes) -> bool:
    return data == b"\xff" * len(data)
