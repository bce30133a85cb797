"""A clinician's word on a report: kept, and sent down to the device that made the exam."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from aidpost.records import ExamReport, Review, ReviewDecision, Timestamp, TriageLevel, decode, encode
from aidpost.sync.hub import audit, outgoing, schema
from aidpost.sync.hub._views import set_state

CLASS = "review"
"""The class of reviews on their way down."""


def sign(
    connection: Connection,
    hub_epoch: bytes,
    report: ExamReport,
    device: str,
    *,
    reviewer: str,
    decision: ReviewDecision,
    triage: TriageLevel | None,
    text: str,
    grades: dict[str, str],
    now_ms: int,
) -> Review:
    """Makes a review of a report; with the caller's commit it is signed, and on its way to the device.

    An earlier review of the same report is superseded, not changed.
    """
    before = of_report(connection, report.id)
    review = Review(
        id=uuid.uuid4(),
        report=report.id,
        exam=report.exam.id,
        patient=report.patient.id,
        reviewer=reviewer,
        decision=decision,
        at=hub_time(now_ms),
        triage=triage,
        text=text,
        grades=grades,
        supersedes=before[-1].id if before else None,
    )
    connection.execute(insert(schema.reviews).values(**_row(review)))
    set_state(connection, review)
    outgoing.put(connection, hub_epoch, device, CLASS, review, patient=review.patient, exam=review.exam, now_ms=now_ms)
    audit.append(connection, reviewer, f"review-{decision.value}", str(report.exam.id), f"report {report.id}")
    return review


def of_report(connection: Connection, report: uuid.UUID) -> Sequence[Review]:
    """All reviews of a report, the one that counts last."""
    return _read(connection, schema.reviews.c.report == report)


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


def hub_time(now_ms: int) -> Timestamp:
    """The hub's own time as a Timestamp: its clock is kept by the system, and it counts no boots."""
    return Timestamp(wall_ms=now_ms, monotonic_ms=time.monotonic_ns() // 1_000_000, boot=0, synced=True)


def _row(review: Review) -> dict[str, Any]:
    rhythm = review.grades.get("rhythm", "unreadable")
    return {
        "id": review.id,
        "exam": review.exam,
        "report": review.report,
        "patient": review.patient,
        "reviewer": review.reviewer,
        "decision": review.decision.value,
        "triage": review.triage.rank if review.triage else None,
        "dr_referable": _referable(review.grades),
        "af": None if rhythm == "unreadable" else rhythm == "af",
        "at_ms": review.at.wall_ms,
        "body": encode(review),
    }


def _referable(grades: dict[str, str]) -> bool | None:
    """Moderate retinopathy or worse, or macular oedema, in either eye; None where the reader graded no eye."""
    eyes = [grades[name] for name in ("dr_right", "dr_left") if name in grades]
    if not eyes:
        return None
    return max(eyes) >= "2" or "yes" in (grades.get("dme_right"), grades.get("dme_left"))


def _read(connection: Connection, where: Any) -> Sequence[Review]:
    rows = connection.execute(
        select(schema.reviews.c.body).where(where).order_by(schema.reviews.c.at_ms, schema.reviews.c.id)
    )
    return [decode(Review, bytes(body)) for body in rows.scalars()]
