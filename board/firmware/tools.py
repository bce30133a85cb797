"""ESP32 through esptool, AVR through avrdude: each as a process of its own (both are GPL), with a deadline."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from aidpost.board.firmware.images import Firmware
from aidpost.errors import DeviceError, DeviceTimeoutError, NotPossibleError, UsageError

PART = 256 * 1024
"""What is written already is found again by parts of this size, a multiple of every chip's sectors."""

DEADLINE_S = 600.0
ATTEMPTS = 3

AVR_FLASH = {"atmega328p": 32 * 1024, "atmega2560": 256 * 1024, "atmega32u4": 32 * 1024, "atmega168": 16 * 1024}
"""Bytes of flash, and the parts that are known."""

_AVR_BOOT = {"atmega328p": 512, "atmega2560": 8192, "atmega32u4": 4096, "atmega168": 2048}
"""Bytes of the usual boot loader at its end (optiboot, stk500v2, caterina), which no image may reach into."""

_PROGRAMMERS = {"atmega328p": "arduino", "atmega168": "arduino", "atmega2560": "wiring", "atmega32u4": "avr109"}


def run_tool(command: Sequence[str], what: str, port: str, deadline_s: float) -> subprocess.CompletedProcess[str]:
    """Run a programmer to its end, or until the deadline."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=deadline_s, check=False)
    except subprocess.TimeoutExpired:
        raise DeviceTimeoutError(
            operation=what, target=port, cause=f"no end after {deadline_s:.0f} s", remedy=_AGAIN
        ) from None


_AGAIN = "Check cable and supply, hold the board's boot button while it is reset, and repeat."


def failed(what: str, port: str, output: str) -> DeviceError:
    """An error with the telling lines of what a programmer said."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"error|fail|wrong|mismatch|not ", line, re.IGNORECASE)]
    return DeviceError(operation=what, target=port, cause="; ".join((telling or lines)[-2:])[-300:], remedy=_AGAIN)


def write_esp(
    firmware: Firmware,
    port: str,
    report: Callable[[int, int], None],
    *,
    baud: int = 460_800,
    options: Sequence[str] = (),
    deadline_s: float = DEADLINE_S,
) -> int:
    """Write and verify (MD5 by the chip) with esptool; parts that the chip holds already are left. Gives the bytes
    written in this run.

    Raises
    ------
    NotPossibleError
        esptool is not installed.
    DeviceError
        It is another chip, it does not answer, or does not hold what was written.
    """
    if importlib.util.find_spec("esptool") is None:
        raise NotPossibleError(
            operation="writing firmware",
            target=port,
            cause="esptool is not installed",
            remedy='pip install "aidpost[flash]"',
        )
    base = [sys.executable, "-m", "esptool", "--chip", firmware.target, "--port", port, "--baud", str(baud), *options]
    with tempfile.TemporaryDirectory(prefix="aidpost-firmware-") as folder:
        parts = []
        for at in range(0, len(firmware.content), PART):
            part = Path(folder) / f"{at:08x}.bin"
            part.write_bytes(firmware.content[at : at + PART])
            parts.append((hex(firmware.address + at), str(part)))
        missing = _esp_missing(base, parts, port, deadline_s)
        wanted = sum(Path(part).stat().st_size for _, part in missing)
        for attempt in range(ATTEMPTS):
            if not missing:
                report(len(firmware.content), len(firmware.content))
                return wanted
            pairs = [word for pair in missing for word in pair]
            done = run_tool([*base, "write-flash", *pairs], "writing firmware", port, deadline_s)
            if done.returncode and attempt == ATTEMPTS - 1:
                raise failed("writing firmware", port, done.stdout + done.stderr)
            missing = _esp_missing(base, parts, port, deadline_s)
    if not missing:
        return wanted
    raise DeviceError(
        operation="reading the firmware back",
        target=port,
        cause="the chip does not hold what was written",
        remedy="Repeat at a lower --baud; if it happens again, the chip is worn or the supply too weak.",
    )


def _esp_missing(
    base: Sequence[str], parts: Sequence[tuple[str, str]], port: str, deadline_s: float
) -> list[tuple[str, str]]:
    """The parts that the chip does not hold, by asking for each one's MD5."""
    missing = []
    for part in parts:
        done = run_tool([*base, "verify-flash", *part], "comparing firmware", port, deadline_s)
        if done.returncode == 0:
            continue
        text = done.stdout + done.stderr
        if "erification failed" not in text and "mismatch" not in text.lower() and "differ" not in text.lower():
            raise failed("comparing firmware", port, text)
        missing.append(part)
    return missing


def check_avr(firmware: Firmware, chip: str) -> None:
    """Return if the image fits the part, below its boot loader.

    Raises
    ------
    UsageError
        The part is not known, or the image does not fit.
    """
    if chip not in AVR_FLASH:
        cause = f"an AVR image does not say for which part it is, and {chip or 'none'} was named"
        raise UsageError(
            operation="checking the firmware",
            target=firmware.path,
            cause=cause,
            remedy=f"--chip {' or '.join(AVR_FLASH)}",
        )
    room = AVR_FLASH[chip] - _AVR_BOOT[chip]
    if firmware.address + len(firmware.content) > room:
        end = firmware.address + len(firmware.content)
        raise UsageError(
            operation="checking the firmware",
            target=firmware.path,
            cause=f"it ends at byte {end}, and {chip} has {room} below its boot loader",
            remedy="Build it for this part.",
        )


def write_avr(firmware: Firmware, port: str, chip: str, *, baud: int = 115_200, deadline_s: float = DEADLINE_S) -> int:
    """Write with avrdude, which compares the part's signature first and reads all back after.

    Raises
    ------
    NotPossibleError
        avrdude is not installed.
    DeviceError
        It is another part, it does not answer, or does not hold what was written.
    """
    tool = shutil.which("avrdude")
    if tool is None:
        raise NotPossibleError(
            operation="writing firmware",
            target=port,
            cause="avrdude is not installed",
            remedy="sudo apt-get install avrdude",
        )
    check_avr(firmware, chip)
    base = [tool, "-p", chip, "-c", _PROGRAMMERS[chip], "-P", port, "-b", str(baud), "-q", "-q", "-D"]
    same = run_tool([*base, "-U", f"flash:v:{firmware.path}:i"], "comparing firmware", port, deadline_s)
    if same.returncode == 0:
        return 0
    # without -V avrdude reads back and compares by itself
    done = run_tool([*base, "-U", f"flash:w:{firmware.path}:i"], "writing firmware", port, deadline_s)
    if done.returncode:
        raise failed("writing firmware", port, done.stdout + done.stderr)
    return len(firmware.content)
