"""What is shown where a model has yet to prove itself: nothing of its answer, everything else, and no reassurance."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.inference.shadow import TASKS, concealed
from aidpost.records import (
    Answer,
    Clinic,
    EcgResult,
    Exam,
    ExamReport,
    Eye,
    Finding,
    FundusResult,
    Operator,
    Triage,
    TriageLevel,
    VitalSign,
    encode,
)

from . import exam as pieces


def report(
    ecg: Sequence[EcgResult] = (),
    fundus: Sequence[FundusResult] = (),
    vitals: Sequence[VitalSign] = (),
    answers: Sequence[Answer] = (),
) -> ExamReport:
    found = pieces.judge(*vitals, ecgs=ecg, photos=fundus, answers=answers)
    about = Exam(
        id=pieces.PATIENT.id,
        patient=pieces.PATIENT.id,
        device=pieces.DEVICE,
        clinic=Clinic(id="c"),
        operator=Operator(id="o"),
        started=pieces.moment(100),
    )
    return ExamReport(
        id=pieces.PATIENT.id,
        exam=about,
        patient=pieces.PATIENT,
        triage=found.triage,
        findings=found.findings,
        ecg=tuple(ecg),
        fundus=tuple(fundus),
        vitals=tuple(vitals),
        answers=tuple(answers),
        not_assessed=(*found.not_assessed, "ECG: no answer within 1 s"),
        advice=found.advice,
    )


def af() -> EcgResult:
    finding = Finding(
        code="atrial-fibrillation", text="Atrial fibrillation", severity=TriageLevel.SOON, model="ecg-rhythm"
    )
    slow = Finding(code="qtc-prolonged", text="QTc is long", severity=TriageLevel.SOON)
    made = pieces.ecg("A")
    rhythm = msgspec.structs.replace(made.rhythm, probability={"A": 0.93, "N": 0.07})
    return msgspec.structs.replace(made, findings=(finding, slow), rhythm=rhythm)


EYES = [pieces.photo(Eye.RIGHT, grade=3), pieces.photo(Eye.LEFT, grade=0)]


def test_grade_heatmap_and_what_follows_from_them_are_gone_and_the_rest_is_there() -> None:
    whole = report([af()], EYES, pieces.pressure(165, 95), [pieces.answer("chest-pain")])
    shown = concealed(whole, ("dr",))
    assert all(one.dr is None and one.heatmap is None and not one.findings for one in shown.fundus)
    assert [one.body for one in shown.fundus] == [one.body for one in whole.fundus]
    kept = {finding.code for finding in shown.findings}
    assert "atrial-fibrillation" in kept
    assert any("chest" in code for code in kept), "a red flag stays"
    assert not any("retinopathy" in finding.text.lower() for finding in shown.findings)
    assert shown.triage.level is TriageLevel.EMERGENCY
    assert {"right eye", "left eye"} <= set(shown.not_assessed)
    assert "ECG: no answer within 1 s" in shown.not_assessed
    assert whole.fundus == tuple(EYES), "the report itself is as it was"


def test_rhythm_is_gone_and_intervals_stay() -> None:
    shown = concealed(report([af()], EYES), ("af",))
    assert shown.ecg[0].rhythm.label is None
    assert not shown.ecg[0].rhythm.probability
    codes = {finding.code for finding in shown.findings}
    assert "qtc-prolonged" in codes
    assert "atrial-fibrillation" not in codes
    assert "heart rhythm" in shown.not_assessed
    assert shown.fundus == tuple(EYES)


def test_nobody_is_reassured_by_what_is_not_shown() -> None:
    healthy = report([pieces.ecg("N")], [pieces.photo(eye, grade=0) for eye in Eye], pieces.pressure(120, 80))
    shown = concealed(healthy, TASKS)
    assert {"heart rhythm", "right eye", "left eye"} <= set(shown.not_assessed)
    assert not any("no " in text.lower() and "retinopathy" in text.lower() for text in shown.advice)


def test_unusable_photograph_stays_an_ungradable_one() -> None:
    blurred = pieces.photo(Eye.RIGHT, None, label="reject", reasons=("blur",))
    whole = report(fundus=[blurred, pieces.photo(Eye.LEFT, grade=4)])
    shown = concealed(whole, TASKS)
    ungradable = {finding.code for finding in whole.findings if blurred.id in finding.about}
    assert ungradable
    assert ungradable <= {finding.code for finding in shown.findings}


def test_triage_that_a_person_chose_stays() -> None:
    chosen = Triage(level=TriageLevel.URGENT, computed=TriageLevel.SOON, changed_by="Rose", changed_because="looks ill")
    whole = msgspec.structs.replace(report(fundus=EYES), triage=chosen)
    assert concealed(whole, TASKS).triage.level is TriageLevel.URGENT


@pytest.mark.parametrize("tasks", [(), ("af",)])
def test_report_with_nothing_to_hide_is_the_same(tasks: tuple[str, ...]) -> None:
    whole = report(fundus=EYES, vitals=pieces.pressure(150, 90))
    assert concealed(whole, tasks) == whole


@given(
    grades=st.lists(st.integers(0, 4), min_size=2, max_size=2),
    label=st.sampled_from(["N", "A", "O", None]),
    systolic=st.floats(80, 220),
    red_flag=st.booleans(),
)
def test_whatever_the_models_said_what_is_shown_is_the_same(
    grades: list[int], label: str | None, systolic: float, red_flag: bool
) -> None:
    def shown(grades: Sequence[int], label: str | None) -> ExamReport:
        answers = [pieces.answer("vision-loss")] if red_flag else []
        eyes = [pieces.photo(eye, grade=grade) for eye, grade in zip(Eye, grades, strict=True)]
        eyes = [msgspec.structs.replace(one, id=other.id) for one, other in zip(eyes, EYES, strict=True)]
        trace = msgspec.structs.replace(pieces.ecg(label), id=af().id, findings=())
        trace = msgspec.structs.replace(trace, rhythm=msgspec.structs.replace(trace.rhythm, probability={"N": 0.5}))
        return concealed(report([trace], eyes, pieces.pressure(systolic, 80), answers), TASKS)

    assert encode(shown(grades, label)) == encode(shown([0, 0], "N")), "nothing lets a worker guess"
