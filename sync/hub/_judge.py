"""Whether a record is taken: a pure function of its envelope and of the hub's policy."""

from __future__ import annotations

import uuid
from typing import NamedTuple

from aidpost.errors import InvalidRecordError
from aidpost.records import (
    Consent,
    ExamReport,
    Origin,
    Patient,
    Record,
    Referral,
    Review,
    Timestamp,
    VitalSign,
    decode,
)
from aidpost.sync import rounds
from aidpost.sync.bodies import BODY_KINDS, Acknowledgement, BlobManifest, Erasure, Outcome, Returned
from aidpost.sync.envelope import Envelope

_LATEST_MS = 1 << 52
"""Beyond any date; keeps what devices send within the columns."""


class Accepted(NamedTuple):
    """A record that is taken. `record` is None where this hub does not know the kind and keeps the bytes."""

    record: Record | None
    origin: Origin | None


class Refusal(NamedTuple):
    """Why it is not: the code of the wire's Reject, and words that name no patient."""

    code: str
    reason: str


def judge(envelope: Envelope, accept_simulated: bool, max_blob_bytes: int) -> Accepted | Refusal:
    """Reads the body and holds it against its envelope and against the hub's policy on origins."""
    kind = BODY_KINDS.get(envelope.kind)
    if kind is None:
        return Accepted(None, None)
    try:
        record = decode(kind, envelope.body)
    except (InvalidRecordError, RecursionError) as error:
        return Refusal("invalid", f"{envelope.kind}: {getattr(error, 'cause', error)}"[:500])
    if fault := _fault(envelope, record):
        return Refusal("invalid", f"{envelope.kind}: {fault}")
    if isinstance(record, BlobManifest) and record.blob.size > max_blob_bytes:
        return Refusal("too-large", f"this hub takes at most {max_blob_bytes} bytes")
    origin = _origin(record)
    if origin is Origin.SIMULATED and not accept_simulated:
        return Refusal("origin", "this hub serves patients and takes no simulated data")
    return Accepted(record, origin)


def _fault(envelope: Envelope, record: Record) -> str:
    patient, exam = _about(record)
    if patient is not None and envelope.patient != patient:
        return "the envelope names another patient than the record"
    if exam is not None and envelope.exam != exam:
        return "the envelope names another exam than the record"
    if isinstance(record, ExamReport) and record.exam.patient != record.patient.id:
        return "the exam is of another patient than the report"
    for at in _times(record):
        if abs(at.wall_ms) > _LATEST_MS or at.monotonic_ms > _LATEST_MS or at.boot > _LATEST_MS:
            return "a time is beyond any calendar"
    return ""


def _about(record: Record) -> tuple[uuid.UUID | None, uuid.UUID | None]:
    if isinstance(record, ExamReport):
        return record.patient.id, record.exam.id
    if isinstance(record, Review | Referral | Acknowledgement):
        return record.patient, record.exam
    if isinstance(record, Consent | Erasure):
        return record.patient, None
    if isinstance(record, Patient):
        return record.id, None
    return None, None


def _times(record: Record) -> tuple[Timestamp, ...]:
    if isinstance(record, ExamReport):
        return (record.exam.started, *(vital.at for vital in record.vitals))
    dated = VitalSign | BlobManifest | Review | Referral | Consent | Erasure | Acknowledgement | Outcome | Returned
    if isinstance(record, (dated, *rounds.UP)):
        return (record.at,)
    return ()


def _origin(record: Record) -> Origin | None:
    """The least real of all origins in the record: one simulated trace makes the exam a simulated one."""
    if isinstance(record, VitalSign | BlobManifest):
        return record.origin
    if isinstance(record, ExamReport):
        origins = [record.origin, *(ecg.origin for ecg in record.ecg), *(photo.origin for photo in record.fundus)]
        origins += [vital.origin for vital in record.vitals]
        return max(origins, key=list(Origin).index)
    return None
