"""The figures behind "does it still work?", each from the counts of live exams that `tally` keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from aidpost.sync.hub import _facts, schema
from aidpost.sync.hub._calls import TASKS
from aidpost.sync.hub._facts import DAY_MS, TIME_BINS, TIMES, WEEK_MS, Decoded
from aidpost.sync.hub.quality import Performance, Share, Stratum, performance, psi, share
from aidpost.sync.hub.users import Role, Session

RECENT_DAYS, BEFORE_DAYS = 28, 84
"""Drift compares the last four weeks with the twelve before them."""
WEEKS = 52
"""Of which the times are that are shown."""
_YEAR_DAYS = 365

GROUPS = ("model", "clinic", "camera", "age", "sex")


class Row(NamedTuple):
    """One group of exams: the kind of group, its name, and what can be said of the model there."""

    group: str
    name: str
    performance: Performance


class Rate(NamedTuple):
    """How much of something could not be read, or was done."""

    group: str
    name: str
    task: str
    total: int
    unusable: int
    abstained: int


class Drift(NamedTuple):
    """Population stability of one quantity; None: too few exams in either time."""

    task: str
    quantity: str
    recent: int
    before: int
    psi: float | None


class Times(NamedTuple):
    """How long something took, in hours: how many, the median, and what nine of ten stayed under."""

    name: str
    number: int
    median_h: float | None
    ninety_h: float | None


class Count(NamedTuple):
    """So many exams went in one way."""

    of: Decoded
    number: int


def rows_of(connection: Connection, session: Session, task: str, groups: Sequence[str] = ("all", *GROUPS)) -> list[Row]:
    """Performance of a task over all exams and in each group."""
    found = _groups(connection, session, task, groups)
    if "all" in groups:
        found.setdefault(("all", "All"), [])
    in_order = sorted(found.items(), key=lambda item: (groups.index(item[0][0]), item[0][1]))
    return [Row(group, name, _performance(counts)) for (group, name), counts in in_order]


def _groups(
    connection: Connection, session: Session, task: str, groups: Sequence[str]
) -> dict[tuple[str, str], list[Count]]:
    found: dict[tuple[str, str], list[Count]] = {}
    for what, name, bucket, number in _counts(connection, session, [f"{task} {group}" for group in groups]):
        key = (what.split(" ", 1)[1], name)
        found.setdefault(key, []).append(Count(_facts.decoded(bucket), number))
    return found


def _counts(
    connection: Connection, session: Session, whats: Sequence[str], first: int | None = None, last: int | None = None
) -> list[tuple[str, str, int, int]]:
    """What the user sees of these, as (what, name, bucket, number), of the buckets from `first` to before `last`."""
    table = schema.quality_counts
    scopes = [_facts.scope_of(clinic) for clinic in session.clinics] or [""]
    columns = (table.c.what, table.c.name, table.c.bucket)
    query = select(*columns, func.sum(table.c.number)).where(table.c.clinic.in_(scopes), table.c.what.in_(whats))
    if first is not None:
        query = query.where(table.c.bucket >= first)
    if last is not None:
        query = query.where(table.c.bucket < last)
    rows = connection.execute(query.where(table.c.number != 0).group_by(*columns).order_by(*columns))
    return [(row[0], row[1], row[2], int(row[3])) for row in rows]


def _performance(counts: Iterable[Count]) -> Performance:
    """Of the exams called negative, those count that chance chose, unless all were read: who is read for another
    reason is not like the rest."""
    counts = list(counts)

    def stratum(call: bool | None, *, by_chance: bool = False) -> Stratum:
        chosen = [one for one in counts if one.of.call is call and (one.of.sampled or not by_chance)]
        return Stratum(
            sum(one.number for one in chosen),
            sum(one.number for one in chosen if one.of.read),
            sum(one.number for one in chosen if one.of.positive),
        )

    negative = stratum(False)
    if negative.read < negative.total:
        chance = stratum(False, by_chance=True)
        negative = Stratum(negative.total, chance.read, chance.positive)
    return performance(stratum(True), negative, stratum(None))


def rates(connection: Connection, session: Session) -> list[Rate]:
    """How often recordings could not be interpreted, by camera and by worker."""
    groups, found = ("camera", "worker", "clinic"), []
    for task in TASKS:
        for (group, name), counts in _groups(connection, session, task, groups).items():
            unusable = sum(one.number for one in counts if not one.of.usable)
            abstained = sum(one.number for one in counts if one.of.usable and one.of.call is None)
            found.append(Rate(group, name or "–", task, sum(one.number for one in counts), unusable, abstained))
    return sorted(found, key=lambda rate: (groups.index(rate.group), rate.name, rate.task))


def drifts(connection: Connection, session: Session, now_ms: int) -> list[Drift]:
    """Whether what comes in lately looks like what came before: the recordings' quality, and the models' scores."""
    tomorrow = now_ms // DAY_MS + 1
    recent, before = tomorrow - RECENT_DAYS, tomorrow - RECENT_DAYS - BEFORE_DAYS
    bins = {(task, quantity): ([0] * 10, [0] * 10) for task in TASKS for quantity in ("quality", "score")}
    whats = [f"{task} drift" for task in TASKS]
    for what, quantity, bucket, number in _counts(connection, session, whats, before * 10, tomorrow * 10):
        bins[what.split(" ")[0], quantity][bucket // 10 < recent][bucket % 10] += number
    return [Drift(*key, sum(new), sum(old), psi(new, old)) for key, (new, old) in bins.items()]


def turnaround(connection: Connection, session: Session, now_ms: int) -> list[Times]:
    """From arrival to signature by part, from opening to signature, from referral to attendance; of the last year."""
    first = (now_ms // WEEK_MS + 1 - WEEKS) * TIME_BINS
    lengths: dict[str, dict[float, int]] = {name: {} for name in TIMES}
    for _, name, bucket, number in _counts(connection, session, ["time"], first):
        hours = _facts.hours_of(bucket)
        lengths[name][hours] = lengths[name].get(hours, 0) + number
    return [_times(name, found) for name, found in lengths.items()]


def _times(name: str, hours: dict[float, int]) -> Times:
    total = sum(hours.values())
    if not total:
        return Times(name, 0, None, None)

    def at(rank: int) -> float:
        for length in sorted(hours):
            rank -= hours[length]
            if rank < 0:
                return length
        return max(hours)

    return Times(name, total, at(total // 2), at(min(total - 1, total * 9 // 10)))


def outcomes(connection: Connection, session: Session, now_ms: int) -> list[Share]:
    """What became of people: exams read, referrals kept, blood pressure and glucose at the last visit of the year."""
    today, found = now_ms // DAY_MS, []
    read = _shares(_counts(connection, session, ["exams"]))
    found.append(share("Exams whose reading is complete", read.get("reviewed", 0), sum(read.values())))
    due = _shares(_counts(connection, session, ["referral"], last=today))
    found.append(share("Referrals due by now that were attended", due.get("attended", 0), sum(due.values())))
    last = _shares(_counts(connection, session, ["last"], today - _YEAR_DAYS))
    for kind, name in _CONTROLLED.items():
        under, over = (last.get(f"{kind} {side}", 0) for side in ("under", "over"))
        found.append(share(name, under, under + over))
    return found


_CONTROLLED = {
    "systolic_bp": "Patients whose last systolic BP is under 140 mmHg",
    "diastolic_bp": "Patients whose last diastolic BP is under 90 mmHg",
    "hba1c": "Patients whose last HbA1c is under 7 %",
    "glucose": "Patients whose last glucose is under 10 mmol/L",
}


def _shares(counts: Iterable[tuple[str, str, int, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for _, name, _, number in counts:
        found[name] = found.get(name, 0) + number
    return found


def states(connection: Connection) -> dict[tuple[str, int], int]:
    """How many exams there are of each state and triage, whatever their origin."""
    everybody = _shares(_counts(connection, _EVERYWHERE, ["state"]))
    return {(name.split(" ")[0], int(name.split(" ")[1])): number for name, number in everybody.items()}


def prepare(connection: Connection) -> None:
    """Works out the intervals of all groups, which are remembered: whoever opens the page next has them at once."""
    for task in TASKS:
        rows_of(connection, _EVERYWHERE, task)


def proven(connection: Connection, bound: float) -> set[tuple[str, str]]:
    """The clinics in which a task's model has shown that it works: (clinic, task)."""
    return {
        (row.name, task)
        for task in TASKS
        for row in rows_of(connection, _EVERYWHERE, task, ["clinic"])
        if _proven(row.performance, bound)
    }


_EVERYWHERE = Session("hub", "", Role.VIEWER, "", 0)
"""Who sees all clinics."""


def _proven(found: Performance, bound: float) -> bool:
    intervals = (found.sensitivity, found.specificity)
    return all(interval is not None and interval.low >= bound for interval in intervals)
