"""What the device made of it: quality, findings, triage, and the result of each recording."""

from __future__ import annotations

import re
import uuid

import msgspec

from aidpost._people import Device, Timestamp
from aidpost._record import Record, Span, require, require_probabilities
from aidpost._terms import (
    Eye,
    Origin,
    TriageLevel,
)


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
