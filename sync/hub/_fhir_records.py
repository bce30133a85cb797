"""The FHIR R4 resources around an exam's results: devices, pictures, traces, referrals as tasks, consents.

Pure functions, as those of `fhir.py`. ECG samples stay the integers they are: value = data * factor + origin.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from aidpost.records import (
    Consent,
    ConsentPurpose,
    Device,
    EcgResult,
    ExamReport,
    FundusResult,
    Origin,
    Referral,
    Timestamp,
)
from aidpost.records import ReferralStatus as Status
from aidpost.sync.hub import codes
from aidpost.sync.hub.codes import Code

Resource = dict[str, Any]

IDENTIFIERS = "urn:ietf:rfc:3986"
_TAG = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
_DEVICES = uuid.UUID("6f0c7a52-6f6b-5d0c-9b52-6c7f1f0f3a10")
"""Namespace of device ids: the same device has the same id at every hub."""
_TASKS = {
    Status.DUE: "requested",
    Status.ATTENDED: "completed",
    Status.UNREACHABLE: "on-hold",
    Status.DECLINED: "rejected",
    Status.DIED: "cancelled",
}
_SCOPES = {
    ConsentPurpose.SCREENING: "treatment",
    ConsentPurpose.SHARING: "patient-privacy",
    ConsentPurpose.RESEARCH: "research",
    ConsentPurpose.MODEL_TRAINING: "research",
}


def instant(at: Timestamp) -> str:
    """A FHIR dateTime in the zone where it was measured."""
    zone = timezone(timedelta(minutes=at.utc_offset_min or 0))
    return datetime.fromtimestamp(at.wall_ms / 1000, zone).isoformat(timespec="milliseconds")


def identified(kind: str, number: uuid.UUID, origin: Origin = Origin.LIVE) -> Resource:
    """The beginning of a resource: its type, id, identifier, and a tag where it is not live."""
    resource: Resource = {"resourceType": kind, "id": str(number)}
    if origin is not Origin.LIVE:
        resource["meta"] = {"tag": [{"system": _TAG, "code": "HTEST", "display": f"not live: {origin.value}"}]}
    return resource | {"identifier": [{"system": IDENTIFIERS, "value": f"urn:uuid:{number}"}]}


def device_id(made: Device) -> uuid.UUID:
    """The id of a device, from what names it."""
    return uuid.uuid5(_DEVICES, "\n".join((made.manufacturer, made.model, made.serial, made.name)))


def device(made: Device) -> Resource:
    """A Device: a sensor, a camera or the handheld."""
    resource = identified("Device", device_id(made))
    if made.name:
        resource["deviceName"] = [{"name": made.name, "type": "user-friendly-name"}]
    for field, value in (
        ("manufacturer", made.manufacturer),
        ("modelNumber", made.model),
        ("serialNumber", made.serial),
    ):
        if value:
            resource[field] = value
    if made.firmware:
        resource["version"] = [{"type": {"text": "firmware"}, "value": made.firmware}]
    return resource


def devices(report: ExamReport) -> list[Resource]:
    """Each device of a report once."""
    made = [report.exam.device, *(photo.camera for photo in report.fundus)]
    made += [ecg.device for ecg in report.ecg] + [vital.device for vital in report.vitals]
    return list({resource["id"]: resource for resource in map(device, made)}.values())


def reference(kind: str, number: uuid.UUID | str, display: str = "") -> Resource:
    """A Reference to a resource by its id."""
    return {"reference": f"{kind}/{number}"} | ({"display": display} if display else {})


def media_id(photo: FundusResult) -> uuid.UUID:
    """The id of a photograph's Media; the photograph's own is that of its Observation."""
    return uuid.uuid5(photo.id, "Media")


def media(report: ExamReport, photo: FundusResult, base: str) -> Resource:
    """A Media that points to the photograph, as taken, at the hub whose pages are at `base`."""
    assert photo.body is not None
    resource = identified("Media", media_id(photo), photo.origin) | {
        "status": "completed",
        "type": {"text": "fundus photograph"},
        "subject": reference("Patient", report.patient.id),
        "createdDateTime": instant(photo.at),
        "device": reference("Device", device_id(photo.camera)),
        "width": photo.width,
        "height": photo.height,
        "content": {
            "contentType": photo.body.media_type,
            "size": photo.body.size,
            "url": f"{base}exams/{report.exam.id}/blobs/{photo.body.sha256}",
            "title": f"SHA-256 {photo.body.sha256}",
        },
    }
    if photo.eye is not None:
        resource["bodySite"] = {"text": f"{photo.eye.value} eye"}
    return resource


def trace(report: ExamReport, ecg: EcgResult, samples: npt.NDArray[np.int32]) -> Resource:
    """An Observation with every lead as SampledData; `samples` is (leads, n), counts. What was not received, or where
    the electrode was off, is "E"."""
    wave = codes.codeable(codes.ECG_WAVE)
    resource = identified("Observation", uuid.uuid5(ecg.id, "trace"), ecg.origin) | {
        "status": "final",
        "category": [{"coding": [{"system": codes.CATEGORY, "code": "procedure"}]}],
        "code": wave,
        "subject": reference("Patient", report.patient.id),
        "effectiveDateTime": instant(ecg.at),
        "device": reference("Device", device_id(ecg.device)),
        "component": [],
    }
    for lead, name in enumerate(ecg.leads):
        gaps = [*ecg.missing, *((start, stop) for number, start, stop in ecg.lead_off if number == lead)]
        code = codes.codeable(Code(codes.LEADS.get(name), (), f"ECG lead {name}", vital_sign=False))
        resource["component"].append({"code": code, "valueSampledData": _sampled(ecg, lead, samples[lead], gaps)})
    return resource


def _sampled(
    ecg: EcgResult, lead: int, counts: npt.NDArray[np.int32], gaps: Iterable[tuple[int, int]]
) -> dict[str, object]:
    words = [str(value) for value in counts.tolist()]
    for start, stop in gaps:
        words[start:stop] = ["E"] * len(words[start:stop])
    scale = ecg.lsb_mv[lead]
    return {
        "origin": {"value": _decimal(-ecg.baseline[lead] * scale), "unit": "mV", "system": codes.UCUM, "code": "mV"},
        "period": _decimal(1000 / ecg.fs_hz),
        "factor": _decimal(scale),
        "dimensions": 1,
        "data": " ".join(words),
    }


def task(referral: Referral, root: uuid.UUID) -> Resource:
    """A Task for a referral as it stands. `root` is the first record of its history, whose id the Task keeps."""
    resource = identified("Task", root) | {
        "status": _TASKS[referral.status],
        "intent": "order",
        "code": {"text": "Referral"},
        "description": f"{referral.to}: {referral.reason}" if referral.reason else referral.to,
        "for": reference("Patient", referral.patient),
        "authoredOn": instant(referral.at),
        "restriction": {"period": {"end": referral.due}},
    }
    if referral.status is not Status.DUE:
        resource["statusReason"] = {"text": referral.status.value}
    return resource


def consent(given: Consent) -> Resource:
    """A Consent: one purpose, given or withdrawn, with the version and language of the text."""
    return identified("Consent", given.id) | {
        "status": "active" if given.given else "inactive",
        "scope": {"coding": [{"system": codes.CONSENT_SCOPE, "code": _SCOPES[given.purpose]}]},
        "category": [{"coding": [{"system": codes.LOINC, "code": "59284-0"}], "text": given.purpose.value}],
        "patient": reference("Patient", given.patient),
        "dateTime": instant(given.at),
        "policyRule": {"text": f"{given.purpose.value}, version {given.version}, {given.language}"},
        "provision": {"type": "permit" if given.given else "deny"},
    }


def _decimal(value: float) -> float:
    """A number that JSON writes without an exponent of noise."""
    return float(f"{value:.9g}") + 0.0
