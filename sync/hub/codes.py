"""The codes of other systems for what Aidpost measures and grades.

MDC: ISO/IEEE 11073-10101 (partition 2: 131072 + term). LOINC as in the FHIR vital signs profiles and the Personal
Health Device guide; DR by LOINC answer list LL2117-1. A code that could not be checked against its source is not here.
"""

from __future__ import annotations

from typing import NamedTuple

from aidpost.records import Eye, VitalKind

MDC = "urn:iso:std:iso:11073:10101"
LOINC = "http://loinc.org"
SNOMED = "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
CONSENT_SCOPE = "http://terminology.hl7.org/CodeSystem/consentscope"


class Code(NamedTuple):
    """A concept's codings: MDC where there is one, LOINC (two for oximetry, as the profile asks), and words."""

    mdc: int | None
    loinc: tuple[str, ...]
    display: str
    vital_sign: bool = True


VITALS: dict[VitalKind, Code] = {
    VitalKind.SYSTOLIC_BP: Code(150021, ("8480-6",), "Systolic blood pressure"),
    VitalKind.DIASTOLIC_BP: Code(150022, ("8462-4",), "Diastolic blood pressure"),
    VitalKind.MEAN_BP: Code(150023, ("8478-0",), "Mean blood pressure"),
    VitalKind.PULSE_RATE: Code(None, ("8867-4",), "Pulse rate"),
    VitalKind.HEART_RATE: Code(147842, ("8867-4",), "Heart rate"),
    VitalKind.RESPIRATORY_RATE: Code(151562, ("9279-1",), "Respiratory rate"),
    VitalKind.SPO2: Code(150456, ("2708-6", "59408-5"), "Oxygen saturation by pulse oximetry"),
    VitalKind.PERFUSION_INDEX: Code(150448, (), "Perfusion index", vital_sign=False),
    VitalKind.TEMPERATURE: Code(150364, ("8310-5",), "Body temperature"),
    VitalKind.GLUCOSE: Code(160184, (), "Glucose, capillary whole blood", vital_sign=False),
    VitalKind.HBA1C: Code(160220, (), "Haemoglobin A1c", vital_sign=False),
    VitalKind.WEIGHT: Code(188736, ("29463-7",), "Body weight"),
    VitalKind.HEIGHT: Code(188740, ("8302-2",), "Body height"),
    VitalKind.BODY_FAT: Code(188748, (), "Body fat", vital_sign=False),
    VitalKind.PEAK_FLOW: Code(152584, (), "Peak expiratory flow", vital_sign=False),
}
BLOOD_PRESSURE = Code(150020, ("85354-9",), "Blood pressure panel")
ECG_STUDY = Code(None, ("11524-6",), "ECG study", vital_sign=False)
ECG_WAVE = Code(131328, (), "ECG wave", vital_sign=False)
LEADS = {"I": 131329}
"""MDC codes of leads, as far as they could be checked."""
HEART_RATE_ECG = VITALS[VitalKind.HEART_RATE]
QTCF = Code(None, ("76634-5",), "QTcF interval", vital_sign=False)

RETINOPATHY = {
    Eye.LEFT: Code(None, ("71490-7",), "Diabetic retinopathy severity, left eye", vital_sign=False),
    Eye.RIGHT: Code(None, ("71491-5",), "Diabetic retinopathy severity, right eye", vital_sign=False),
}
RETINOPATHY_ANSWERS = (
    ("LA18643-9", "No apparent retinopathy"),
    ("LA18644-7", "Mild non-proliferative retinopathy"),
    ("LA18645-4", "Moderate non-proliferative retinopathy"),
    ("LA18646-2", "Severe non-proliferative retinopathy"),
    ("LA18648-8", "Proliferative retinopathy"),
)


def codeable(code: Code) -> dict[str, object]:
    """A FHIR CodeableConcept with every coding there is."""
    coding = [{"system": MDC, "code": str(code.mdc)}] if code.mdc is not None else []
    coding += [{"system": LOINC, "code": loinc} for loinc in code.loinc]
    return ({"coding": coding} if coding else {}) | {"text": code.display}
