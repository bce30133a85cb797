"""Findings that a person must hear of: opened, passed on, passed on further until somebody answers for them.

An alert is opened for each exam at or above urgent that nobody has read, and for each review that raises a triage
(a recall). Every step is a row of `alert_steps`. What leaves the hub names no patient: the place, how urgent, a link.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from aidpost.records import Review, TriageLevel
from aidpost.sync.bodies import Acknowledgement
from aidpost.sync.hub import audit, clocks, outgoing, schema
from aidpost.sync.hub._rows import clean, insert_new
from aidpost.sync.hub.users import Session

CLASS = "acknowledgement"
"""The class of acknowledgements on their way down."""
LEAST = TriageLevel.URGENT.rank
_MOST = 200


def open_findings(connection: Connection, now_ms: int) -> int:
    """Opens an alert for each exam that needs one and has none. Returns how many."""
    exams, table = schema.exams, schema.alerts
    known = select(table.c.id).where(table.c.about == exams.c.report).exists()
    rows = connection.execute(
        select(exams).where(exams.c.state == "open", exams.c.triage >= LEAST, ~known).limit(_MOST)
    ).all()
    for row in rows:
        open_finding(connection, row, now_ms)
    return len(rows)


def open_finding(connection: Connection, exam: Any, now_ms: int) -> None:
    """Opens the alert of an exam, a row of `exams`, where there is none yet."""
    _open(connection, "finding", exam.report, exam, exam.triage, now_ms)


def open_recall(connection: Connection, review: Review, now_ms: int) -> None:
    """Opens an alert because a reader found more than the device: the patient may be on the way home."""
    assert review.triage is not None
    row = connection.execute(select(schema.exams).where(schema.exams.c.id == review.exam)).one()
    _open(connection, "recall", review.id, row, review.triage.rank, now_ms)


def _open(connection: Connection, kind: str, about: uuid.UUID, exam: Any, triage: int, now_ms: int) -> None:
    number = uuid.uuid4()
    insert_new(
        connection,
        schema.alerts,
        [
            {
                "id": number,
                "kind": kind,
                "about": about,
                "exam": exam.id,
                "patient": exam.patient,
                "device": exam.device,
                "clinic": exam.clinic,
                "triage": triage,
                "opened_ms": now_ms,
                "level": 0,
                "next_ms": now_ms,
            }
        ],
    )
    if connection.execute(select(schema.alerts.c.id).where(schema.alerts.c.id == number)).one_or_none():
        step(connection, number, "opened", "pages", kind, now_ms)


def anything_due(connection: Connection, now_ms: int) -> bool:
    """Whether something is to be opened or passed on, asked without a writer's lock."""
    exams, table = schema.exams, schema.alerts
    known = select(table.c.id).where(table.c.about == exams.c.report).exists()
    unknown = select(exams.c.id).where(exams.c.state == "open", exams.c.triage >= LEAST, ~known).limit(1)
    due = select(table.c.id).where(table.c.next_ms <= now_ms).limit(1)
    return any(connection.execute(query).first() is not None for query in (due, unknown))


def claim_due(connection: Connection, now_ms: int, again_ms: int) -> list[Any]:
    """Alerts to be passed on now. If whoever claims one dies, it is due again after `again_ms`."""
    table = schema.alerts
    rows = connection.execute(select(table).where(table.c.next_ms <= now_ms).order_by(table.c.next_ms).limit(_MOST))
    claimed = []
    for row in rows.all():
        mine = connection.execute(
            update(table).where(table.c.id == row.id, table.c.next_ms == row.next_ms).values(next_ms=now_ms + again_ms)
        )
        if mine.rowcount:
            claimed.append(row)
    return claimed


def passed_on(connection: Connection, alert: Any, next_ms: int) -> None:
    """Notes that this level's people were told, and when the next level's are."""
    table = schema.alerts
    connection.execute(
        update(table)
        .where(table.c.id == alert.id, table.c.acknowledged_ms.is_(None), table.c.level == alert.level)
        .values(level=alert.level + 1, next_ms=next_ms)
    )


def acknowledge(
    connection: Connection,
    hub_epoch: bytes | None,
    alert: uuid.UUID,
    user: str,
    name: str,
    text: str,
    now_ms: int,
) -> bool:
    """Somebody answers for an alert: it goes no further, and the device is told who and what they did.

    Parameters
    ----------
    hub_epoch
        None where the device needs no telling.

    Returns
    -------
    bool
        False where somebody had answered before.
    """
    table = schema.alerts
    changed = connection.execute(
        update(table)
        .where(table.c.id == alert, table.c.acknowledged_ms.is_(None))
        .values(acknowledged_ms=now_ms, acknowledged_by=clean(name, 200), next_ms=None)
    )
    if not changed.rowcount:
        return False
    row = connection.execute(select(table).where(table.c.id == alert)).one()
    step(connection, alert, "acknowledged", name, text, now_ms)
    audit.append(connection, user, "alert-acknowledged", str(row.exam), str(alert))
    if hub_epoch is not None:
        record = Acknowledgement(
            about=row.about, exam=row.exam, patient=row.patient, by=name, text=text, at=clocks.hub_time(now_ms)
        )
        about = {"patient": row.patient, "exam": row.exam}
        outgoing.put(connection, hub_epoch, row.device, CLASS, record, **about, now_ms=now_ms)
    return True


def read(connection: Connection, report: uuid.UUID, user: str, name: str, now_ms: int) -> None:
    """A reader who signs a report has heard of its finding; their review goes to the device, which needs no other word.
    A recall stays open until somebody says what they did."""
    table = schema.alerts
    for number in connection.execute(select(table.c.id).where(table.c.about == report)).scalars().all():
        acknowledge(connection, None, number, user, name, "signed the review", now_ms)


def from_device(connection: Connection, device: str, record: Acknowledgement, now_ms: int) -> None:
    """A health worker answered at the device for what came down to it."""
    table = schema.alerts
    for number in (
        connection.execute(select(table.c.id).where(table.c.about == record.about, table.c.device == device))
        .scalars()
        .all()
    ):
        acknowledge(connection, None, number, device, record.by or device, record.text, now_ms)


def unanswered(connection: Connection, session: Session) -> int:
    """How many alerts wait for somebody, of those that this user sees."""
    table = schema.alerts
    query = select(func.count()).where(table.c.next_ms.is_not(None), session.sees(table.c.clinic))
    return int(connection.execute(query).scalar_one())


def of_exam(connection: Connection, exam: uuid.UUID) -> list[tuple[Any, list[Any]]]:
    """The alerts of an exam with their steps, newest first."""
    table = schema.alerts
    rows = connection.execute(select(table).where(table.c.exam == exam).order_by(table.c.opened_ms.desc())).all()
    done = steps(connection, [row.id for row in rows])
    return [(row, done.get(row.id, [])) for row in rows]


def step(connection: Connection, alert: uuid.UUID, kind: str, target: str, detail: str, now_ms: int) -> None:
    """Records what was done about an alert."""
    table = schema.alert_steps
    last = connection.execute(select(func.max(table.c.number)).where(table.c.alert == alert)).scalar_one()
    connection.execute(
        insert(table).values(
            alert=alert,
            number=(last or 0) + 1,
            at_ms=now_ms,
            step=kind,
            target=clean(target, 300),
            detail=clean(detail, 500),
        )
    )


def steps(connection: Connection, numbers: Sequence[uuid.UUID]) -> dict[uuid.UUID, list[Any]]:
    """Everything that was done about each alert, oldest first."""
    table = schema.alert_steps
    found: dict[uuid.UUID, list[Any]] = {}
    for row in connection.execute(select(table).where(table.c.alert.in_(numbers)).order_by(table.c.number)):
        found.setdefault(row.alert, []).append(row)
    return found
