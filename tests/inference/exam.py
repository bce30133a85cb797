"""Pieces of exams for the tests of triage."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from aidpost.inference.triage import Assessment, triage
from aidpost.records import (
    VITAL_UNITS,
    AbsentReason,
    Answer,
    Beats,
    Device,
    DrGrade,
    EcgMeasurements,
    EcgResult,
    Eye,
    Finding,
    FundusResult,
    Origin,
    Patient,
    Quality,
    Rhythm,
    Sex,
    Timestamp,
    TriageLevel,
    VitalKind,
    VitalSign,
)

DEVICE = Device(name="test")
PATIENT = Patient(id=uuid.UUID(int=1), birth_date="1970-05-01", sex=Sex.MALE)
ROUTINE, SOON, URGENT, EMERGENCY = TriageLevel


def moment(second: int = 0) -> Timestamp:
    return Timestamp(wall_ms=1_760_000_000_000 + 1000 * second, monotonic_ms=1000 * second, boot=1, synced=True)


def vital(kind: VitalKind | str, value: float | None, second: int = 0, **more: object) -> VitalSign:
    kind = VitalKind(kind)
    absent = AbsentReason.NOT_A_NUMBER if value is None else None
    return VitalSign(
        id=uuid.uuid5(uuid.NAMESPACE_OID, f"{kind}{value}{second}{more}"),
        kind=kind,
        value=value,
        unit=VITAL_UNITS[kind],
        at=moment(second),
        origin=Origin.LIVE,
        device=DEVICE,
        absent=absent,
        **more,  # type: ignore[arg-type]
    )


def pressure(systolic: float, diastolic: float, second: int = 0) -> list[VitalSign]:
    return [vital("systolic_bp", systolic, second), vital("diastolic_bp", diastolic, second)]


def answer(question: str, text: str = "yes") -> Answer:
    return Answer(question=question, answer=text, at=moment())


def ecg(label: str | None, rate: float | None = 75.0, *, usable: bool = True, qtcf: float | None = None) -> EcgResult:
    findings = () if label == "N" and usable else (Finding(code="ecg-finding", text="ECG", severity=SOON),)
    return EcgResult(
        id=uuid.uuid5(uuid.NAMESPACE_OID, f"ecg{label}{rate}{usable}"),
        fs_hz=300.0,
        duration_s=30.0,
        leads=("I",),
        lsb_mv=(0.005,),
        baseline=(0,),
        lead="I",
        at=moment(),
        origin=Origin.LIVE,
        device=DEVICE,
        quality=Quality(usable=usable, score=0.9 if usable else 0.0),
        beats=Beats(),
        rhythm=Rhythm(label=label, probability={}, abstained=label is None),
        measurements=EcgMeasurements(heart_rate_bpm=rate, qtcf_ms=qtcf),
        findings=findings,
    )


def photo(
    eye: Eye | None = Eye.LEFT,
    grade: int | None = 0,
    *,
    referable: bool | None = None,
    label: str = "good",
    score: float = 0.9,
    validated: bool = True,
    reasons: tuple[str, ...] = (),
    attempt: int = 1,
) -> FundusResult:
    dr = None
    if label != "reject":
        positive = (grade or 0) >= 2 if referable is None else referable
        dr = DrGrade(
            grade=grade,
            probability=(0.2,) * 5,
            referable_probability=0.6,
            referable=positive,
            threshold=0.5,
            abstained=grade is None,
        )
    review = (Finding(code="fundus-awaiting-review", text="Awaiting review", severity=SOON),)
    return FundusResult(
        id=uuid.uuid5(uuid.NAMESPACE_OID, f"{eye}{grade}{label}{score}{attempt}{validated}"),
        eye=eye,
        width=100,
        height=100,
        at=moment(attempt),
        origin=Origin.LIVE,
        camera=DEVICE,
        quality=Quality(usable=label != "reject", score=score, label=label, reasons=reasons),
        dr=dr,
        not_assessed=("macular oedema", "other eye disease"),
        findings=() if validated else review,
        attempt=attempt,
    )


def judge(
    *vitals: VitalSign,
    answers: Sequence[Answer] = (),
    ecgs: Sequence[EcgResult] = (),
    photos: Sequence[FundusResult] = (),
    patient: Patient = PATIENT,
    **more: object,
) -> Assessment:
    return triage(
        patient=patient,
        at=moment(100),
        vitals=vitals,
        answers=answers,
        ecg=ecgs,
        fundus=photos,
        **more,  # type: ignore[arg-type]
    )


def codes(assessment: Assessment) -> set[str]:
    return {finding.code for finding in assessment.findings}


AWAKE = (answer("consciousness", "A"), answer("on-oxygen", "no"))

RED_FLAGS = [
    "vision-loss", "floaters", "flashes", "curtain", "eye-pain", "double-vision", "chest-pain", "stroke-signs",
    "fainting", "breathlessness", "severe-headache", "palpitations", "confusion",
]  # fmt: skip
