"""A patient's readings of one kind in the order in which they were measured, as far as their times can be trusted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np
import numpy.typing as npt

from aidpost.inference.vitals import reliable
from aidpost.records import Timestamp, VitalKind, VitalSign

_HOUR_MS = 3_600_000.0
_EARLY_MS = 15 * 60_000  # a device's clock may be so far ahead of ours without being wrong


@dataclass(frozen=True)
class Series:
    """`age_h` (n,) hours before the moment asked for, falling (oldest first); `value` (n,) in the kind's own unit.

    `left_out` readings had no time that can be trusted, or were not yet made by then.
    """

    age_h: npt.NDArray[np.float64]
    value: npt.NDArray[np.float64]
    left_out: int = 0


def series(kind: VitalKind, readings: Iterable[VitalSign], at: Timestamp) -> Series:
    """Readings of `kind` until `at`, oldest first; what its own device disowns, and control solution, is none of them.

    A reading with a device's own time was made then, not when it arrived. Between two boots only clocks that were set
    can be compared.
    """
    usable, _ = reliable(reading for reading in readings if reading.kind is kind)
    known: dict[tuple[float, float], None] = {}  # the same reading twice is one reading
    left_out = 0
    for reading in usable:
        age_ms = _age_ms(reading, at)
        if age_ms is None or age_ms < -_EARLY_MS or reading.value is None:
            left_out += 1
        else:
            known[(max(age_ms, 0.0) / _HOUR_MS, reading.value)] = None
    pairs = np.array(sorted(known, reverse=True), dtype=np.float64).reshape(-1, 2)
    return Series(pairs[:, 0], pairs[:, 1], left_out)


def _age_ms(reading: VitalSign, at: Timestamp) -> float | None:
    arrived = reading.at
    if arrived.boot == at.boot:
        age = float(at.monotonic_ms - arrived.monotonic_ms)
    elif arrived.synced and at.synced:
        age = float(at.wall_ms - arrived.wall_ms)
    else:
        return None
    if not reading.device_time:
        return age
    waited = _waited_ms(reading)
    return None if waited is None or waited < -_EARLY_MS else age + max(waited, 0.0)


def _waited_ms(reading: VitalSign) -> float | None:
    """How long a reading lay in its device before it arrived; None where either clock was never set."""
    if not reading.at.synced:
        return None
    zone = timezone(timedelta(minutes=reading.at.utc_offset_min or 0))
    try:
        measured = datetime.fromisoformat(reading.device_time).replace(tzinfo=zone)
    except ValueError:
        return None
    return reading.at.wall_ms - measured.timestamp() * 1000.0
