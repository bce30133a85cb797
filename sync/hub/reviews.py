"""A clinician's word on a report: kept, and sent down to the device that made the exam."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select

from aidpost.records import ExamReport, Review, ReviewDecision, TriageLevel, decode, encode
from aidpost.sync.hub import alerts, audit, clocks, exports, outgoing, readings, schema
from aidpost.sync.hub._views import set_state
from aidpost.sync.hub.readings import DONE, Part, Rules, settle

CLASS = "review"
"""The class of reviews on their way down."""


class Signature(NamedTuple):
    """What a reader puts their name to. `user` is their login, `reviewer` the name that is printed."""

    user: str
    reviewer: str
    decision: ReviewDecision
    triage: TriageLevel | None
    text: str
    grades: dict[str, str]
    opened_ms: int | None = None


def sign(
    connection: Connection,
    hub_epoch: bytes,
    report: ExamReport,
    device: str,
    signature: Signature,
    parts: Sequence[Part],
    rules: Rules,
    now_ms: int,
) -> list[Review]:
    """Keeps a reader's word on parts of a report. What it settles is signed with the caller's commit, and on its way to
    the device; what waits for another reader stays here. A triage that is raised opens a recall at once, settled or
    not.

    An earlier review of the same parts is superseded, not changed.
    """
    states = {
        part: settle(
            part,
            signature.decision,
            signature.triage.rank if signature.triage else None,
            _grades(signature, [part]),
            report,
            rules,
        )
        for part in parts
    }
    settled = [part for part in parts if states[part] in DONE]
    made = []
    for group in (settled, [part for part in parts if part not in settled]):
        if not group:
            continue
        review = _review(connection, report, signature, group, now_ms)
        connection.execute(insert(schema.reviews).values(**row_of(review)))
        for part in group:
            readings.note(connection, part, review, signature.user, states[part], signature.opened_ms)
        if group is settled:
            about = {"patient": review.patient, "exam": review.exam}
            outgoing.put(connection, hub_epoch, device, CLASS, review, **about, now_ms=now_ms)
        audit.append(
            connection,
            signature.user,
            f"review-{review.decision.value}",
            str(review.exam),
            f"report {review.report}: " + ", ".join(f"{part.name} {states[part]}" for part in group),
        )
        made.append(review)
    set_state(connection, report.exam.id, report.id)
    exports.changed(connection, [(report.exam.id, report.patient.id)])
    if signature.triage is not None and signature.triage > report.triage.level:
        alerts.open_recall(connection, made[0], now_ms)
    if settled:
        alerts.read(connection, report.id, signature.user, signature.reviewer, now_ms)
    return made


def _review(
    connection: Connection, report: ExamReport, signature: Signature, parts: Sequence[Part], now_ms: int
) -> Review:
    names = tuple(part.name for part in parts)
    before = [one for one in of_report(connection, report.id) if not one.parts or set(one.parts) & set(names)]
    return Review(
        id=uuid.uuid4(),
        report=report.id,
        exam=report.exam.id,
        patient=report.patient.id,
        reviewer=signature.reviewer,
        decision=signature.decision,
        at=clocks.hub_time(now_ms),
        triage=signature.triage,
        text=signature.text,
        grades=_grades(signature, parts),
        supersedes=before[-1].id if before else None,
        parts=names,
    )


def _grades(signature: Signature, parts: Sequence[Part]) -> dict[str, str]:
    of_parts = {name for part in parts for name in readings.GRADES[part.name]}
    return {name: grade for name, grade in signature.grades.items() if name in of_parts}


def of_report(connection: Connection, report: uuid.UUID) -> Sequence[Review]:
    """All reviews of a report, the one that counts last."""
    return _read(connection, schema.reviews.c.report == report)


def settled(connection: Connection, report: uuid.UUID) -> Sequence[Review]:
    """The reviews of a report that are signed for good, oldest first: what other systems are told."""
    done = {
        row.review
        for rows in readings.standing(connection, [report]).get(report, {}).values()
        for row in rows
        if row.state in DONE
    }
    return [review for review in of_report(connection, report) if review.id in done]


def of_exam(connection: Connection, exam: uuid.UUID) -> Sequence[Review]:
    """All reviews of an exam's reports, oldest first."""
    return _read(connection, schema.reviews.c.exam == exam)


def arrived(connection: Connection, device: str, reviews: Sequence[Review]) -> dict[uuid.UUID, int | None]:
    """When each review was received by the device; None while it is under way."""
    table = schema.outgoing
    rows = connection.execute(
        select(table.c.body, table.c.received_ms).where(
            table.c.device == device, table.c.cls == CLASS, table.c.exam.in_({review.exam for review in reviews})
        )
    )
    return {decode(Review, bytes(row.body)).id: row.received_ms for row in rows}


def row_of(review: Review) -> dict[str, Any]:
    """A review as the table `reviews` has it."""
    return {
        "id": review.id,
        "exam": review.exam,
        "report": review.report,
        "patient": review.patient,
        "reviewer": review.reviewer,
        "decision": review.decision.value,
        "triage": review.triage.rank if review.triage else None,
        "dr_referable": readings.reader_call(readings.EYES, review.grades),
        "af": readings.reader_call(readings.HEART, review.grades),
        "at_ms": review.at.wall_ms,
        "body": encode(review),
    }


def _read(connection: Connection, where: Any) -> Sequence[Review]:
    rows = connection.execute(
        select(schema.reviews.c.body).where(where).order_by(schema.reviews.c.at_ms, schema.reviews.c.id)
    )
    return [decode(Review, bytes(body)) for body in rows.scalars()]
