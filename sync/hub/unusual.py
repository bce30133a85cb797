"""Access that is unlike a user's own: many patients in an hour, hours they never worked in, whole exports.

Counted over the audit log. It flags and proves nothing: a screening day looks like this, and so does curiosity.
"""

from __future__ import annotations

import statistics
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from aidpost.sync.hub import schema

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LOOKED_BACK_MS, SHOWN_MS = 60 * DAY_MS, 7 * DAY_MS
MANY, TIMES = 30, 4
"""So many patients' pages in an hour are many, if they are so many times the user's own usual."""
SEARCHES = 30
KNOWN_DAYS = 10
"""A user's hours are known once they worked on so many days."""
_OPENING = ("exam-opened", "patient-opened", "fhir-read")
_TAKING = ("exported", "patient-exported", "research-export")
_SEARCHING = "patients-searched"


class Unusual(NamedTuple):
    """One hour of one user. `what` is "many", "searches", "hour" or "export"; `usual` their own median, or None."""

    who: str
    hour_ms: int
    what: str
    number: int
    usual: float | None


def find(connection: Connection, now_ms: int) -> list[Unusual]:
    """What was unusual in the last seven days, newest first; what is usual is learned from the sixty before now."""
    table = schema.audit
    hour = table.c.at_ms // HOUR_MS
    query = (
        select(table.c.actor, hour.label("hour"), table.c.action, func.count().label("number"))
        .where(table.c.at_ms > now_ms - LOOKED_BACK_MS, table.c.action.in_((*_OPENING, *_TAKING, _SEARCHING)))
        .group_by(table.c.actor, hour, table.c.action)
    )
    users: dict[str, dict[int, dict[str, int]]] = {}
    for row in connection.execute(query):
        users.setdefault(row.actor, {}).setdefault(int(row.hour), {})[row.action] = row.number
    first = (now_ms - SHOWN_MS) // HOUR_MS
    found = [one for who, hours in users.items() for one in _of_user(who, hours, first)]
    return sorted(found, key=lambda one: -one.hour_ms)


def _of_user(who: str, hours: dict[int, dict[str, int]], first: int) -> list[Unusual]:
    opened = {hour: sum(actions.get(name, 0) for name in _OPENING) for hour, actions in hours.items()}
    found = []
    for hour, actions in hours.items():
        if hour < first:
            continue
        before = [number for at, number in opened.items() if at < hour and number]
        usual = statistics.median(before) if before else None
        flags = {
            "many": opened[hour] if opened[hour] >= max(MANY, TIMES * (usual or 0)) else 0,
            "searches": actions.get(_SEARCHING, 0) if actions.get(_SEARCHING, 0) >= SEARCHES else 0,
            "export": sum(actions.get(name, 0) for name in _TAKING),
            "hour": opened[hour] if _strange(hour, [at for at in hours if at < hour]) else 0,
        }
        found += [Unusual(who, hour * HOUR_MS, what, number, usual) for what, number in flags.items() if number]
    return found


def _strange(hour: int, before: list[int]) -> bool:
    """Whether the user, whose hours are known, never worked within two hours of this one of the day."""
    if len({at // 24 for at in before}) < KNOWN_DAYS:
        return False
    return all(2 < (hour - at) % 24 < 22 for at in before)
