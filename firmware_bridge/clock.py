"""Clocks that are handed in: a source never asks the system for the time by itself."""

from __future__ import annotations

import time
from typing import Protocol

from aidpost.records import Timestamp


class Clock(Protocol):
    """What tells a source the time."""

    def now(self) -> Timestamp:
        """The present moment, with what is known about the clock's trustworthiness."""


class SystemClock:
    """The operating system's clocks.

    Parameters
    ----------
    boot
        The device's ordered boot counter.
    synced
        Whether a trusted source has set the clock since it started.
    """

    def __init__(self, boot: int, *, synced: bool = False) -> None:
        self.boot, self.synced = boot, synced

    def now(self) -> Timestamp:
        # CLOCK_BOOTTIME, where there is one, keeps counting while the device sleeps; CLOCK_MONOTONIC does not
        source = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return Timestamp(
            wall_ms=time.time_ns() // 1_000_000,
            monotonic_ms=time.clock_gettime_ns(source) // 1_000_000,
            boot=self.boot,
            synced=self.synced,
        )
