"""One exam: sensors -> recordings -> findings -> report -> durable store. Nothing here needs a network.

A step that fails is listed in the report as not assessed, with its reason, and the exam goes on.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, ParamSpec, Protocol, TypeVar

import msgspec

from aidpost import __version__
from aidpost.board.configuration import Configuration
from aidpost.board.measurements import measured_now, not_heard_before
from aidpost.errors import AidpostError, ModelError
from aidpost.firmware_bridge.clock import Clock
from aidpost.firmware_bridge.formats.photograph import inspect_photo
from aidpost.firmware_bridge.marks import Marks
from aidpost.firmware_bridge.sources import open_source
from aidpost.firmware_bridge.together import read_together
from aidpost.inference.forecast import forecasts
from aidpost.inference.trends import trends
from aidpost.inference.triage import triage
from aidpost.kernels import codec
from aidpost.records import (
    Answer,
    Beats,
    BlobRef,
    Clinic,
    Consent,
    Device,
    EcgMeasurements,
    EcgRecording,
    EcgResult,
    Exam,
    ExamReport,
    Eye,
    FundusPhoto,
    FundusResult,
    Operator,
    Origin,
    Patient,
    Quality,
    Rhythm,
    Timestamp,
    TriageLevel,
    VitalSign,
)

if TYPE_CHECKING:
    from aidpost.inference.fundus import FundusAnalysis

P = ParamSpec("P")
T = TypeVar("T")

WAVEFORM_TYPE = "application/vnd.aidpost.waveform"
"""Media type of an ECG's samples in the waveform codec; their scale is in the report's EcgResult."""


class Analyst(Protocol):
    """What interprets recordings: the inference worker, behind its deadline."""

    def ecg(self, recording: EcgRecording, lead: str | None = None) -> EcgResult:
        """Findings of an ECG."""

    def fundus(self, photo: FundusPhoto, *, force: bool = False, attempt: int = 1) -> FundusAnalysis:
        """Findings and heatmap of a photograph."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to record of whom, each step by its SOURCE; steps that are left out are simply not part of the exam."""

    patient: Patient
    ecg: str | None = None
    fundus: tuple[tuple[Eye, str], ...] = ()
    vitals: tuple[str, ...] = ()
    answers: tuple[Answer, ...] = ()
    consents: tuple[Consent, ...] = ()
    operator: str = ""
    history: tuple[VitalSign, ...] = ()
    """What was measured of this patient before, for trends and forecasts; never part of this exam."""
    known: tuple[VitalSign, ...] = ()
    """What is kept of anybody: a sensor that sends one of these again has not measured it of this patient."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """A large body that a report refers to: the photograph as taken, the waveform, a heatmap."""

    ref: BlobRef
    data: bytes
    origin: Origin
    what: str


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A step that could not be done."""

    step: str
    error: AidpostError


class ExamOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The report, its bodies, the steps that failed, and readings that may be somebody else's."""

    report: ExamReport
    bodies: tuple[Body, ...]
    problems: tuple[Problem, ...]
    unassigned: tuple[VitalSign, ...] = ()
    read_up_to: dict[str, int] = {}
    """Of sensors that keep records: to be handed to `Marks.keep` once all this is stored."""


def blob_ref(data: bytes, media_type: str) -> BlobRef:
    """The reference by which a report names a large body."""
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size=len(data), media_type=media_type)


def worst_origin(origins: Sequence[Origin]) -> Origin:
    """The origin of a whole exam: simulated if anything in it is, then replay, then file; live only if all of it is."""
    order = (Origin.SIMULATED, Origin.REPLAY, Origin.FILE)
    return next((origin for origin in order if origin in origins), Origin.LIVE)


def _not_interpreted(error: ModelError) -> Quality:
    return Quality(usable=False, score=0.0, label="not interpreted", reasons=(error.cause,))


def _uninterpreted_ecg(recording: EcgRecording, error: ModelError) -> EcgResult:
    return EcgResult(
        id=recording.id,
        fs_hz=recording.fs_hz,
        duration_s=recording.duration_s,
        leads=recording.leads,
        lsb_mv=recording.lsb_mv,
        baseline=recording.baseline,
        lead=recording.leads[0],
        at=recording.at,
        origin=recording.origin,
        device=recording.device,
        quality=_not_interpreted(error),
        beats=Beats(),
        rhythm=Rhythm(label=None, probability={}, abstained=True),
        measurements=EcgMeasurements(),
        triage=TriageLevel.SOON,
        missing=recording.missing,
        lead_off=recording.lead_off,
        source=recording.source,
    )


def _uninterpreted_photo(photo: FundusPhoto, error: ModelError) -> FundusResult:
    info = inspect_photo(photo.encoded, source=photo.source)
    return FundusResult(
        id=photo.id,
        eye=photo.eye,
        width=info.width,
        height=info.height,
        at=photo.at,
        origin=photo.origin,
        camera=photo.camera,
        quality=_not_interpreted(error),
        dr=None,
        not_assessed=("diabetic retinopathy", "macular oedema", "other eye disease"),
        triage=TriageLevel.SOON,
        source=photo.source,
    )


def begin_exam(configuration: Configuration, patient: uuid.UUID, operator: Operator, at: Timestamp) -> Exam:
    """A new exam at this device; of the configured operator where none is named."""
    clinic = configuration.clinic
    return Exam(
        id=uuid.uuid4(),
        patient=patient,
        device=Device(name=configuration.device.name),
        clinic=Clinic(id=clinic.id, name=clinic.name, telephone=clinic.telephone),
        operator=operator if operator.id else Operator(id=configuration.device.operator),
        started=at,
    )


class ExamRunner:
    """Runs exams on this device.

    Parameters
    ----------
    configuration
        The device's.
    clock
        Tells the Timestamps.
    analyst
        Interprets recordings.
    progress
        Told each step in plain words, as it begins.
    marks
        How far sensors' own records have been stored; without, they give all that they have.
    """

    def __init__(
        self,
        configuration: Configuration,
        clock: Clock,
        analyst: Analyst,
        progress: Callable[[str], None] = lambda _: None,
        marks: Marks | None = None,
    ) -> None:
        self._configuration, self._clock, self._analyst, self._progress = configuration, clock, analyst, progress
        self._marks = marks
        self._bodies: list[Body] = []
        self._problems: list[Problem] = []
        self._unassigned: list[VitalSign] = []
        self._read_up_to: dict[str, int] = {}

    def run(self, plan: Plan) -> ExamOutcome:
        """Do every step of the plan and make the report. Never raises for a sensor or a model: see `problems`."""
        self._bodies, self._problems, self._unassigned, self._read_up_to = [], [], [], {}
        started = self._clock.now()
        ecg = self._attempt("ECG", self._ecg, plan.ecg) if plan.ecg else None
        attempts = dict.fromkeys(Eye, 0)
        fundus: list[FundusResult] = []
        for eye, source in plan.fundus:
            attempts[eye] += 1
            result = self._attempt(f"{eye.value} eye", self._fundus, eye, source, attempts[eye])
            fundus += [result] if result else []
        vitals = self._vitals(plan.vitals, plan.known)
        exam = begin_exam(self._configuration, plan.patient.id, Operator(id=plan.operator), started)
        exam = msgspec.structs.replace(exam, ended=self._clock.now())
        failed = tuple(f"{problem.step}: {problem.error.cause}" for problem in self._problems)
        report = self.conclude(plan, exam, (ecg,) if ecg else (), tuple(fundus), tuple(vitals), failed)
        return ExamOutcome(
            report=report,
            bodies=tuple(self._bodies),
            problems=tuple(self._problems),
            unassigned=tuple(self._unassigned),
            read_up_to=self._read_up_to,
        )

    @property
    def bodies(self) -> tuple[Body, ...]:
        """The large bodies of what was interpreted so far."""
        return tuple(self._bodies)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The steps that failed so far."""
        return tuple(self._problems)

    def conclude(
        self,
        plan: Plan,
        exam: Exam,
        ecg: tuple[EcgResult, ...],
        fundus: tuple[FundusResult, ...],
        vitals: tuple[VitalSign, ...],
        failed: tuple[str, ...] = (),
    ) -> ExamReport:
        """The report of an exam from what was recorded. The plan gives patient, answers, consents and history; `failed`
        are the steps that could not be done, in words."""
        self._progress("drawing the conclusion")
        known = (*plan.history, *vitals)
        now = exam.ended or self._clock.now()  # an exam that goes on: its readings are not of the future
        course, expected = trends(known, now), forecasts(known, now)
        conclusion = triage(
            patient=plan.patient,
            at=exam.started,
            vitals=vitals,
            answers=plan.answers,
            ecg=ecg,
            fundus=fundus,
            trends=course,
            forecasts=expected,
            limits=self._configuration.limits,
        )
        return ExamReport(
            id=uuid.uuid4(),
            exam=exam,
            patient=plan.patient,
            triage=conclusion.triage,
            findings=conclusion.findings,
            ecg=ecg,
            fundus=fundus,
            vitals=vitals,
            answers=plan.answers,
            consents=plan.consents,
            not_assessed=(*conclusion.not_assessed, *failed),
            advice=conclusion.advice,
            trends=course,
            forecasts=expected,
            origin=worst_origin([*(e.origin for e in ecg), *(f.origin for f in fundus), *(v.origin for v in vitals)]),
            software=f"aidpost {__version__}",
        )

    def _attempt(self, step: str, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        self._progress(step)
        try:
            return do(*args, **kwargs)
        except AidpostError as error:
            self._problems.append(Problem(step=step, error=error))
            self._progress(f"{step} failed: {error.cause}")
            return None

    def _ecg(self, source: str) -> EcgResult:
        with closing(open_source(source, clock=self._clock)) as opened:
            recording = opened.read_ecg(self._configuration.exam.ecg_seconds)
        return self.interpret_ecg(recording)

    def interpret_ecg(self, recording: EcgRecording) -> EcgResult:
        """What the models make of a recording; where they fail, the recording without an interpretation."""
        waveform = codec.encode(recording.samples)
        ref = self._keep(waveform, WAVEFORM_TYPE, recording.origin, "waveform")
        try:
            result = self._analyst.ecg(recording)
        except ModelError as error:
            # the recording stays in the report even where its interpretation fails: a clinician can still read it
            self._problems.append(Problem(step="ECG interpretation", error=error))
            result = _uninterpreted_ecg(recording, error)
        return msgspec.structs.replace(result, body=ref)

    def _fundus(self, eye: Eye, source: str, attempt: int) -> FundusResult:
        with closing(open_source(source, clock=self._clock)) as opened:
            photo = opened.read_photo(eye)
        return self.interpret_photo(photo, attempt)

    def interpret_photo(self, photo: FundusPhoto, attempt: int) -> FundusResult:
        """What the models make of a photograph; where they fail, the photograph without an interpretation."""
        ref = self._keep(photo.encoded, photo.media_type, photo.origin, "photograph")
        try:
            analysis = self._analyst.fundus(photo, attempt=attempt)
        except ModelError as error:
            step = f"{photo.eye.value} eye interpretation" if photo.eye else "photograph interpretation"
            self._problems.append(Problem(step=step, error=error))
            return msgspec.structs.replace(_uninterpreted_photo(photo, error), body=ref, attempt=attempt)
        png = analysis.heatmap_png
        heatmap = self._keep(png, "image/png", photo.origin, "heatmap") if png else None
        return msgspec.structs.replace(analysis.result, body=ref, heatmap=heatmap)

    def _vitals(self, sources: Sequence[str], known: Sequence[VitalSign]) -> list[VitalSign]:
        """What the sensors give, all read at once; in the order of the plan."""
        if sources:
            self._progress("vital signs")
        patience_s = self._configuration.exam.sensor_deadline_s
        readings = read_together(sources, clock=self._clock, marks=self._marks, patience_s=patience_s)
        found: list[VitalSign] = []
        for reading in sorted(readings, key=lambda one: one.number):
            if reading.error is not None:
                self._problems.append(Problem(step="vital signs", error=reading.error))
                self._progress(f"vital signs failed: {reading.error.cause}")
            # a cuff or meter uploads its memory: what it measured at another time is perhaps another person's
            new = not_heard_before(reading.vitals, known)
            if again := len(reading.vitals) - len(new):
                self._progress(f"{again} readings of a sensor's memory had come before")
            found += [one for one in new if measured_now(one)]
            self._unassigned += [one for one in new if not measured_now(one)]
            self._read_up_to.update(reading.read_up_to)
        return found

    def _keep(self, data: bytes, media_type: str, origin: Origin, what: str) -> BlobRef:
        ref = blob_ref(data, media_type)
        self._bodies.append(Body(ref=ref, data=data, origin=origin, what=what))
        return ref
