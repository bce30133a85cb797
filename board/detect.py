"""What this board is: model, processor, memory, storage, clock, runtimes. Everything is read below `root`, so that a
copied /proc and /sys tree of another board can be looked at too."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import msgspec


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; None or empty where the tree does not tell."""

    kind: str
    model: str
    revision: str | None
    serial: str | None
    architecture: str
    cores: int
    memory_mb: int | None
    temperature_c: float | None
    python: str
    os: str
    serial_ports: tuple[str, ...]
    cameras: tuple[str, ...]
    bluetooth: tuple[str, ...]
    real_time_clock: bool


_KINDS = (
    ("raspberry-pi-5", r"Raspberry Pi 5"),
    ("raspberry-pi-4", r"Raspberry Pi 4"),
    ("raspberry-pi-3", r"Raspberry Pi 3"),
    ("raspberry-pi-zero-2", r"Raspberry Pi Zero 2"),
    ("raspberry-pi-compute-module", r"Raspberry Pi Compute Module"),
    ("raspberry-pi", r"Raspberry Pi"),
    ("jetson-orin", r"Jetson.*Orin|Orin.*Jetson"),
    ("jetson-nano", r"Jetson Nano"),
    ("jetson", r"Jetson|Tegra"),
)


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().replace(b"\0", b"").decode("utf-8", "replace").strip() or None
    except OSError:
        return None


def _match(pattern: str, text: str | None) -> str | None:
    found = re.search(pattern, text or "", re.MULTILINE)
    return found.group(1).strip() if found else None


def _names(folder: Path, pattern: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(entry.name for entry in folder.iterdir() if re.fullmatch(pattern, entry.name)))
    except OSError:
        return ()


def _temperature_c(root: Path) -> float | None:
    # 0 °C for a missing sensor would be a lie: None
    reading = _text(root / "sys/class/thermal/thermal_zone0/temp")
    return int(reading) / 1000 if reading and reading.lstrip("-").isdigit() else None


def detect(root: Path = Path("/")) -> Board:
    """Look at the board whose /proc and /sys are below `root`; reads files only, opens no device."""
    cpuinfo = _text(root / "proc/cpuinfo")
    model = (
        _text(root / "proc/device-tree/model")
        or _match(r"^Model\s*:\s*(.+)$", cpuinfo)
        or _text(root / "sys/class/dmi/id/product_name")
        or _match(r"^model name\s*:\s*(.+)$", cpuinfo)
        or "unknown"
    )
    memory = _match(r"^MemTotal:\s*(\d+) kB", _text(root / "proc/meminfo"))
    system = _match(r'^PRETTY_NAME="?([^"\n]+)', _text(root / "etc/os-release"))
    return Board(
        kind=next((kind for kind, pattern in _KINDS if re.search(pattern, model)), "generic"),
        model=model,
        revision=_match(r"^Revision\s*:\s*(\S+)$", cpuinfo),
        serial=_text(root / "proc/device-tree/serial-number") or _match(r"^Serial\s*:\s*(\S+)$", cpuinfo),
        architecture=platform.machine(),
        cores=len(re.findall(r"^processor\s*:", cpuinfo or "", re.MULTILINE)) or os.cpu_count() or 1,
        memory_mb=int(memory) // 1024 if memory else None,
        temperature_c=_temperature_c(root),
        python=platform.python_version(),
        os=system or platform.system(),
        serial_ports=_names(root / "dev", r"tty(ACM|USB|AMA)\d+"),
        cameras=_names(root / "dev", r"video\d+"),
        bluetooth=_names(root / "sys/class/bluetooth", r"hci\d+"),
        real_time_clock=bool(_names(root / "sys/class/rtc", r"rtc\d+")),
    )
