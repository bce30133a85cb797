"""The values that travel through Aidpost, from a sensor's byte to the clinician's screen.

Every record is frozen and validated when it is made; arrays are read-only; the unit is in the field's name or its
description; what was measured carries its origin and its Timestamp. `decode` and `encode` give the wire form
(MessagePack) and `json_schema` the JSON Schema of the same values. Fields are only ever added, with a default, so
that an older reader can read a newer record and the other way round.
"""

from __future__ import annotations

import inspect
import uuid
from typing import Any, TypeVar

import msgspec

from aidpost._course import Forecast, Trend
from aidpost._people import PARTIAL_DATE, Clinic, Consent, Device, Exam, Identifier, Operator, Patient, Timestamp
from aidpost._record import Record, Span, require
from aidpost._recordings import Answer, EcgRecording, FundusPhoto, VitalSign
from aidpost._results import (
    Beats,
    BlobRef,
    DrGrade,
    EcgMeasurements,
    EcgResult,
    Finding,
    FundusResult,
    ModelRef,
    Quality,
    Rhythm,
    Triage,
)
from aidpost._terms import (
    VITAL_UNITS,
    AbsentReason,
    ConsentPurpose,
    Eye,
    Origin,
    ReferralStatus,
    ReviewDecision,
    Sex,
    TriageLevel,
    VitalKind,
)
from aidpost.errors import InvalidRecordError

__all__ = [
    "SCHEMA_VERSION",
    "VITAL_UNITS",
    "WIRE_RECORDS",
    "AbsentReason",
    "Answer",
    "Beats",
    "BlobRef",
    "Clinic",
    "Consent",
    "ConsentPurpose",
    "Device",
    "DrGrade",
    "EcgMeasurements",
    "EcgRecording",
    "EcgResult",
    "Exam",
    "ExamReport",
    "Eye",
    "Finding",
    "Forecast",
    "FundusPhoto",
    "FundusResult",
    "Identifier",
    "ModelRef",
    "Operator",
    "Origin",
    "Patient",
    "Quality",
    "Record",
    "Referral",
    "ReferralStatus",
    "Review",
    "ReviewDecision",
    "Rhythm",
    "Sex",
    "Span",
    "Timestamp",
    "Trend",
    "Triage",
    "TriageLevel",
    "VitalKind",
    "VitalSign",
    "decode",
    "encode",
    "json_schema",
    "to_json",
]

SCHEMA_VERSION = 1
"""One version for all records: raised only when a reader must know that a meaning changed."""


class ExamReport(Record, frozen=True, kw_only=True):
    """One exam, whole: what was recorded, found and advised. Preliminary until a clinician signs a Review.
    A later version of the same exam is a new record with a new `id` that `supersedes` the one before."""

    id: uuid.UUID
    exam: Exam
    patient: Patient
    triage: Triage
    findings: tuple[Finding, ...] = ()
    ecg: tuple[EcgResult, ...] = ()
    fundus: tuple[FundusResult, ...] = ()
    vitals: tuple[VitalSign, ...] = ()
    answers: tuple[Answer, ...] = ()
    consents: tuple[Consent, ...] = ()
    not_assessed: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    trends: tuple[Trend, ...] = ()
    forecasts: tuple[Forecast, ...] = ()
    origin: Origin = Origin.LIVE
    software: str = ""
    supersedes: uuid.UUID | None = None
    schema_version: int = SCHEMA_VERSION


class Review(Record, frozen=True, kw_only=True):
    """A clinician's word on a report: confirmed, corrected or to be retaken; signed by name, at the hub's time.
    `parts` are those it covers, "eyes", "heart" or "general"; without any it is about the whole report."""

    id: uuid.UUID
    report: uuid.UUID
    exam: uuid.UUID
    patient: uuid.UUID
    reviewer: str
    decision: ReviewDecision
    at: Timestamp
    triage: TriageLevel | None = None
    text: str = ""
    grades: dict[str, str] = msgspec.field(default_factory=dict)
    supersedes: uuid.UUID | None = None
    parts: tuple[str, ...] = ()


class Referral(Record, frozen=True, kw_only=True):
    """Where a patient is sent, by when, and how that went. `due` is YYYY-MM-DD."""

    id: uuid.UUID
    exam: uuid.UUID
    patient: uuid.UUID
    to: str
    due: str
    reason: str
    status: ReferralStatus
    at: Timestamp
    telephone: str = ""
    supersedes: uuid.UUID | None = None

    def _check(self) -> None:
        complete = PARTIAL_DATE.fullmatch(self.due) is not None and len(self.due) == 10
        require(complete, self, f"due {self.due!r} is not YYYY-MM-DD")


R = TypeVar("R", bound=Record)

WIRE_RECORDS: tuple[type[Record], ...] = (Patient, Consent, ExamReport, VitalSign, Review, Referral)
"""The records that are bodies of envelopes by themselves."""


def encode(record: Record) -> bytes:
    """The wire form: one MessagePack map with the field names as keys."""
    return msgspec.msgpack.encode(record)


def decode(kind: type[R], body: bytes) -> R:
    """The record of that kind in `body`; fields that this version does not know are ignored.

    Raises
    ------
    InvalidRecordError
        The bytes are not MessagePack, or not that record.
    """
    try:
        return msgspec.msgpack.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidRecordError(operation="reading a record", target=kind.__name__, cause=str(error)) from None


def to_json(record: Record) -> bytes:
    """The same values as JSON, for people and for other programs."""
    return msgspec.json.encode(record)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the wire records: one definition a record under `$defs`."""
    _, definitions = msgspec.json.schema_components(WIRE_RECORDS, ref_template="#/$defs/{name}")
    for definition in definitions.values():
        # before Python 3.13 a docstring keeps the indentation of its source
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Aidpost records, schema version {SCHEMA_VERSION}",
        "$defs": definitions,
    }
