"""Boot loaders of microcontrollers, simulated on a pseudo-terminal: the ROM of an ESP32 (esptool's protocol), of an
STM32 (AN3155) and an Arduino's (STK500v1). Each holds a memory that behaves as flash does: erased to FF, and only ever
cleared."""

from __future__ import annotations

import hashlib
import os
import select
import struct
import threading
import tty
from types import TracebackType

from aidpost.firmware_bridge.decoders.own import encode_hello


class Gone(Exception):
    """The cable was pulled, or the test is over."""


class SimulatedRom:
    """One end of a pseudo-terminal with a boot loader behind it; `port` is the other end's path."""

    SIZE = 256 * 1024
    START = 0

    def __init__(self, *, name: str = "", die_after_writes: int | None = None) -> None:
        self.flash = bytearray(b"\xff" * self.SIZE)
        self.writes = self.erases = 0
        self.name, self.die_after_writes = name, die_after_writes
        self.error: BaseException | None = None

    def __enter__(self):  # type: ignore[no-untyped-def]
        self._master, slave = os.openpty()
        tty.setraw(self._master)
        tty.setraw(slave)
        self._slave, self.port = slave, os.ttyname(slave)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._master)
        os.close(self._slave)
        if self.error:
            raise self.error

    def _main(self) -> None:
        try:
            while True:
                self.serve()
        except Gone:
            pass
        except BaseException as error:  # noqa: BLE001  shown by the test
            self.error = error

    def take(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            while not select.select([self._master], [], [], 0.05)[0]:
                if self._over.is_set():
                    raise Gone
            out += os.read(self._master, size - len(out))
        return out

    def give(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._master, data) :]

    def serve(self) -> None:
        raise NotImplementedError

    def program(self, at: int, data: bytes) -> None:
        """Flash: bits are only cleared, so that a write without an erase shows."""
        if self.writes == self.die_after_writes:
            self.die_after_writes = None
            raise Gone
        self.writes += 1
        at -= self.START
        for index, byte in enumerate(data):
            self.flash[at + index] &= byte

    def erase(self, at: int, size: int) -> None:
        self.erases += 1
        self.flash[at - self.START : at - self.START + size] = b"\xff" * size

    def start(self) -> None:
        """The application: it announces itself until the port is closed for good."""
        while self.name and not self._over.wait(0.05):
            self.give(encode_hello(self.name, 250, ("I",), (1.0,)))
        raise Gone


class Stm32Rom(SimulatedRom):
    """AN3155. `extended`: erase command 44 (newer chips) instead of 43."""

    START = 0x0800_0000

    def __init__(self, *, extended: bool = True, product: int = 0x410, protected: bool = False, **more):  # type: ignore[no-untyped-def]
        super().__init__(**more)
        self.extended, self.product, self.protected = extended, product, protected
        self.awake = False

    def serve(self) -> None:
        first = self.take(1)[0]
        if first == 0x7F:
            self.give(b"\x1f" if self.awake else b"\x79")
            self.awake = True
            return
        if self.take(1)[0] != first ^ 0xFF:
            self.give(b"\x1f")
            return
        erase = 0x44 if self.extended else 0x43
        commands = {
            0x00: self._get,
            0x02: self._id,
            0x11: self._read,
            0x21: self._go,
            0x31: self._write,
            erase: self._erase,
        }
        if first not in commands or (self.protected and first in {0x11, 0x21, 0x31, erase}):
            self.give(b"\x1f")
            return
        self.give(b"\x79")
        commands[first]()

    def _get(self) -> None:
        codes = bytes([0x31, 0x00, 0x02, 0x11, 0x21, 0x31, 0x44 if self.extended else 0x43])
        self.give(bytes([len(codes) - 1]) + codes + b"\x79")

    def _id(self) -> None:
        self.give(b"\x01" + self.product.to_bytes(2, "big") + b"\x79")

    def _address(self) -> int:
        raw = self.take(5)
        assert raw[0] ^ raw[1] ^ raw[2] ^ raw[3] == raw[4]
        self.give(b"\x79")
        return int.from_bytes(raw[:4], "big")

    def _read(self) -> None:
        at = self._address() - self.START
        size, check = self.take(2)
        assert size ^ 0xFF == check
        self.give(b"\x79" + self.flash[at : at + size + 1])

    def _write(self) -> None:
        at, size = self._address(), self.take(1)[0] + 1
        data, check = self.take(size), self.take(1)[0]
        for byte in data:
            check ^= byte
        assert check == size - 1
        assert size % 4 == 0
        self.program(at, data)
        self.give(b"\x79")

    def _erase(self) -> None:
        if self.extended:
            assert self.take(3) == b"\xff\xff\x00"
        else:
            assert self.take(2) == b"\xff\x00"
        self.erase(self.START, self.SIZE)
        self.give(b"\x79")

    def _go(self) -> None:
        self._address()
        self.start()


class Esp32Rom(SimulatedRom):
    """The ROM's serial protocol of an ESP32 as esptool speaks it with --no-stub (docs: serial-protocol)."""

    SIZE = 2 * 1024 * 1024

    def __init__(self, *, magic: int = 0x00F01D83, **more):  # type: ignore[no-untyped-def]
        super().__init__(**more)
        self.magic, self.at, self.block = magic, 0, 0
        self.frames_dropped = 0

    def serve(self) -> None:
        while self.take(1) != b"\xc0":
            pass
        raw = b""
        while (byte := self.take(1)) != b"\xc0":
            raw += byte
        if not raw:
            return
        frame = raw.replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
        kind, command, size, check = struct.unpack_from("<BBHI", frame)
        data = frame[8 : 8 + size]
        assert kind == 0
        self._answer(command, data, check)

    def _reply(self, command: int, value: int = 0, data: bytes = b"", error: int = 0) -> None:
        body = struct.pack("<BBHI", 1, command, len(data) + 4, value) + data
        body += bytes([1, error, 0, 0]) if error else bytes(4)
        self.give(b"\xc0" + body.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0")

    def _answer(self, command: int, data: bytes, check: int) -> None:
        if command == 0x08:
            for _ in range(8):
                self._reply(command, 0x20120707)
        elif command == 0x0A:
            (address,) = struct.unpack_from("<I", data)
            values = {0x40001000: self.magic, 0x3FF42080: 0x164020, 0x3FF42000: 0}
            self._reply(command, values.get(address, 0))
        elif command in {0x02, 0x10}:
            _erase, _count, self.block, self.at = struct.unpack_from("<4I", data)
            self.erase(self.at & ~0xFFF, (_erase + 0xFFF) & ~0xFFF)
            self._reply(command)
        elif command == 0x03:
            size, number = struct.unpack_from("<II", data)
            body, state = data[16 : 16 + size], 0xEF
            for byte in body:
                state ^= byte
            if state != check & 0xFF:
                self._reply(command, error=0x07)
                return
            self.program(self.at + number * self.block, body)
            self._reply(command)
        elif command == 0x13:
            at, size = struct.unpack_from("<II", data)
            self._reply(command, data=hashlib.md5(self.flash[at : at + size]).hexdigest().encode())
        elif command == 0x14:
            self._reply(command, error=0x05)
        else:
            self._reply(command)


class ArduinoRom(SimulatedRom):
    """STK500 version 1 (Atmel AVR061) as optiboot answers it; an ATmega328P unless told otherwise."""

    SIZE = 32 * 1024
    SIGNATURE = bytes((0x1E, 0x95, 0x0F))

    def __init__(self, *, signature: bytes = SIGNATURE, **more):  # type: ignore[no-untyped-def]
        super().__init__(**more)
        self.signature, self.at = signature, 0

    def serve(self) -> None:
        command = self.take(1)[0]
        if command == 0x30:  # sync
            self._end()
        elif command == 0x41:  # parameter
            self.take(1)
            self._end(b"\x03")
        elif command == 0x42:
            self.take(20)
            self._end()
        elif command == 0x45:
            self.take(5)
            self._end()
        elif command == 0x55:
            self.at = int.from_bytes(self.take(2), "little") * 2
            self._end()
        elif command == 0x56:
            self.take(4)
            self._end(b"\x00")
        elif command == 0x64:
            size = int.from_bytes(self.take(2), "big")
            self.take(1)
            data = self.take(size)
            self.erase(self.at, size)
            self.program(self.at, data)
            self._end()
        elif command == 0x74:
            size = int.from_bytes(self.take(2), "big")
            self.take(1)
            self._end(bytes(self.flash[self.at : self.at + size]))
        elif command == 0x75:
            self._end(self.signature)
        elif command in {0x50, 0x51}:
            self._end()

    def _end(self, data: bytes = b"") -> None:
        assert self.take(1) == b"\x20"
        self.give(b"\x14" + data + b"\x10")
