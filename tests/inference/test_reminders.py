"""What the patient takes home in writing."""

from __future__ import annotations

import msgspec
import pytest

from aidpost.inference._rules import RULES, rule_book
from aidpost.inference.reminders import due, reminders
from aidpost.inference.triage import triage
from aidpost.records import (
    Answer,
    Clinic,
    Device,
    Exam,
    ExamReport,
    Finding,
    Operator,
    Timestamp,
    TriageLevel,
    VitalSign,
)

from .exam import PATIENT, answer, moment, pressure, vital


def report(*vitals: VitalSign, answers: tuple[Answer, ...] = (), at: Timestamp | None = None) -> ExamReport:
    at = at or moment()
    made = triage(patient=PATIENT, at=at, vitals=vitals, answers=answers)
    exam = Exam(
        id=PATIENT.id,
        patient=PATIENT.id,
        device=Device(name="d"),
        clinic=Clinic(id="c"),
        operator=Operator(id="o"),
        started=at,
    )
    return ExamReport(
        id=PATIENT.id,
        exam=exam,
        patient=PATIENT,
        triage=made.triage,
        findings=made.findings,
        advice=made.advice,
        answers=answers,
    )


def test_the_earliest_of_all_findings_decides_by_when() -> None:
    found = due(report(*pressure(165, 95), vital("glucose", 12.0)))
    assert found is not None
    assert (found[0], found[1].code) == (14, "glucose-high")


def test_the_date_is_counted_from_the_exam_in_the_clinic_s_zone() -> None:
    # 2025-10-09 08:53:20 UTC
    evening = Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=0, boot=1, synced=True, utc_offset_min=16 * 60)
    [line, *_] = reminders(report(*pressure(165, 95), at=evening))
    assert line.startswith("Be seen within 30 days, by 2025-11-09: Blood pressure 165/95")


def test_an_unconfirmed_clock_gives_no_date() -> None:
    unset = Timestamp(wall_ms=5, monotonic_ms=0, boot=1, synced=False)
    [line, *_] = reminders(report(*pressure(165, 95), at=unset))
    assert "not confirmed" in line
    assert "1970" not in line


def test_an_emergency_is_today() -> None:
    [line, *_] = reminders(report(answers=(answer("chest-pain"),)))
    assert line.startswith("Be seen today")


def test_medicines_as_they_were_given_and_a_single_reading_to_be_repeated() -> None:
    lines = reminders(report(*pressure(165, 95), answers=(answer("medicines", "metformin 500 mg twice a day."),)))
    assert any(line.startswith("Your medicines: metformin 500 mg twice a day. Take them as") for line in lines)
    assert any(line.startswith("Measure your blood pressure again") for line in lines)
    assert not any("medicines" in line for line in reminders(report(answers=(answer("medicines", "none"),))))


def test_nothing_to_act_on_gives_no_date() -> None:
    quiet = msgspec.structs.replace(report(), findings=(Finding(code="x", text="x", severity=TriageLevel.ROUTINE),))
    assert due(quiet) is None


@pytest.mark.parametrize("file", ["combinations", "ecg", "eyes", "symptoms", "trends", "vitals", "watch"])
def test_every_rule_that_asks_for_action_says_what_and_by_when(file: str) -> None:
    for rule in rule_book(file, folder=RULES).rules:
        if rule.severity >= TriageLevel.SOON:
            assert rule.advice, rule.name
            assert rule.within_days is not None, rule.name
        if rule.severity is TriageLevel.EMERGENCY:
            assert rule.within_days == 0, rule.name
