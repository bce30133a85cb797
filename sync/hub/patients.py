"""Who is who: two records of one person read as one, and exams taken back from the wrong patient. Both can be undone,
and neither changes what a device sent."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, or_, select, update

from aidpost.sync.hub import audit, exports, schema
from aidpost.sync.hub._rows import clean
from aidpost.sync.hub._views import set_state

_MOST = 500
"""Exams that are given to one person."""


def group(connection: Connection, patient: uuid.UUID) -> tuple[uuid.UUID, ...]:
    """The patient and all who are the same person, over any number of links."""
    table = schema.patient_links
    found, new = [patient], [patient]
    while new:
        rows = connection.execute(
            select(table.c.patient, table.c.same_as).where(
                table.c.parted_ms.is_(None), or_(table.c.patient.in_(new), table.c.same_as.in_(new))
            )
        ).all()
        ends = dict.fromkeys(number for row in rows for number in (row.patient, row.same_as))
        new = [number for number in ends if number not in found]
        found += new
    return tuple(found)


def links(connection: Connection, patients: Sequence[uuid.UUID]) -> list[Any]:
    """The links among the patients that hold, newest first."""
    table = schema.patient_links
    query = select(table).where(table.c.parted_ms.is_(None), table.c.patient.in_(patients))
    return list(connection.execute(query.order_by(table.c.at_ms.desc())).all())


def link(connection: Connection, patient: uuid.UUID, same_as: uuid.UUID, by: str, reason: str, now_ms: int) -> None:
    """Reads two records as one person."""
    connection.execute(
        insert(schema.patient_links).values(
            id=uuid.uuid4(), patient=patient, same_as=same_as, reason=clean(reason, 500), at_ms=now_ms, by=by
        )
    )
    exports.touch(connection, [patient, same_as])
    audit.append(connection, by, "patients-linked", str(patient), str(same_as))


def part(connection: Connection, number: uuid.UUID, by: str, now_ms: int) -> None:
    """Takes a link back: the two are two again, with the exams that each had."""
    table = schema.patient_links
    changed = connection.execute(
        update(table).where(table.c.id == number, table.c.parted_ms.is_(None)).values(parted_ms=now_ms, parted_by=by)
    )
    if changed.rowcount:
        row = connection.execute(select(table.c.patient, table.c.same_as).where(table.c.id == number)).one()
        exports.touch(connection, [row.patient, row.same_as])
        audit.append(connection, by, "patients-parted", str(number))


WITHDRAWN = "Withdrawn: another patient's exam."
"""How the word to the device begins, which a hub that was restored from a backup takes back from there."""


def withdraw(
    connection: Connection, exam: Any, right_patient: uuid.UUID | None, by: str, reason: str, now_ms: int
) -> None:
    """Takes an exam, a row of `exams`, back from the patient under whom it was filed."""
    connection.execute(
        insert(schema.withdrawals).values(
            id=uuid.uuid4(),
            exam=exam.id,
            patient=exam.patient,
            right_patient=right_patient,
            reason=clean(reason, 500),
            at_ms=now_ms,
            by=by,
        )
    )
    audit.append(connection, by, "exam-withdrawn", str(exam.id), f"from {exam.patient} to {right_patient}")
    set_state(connection, exam.id, exam.report)
    exports.changed(connection, [(exam.id, exam.patient)])


def undo_withdrawal(connection: Connection, exam: Any, by: str, now_ms: int) -> None:
    """The exam was the patient's after all."""
    table = schema.withdrawals
    changed = connection.execute(
        update(table).where(table.c.exam == exam.id, table.c.undone_ms.is_(None)).values(undone_ms=now_ms, undone_by=by)
    )
    if changed.rowcount:
        audit.append(connection, by, "withdrawal-undone", str(exam.id))
    set_state(connection, exam.id, exam.report)
    exports.changed(connection, [(exam.id, exam.patient)])


def withdrawal(connection: Connection, exam: uuid.UUID) -> Any:
    """The withdrawal of an exam that holds, as a row, or None."""
    table = schema.withdrawals
    return connection.execute(
        select(table).where(table.c.exam == exam, table.c.undone_ms.is_(None)).order_by(table.c.at_ms.desc())
    ).first()


def exams_of(connection: Connection, patients: Sequence[uuid.UUID]) -> ColumnElement[bool]:
    """The condition on `exams` that they are these patients': filed under them and not withdrawn, or given to them.

    Which were given to them is asked first: PostgreSQL would read all exams to hold each against a subquery.
    """
    exams, table = schema.exams, schema.withdrawals
    holds = select(table.c.exam).where(table.c.exam == exams.c.id, table.c.undone_ms.is_(None))
    filed = exams.c.patient.in_(patients) & ~holds.exists()
    query = select(table.c.exam).where(table.c.undone_ms.is_(None), table.c.right_patient.in_(patients))
    given = connection.execute(query.limit(_MOST)).scalars().all()
    return or_(filed, exams.c.id.in_(given)) if given else filed
