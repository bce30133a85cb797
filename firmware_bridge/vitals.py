"""From the numbers that a serial board works out itself to `VitalSign`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

from aidpost.firmware_bridge.boards import Board
from aidpost.records import (
    VITAL_UNITS,
    AbsentReason,
    Device,
    Origin,
    Timestamp,
    VitalKind,
    VitalSign,
)

_KINDS = {
    "spo2_percent": VitalKind.SPO2,
    "heart_rate_per_min": VitalKind.HEART_RATE,
    "respiratory_rate_per_min": VitalKind.RESPIRATORY_RATE,
    "temperature_cel": VitalKind.TEMPERATURE,
}


def vital_signs(
    readings: Mapping[str, float | None], *, board: Board, at: Timestamp, origin: Origin, source: str
) -> list[VitalSign]:
    """One vital sign a reading that is one; what the board says it has no value for is absent, never 0."""
    device = Device(name=board.title, model=board.name)
    return [
        VitalSign(
            id=uuid.uuid4(),
            kind=_KINDS[name],
            value=value,
            unit=VITAL_UNITS[_KINDS[name]],
            at=at,
            origin=origin,
            device=device,
            method="computed by the board",
            absent=AbsentReason.NOT_A_NUMBER if value is None else None,
            source=source,
        )
        for name, value in readings.items()
        if name in _KINDS
    ]
