"""A person's vital signs as lines over time."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from aidpost.records import VitalKind
from aidpost.sync.hub import patients, schema
from aidpost.sync.hub.users import Session

_LEFT, _RIGHT, _TOP, _BOTTOM = 30.0, 234.0, 6.0, 66.0
_MOST = 500


class Point(NamedTuple):
    """One measurement, and its place in the drawing."""

    ms: int
    value: float
    x: float
    y: float
    simulated: bool


class Trend(NamedTuple):
    """All measurements of one kind."""

    kind: str
    unit: str
    low: float
    high: float
    points: tuple[Point, ...]


def measured(connection: Connection, session: Session, numbers: Sequence[uuid.UUID]) -> list[Any]:
    """The person's newest vital signs with a value, as rows of `vitals`, oldest first."""
    vitals, exams = schema.vitals, schema.exams
    query = select(vitals).join(exams, exams.c.id == vitals.c.exam).where(vitals.c.value.is_not(None))
    query = query.where(patients.exams_of(connection, numbers), session.sees(exams.c.clinic))
    return list(connection.execute(query.order_by(vitals.c.at_ms.desc()).limit(_MOST)).all())[::-1]


def lines(rows: Sequence[Any]) -> list[Trend]:
    """Lines for rows of `vitals`, oldest first, in the order in which the kinds are declared."""
    found = []
    for kind in VitalKind:
        mine = [row for row in rows if row.kind == kind.value]
        if mine and kind is not VitalKind.BATTERY:
            found.append(_trend(kind, mine))
    return found


def _trend(kind: VitalKind, rows: Sequence[Any]) -> Trend:
    values, times = [row.value for row in rows], [row.at_ms for row in rows]
    low, high = min(values), max(values)
    height, width = high - low, max(times) - min(times)
    points = [
        Point(
            row.at_ms,
            row.value,
            round(_LEFT + 6 + (_RIGHT - _LEFT - 12) * ((row.at_ms - min(times)) / width if width else 0.5), 1),
            round(_BOTTOM - 4 - (_BOTTOM - _TOP - 8) * ((row.value - low) / height if height else 0.5), 1),
            row.origin == "simulated",
        )
        for row in rows
    ]
    return Trend(kind.value, rows[0].unit, low, high, tuple(points))
