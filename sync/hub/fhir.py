"""Exams as FHIR R4 resources: plain dictionaries, ready for JSON. Pure functions of a report and its reviews.

What the device found is `preliminary` until a clinician has signed; a missing value has a reason and never a number; an
unreadable photograph is an Observation without a grade. What is not live says so in `meta.tag`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from aidpost.records import (
    AbsentReason,
    EcgResult,
    ExamReport,
    FundusResult,
    Origin,
    Patient,
    Review,
    ReviewDecision,
    Timestamp,
    VitalKind,
    VitalSign,
)
from aidpost.sync.hub import codes
from aidpost.sync.hub.codes import Code

Resource = dict[str, Any]

IDENTIFIERS = "urn:ietf:rfc:3986"
_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_TAG = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_PRESSURES = (VitalKind.SYSTOLIC_BP, VitalKind.DIASTOLIC_BP, VitalKind.MEAN_BP)


def bundle(report: ExamReport, reviews: Sequence[Review] = ()) -> Resource:
    """Everything of one exam as a collection: Patient, DiagnosticReport, Observations."""
    resources = [patient(report.patient), diagnostic_report(report, reviews), *observations(report, reviews)]
    entries = [{"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource} for resource in resources]
    return {"resourceType": "Bundle", "type": "collection", "entry": entries}


def searchset(resources: Sequence[Resource], total: int, base: str) -> Resource:
    """The answer to a search."""
    entries = [
        {
            "fullUrl": f"{base}fhir/{resource['resourceType']}/{resource['id']}",
            "resource": resource,
            "search": {"mode": "match"},
        }
        for resource in resources
    ]
    return {"resourceType": "Bundle", "type": "searchset", "total": total} | ({"entry": entries} if entries else {})


def patient(person: Patient) -> Resource:
    """A Patient; the id is the device-made UUID, local numbers are identifiers."""
    resource: Resource = {"resourceType": "Patient", "id": str(person.id), "gender": person.sex.value}
    resource["identifier"] = [{"system": IDENTIFIERS, "value": f"urn:uuid:{person.id}"}]
    resource["identifier"] += [
        {"type": {"text": identifier.system}, "value": identifier.value} for identifier in person.identifiers
    ]
    if person.name:
        resource["name"] = [{"text": person.name}]
    if person.birth_date:
        resource["birthDate"] = person.birth_date
    if person.telephone:
        resource["telecom"] = [{"system": "phone", "value": person.telephone}]
    return resource


def diagnostic_report(report: ExamReport, reviews: Sequence[Review] = ()) -> Resource:
    """A DiagnosticReport with the id of the exam's report; final once a clinician has signed it."""
    signed = _signed(report, reviews)
    conclusion = (
        "; ".join(finding.text for finding in report.findings) or "No abnormality was found in what was assessed."
    )
    resource: Resource = {
        "resourceType": "DiagnosticReport",
        "id": str(report.id),
        **_meta(report.origin),
        "identifier": [{"system": IDENTIFIERS, "value": f"urn:uuid:{report.id}"}],
        "status": _status(signed),
        "code": {"text": "Point-of-care examination"},
        "subject": _patient_reference(report),
        "effectiveDateTime": instant(report.exam.started),
        "performer": [{"display": report.exam.clinic.name or report.exam.clinic.id}],
        "result": [{"reference": f"Observation/{item['id']}"} for item in observations(report, reviews)],
        "conclusion": f"{conclusion} Triage: {report.triage.level.value}.",
    }
    if not resource["result"]:
        del resource["result"]
    if signed:
        resource["resultsInterpreter"] = [{"display": signed.reviewer}]
        resource["issued"] = instant(signed.at)
        resource["conclusion"] += f" {signed.reviewer}: {signed.decision.value}. {signed.text}".rstrip()
    return resource


def observations(report: ExamReport, reviews: Sequence[Review] = ()) -> list[Resource]:
    """An Observation for each vital sign (one panel for a blood pressure), photograph and ECG."""
    status = _status(_signed(report, reviews))
    made: list[Resource] = []
    groups: dict[uuid.UUID, list[VitalSign]] = {}
    for vital in report.vitals:
        if vital.kind in _PRESSURES:
            groups.setdefault(vital.group or vital.id, []).append(vital)
        elif vital.kind in codes.VITALS:
            made.append(_vital(report, vital))
    made += [_pressure(report, group) for group in groups.values()]
    made += [_retinopathy(report, photo, status) for photo in report.fundus if photo.eye is not None]
    made += [_ecg(report, ecg, status) for ecg in report.ecg]
    return made


def instant(at: Timestamp) -> str:
    """A FHIR dateTime in the zone where it was measured."""
    zone = timezone(timedelta(minutes=at.utc_offset_min or 0))
    return datetime.fromtimestamp(at.wall_ms / 1000, zone).isoformat(timespec="milliseconds")


def _vital(report: ExamReport, vital: VitalSign) -> Resource:
    code = codes.VITALS[vital.kind]
    return _observation(report, vital.id, code, vital.at, vital.origin, "final") | _value(vital) | _device(vital)


def _pressure(report: ExamReport, group: Sequence[VitalSign]) -> Resource:
    first = group[0]
    resource = _observation(report, first.id, codes.BLOOD_PRESSURE, first.at, first.origin, "final")
    resource["component"] = [{"code": codes.codeable(codes.VITALS[vital.kind])} | _value(vital) for vital in group]
    return resource | _device(first)


def _retinopathy(report: ExamReport, photo: FundusResult, status: str) -> Resource:
    assert photo.eye is not None
    resource = _observation(report, photo.id, codes.RETINOPATHY[photo.eye], photo.at, photo.origin, status)
    grade = photo.dr.grade if photo.dr and not photo.dr.abstained else None
    if grade is None:
        # an ungradable photograph is a result of its own, never grade 0
        reason = "not-performed" if not photo.quality.usable else "unknown"
        resource["dataAbsentReason"] = _absent(reason)
        resource["note"] = [{"text": "Ungradable: " + (", ".join(photo.quality.reasons) or "the model abstained")}]
    else:
        answer, display = codes.RETINOPATHY_ANSWERS[grade]
        resource["valueCodeableConcept"] = {
            "coding": [{"system": codes.LOINC, "code": answer}],
            "text": f"ICDR {grade}: {display}",
        }
    if photo.models:
        resource["method"] = {"text": ", ".join(f"{model.name} {model.version}" for model in photo.models)}
    return resource


def _ecg(report: ExamReport, ecg: EcgResult, status: str) -> Resource:
    resource = _observation(report, ecg.id, codes.ECG_STUDY, ecg.at, ecg.origin, status)
    rhythm = ecg.rhythm.label if not ecg.rhythm.abstained else None
    words = {"N": "Sinus rhythm", "A": "Atrial fibrillation", "O": "Other rhythm", "~": "Too noisy to read"}
    if rhythm is None:
        resource["dataAbsentReason"] = _absent("unknown")
    else:
        resource["valueString"] = words.get(rhythm, rhythm)
    components = [
        (codes.HEART_RATE_ECG, ecg.measurements.heart_rate_bpm, "/min"),
        (codes.QTCF, ecg.measurements.qtcf_ms, "ms"),
    ]
    measured = [
        {"code": codes.codeable(code), "valueQuantity": _quantity(value, unit)}
        for code, value, unit in components
        if value is not None
    ]
    return resource | ({"component": measured} if measured else {})


def _observation(
    report: ExamReport, number: uuid.UUID, code: Code, at: Timestamp, origin: Origin, status: str
) -> Resource:
    category = "vital-signs" if code.vital_sign else "exam"
    return {
        "resourceType": "Observation",
        "id": str(number),
        **_meta(origin),
        "identifier": [{"system": IDENTIFIERS, "value": f"urn:uuid:{number}"}],
        "status": status,
        "category": [{"coding": [{"system": _CATEGORY, "code": category}]}],
        "code": codes.codeable(code),
        "subject": _patient_reference(report),
        "effectiveDateTime": instant(at),
    }


def _value(vital: VitalSign) -> Resource:
    if vital.value is None:
        return {"dataAbsentReason": _absent((vital.absent or AbsentReason.ERROR).value)}
    return {"valueQuantity": _quantity(vital.value, vital.unit)}


def _quantity(value: float, unit: str) -> Resource:
    return {"value": value, "unit": unit, "system": codes.UCUM, "code": unit}


def _absent(code: str) -> Resource:
    return {"coding": [{"system": _ABSENT, "code": code}]}


def _device(vital: VitalSign) -> Resource:
    return {"device": {"display": " ".join(filter(None, (vital.device.manufacturer, vital.device.name)))}}


def _patient_reference(report: ExamReport) -> Resource:
    return {"reference": f"Patient/{report.patient.id}"}


def _meta(origin: Origin) -> Resource:
    if origin is Origin.LIVE:
        return {}
    return {"meta": {"tag": [{"system": _TAG, "code": "HTEST", "display": f"not live: {origin.value}"}]}}


def _signed(report: ExamReport, reviews: Sequence[Review]) -> Review | None:
    of_this = [review for review in reviews if review.report == report.id]
    return of_this[-1] if of_this else None


def _status(signed: Review | None) -> str:
    if signed is None or signed.decision is ReviewDecision.RETAKE:
        return "preliminary"
    return "corrected" if signed.decision is ReviewDecision.CORRECTED else "final"
