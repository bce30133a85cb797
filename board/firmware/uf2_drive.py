"""Boards that show a drive in their boot loader (RP2040, RP2350, SAMD, nRF52): the drive that a file is copied to."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from aidpost.board.firmware.images import Firmware
from aidpost.errors import DeviceError, DeviceNotFoundError, DeviceTimeoutError, UsageError

INFO = "INFO_UF2.TXT"

_CHIPS = (
    ("rp2350", r"RP2350"),
    ("rp2040", r"RPI-RP2|RP2040"),
    ("samd21", r"SAMD21"),
    ("samd51", r"SAM[DE]5[1-4]"),
    ("nrf52840", r"nRF52840"),
    ("esp32s2", r"ESP32-?S2"),
    ("esp32s3", r"ESP32-?S3"),
    ("stm32f4", r"STM32F4"),
)


class Drive(msgspec.Struct, frozen=True):
    """A boot loader's drive: where it is mounted, its chip (empty where it does not say), and its own description."""

    folder: str
    chip: str
    board: str


def drive(folder: Path) -> Drive:
    """The boot loader's drive at a folder.

    Raises
    ------
    DeviceNotFoundError
        It is none.
    """
    try:
        text = (folder / INFO).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DeviceNotFoundError(
            operation="looking for the board's drive",
            target=str(folder),
            cause=f"{INFO} is not there ({error.strerror})",
            remedy="Hold BOOTSEL (or press reset twice) while connecting, and mount the drive that appears.",
        ) from None
    board = re.search(r"^Board-ID:\s*(.+)$", text, re.MULTILINE | re.IGNORECASE)
    model = re.search(r"^Model:\s*(.+)$", text, re.MULTILINE | re.IGNORECASE)
    said = " ".join(found[1].strip() for found in (model, board) if found)
    chip = next((chip for chip, pattern in _CHIPS if re.search(pattern, said, re.IGNORECASE)), "")
    return Drive(str(folder), chip, said)


def drives(root: Path = Path("/")) -> list[Drive]:
    """The boot loaders' drives that are mounted."""
    found = []
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/mounts").read_text().splitlines():
            point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), line.split()[1])
            with contextlib.suppress(DeviceNotFoundError):
                found.append(drive(root / point.lstrip("/")))
    return found


def write_uf2(firmware: Firmware, at: Drive, report: Callable[[int, int], None], *, deadline_s: float = 30.0) -> int:
    """Copy the file, and wait until the drive is gone: the boot loader restarts only when it has every block.

    Raises
    ------
    UsageError
        The file is for another chip, or the drive does not say which it is.
    DeviceTimeoutError
        The drive stayed: the boot loader did not take the file.
    """
    generic = firmware.target == "rp2xxx" and at.chip in {"rp2040", "rp2350"}
    if at.chip != firmware.target and not generic:
        raise UsageError(
            operation="checking the firmware",
            target=firmware.path,
            cause=f"it is for {firmware.target}, and the drive is of {at.chip or 'a chip that it does not name'}"
            f" ({at.board or 'no Board-ID'})",
            remedy="Take the firmware that was built for this board.",
        )
    folder, done, gone = Path(at.folder), 0, False
    try:
        descriptor = os.open(folder / "FIRMWARE.UF2", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            while done < len(firmware.content):
                done += os.write(descriptor, firmware.content[done : done + 65_536])
                report(done, len(firmware.content))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # the drive goes away with the last block, so that an error on the last sync is how success looks
        gone = done == len(firmware.content)
        if not gone:
            raise DeviceError(
                operation="writing firmware",
                target=str(folder),
                cause=f"{error.strerror} after {done} of {len(firmware.content)} bytes",
                remedy="Put the board into its boot loader again, and repeat.",
            ) from None
    end = time.monotonic() + deadline_s
    while (folder / INFO).exists():
        if time.monotonic() > end:
            raise DeviceTimeoutError(
                operation="waiting for the board to restart",
                target=str(folder),
                cause="its drive is still there: the boot loader did not take the firmware",
                remedy="Put the board into its boot loader again, and repeat.",
            )
        time.sleep(0.05)
    return len(firmware.content)
