"""FHIR R4: every resource is read back by somebody else's models, and says what is missing and what is not final."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest
from fhir.resources.R4B import get_fhir_model_class

from aidpost.records import (
    AbsentReason,
    Beats,
    Device,
    DrGrade,
    EcgMeasurements,
    EcgResult,
    ExamReport,
    Eye,
    FundusResult,
    Identifier,
    Origin,
    Patient,
    Quality,
    Review,
    ReviewDecision,
    Rhythm,
    Sex,
    VitalKind,
    VitalSign,
)
from aidpost.sync.hub import fhir

from .conftest import at, make_report, make_vital

CAMERA = Device(name="camera")


def photo(eye: Eye, grade: int | None, *, usable: bool = True) -> FundusResult:
    dr = DrGrade(
        grade=grade,
        probability=(0.2, 0.2, 0.2, 0.2, 0.2),
        referable_probability=0.6,
        referable=True,
        threshold=0.4,
        abstained=grade is None,
    )
    quality = Quality(usable=usable, score=0.8 if usable else 0.1, reasons=() if usable else ("blur",))
    return FundusResult(
        id=uuid.uuid4(), eye=eye, width=10, height=10, at=at(), origin=Origin.LIVE, camera=CAMERA, quality=quality,
        dr=dr if usable else None,
    )  # fmt: skip


def ecg(label: str | None) -> EcgResult:
    return EcgResult(
        id=uuid.uuid4(), fs_hz=300.0, duration_s=30.0, leads=("I",), lsb_mv=(0.001,), baseline=(0,), lead="I", at=at(),
        origin=Origin.LIVE, device=Device(name="ecg"), quality=Quality(usable=True, score=1.0), beats=Beats(),
        rhythm=Rhythm(label=label, probability={}, abstained=label is None),
        measurements=EcgMeasurements(heart_rate_bpm=71.0, qtcf_ms=402.0),
    )  # fmt: skip


def vitals() -> tuple[VitalSign, ...]:
    cuff = uuid.uuid4()
    absent = make_vital(kind=VitalKind.TEMPERATURE, value=None, unit="Cel", absent=AbsentReason.NOT_A_NUMBER)
    return (
        make_vital(kind=VitalKind.SYSTOLIC_BP, value=142.0, unit="mm[Hg]", group=cuff),
        make_vital(kind=VitalKind.DIASTOLIC_BP, value=91.0, unit="mm[Hg]", group=cuff),
        make_vital(kind=VitalKind.GLUCOSE, value=7.8, unit="mmol/L"),
        make_vital(),
        absent,
    )


def whole() -> ExamReport:
    return make_report(
        vitals=vitals(), fundus=(photo(Eye.LEFT, 2), photo(Eye.RIGHT, None, usable=False)), ecg=(ecg("A"), ecg(None))
    )


def review(report: ExamReport, decision: ReviewDecision) -> Review:
    return Review(
        id=uuid.uuid4(), report=report.id, exam=report.exam.id, patient=report.patient.id, reviewer="Dr Okoro",
        decision=decision, at=at(), text="Seen.",
    )  # fmt: skip


def check(resource: dict[str, Any]) -> None:
    model = get_fhir_model_class(resource["resourceType"])
    model.model_validate(resource)


def by_loinc(report: ExamReport, loinc: str) -> dict[str, Any]:
    found = [
        item
        for item in fhir.observations(report)
        if any(coding.get("code") == loinc for coding in item["code"].get("coding", ()))
    ]
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("decision", [None, *ReviewDecision])
def test_every_resource_is_valid_r4(decision: ReviewDecision | None) -> None:
    report = whole()
    reviews = [review(report, decision)] if decision else []
    bundle = fhir.bundle(report, reviews)
    check(bundle)
    for entry in bundle["entry"]:
        check(entry["resource"])
    check(fhir.searchset([entry["resource"] for entry in bundle["entry"]], 9, "http://hub/"))
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "Patient": 1, "Device": 4, "Observation": 4 + 2 + 2, "DiagnosticReport": 1,
    }  # fmt: skip


def test_patient_with_everything_and_with_nothing_is_valid() -> None:
    check(fhir.patient(Patient(id=uuid.uuid4())))
    full = Patient(
        id=uuid.uuid4(), name="王秀英", birth_date="1950-03", sex=Sex.FEMALE, telephone="+86 1",
        identifiers=(Identifier(system="clinic", value="7"),),
    )  # fmt: skip
    resource = fhir.patient(full)
    check(resource)
    assert resource["birthDate"] == "1950-03"


def test_result_is_preliminary_until_it_is_signed() -> None:
    report = whole()
    assert fhir.diagnostic_report(report)["status"] == "preliminary"
    statuses = {d: fhir.diagnostic_report(report, [review(report, d)])["status"] for d in ReviewDecision}
    assert statuses == {
        ReviewDecision.CONFIRMED: "final",
        ReviewDecision.CORRECTED: "corrected",
        ReviewDecision.RETAKE: "preliminary",
    }
    earlier = make_report()
    assert fhir.diagnostic_report(report, [review(earlier, ReviewDecision.CONFIRMED)])["status"] == "preliminary"


def test_blood_pressure_is_one_panel_with_components() -> None:
    panel = by_loinc(whole(), "85354-9")
    values = [component["valueQuantity"]["value"] for component in panel["component"]]
    assert values == [142.0, 91.0]
    assert "valueQuantity" not in panel


def test_oxygen_saturation_has_both_loinc_codes_and_mdc() -> None:
    coding = by_loinc(whole(), "59408-5")["code"]["coding"]
    assert [c["code"] for c in coding] == ["150456", "2708-6", "59408-5"]


def test_rr_intervals_are_numbers_under_words_and_no_code_is_invented() -> None:
    beats = make_vital(kind=VitalKind.HEART_RATE, value=73.0, unit="/min")
    report = make_report(vitals=(msgspec.structs.replace(beats, rr_ms=(800.0, 820.0, 840.0)),))
    (found,) = fhir.observations(report)
    check(found)
    assert [(one["code"], one.get("valueInteger") or one["valueQuantity"]["value"]) for one in found["component"]] == [
        ({"text": "RR intervals"}, 3),
        ({"text": "RR interval, mean"}, 820.0),
        ({"text": "RR interval, shortest"}, 800.0),
        ({"text": "RR interval, longest"}, 840.0),
    ]


def test_missing_value_has_a_reason_and_no_number() -> None:
    temperature = by_loinc(whole(), "8310-5")
    assert temperature["dataAbsentReason"]["coding"][0]["code"] == "not-a-number"
    assert "valueQuantity" not in temperature


def test_ungradable_photograph_is_not_grade_zero() -> None:
    right = by_loinc(whole(), "71491-5")
    assert "valueCodeableConcept" not in right
    assert right["dataAbsentReason"]
    assert "blur" in right["note"][0]["text"]
    left = by_loinc(whole(), "71490-7")
    assert left["valueCodeableConcept"]["coding"][0]["code"] == "LA18645-4"


def test_what_is_not_live_is_tagged_as_test_data() -> None:
    report = make_report(origin=Origin.SIMULATED, vitals=(make_vital(origin=Origin.SIMULATED),))
    for resource in (fhir.diagnostic_report(report), *fhir.observations(report)):
        check(resource)
        assert resource["meta"]["tag"][0]["code"] == "HTEST"
    assert "meta" not in fhir.diagnostic_report(make_report())
