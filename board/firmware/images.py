"""What a firmware file is, by its content, for which chip, and whether it is whole."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec

from aidpost.board.flash.signature import TrustedKey, check_signature
from aidpost.errors import AidpostError, UnreadableInputError, UnsupportedFormatError, UsageError

MAX_BYTES = 64 << 20

ESP_CHIPS = {0: "esp32", 2: "esp32s2", 5: "esp32c3", 9: "esp32s3", 12: "esp32c2", 13: "esp32c6", 16: "esp32h2"}
"""The chip number at byte 12 of an image (esp_image_header_t)."""

UF2_FAMILIES = {
    0xE48BFF56: "rp2040",
    0xE48BFF57: "rp2xxx",
    0xE48BFF58: "rp2xxx",
    0xE48BFF59: "rp2350",
    0xE48BFF5A: "rp2350",
    0xE48BFF5B: "rp2350",
    0x68ED2B88: "samd21",
    0x55114460: "samd51",
    0xADA52840: "nrf52840",
    0xBFDD4EEE: "esp32s2",
    0xC47E5767: "esp32s3",
    0xD42BA06C: "esp32c3",
    0x57755A57: "stm32f4",
}
"""microsoft/uf2, utils/uf2families.json."""

_UF2 = struct.Struct("<8I476sI")
_UF2_MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
_NOT_FLASH, _FAMILY = 0x1, 0x2000
STM32_FLASH = 0x0800_0000


class Firmware(msgspec.Struct, frozen=True, kw_only=True):
    """A proven firmware file. `target` is a chip, or a family where the file tells no more; `content` is what the chip
    will hold from `address` on; `version` is what the file says of itself."""

    path: str
    kind: str
    target: str
    sha256: str
    address: int
    content: bytes
    version: str = ""

    def refused(self, cause: str) -> UsageError:
        """The error that it does not belong where it was to be written."""
        remedy = "Take the firmware that was built for this board. Nothing was written."
        return UsageError(operation="checking the firmware", target=self.path, cause=cause, remedy=remedy)


def read_firmware(
    path: Path, *, sha256: str = "", signature: tuple[Path, TrustedKey] | None = None, address: int | None = None
) -> Firmware:
    """Prove a firmware file: what vouches for it first, then its own structure and checksums.

    Raises
    ------
    UsageError
        Nothing vouches for it.
    UnreadableInputError
        Hash or signature do not match, or it is damaged or cut off.
    UnsupportedFormatError
        It is no firmware that is known here.
    """
    if not (sha256 or signature):
        raise UsageError(
            operation="checking the firmware",
            target=str(path),
            cause="nothing vouches for it: neither a SHA-256 nor a signature was given",
            remedy="Give --sha256 (as published), or --signature and --key.",
        )
    try:
        if path.stat().st_size > MAX_BYTES:
            raise _damaged(path, "it is larger than any microcontroller's memory")
        content = path.read_bytes()
    except OSError as error:
        raise _damaged(path, str(error.strerror)) from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 and found != sha256.strip().lower():
        raise _damaged(path, f"its SHA-256 is {found}, not {sha256}")
    if signature:
        check_signature(path, *signature)
    for sign, parse in _PARSERS:
        if sign(content):
            try:
                read = parse(content)
            except (ValueError, struct.error, IndexError) as error:
                raise _damaged(path, str(error)) from None
            read = msgspec.structs.replace(read, path=str(path.absolute()), sha256=found)
            return read if address is None else msgspec.structs.replace(read, address=address)
    raise UnsupportedFormatError(
        operation="reading the firmware",
        target=str(path),
        cause="it is neither an ESP32 image, nor UF2, Intel HEX, or a binary for STM32",
        remedy="An .elf file is not what goes into a chip: have the build make .bin, .uf2 or .hex.",
    )


def _parsed(kind: str, target: str, address: int, content: bytes, version: str = "") -> Firmware:
    return Firmware(path="", kind=kind, target=target, sha256="", address=address, content=content, version=version)


def _esp(content: bytes) -> Firmware:
    """esp_image_format.h: header, segments, padding and checksum, SHA-256 where byte 23 says so."""
    count, chip, hashed = content[1], int.from_bytes(content[12:14], "little"), content[23]
    if chip not in ESP_CHIPS:
        raise ValueError(f"its chip number {chip} is not known")
    at, check = 24, 0xEF
    for _ in range(count):
        (size,) = struct.unpack_from("<I", content, at + 4)
        data = content[at + 8 : at + 8 + size]
        if len(data) != size:
            raise ValueError("it is cut off")
        for byte in data:
            check ^= byte
        at += 8 + size
    end = at | 15
    if content[end] != check:
        raise ValueError("its checksum does not match")
    end += 1
    if hashed and hashlib.sha256(content[:end]).digest() != content[end : end + 32]:
        raise ValueError("the SHA-256 at its end does not match")
    version = ""
    if content[32:36] == b"\x32\x54\xcd\xab":  # esp_app_desc_t opens the first segment of an application
        version = content[48:80].split(b"\0")[0].decode("ascii", "replace")
    return _parsed("esp", ESP_CHIPS[chip], 0x10000 if version else 0, content, version)


def _uf2(content: bytes) -> Firmware:
    """Every block, their numbers and count, one family, no gap that is not meant: the drive itself checks nothing."""
    if len(content) % 512:
        raise ValueError("it is cut off: UF2 is made of blocks of 512 bytes")
    blocks = [_UF2.unpack_from(content, at) for at in range(0, len(content), 512)]
    families, memory = set(), {}
    for number, block in enumerate(blocks):
        first, second, flags, address, size, own, count, family, data, last = block
        if (first, second, last) != _UF2_MAGIC:
            raise ValueError(f"block {number} is damaged")
        if own != number or count != len(blocks):
            raise ValueError(f"block {number} says that it is {own} of {count}, and there are {len(blocks)}")
        if size > 476:
            raise ValueError(f"block {number} claims {size} bytes")
        if flags & _NOT_FLASH:
            continue
        if not flags & _FAMILY or family not in UF2_FAMILIES:
            raise ValueError(f"block {number} does not say for which chip it is")
        families.add(UF2_FAMILIES[family])
        memory[address] = data[:size]
    if len(families) != 1:
        raise ValueError(f"it is for {', '.join(sorted(families)) or 'nothing'}: one chip is meant")
    first_address = min(memory)
    return _parsed("uf2", families.pop(), first_address, content)


def _hex(content: bytes) -> Firmware:
    """Intel HEX: records 00, 01, 02 and 04; every one with its checksum, and an end record."""
    memory: dict[int, int] = {}
    base, ended = 0, False
    for number, line in enumerate(content.decode("ascii").split(), 1):
        record = bytes.fromhex(line[1:])
        if line[0] != ":" or len(record) != record[0] + 5 or sum(record) & 0xFF:
            raise ValueError(f"line {number} is damaged")
        kind, data = record[3], record[4:-1]
        if kind == 0:
            start = base + int.from_bytes(record[1:3], "big")
            memory.update(enumerate(data, start))
        elif kind == 1:
            ended = True
        elif kind in {2, 4}:
            base = int.from_bytes(data, "big") << (4 if kind == 2 else 16)
    if not ended or not memory:
        raise ValueError("it has no end record: it is cut off")
    start, end = min(memory), max(memory) + 1
    if end - start > MAX_BYTES:
        raise ValueError("its addresses lie too far apart")
    flat = bytes(memory.get(at, 0xFF) for at in range(start, end))
    chip = "stm32" if start >= STM32_FLASH else "avr"
    return _parsed(chip, chip, start, flat)


def _is_stm32(content: bytes) -> bool:
    """A vector table: the stack in RAM, the reset handler (Thumb: odd) within this file's flash."""
    if len(content) < 8:
        return False
    stack, reset = struct.unpack_from("<II", content)
    in_ram = 0x2000_0000 < stack <= 0x2020_0000 or 0x1000_0000 < stack <= 0x1001_0000
    return in_ram and bool(reset & 1) and STM32_FLASH < reset < STM32_FLASH + MAX_BYTES


def _stm32(content: bytes) -> Firmware:
    reset = int.from_bytes(content[4:8], "little")
    start = STM32_FLASH
    if reset >= start + len(content):
        raise ValueError("its reset handler lies beyond its end: it is cut off, or is for another address (--address)")
    return _parsed("stm32", "stm32", start, content)


_PARSERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Firmware]], ...] = (
    (lambda content: content[:8] == struct.pack("<II", *_UF2_MAGIC[:2]), _uf2),
    (lambda content: content[:1] == b":", _hex),
    (lambda content: content[:1] == b"\xe9" and len(content) > 32, _esp),
    (_is_stm32, _stm32),
)


def _damaged(path: Path, cause: str) -> AidpostError:
    remedy = "Get the file again from who made it. Nothing was written to the board."
    return UnreadableInputError(operation="reading the firmware", target=str(path), cause=cause, remedy=remedy)
