"""What a person agrees to, as it stands: what devices recorded, and what was withdrawn at the hub."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from aidpost.records import ConsentPurpose, ExamReport, decode
from aidpost.sync.hub import audit, exports, patients, schema
from aidpost.sync.hub._rows import clean


class Standing(NamedTuple):
    """One purpose: given or not, since when by the clock of who recorded it, and who recorded it."""

    given: bool
    at_ms: int
    by: str


def standing(connection: Connection, patient: uuid.UUID) -> dict[ConsentPurpose, Standing]:
    """By purpose, over all records of the person; a purpose that nobody asked about is not there.

    The last word counts. A withdrawal at the hub is undone only by a consent that is newer by its own clock and also
    came here later: a device's clock that runs ahead must not undo it.
    """
    everybody = patients.group(connection, patient)
    table = schema.withdrawn_consents
    withdrawn = {
        ConsentPurpose(row.purpose): row
        for row in connection.execute(select(table).where(table.c.patient.in_(everybody)).order_by(table.c.at_ms))
    }
    found: dict[ConsentPurpose, Standing] = {}
    for report, received_ms in _reports(connection, everybody):
        for one in report.consents:
            if one.patient not in everybody:
                continue
            refused = withdrawn.get(one.purpose)
            if refused and one.given and min(one.at.wall_ms, received_ms) <= refused.at_ms:
                continue
            before = found.get(one.purpose)
            # of two of one moment, the refusal
            if before is None or (one.at.wall_ms, not one.given) > (before.at_ms, not before.given):
                found[one.purpose] = Standing(one.given, one.at.wall_ms, one.operator or one.given_by)
    for purpose, row in withdrawn.items():
        if purpose not in found or not found[purpose].given:
            found[purpose] = Standing(False, row.at_ms, row.by)
    return found


def agrees(connection: Connection, patient: uuid.UUID, purpose: ConsentPurpose) -> bool:
    """Whether the person said yes, and not no since."""
    said = standing(connection, patient).get(purpose)
    return said is not None and said.given


def refuses(connection: Connection, patient: uuid.UUID, purpose: ConsentPurpose) -> bool:
    """Whether the person said no, or withdrew."""
    said = standing(connection, patient).get(purpose)
    return said is not None and not said.given


def withdraw(
    connection: Connection, patient: uuid.UUID, purpose: ConsentPurpose, by: str, reason: str, now_ms: int
) -> None:
    """Notes at the hub that the person no longer agrees."""
    connection.execute(
        insert(schema.withdrawn_consents).values(
            id=uuid.uuid4(), patient=patient, purpose=purpose.value, reason=clean(reason, 500), at_ms=now_ms, by=by
        )
    )
    audit.append(connection, by, "consent-withdrawn", str(patient), purpose.value)
    exams = select(schema.exams.c.id, schema.exams.c.patient).where(schema.exams.c.patient == patient)
    exports.changed(connection, [(row.id, row.patient) for row in connection.execute(exams)])


def _reports(connection: Connection, everybody: Sequence[uuid.UUID]) -> Iterator[tuple[ExamReport, int]]:
    reports, envelopes = schema.reports, schema.envelopes
    query = (
        select(envelopes.c.body, envelopes.c.received_ms)
        .join(reports, (reports.c.stream == envelopes.c.stream) & (reports.c.seq == envelopes.c.seq))
        .where(reports.c.patient.in_(everybody), envelopes.c.body != b"")
    )
    for row in connection.execute(query):
        yield decode(ExamReport, bytes(row.body)), row.received_ms
