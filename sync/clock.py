"""The device's clock, which nobody trusts: wall time, time since boot, which boot, and whether anyone has set it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol


class Clock(Protocol):
    """What the store needs to make a Timestamp."""

    def wall_ms(self) -> int:
        """Milliseconds of Unix time, as believed."""

    def monotonic_ms(self) -> int:
        """Milliseconds since boot, sleep included."""

    def boot_id(self) -> str:
        """Differs from boot to boot."""

    def synced(self) -> bool:
        """Whether a trusted source has set the wall clock since boot."""


class SystemClock:
    """The clock of a Linux board. `root` is `/`, or a folder that stands for it."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._boot_id = root / "proc/sys/kernel/random/boot_id"
        # systemd-timesyncd makes this file at its first synchronisation after boot; chrony's unit can be told to
        self._synced = root / "run/systemd/timesync/synchronized"

    def wall_ms(self) -> int:
        """Milliseconds of Unix time, as believed."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Milliseconds since boot, sleep included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000

    def boot_id(self) -> str:
        """The kernel's random id of this boot."""
        return self._boot_id.read_text().strip()

    def synced(self) -> bool:
        """Whether systemd-timesyncd has reached a time server since boot."""
        return self._synced.exists()
