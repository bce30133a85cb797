"""STM32 by the boot loader in its ROM (ST's AN3155), through stm32loader as a process of its own (it is under the GPL).
What it holds already is read first, so that an interrupted write goes on where it stopped."""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from aidpost.board.firmware.images import Firmware
from aidpost.board.firmware.tools import DEADLINE_S, failed, run_tool
from aidpost.errors import AidpostError, DeviceError, DeviceNotFoundError, DeviceTimeoutError, NotPossibleError

BLOCK = 256
"""Bytes of one write command: what was written is found again by blocks of this size."""


def write_stm32(
    firmware: Firmware,
    port: str,
    chip: str,
    report: Callable[[int, int], None],
    *,
    baud: int = 115_200,
    deadline_s: float = DEADLINE_S,
) -> tuple[int, str]:
    """Write, read back and start. Gives the bytes written in this run, and the chip's product id.

    Parameters
    ----------
    chip
        The product id that must be there, "0x410"; empty: any.

    Raises
    ------
    NotPossibleError
        stm32loader is not installed.
    DeviceNotFoundError, DeviceTimeoutError
        There is no such port, or nobody answers as a boot loader does.
    UsageError
        It is another chip; nothing was written.
    DeviceError
        The chip refuses, or does not hold what was written.
    """
    if importlib.util.find_spec("stm32loader") is None:
        remedy = 'pip install "aidpost[flash]"'
        cause = "stm32loader is not installed"
        raise NotPossibleError(operation="writing firmware", target=port, cause=cause, remedy=remedy)
    content = firmware.content + b"\xff" * (-len(firmware.content) % 4)
    base = [sys.executable, "-m", "stm32loader", "--port", port, "--baud", str(baud), "--no-progress"]
    with tempfile.TemporaryDirectory(prefix="aidpost-firmware-") as folder:
        file = Path(folder) / "memory.bin"

        def run(*words: str) -> str:
            done = run_tool([*base, *words], "writing firmware", port, deadline_s)
            said = done.stdout + done.stderr
            found = re.search(r"Chip id: (0x[0-9A-Fa-f]+)", said)
            if found and chip and int(chip, 16) != int(found[1], 16):
                raise firmware.refused(f"the chip's product id is {found[1].lower()}, not {chip}")
            if done.returncode or not found:
                raise _error(port, said)
            return found[1].lower()

        # asks for the product id first; reading changes nothing, whatever chip it is
        product = run("--read", "--address", hex(firmware.address), "--length", str(len(content)), str(file))
        held = file.read_bytes()
        differ = (at for at in range(0, len(content), BLOCK) if held[at : at + BLOCK] != content[at : at + BLOCK])
        start = next(differ, len(content))
        # flash is written once after each erase: what follows must still be blank
        erase = held[start:] != b"\xff" * (len(content) - start)
        if erase:
            start = 0
        rest = content[start:]
        report(start, len(content))
        if rest:
            file.write_bytes(rest)
            words = ["--write", "--verify", "--address", hex(firmware.address + start), str(file)]
            run(*(["--erase"] if erase else []), *words)
        run("--go-address", hex(firmware.address))
        report(len(content), len(content))
    return len(rest), product


_AGAIN = "Check cable and supply, reset the board into its boot loader, and repeat: what is written already is kept."
_WHY: tuple[tuple[str, type[AidpostError], str, str], ...] = (
    (
        "could not open port",
        DeviceNotFoundError,
        "there is no such port, or it is in use",
        "aidpost board firmware list",
    ),
    (
        "Can't init into bootloader",
        DeviceTimeoutError,
        "nothing on this port answers as an STM32's boot loader does",
        "Hold BOOT0 high, press reset, and repeat. Check that RX and TX are crossed.",
    ),
    (
        "Verification FAILED",
        DeviceError,
        "the chip does not hold what was written",
        "Repeat at a lower --baud; if it happens again, the chip is worn or the supply too weak.",
    ),
    ("Can't read port or timeout", DeviceTimeoutError, "it fell silent", _AGAIN),
    (
        r"no ack|NACK|Erase failed",
        DeviceError,
        "it refused",
        "If it refuses again, its memory is protected: remove the protection with ST's own tool, which erases it.",
    ),
)
"""What stm32loader says -> our error for it."""


def _error(port: str, said: str) -> AidpostError:
    for pattern, kind, cause, remedy in _WHY:
        if re.search(pattern, said):
            return kind(operation="writing firmware", target=port, cause=cause, remedy=remedy)
    return failed("writing firmware", port, said)
