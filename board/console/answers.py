"""What came back from the hub: reviews, until somebody here has read them, and referrals that are not done."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone
from typing import NamedTuple

from aidpost.board.console.workspace import Workspace
from aidpost.records import Referral, ReferralStatus, Review

SHOWN = 40


class Back(NamedTuple):
    """A review, whose it is, and whether nobody has read it here."""

    patient: str
    review: Review
    fresh: bool


class Due(NamedTuple):
    """A referral that is not done, whose it is, and whether its day has passed by this device's clock."""

    patient: str
    referral: Referral
    overdue: bool


def unread(workspace: Workspace) -> set[uuid.UUID]:
    """Exams with a review that nobody has read here."""
    read = _read(workspace)
    return {one.exam for one in workspace.store.inbox.records(Review, None) if one.id not in read}


def read(workspace: Workspace, reviews: list[Review], worker: str) -> None:
    """Somebody has these before them; the first one who had is kept."""
    new = {one.id for one in reviews} - _read(workspace)
    rows = [(one.bytes, worker, workspace.store.now().wall_ms) for one in new]
    if rows:
        workspace.database.write(lambda db: db.executemany("INSERT OR IGNORE INTO read_review VALUES (?, ?, ?)", rows))


def came_back(workspace: Workspace) -> list[Back]:
    """The newest reviews; what nobody has read comes first."""
    known = _read(workspace)
    found = [
        Back(_name(workspace, one.exam), one, one.id not in known)
        for one in reversed(workspace.store.inbox.records(Review, None))
    ]
    return sorted(found, key=lambda one: not one.fresh)[:SHOWN]


def due(workspace: Workspace) -> list[Due]:
    """Referrals whose patients have not been seen, by the day that they are due."""
    today = _today(workspace)
    return [Due(_name(workspace, one.exam), one, one.due < today) for one in _left(workspace)]


def overdue(workspace: Workspace) -> int:
    """How many of them should have been seen before today."""
    today = _today(workspace)
    return sum(one.due < today for one in _left(workspace))


def _left(workspace: Workspace) -> list[Referral]:
    last = {one.exam: one for one in workspace.store.referrals()}
    return sorted((one for one in last.values() if one.status is ReferralStatus.DUE), key=lambda one: one.due)


def _today(workspace: Workspace) -> str:
    return datetime.fromtimestamp(workspace.store.now().wall_ms / 1000, timezone.utc).date().isoformat()


def _read(workspace: Workspace) -> set[uuid.UUID]:
    return {uuid.UUID(bytes=row[0]) for row in workspace.database.read("SELECT review FROM read_review")}


def _name(workspace: Workspace, exam: uuid.UUID) -> str:
    report = workspace.store.report(exam)
    return report.patient.name if report is not None else ""
