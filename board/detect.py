"""What this board is: model, processor, memory, storage, clock, ports. Everything is read below `root`, so that a
copied /proc and /sys tree of another board can be looked at too."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

import msgspec

from aidpost.board import _tree


class Board(msgspec.Struct, frozen=True, kw_only=True):
    """What was found; None or empty where the tree does not tell."""

    kind: str
    model: str
    soc: str | None
    revision: str | None
    serial: str | None
    architecture: str
    cores: int
    memory_mb: int | None
    temperature_c: float | None
    python: str
    os: str
    storage: tuple[str, ...]
    serial_ports: tuple[str, ...]
    cameras: tuple[str, ...]
    bluetooth: tuple[str, ...]
    real_time_clock: bool


_KINDS = (
    ("raspberry-pi-compute-module", r"Raspberry Pi Compute Module"),
    ("raspberry-pi-zero-2", r"Raspberry Pi Zero 2"),
    ("raspberry-pi-5", r"Raspberry Pi 5"),
    ("raspberry-pi-4", r"Raspberry Pi 4"),
    ("raspberry-pi-3", r"Raspberry Pi 3"),
    ("raspberry-pi", r"Raspberry Pi"),
    # some releases of NVIDIA's device tree leave the word "Jetson" out: "NVIDIA Orin Nano Developer Kit"
    ("jetson-orin", r"Jetson.*Orin|NVIDIA.*Orin|Orin.*Jetson"),
    ("jetson-nano", r"Jetson Nano"),
    ("jetson", r"Jetson|Tegra"),
)
_NO_CAMERA = r"codec|isp|hevc|rpivid|pispbe|jpeg|scaler|embedded|metadata"
"""Video nodes of a processor's own coders and scalers: a Pi 4 without a camera has a dozen of them."""

_NO_NAME = r"(?i)^(|to be filled by o\.?e\.?m\.?|system product name|default string|not applicable|none|unknown)$"
"""What makers of PC boards leave in the DMI table."""


def _model(root: Path, cpuinfo: str | None) -> str:
    product = _tree.text(root / "sys/class/dmi/id/product_name") or ""
    maker = _tree.text(root / "sys/class/dmi/id/sys_vendor") or ""
    shown = product if re.match(_NO_NAME, maker) or product.startswith(maker) else f"{maker} {product}"
    return (
        _tree.text(root / "proc/device-tree/model")
        or _tree.first(r"^Model\s*:\s*(.+)$", cpuinfo)
        or ("" if re.match(_NO_NAME, product) else shown)
        or _tree.first(r"^model name\s*:\s*(.+)$", cpuinfo)
        or "unknown"
    )


def _revision(root: Path, cpuinfo: str | None) -> str | None:
    """A Pi's revision code, in hexadecimal; kernels without the line in cpuinfo have it in the device tree."""
    try:
        stored = (root / "proc/device-tree/system/linux,revision").read_bytes()
    except OSError:
        stored = b""
    return _tree.first(r"^Revision\s*:\s*(\S+)$", cpuinfo) or (f"{int.from_bytes(stored, 'big'):x}" if stored else None)


def _architecture(cpuinfo: str | None) -> str:
    """The kernel's machine by its cpuinfo, for the tree may be another board's than the one that reads it."""
    arm = _tree.first(r"^CPU architecture\s*:\s*(\d+)", cpuinfo)
    if arm is not None:
        return {"8": "aarch64", "7": "armv7l", "6": "armv6l"}.get(arm, f"armv{arm}")
    if re.search(r"^flags\s*:.*\blm\b", cpuinfo or "", re.MULTILINE):
        return "x86_64"
    return platform.machine()


def temperature_c(root: Path) -> float | None:
    """The processor's temperature, °C; None where no sensor tells, for 0 °C would be a lie.

    Zone 0 is the processor's on a Pi and on Orin, but the always-on island's on a Jetson Nano, the chassis' on a PC.
    """
    zones = root / "sys/class/thermal"
    readings: dict[str, int] = {}
    for name in _tree.names(zones, r"thermal_zone\d+"):
        reading = _tree.number(zones / name / "temp")  # a zone that is switched off refuses to be read
        kind = _tree.text(zones / name / "type") or name
        # the Nano's PMIC sensor says 100 °C whatever it is
        if reading is not None and not re.search("PMIC", kind, re.IGNORECASE):
            readings.setdefault(kind, reading)
    processor = next((kind for kind in readings if re.search("cpu|x86_pkg", kind, re.IGNORECASE)), None)
    found = readings.get(processor) if processor else next(iter(readings.values()), None)
    return None if found is None else found / 1000


def cameras(root: Path) -> tuple[str, ...]:
    """The video nodes that a picture can come from, the first of each camera."""
    nodes = root / "sys/class/video4linux"

    def is_camera(node: str) -> bool:
        name = _tree.text(nodes / node / "name") or ""
        # the further nodes of one camera carry its metadata and statistics
        return not re.search(_NO_CAMERA, name) and (_tree.number(nodes / node / "index") or 0) == 0

    return tuple(node for node in _tree.names(root / "dev", r"video\d+") if is_camera(node))


def detect(root: Path = Path("/")) -> Board:
    """Look at the board whose /proc and /sys are below `root`; reads files only, opens no device."""
    cpuinfo = _tree.text(root / "proc/cpuinfo")
    compatible = _tree.strings(root / "proc/device-tree/compatible")
    model = _model(root, cpuinfo)
    memory = _tree.first(r"^MemTotal:\s*(\d+) kB", _tree.text(root / "proc/meminfo"))
    system = _tree.first(r'^PRETTY_NAME="?([^"\n]+)', _tree.text(root / "etc/os-release"))
    return Board(
        kind=next((kind for kind, pattern in _KINDS if re.search(pattern, model)), "generic"),
        model=model,
        # from the most particular to the most general: the last is the chip
        soc=compatible[-1] if compatible else None,
        revision=_revision(root, cpuinfo),
        serial=_tree.text(root / "proc/device-tree/serial-number") or _tree.first(r"^Serial\s*:\s*(\S+)$", cpuinfo),
        architecture=_architecture(cpuinfo),
        cores=len(re.findall(r"^processor\s*:", cpuinfo or "", re.MULTILINE)) or os.cpu_count() or 1,
        memory_mb=int(memory) // 1024 if memory else None,
        temperature_c=temperature_c(root),
        python=platform.python_version(),
        os=system or platform.system(),
        storage=_tree.names(root / "sys/block", r"mmcblk\d+|nvme\d+n\d+|[sv]d[a-z]+"),
        serial_ports=_tree.names(root / "dev", r"tty(ACM|USB|AMA|THS)\d+"),
        cameras=cameras(root),
        bluetooth=_tree.names(root / "sys/class/bluetooth", r"hci\d+"),
        real_time_clock=bool(_tree.names(root / "sys/class/rtc", r"rtc\d+")),
    )
