"""Whether the board runs on the mains, as the kernel says."""

from __future__ import annotations

from pathlib import Path

__all__ = ["on_mains"]


def on_mains(root: Path = Path("/")) -> bool:
    """Whether energy comes from outside: a supply that is online, or a battery that is not discharging. A board without
    either has no battery to save.

    Source: Documentation/ABI/testing/sysfs-class-power of the kernel.
    """
    batteries = []
    for supply in sorted((root / "sys/class/power_supply").glob("*")):
        try:
            kind = (supply / "type").read_text().strip()
            if kind == "Battery":
                batteries.append((supply / "status").read_text().strip())
            elif (supply / "online").read_text().strip() == "1":
                return True
        except OSError:
            continue
    return all(status in ("Charging", "Full", "Not charging") for status in batteries)
