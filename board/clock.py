"""The device's clock, which is not trusted: every Timestamp says whether a time source had set it."""

from __future__ import annotations

import ctypes
import time

from aidpost.records import Timestamp

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


class _Timex(ctypes.Structure):
    # struct timex is 208 bytes on every 64-bit and 128 on every 32-bit Linux; only its size matters here
    _fields_ = (("modes", ctypes.c_uint), ("rest", ctypes.c_byte * 204))


def clock_is_synced() -> bool:
    """Whether the kernel's clock is disciplined by a time source (NTP, PTP, GPS), as adjtimex(2) tells."""
    libc = ctypes.CDLL(None, use_errno=True)
    state = libc.adjtimex(ctypes.byref(_Timex()))
    return 0 <= int(state) < _TIME_ERROR


class SystemClock:
    """Tells Timestamps by the system's clocks. `boot` is the store's ordered boot counter."""

    def __init__(self, boot: int, utc_offset_min: int | None = None) -> None:
        self._boot = boot
        self._utc_offset_min = utc_offset_min

    def now(self) -> Timestamp:
        """The present moment."""
        return Timestamp(
            wall_ms=time.time_ns() // 1_000_000,
            # CLOCK_BOOTTIME goes on while the board sleeps, CLOCK_MONOTONIC does not
            monotonic_ms=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000,
            boot=self._boot,
            synced=clock_is_synced(),
            utc_offset_min=self._utc_offset_min,
        )
