"""Findings and advice in another language."""

from __future__ import annotations

import msgspec
import pytest

from aidpost.inference import wording
from aidpost.inference.triage import triage
from aidpost.records import Clinic, Device, Exam, ExamReport, Operator, decode, encode

from .exam import PATIENT, moment, pressure, vital


def report() -> ExamReport:
    vitals = [*pressure(165, 95), vital("glucose", 12.0, context="fasting")]
    made = triage(patient=PATIENT, at=moment(), vitals=vitals)
    exam = Exam(
        id=PATIENT.id,
        patient=PATIENT.id,
        device=Device(name="d"),
        clinic=Clinic(id="c"),
        operator=Operator(id="o"),
        started=moment(),
    )
    whole = ExamReport(
        id=PATIENT.id, exam=exam, patient=PATIENT, triage=made.triage, findings=made.findings, advice=made.advice
    )
    return decode(ExamReport, encode(whole))  # as it came over the wire


SPANISH = {
    "Blood pressure {systolic:.0f}/{diastolic:.0f}, grade 2{bp_repeat}.": (
        "Tensión {systolic:.0f}/{diastolic:.0f}, grado 2{bp_repeat}."
    ),
    "See a doctor about your blood pressure within a month.": "Vea a un médico por su tensión dentro de un mes.",
    " on one reading: measure again after five minutes' rest": ": mida otra vez",
}


def spanish(message: str) -> str:
    return SPANISH.get(message, message)


def test_a_finding_is_said_in_another_language_with_its_own_values() -> None:
    [finding] = [one for one in report().findings if one.code == "bp-grade-2"]
    assert wording.word(finding, spanish) == "Tensión 165/95, grado 2: mida otra vez."
    assert wording.word(finding, str) == finding.text


def test_advice_keeps_its_order_and_what_has_no_translation_stays() -> None:
    said = wording.advice(report(), spanish)
    assert len(said) == len(report().advice)
    assert "Vea a un médico por su tensión dentro de un mes." in said
    assert wording.advice(report(), str) == report().advice


@pytest.mark.parametrize("rule", ["", "bp-grade-2", "bp-grade-2@../../secrets 1.0.0", "gone@vitals 0.1.0"])
def test_a_finding_of_no_known_rule_stands_as_it_is(rule: str) -> None:
    finding = msgspec.structs.replace(report().findings[0], rule=rule)
    assert wording.word(finding, lambda message: "translated") == finding.text


def test_a_broken_translation_is_not_shown() -> None:
    finding = report().findings[0]
    assert wording.word(finding, lambda message: "{systolic:.0f") == finding.text


def test_every_message_of_every_rule_is_in_the_catalogue_s_source() -> None:
    found = dict(wording.messages())
    assert all(message in found for message in list(SPANISH)[:2])
    assert len(found) > 80
