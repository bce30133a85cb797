"""The values that travel through Aidpost, from a sensor's byte to the clinician's screen.

Every record is frozen and validated when it is made; arrays are read-only; the unit is in the field's name or its
description; what was measured carries its origin and its Timestamp. `decode` and `encode` give the wire form
(MessagePack) and `json_schema` the JSON Schema of the same values. Fields are only ever added, with a default, so
that an older reader can read a newer record and the other way round.
"""

from __future__ import annotations

import inspect
import math
import re
import uuid
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from aidpost._course import Forecast, Trend
from aidpost._record import Record, Span, require, require_probabilities, require_spans
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


class Timestamp(Record, frozen=True, kw_only=True):
    """A moment, told by a clock that may be wrong.

    `wall_ms` is milliseconds of Unix time (UTC) as the device believed it, `monotonic_ms` milliseconds since its
    boot, `boot` its ordered boot counter and `synced` whether a trusted source had set the clock by then.
    `utc_offset_min` is the zone shown to people, where known. The hub corrects by clock anchors and keeps both.
    """

    wall_ms: int
    monotonic_ms: int
    boot: int
    synced: bool
    utc_offset_min: int | None = None

    def _check(self) -> None:
        require(self.monotonic_ms >= 0 and self.boot >= 0, self, "monotonic_ms and boot cannot be negative")
        require(abs(self.utc_offset_min or 0) <= 16 * 60, self, "utc_offset_min is beyond 16 hours")


class Device(Record, frozen=True, kw_only=True):
    """A sensor, camera or the handheld itself: what made a value."""

    name: str
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    firmware: str = ""
    address: str = ""


class Clinic(Record, frozen=True, kw_only=True):
    """Where the device is in use."""

    id: str
    name: str = ""
    telephone: str = ""


class Operator(Record, frozen=True, kw_only=True):
    """The health worker. `id` is the site's own short code."""

    id: str
    name: str = ""


class Identifier(Record, frozen=True, kw_only=True):
    """A number that somebody gave a patient, with the system that gave it (a URI or the clinic's own name for it)."""

    system: str
    value: str


_PARTIAL_DATE = re.compile(r"\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")


class Patient(Record, frozen=True, kw_only=True):
    """A person. The UUID is made on the device; local numbers are identifiers. A correction is a new record that
    names the one it `supersedes`. `birth_date` is as exact as is known: YYYY, YYYY-MM or YYYY-MM-DD."""

    id: uuid.UUID
    name: str = ""
    birth_date: str | None = None
    sex: Sex = Sex.UNKNOWN
    identifiers: tuple[Identifier, ...] = ()
    telephone: str = ""
    language: str = ""
    supersedes: uuid.UUID | None = None

    def _check(self) -> None:
        valid = self.birth_date is None or _PARTIAL_DATE.fullmatch(self.birth_date) is not None
        require(valid, self, f"birth_date {self.birth_date!r} is not YYYY, YYYY-MM or YYYY-MM-DD")


class Consent(Record, frozen=True, kw_only=True):
    """What the patient, or a guardian for them, agreed to or withdrew; the text's version and language are kept."""

    id: uuid.UUID
    patient: uuid.UUID
    purpose: ConsentPurpose
    version: str
    language: str
    given: bool
    at: Timestamp
    given_by: str = "patient"
    operator: str = ""


class Exam(Record, frozen=True, kw_only=True):
    """One visit of one patient at one device."""

    id: uuid.UUID
    patient: uuid.UUID
    device: Device
    clinic: Clinic
    operator: Operator
    started: Timestamp
    ended: Timestamp | None = None


Samples = npt.NDArray[np.int32]


class EcgRecording(Record, frozen=True, kw_only=True, eq=False):
    """An ECG as the converter gave it: integer counts, exact, with their scale.

    `samples` is int32 (leads, n), made read-only; millivolt of lead i are `(samples[i] - baseline[i]) * lsb_mv[i]`.
    `missing` are spans, the same for all leads, whose samples were never received (their counts mean nothing);
    `lead_off` are (lead, start, stop) where the electrode had no contact.
    """

    id: uuid.UUID
    samples: np.ndarray  # msgspec checks the class only; shape and dtype are checked below
    fs_hz: float
    leads: tuple[str, ...]
    lsb_mv: tuple[float, ...]
    baseline: tuple[int, ...]
    at: Timestamp
    origin: Origin
    device: Device
    missing: tuple[Span, ...] = ()
    lead_off: tuple[tuple[int, int, int], ...] = ()
    source: str = ""

    def _check(self) -> None:
        require(self.samples.dtype == np.int32 and self.samples.ndim == 2, self, "samples are not int32 (leads, n)")
        count, length = self.samples.shape
        require(count > 0 and len(set(self.leads)) == count, self, f"{len(self.leads)} lead names for {count} leads")
        require(len(self.lsb_mv) == count == len(self.baseline), self, "lsb_mv and baseline need one value a lead")
        require(math.isfinite(self.fs_hz) and self.fs_hz > 0, self, f"fs_hz is {self.fs_hz}")
        require(all(math.isfinite(v) and v != 0 for v in self.lsb_mv), self, "lsb_mv must be finite and not zero")
        require_spans(self, self.missing, length)
        for lead, start, stop in self.lead_off:
            require(0 <= lead < count and 0 <= start < stop <= length, self, f"lead_off {lead, start, stop} is outside")
        self.samples.flags.writeable = False

    def millivolts(self, lead: int) -> npt.NDArray[np.float64]:
        """One lead in millivolt, (n,) float64; NaN where samples are missing or the electrode was off."""
        out: npt.NDArray[np.float64] = (self.samples[lead].astype(np.float64) - self.baseline[lead]) * self.lsb_mv[lead]
        for start, stop in self.missing:
            out[start:stop] = np.nan
        for number, start, stop in self.lead_off:
            if number == lead:
                out[start:stop] = np.nan
        return out

    @property
    def duration_s(self) -> float:
        """Length in seconds, missing samples included."""
        return float(self.samples.shape[1] / self.fs_hz)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EcgRecording):
            return NotImplemented
        mine, theirs = msgspec.structs.asdict(self), msgspec.structs.asdict(other)
        return np.array_equal(mine.pop("samples"), theirs.pop("samples")) and mine == theirs

    def __hash__(self) -> int:
        return hash(self.id)


class FundusPhoto(Record, frozen=True, kw_only=True):
    """A photograph of the retina: the bytes as the camera wrote them, never re-encoded. An unknown eye is None."""

    id: uuid.UUID
    encoded: bytes
    media_type: str
    eye: Eye | None
    at: Timestamp
    origin: Origin
    camera: Device
    source: str = ""

    def _check(self) -> None:
        require(len(self.encoded) > 0, self, "the photograph has no bytes")


class VitalSign(Record, frozen=True, kw_only=True):
    """One number from one measurement. `value` is in `VITAL_UNITS[kind]`; where the sensor gave none, it is None and
    `absent` says why. Values of one measurement (a cuff's systolic, diastolic and pulse) share a `group`.
    `status` keeps the device's own flags; `measured` the number and unit as the device sent them. `rr_ms` are the
    intervals between beats, in milliseconds and in their order, that a heart-rate sensor sent while it was measured;
    where a notification was lost, those of its beats are not among them."""

    id: uuid.UUID
    kind: VitalKind
    value: float | None
    unit: str
    at: Timestamp
    origin: Origin
    device: Device
    method: str = ""
    absent: AbsentReason | None = None
    status: tuple[str, ...] = ()
    group: uuid.UUID | None = None
    context: str = ""
    measured: str = ""
    device_time: str = ""
    source: str = ""
    rr_ms: tuple[float, ...] = ()

    def _check(self) -> None:
        require(self.unit == VITAL_UNITS[self.kind], self, f"{self.kind.value} is kept in {VITAL_UNITS[self.kind]}")
        require((self.value is None) == (self.absent is not None), self, "give a value, or say why there is none")
        require(self.value is None or math.isfinite(self.value), self, f"value is {self.value}: give `absent` instead")
        require(all(math.isfinite(one) and one >= 0 for one in self.rr_ms), self, "rr_ms are no durations")


class Answer(Record, frozen=True, kw_only=True):
    """What the patient or the worker answered. `question` is a stable code, `answer` a code or free text."""

    question: str
    answer: str
    at: Timestamp


class Quality(Record, frozen=True, kw_only=True):
    """Whether a recording can be interpreted, and why not in words a worker can act on. Spans are in seconds."""

    usable: bool
    score: float
    label: str = ""
    probability: dict[str, float] = msgspec.field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    unusable_spans_s: tuple[tuple[float, float], ...] = ()

    def _check(self) -> None:
        require_probabilities(self, (self.score, *self.probability.values()))


class ModelRef(Record, frozen=True, kw_only=True):
    """Which model, exactly, and what ran it."""

    name: str
    version: str
    sha256: str
    runtime: str


class Finding(Record, frozen=True, kw_only=True):
    """One conclusion. `about` are the ids of what it was drawn from; `rule` and `source` say which limit, and whose.
    `values` are the facts and limits that `text` quotes, so that it can be said in another language; `within_days` is
    by when somebody should act on it, 0 today. `beats` are the R-peaks, as in `Beats.sample`, that show it, at most the
    first forty."""

    code: str
    text: str
    severity: TriageLevel
    probability: float | None = None
    about: tuple[uuid.UUID, ...] = ()
    rule: str = ""
    source: str = ""
    model: str = ""
    values: dict[str, float | str | bool | None] = msgspec.field(default_factory=dict)
    within_days: int | None = None
    beats: tuple[int, ...] = ()

    def _check(self) -> None:
        require_probabilities(self, (self.probability,))
        require(self.within_days is None or self.within_days >= 0, self, f"within_days is {self.within_days}")


class Triage(Record, frozen=True, kw_only=True):
    """The one answer of an exam and its reasons, gravest first. A person's change keeps what the rules said."""

    level: TriageLevel
    reasons: tuple[str, ...] = ()
    computed: TriageLevel | None = None
    changed_by: str = ""
    changed_because: str = ""

    def _check(self) -> None:
        if self.computed is not None and self.level < self.computed:
            require(bool(self.changed_because.strip()), self, "a triage is lowered only with a reason")


class BlobRef(Record, frozen=True, kw_only=True):
    """A large body that is kept and sent by itself: SHA-256 (hex) and size of its bytes before sealing."""

    sha256: str
    size: int
    media_type: str

    def _check(self) -> None:
        require(re.fullmatch(r"[0-9a-f]{64}", self.sha256) is not None, self, "sha256 is not 64 hex digits")
        require(self.size >= 0, self, "size is negative")


class Rhythm(Record, frozen=True, kw_only=True):
    """The rhythm model's answer: N (sinus), A (atrial fibrillation), O (other), ~ (too noisy)."""

    label: str | None
    probability: dict[str, float]
    abstained: bool = False

    def _check(self) -> None:
        require_probabilities(self, self.probability.values())


class EcgMeasurements(Record, frozen=True, kw_only=True):
    """Intervals in milliseconds and ST level in millivolt per lead; None where the signal does not allow it.

    `uncertainty` has one standard error for each that is there, under its name and in its unit, `st_mv.<lead>` for ST.
    """

    heart_rate_bpm: float | None = None
    pr_ms: float | None = None
    qrs_ms: float | None = None
    qt_ms: float | None = None
    qtcf_ms: float | None = None
    st_mv: dict[str, float | None] = msgspec.field(default_factory=dict)
    uncertainty: dict[str, float] = msgspec.field(default_factory=dict)


class Beats(Record, frozen=True, kw_only=True):
    """R-peaks as sample indices at the recording's own rate, each with its AAMI class N, S, V, F or Q."""

    sample: tuple[int, ...] = ()
    label: tuple[str, ...] = msgspec.field(default=(), name="class")

    def _check(self) -> None:
        require(len(self.sample) == len(self.label), self, "each beat needs one class")


class EcgResult(Record, frozen=True, kw_only=True):
    """What the device made of one ECG; `body` is the recording itself, in the waveform codec."""

    id: uuid.UUID
    fs_hz: float
    duration_s: float
    leads: tuple[str, ...]
    lsb_mv: tuple[float, ...]
    baseline: tuple[int, ...]
    lead: str
    at: Timestamp
    origin: Origin
    device: Device
    quality: Quality
    beats: Beats
    rhythm: Rhythm
    measurements: EcgMeasurements
    findings: tuple[Finding, ...] = ()
    triage: TriageLevel = TriageLevel.ROUTINE
    models: tuple[ModelRef, ...] = ()
    missing: tuple[Span, ...] = ()
    lead_off: tuple[tuple[int, int, int], ...] = ()
    body: BlobRef | None = None
    source: str = ""


class DrGrade(Record, frozen=True, kw_only=True):
    """Diabetic retinopathy on the ICDR scale; `probability` has one entry for each grade 0 to 4."""

    grade: int | None
    probability: tuple[float, ...]
    referable_probability: float
    referable: bool
    threshold: float
    abstained: bool = False

    def _check(self) -> None:
        require(self.grade is None or 0 <= self.grade <= 4, self, f"grade {self.grade} is not on the ICDR scale")
        require(len(self.probability) == 5, self, "probability needs one entry for each grade 0 to 4")
        require_probabilities(self, (*self.probability, self.referable_probability, self.threshold))


class FundusResult(Record, frozen=True, kw_only=True):
    """What the device made of one photograph; `body` is the photograph as taken, `heatmap` a PNG."""

    id: uuid.UUID
    eye: Eye | None
    width: int
    height: int
    at: Timestamp
    origin: Origin
    camera: Device
    quality: Quality
    dr: DrGrade | None
    not_assessed: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    triage: TriageLevel = TriageLevel.ROUTINE
    models: tuple[ModelRef, ...] = ()
    body: BlobRef | None = None
    heatmap: BlobRef | None = None
    attempt: int = 1
    source: str = ""


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
        complete = _PARTIAL_DATE.fullmatch(self.due) is not None and len(self.due) == 10
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
