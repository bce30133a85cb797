"""Exams as FHIR R4 resources: plain dictionaries, ready for JSON. Pure functions of a report and its reviews.

What the device found is `preliminary` until a clinician has signed; a missing value has a reason and never a number; an
unreadable photograph is an Observation without a grade. What is not live says so in `meta.tag`.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from aidpost.records import (
    AbsentReason,
    Device,
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
from aidpost.sync.hub._fhir_records import (
    IDENTIFIERS,
    consent,
    device_id,
    devices,
    identified,
    instant,
    media,
    media_id,
    reference,
)
from aidpost.sync.hub.catalogue import intervals
from aidpost.sync.hub.codes import Code
from aidpost.sync.hub.readings import EYES, GENERAL, HEART

Resource = dict[str, Any]

_ABSENT = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
_RESULTS = ("DiagnosticReport", "Observation", "Media")
_PRESSURES = (VitalKind.SYSTOLIC_BP, VitalKind.DIASTOLIC_BP, VitalKind.MEAN_BP)


def resources(report: ExamReport, reviews: Sequence[Review] = (), base: str = "") -> list[Resource]:
    """Everything of one exam but its traces and referrals, what is referred to before what refers to it.

    Parameters
    ----------
    reviews
        The settled ones.
    base
        Where the hub's pages are, with a slash at its end: photographs are named by URL.
    """
    return [
        patient(report.patient),
        *devices(report),
        *(consent(given) for given in report.consents),
        *observations(report, reviews),
        *(media(report, photo, base) for photo in report.fundus if photo.body),
        diagnostic_report(report, reviews),
    ]


def withdrawn(report: ExamReport) -> list[Resource]:
    """The results of an exam that was filed under the wrong patient, each entered in error, and what they refer to."""
    made = resources(report)
    return [
        resource | ({"status": "entered-in-error"} if resource["resourceType"] in _RESULTS else {})
        for resource in made
        if resource["resourceType"] != "Consent"
    ]


def bundle(report: ExamReport, reviews: Sequence[Review] = (), base: str = "") -> Resource:
    """Everything of one exam as a collection."""
    entries = [
        {"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource} for resource in resources(report, reviews, base)
    ]
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
    """A DiagnosticReport with the id of the exam's report; final once every part has been signed."""
    signed = _signed(report, reviews)
    conclusion = (
        "; ".join(finding.text for finding in report.findings) or "No abnormality was found in what was assessed."
    )
    resource = identified("DiagnosticReport", report.id, report.origin) | {
        "status": _status(report, reviews, *_parts(report)),
        "code": {"text": "Point-of-care examination"},
        "subject": reference("Patient", report.patient.id),
        "effectiveDateTime": instant(report.exam.started),
        "performer": [{"display": report.exam.clinic.name or report.exam.clinic.id}],
        "result": [reference("Observation", item["id"]) for item in observations(report, reviews)],
        "media": [{"link": reference("Media", media_id(photo))} for photo in report.fundus if photo.body],
        "conclusion": f"{conclusion} Triage: {report.triage.level.value}.",
    }
    resource = {name: value for name, value in resource.items() if value != []}
    if signed:
        names = dict.fromkeys(review.reviewer for review in signed)
        resource["resultsInterpreter"] = [{"display": name} for name in names]
        resource["issued"] = instant(signed[-1].at)
        for review in signed:
            resource["conclusion"] += f" {review.reviewer}: {review.decision.value}. {review.text}".rstrip()
    return resource


def observations(report: ExamReport, reviews: Sequence[Review] = ()) -> list[Resource]:
    """An Observation for each vital sign (one panel for a blood pressure), photograph and ECG."""
    eyes, heart = (_status(report, reviews, part) for part in (EYES, HEART))
    made: list[Resource] = []
    groups: dict[uuid.UUID, list[VitalSign]] = {}
    for vital in report.vitals:
        if vital.kind in _PRESSURES:
            groups.setdefault(vital.group or vital.id, []).append(vital)
        elif vital.kind in codes.VITALS:
            made.append(_vital(report, vital))
    made += [_pressure(report, group) for group in groups.values()]
    made += [_retinopathy(report, photo, eyes) for photo in report.fundus if photo.eye is not None]
    made += [_ecg(report, ecg, heart) for ecg in report.ecg]
    return made


def _vital(report: ExamReport, vital: VitalSign) -> Resource:
    code = codes.VITALS[vital.kind]
    resource = _observation(report, vital.id, code, vital.at, vital.origin, "final") | _value(vital)
    return resource | _device(vital.device) | _intervals(vital)


def _intervals(vital: VitalSign) -> Resource:
    """Intervals between beats, by words alone: LOINC 80404-7 is their standard deviation, and the codes of 11073 for an
    RR interval are of an ECG, which a sensor on a wrist has not."""
    found = intervals(vital)
    if found is None:
        return {}
    values = (("mean", found.mean_ms), ("shortest", found.low_ms), ("longest", found.high_ms))
    return {
        "component": [
            {"code": {"text": "RR intervals"}, "valueInteger": found.number},
            *({"code": {"text": f"RR interval, {what}"}, "valueQuantity": _quantity(ms, "ms")} for what, ms in values),
        ]
    }


def _pressure(report: ExamReport, group: Sequence[VitalSign]) -> Resource:
    first = group[0]
    resource = _observation(report, first.id, codes.BLOOD_PRESSURE, first.at, first.origin, "final")
    resource["component"] = [{"code": codes.codeable(codes.VITALS[vital.kind])} | _value(vital) for vital in group]
    return resource | _device(first.device)


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
    resource |= _device(photo.camera)
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
    return resource | _device(ecg.device) | ({"component": measured} if measured else {})


def _observation(
    report: ExamReport, number: uuid.UUID, code: Code, at: Timestamp, origin: Origin, status: str
) -> Resource:
    category = "vital-signs" if code.vital_sign else "exam"
    return identified("Observation", number, origin) | {
        "status": status,
        "category": [{"coding": [{"system": codes.CATEGORY, "code": category}]}],
        "code": codes.codeable(code),
        "subject": reference("Patient", report.patient.id),
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


def _device(made: Device) -> Resource:
    return {"device": reference("Device", device_id(made), f"{made.manufacturer} {made.name}".strip())}


def _parts(report: ExamReport) -> list[str]:
    present = [part for part, there in ((EYES, report.fundus), (HEART, report.ecg)) if there]
    return present or [GENERAL]


def _signed(report: ExamReport, reviews: Sequence[Review]) -> list[Review]:
    """The reviews that count: of each part the last, and none that was superseded."""
    last: dict[str, Review] = {}
    for review in reviews:
        if review.report == report.id:
            for part in review.parts or _parts(report):
                last[part] = review
    return list({review.id: review for review in last.values()}.values())


def _status(report: ExamReport, reviews: Sequence[Review], *parts: str) -> str:
    """`preliminary` until every one of the parts was signed."""
    decisions = []
    for part in parts:
        found = [review for review in _signed(report, reviews) if part in (review.parts or _parts(report))]
        if not found or found[-1].decision is ReviewDecision.RETAKE:
            return "preliminary"
        decisions.append(found[-1].decision)
    return "corrected" if ReviewDecision.CORRECTED in decisions else "final"
