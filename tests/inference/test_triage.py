"""One triage from everything: each table at its boundaries, the eyes' truth table, combinations, explanations."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from aidpost.errors import ConfigurationError
from aidpost.inference.triage import explain
from aidpost.records import (
    Clinic,
    Exam,
    ExamReport,
    Eye,
    Finding,
    FundusResult,
    Operator,
    Sex,
    TriageLevel,
    VitalSign,
)

from .exam import (
    AWAKE,
    DEVICE,
    EMERGENCY,
    PATIENT,
    RED_FLAGS,
    ROUTINE,
    SOON,
    URGENT,
    answer,
    codes,
    ecg,
    judge,
    moment,
    photo,
    pressure,
    vital,
)

# ---- each table at its boundaries

LEVELS = [
    ("spo2", 98, None, ROUTINE), ("spo2", 94, None, ROUTINE), ("spo2", 93.9, "spo2-low", SOON),
    ("spo2", 92, "spo2-low", SOON), ("spo2", 89.9, "spo2-hypoxaemia", URGENT), ("spo2", 85, "spo2-hypoxaemia", URGENT),
    ("spo2", 84.9, "spo2-severe", EMERGENCY),
    ("temperature", 37.9, None, ROUTINE), ("temperature", 38.0, "fever", SOON), ("temperature", 39.0, "fever", SOON),
    ("temperature", 39.1, "high-fever", URGENT), ("temperature", 41.0, "hyperpyrexia", EMERGENCY),
    ("temperature", 35.1, None, ROUTINE), ("temperature", 35.0, "hypothermia", URGENT),
    ("temperature", 31.9, "severe-hypothermia", EMERGENCY),
    ("glucose", 5.5, None, ROUTINE), ("glucose", 3.9, None, ROUTINE), ("glucose", 3.89, "glucose-hypo", URGENT),
    ("glucose", 3.0, "glucose-hypo", URGENT), ("glucose", 2.99, "glucose-severe-hypo", EMERGENCY),
    ("glucose", 6.9, None, ROUTINE), ("glucose", 7.0, "glucose-context-unknown", SOON),
    ("glucose", 11.1, "glucose-high", SOON), ("glucose", 16.7, "glucose-very-high", URGENT),
    ("glucose", 33.3, "glucose-extreme", EMERGENCY),
    ("hba1c", 6.4, None, ROUTINE), ("hba1c", 6.5, "hba1c-high", SOON),
    ("pulse_rate", 131, "news2-single-extreme", URGENT), ("pulse_rate", 40, "news2-single-extreme", URGENT),
    ("respiratory_rate", 25, "news2-single-extreme", URGENT), ("respiratory_rate", 8, "news2-single-extreme", URGENT),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "code", "level"), LEVELS)
def test_single_vital_signs_at_their_limits(kind: str, value: float, code: str | None, level: TriageLevel) -> None:
    done = judge(vital(kind, value))
    assert done.triage.level is level
    assert codes(done) >= ({code} if code else set())
    for finding in done.findings:
        assert finding.source
        assert finding.rule


PRESSURES = [
    (119, 79, None, ROUTINE), (130, 80, "bp-high-normal", ROUTINE), (120, 85, "bp-high-normal", ROUTINE),
    (139, 89, "bp-high-normal", ROUTINE), (140, 80, "bp-grade-1", SOON), (120, 90, "bp-grade-1", SOON),
    (160, 80, "bp-grade-2", SOON), (120, 100, "bp-grade-2", SOON), (180, 80, "bp-grade-3", URGENT),
    (120, 110, "bp-grade-3", URGENT), (91, 60, None, ROUTINE), (90, 60, "bp-low", URGENT),
]  # fmt: skip


@pytest.mark.parametrize(("systolic", "diastolic", "code", "level"), PRESSURES)
def test_blood_pressure_classes(systolic: float, diastolic: float, code: str | None, level: TriageLevel) -> None:
    done = judge(*pressure(systolic, diastolic))
    assert done.triage.level is level
    assert {name for name in codes(done) if name.startswith("bp-")} == ({code} if code else set())


def test_the_last_two_readings_are_averaged_and_one_asks_for_another() -> None:
    readings = [*pressure(190, 90, 1), *pressure(150, 85, 2), *pressure(126, 80, 3)]
    done = judge(*readings)
    assert "bp-high-normal" in codes(done)  # (150 + 126) / 2 = 138
    (one,) = [finding for finding in judge(*pressure(150, 85)).findings if finding.code == "bp-grade-1"]
    assert "measure again" in one.text
    (two,) = [f for f in judge(*pressure(150, 85, 1), *pressure(152, 85, 2)).findings if f.code == "bp-grade-1"]
    assert "measure again" not in two.text


def test_very_high_pressure_with_symptoms_is_an_emergency() -> None:
    done = judge(*pressure(185, 100), answers=[answer("severe-headache")])
    assert "bp-crisis-with-symptoms" in codes(done)
    assert done.triage.level is EMERGENCY


@pytest.mark.parametrize(
    ("context", "value", "code"),
    [
        ("fasting", 7.0, "glucose-high-fasting"),
        ("fasting", 6.9, None),
        ("preprandial", 7.2, "glucose-high-fasting"),
        ("postprandial", 9.0, None),
        ("casual", 11.0, None),
        ("random", 11.1, "glucose-high"),
    ],
)
def test_glucose_by_context(context: str, value: float, code: str | None) -> None:
    found = {name for name in codes(judge(vital("glucose", value, context=context))) if name.startswith("glucose")}
    assert found == ({code} if code else set())


@pytest.mark.parametrize(
    "more", [{"method": "control-solution"}, {"status": ("invalid-data",)}, {"context": "control"}]
)
def test_what_the_device_disowns_is_left_out_and_named(more: dict[str, object]) -> None:
    done = judge(vital("glucose", 30.0, **more))
    assert "glucose-extreme" not in codes(done)
    assert any(text.startswith("glucose: the device says") for text in done.not_assessed)


def test_a_sensor_without_a_number_is_not_a_normal_one() -> None:
    done = judge(vital("spo2", None))
    assert "spo2: the sensor gave no value" in done.not_assessed
    assert "oxygen saturation" in done.not_assessed


def test_spo2_scale_2_changes_the_target() -> None:
    low = vital("spo2", 89)
    assert "spo2-hypoxaemia" in codes(judge(low))
    assert not codes(judge(low, answers=[answer("spo2-scale-2")])) & {"spo2-hypoxaemia", "spo2-low"}
    assert "spo2-low-scale-2" in codes(judge(vital("spo2", 87), answers=[answer("spo2-scale-2")]))


FLOWS = [(400, None), (399, "peak-flow-yellow"), (250, "peak-flow-yellow"), (249, "peak-flow-red")]


@pytest.mark.parametrize(("flow", "code"), FLOWS)
def test_peak_flow_zones_against_the_personal_best(flow: float, code: str | None) -> None:
    found = codes(judge(vital("peak_flow", flow), answers=[answer("peak-flow-best", "500")]))
    assert {name for name in found if name.startswith("peak")} == ({code} if code else set())
    assert not any(name.startswith("peak") for name in codes(judge(vital("peak_flow", flow))))


WEIGHTS = [
    (40.9, "bmi-severe-underweight"), (41.0, "bmi-underweight"), (47.37, None), (76.81, "bmi-obesity"),
    (102.41, "bmi-severe-obesity"),
]  # fmt: skip


@pytest.mark.parametrize(("weight", "code"), WEIGHTS)
def test_body_mass_index_of_adults(weight: float, code: str | None) -> None:
    found = codes(judge(vital("weight", weight), vital("height", 160)))
    assert {name for name in found if name.startswith("bmi")} == ({code} if code else set())


def full_set(**changes: float) -> list[VitalSign]:
    values = {
        "respiratory_rate": 16,
        "spo2": 98,
        "systolic_bp": 120,
        "diastolic_bp": 78,
        "pulse_rate": 70,
        "temperature": 37,
    }
    return [vital(kind, value) for kind, value in {**values, **changes}.items()]


def test_news2_is_complete_or_says_what_is_missing() -> None:
    done = judge(*full_set(), answers=AWAKE)
    assert "news2-low" in codes(done)
    assert not any("early warning" in text for text in done.not_assessed)
    without = judge(*full_set(), answers=AWAKE[:1])
    assert "news2-low" not in codes(without)
    assert any("missing: on oxygen" in text for text in without.not_assessed)


def test_news2_bands() -> None:
    medium = judge(*full_set(respiratory_rate=22, pulse_rate=112, temperature=38.5), answers=AWAKE)
    assert "news2-medium" in codes(medium)
    assert medium.triage.level is URGENT
    high = judge(
        *full_set(respiratory_rate=22, spo2=93, systolic_bp=105, pulse_rate=115, temperature=38.5), answers=AWAKE
    )
    assert "news2-high" in codes(high)
    assert high.triage.level is EMERGENCY


def test_children_have_their_own_ranges_and_no_news2() -> None:
    child = msgspec.structs.replace(PATIENT, birth_date="2022-10")
    fine = judge(vital("pulse_rate", 120), vital("respiratory_rate", 28), patient=child)
    assert fine.triage.level is ROUTINE
    assert "news2-single-extreme" not in codes(fine)
    assert any("not for children" in text for text in fine.not_assessed)
    fast = judge(vital("respiratory_rate", 41), patient=child)
    assert "child-breathing-fast" in codes(fast)
    assert fast.triage.level is URGENT


# ---- eyes: the truth table

EYES = [
    # left photographs, right photographs, codes of left, codes of right, level
    ([photo()], [photo(Eye.RIGHT)], "eye-dr-none", "eye-dr-none", ROUTINE),
    ([photo(grade=1)], [photo(Eye.RIGHT)], "eye-dr-mild", "eye-dr-none", ROUTINE),
    ([photo(grade=2)], [photo(Eye.RIGHT)], "eye-dr-moderate", "eye-dr-none", SOON),
    ([photo(grade=3)], [photo(Eye.RIGHT, 2)], "eye-dr-severe", "eye-dr-moderate", URGENT),
    ([photo(grade=0)], [photo(Eye.RIGHT, 4)], "eye-dr-none", "eye-dr-proliferative", URGENT),
    ([photo(grade=1, referable=True)], [photo(Eye.RIGHT)], "eye-dr-referable", "eye-dr-none", SOON),
    ([photo(grade=None)], [photo(Eye.RIGHT)], "eye-unclear", "eye-dr-none", SOON),
    ([photo(label="reject", reasons=("blur",))], [photo(Eye.RIGHT)], "eye-retake", "eye-dr-none", SOON),
    (
        [photo(label="reject", reasons=("blur",), attempt=n) for n in (1, 2, 3)],
        [photo(Eye.RIGHT)],
        "eye-ungradable-refer",
        "eye-dr-none",
        SOON,
    ),
    ([photo(validated=False)], [photo(Eye.RIGHT)], "eye-awaiting-review", "eye-dr-none", SOON),
    ([photo(grade=1, validated=False)], [photo(Eye.RIGHT)], "eye-awaiting-review", "eye-dr-none", SOON),
    ([photo(grade=4, validated=False)], [photo(Eye.RIGHT)], "eye-dr-proliferative", "eye-dr-none", URGENT),
    # the best usable photograph counts, whatever came before or after it
    ([photo(score=0.6), photo(grade=3, score=0.9)], [photo(Eye.RIGHT)], "eye-dr-severe", "eye-dr-none", URGENT),
    (
        [photo(label="reject", attempt=1), photo(grade=0, attempt=2)],
        [photo(Eye.RIGHT)],
        "eye-dr-none",
        "eye-dr-none",
        ROUTINE,
    ),
    ([photo(grade=None), photo(grade=2, score=0.5)], [photo(Eye.RIGHT)], "eye-dr-moderate", "eye-dr-none", SOON),
]  # fmt: skip


@pytest.mark.parametrize(("left", "right", "left_code", "right_code", "level"), EYES)
def test_eyes_truth_table(
    left: list[FundusResult], right: list[FundusResult], left_code: str, right_code: str, level: TriageLevel
) -> None:
    done = judge(photos=[*left, *right])
    by_eye = {finding.text.split(" ")[0]: finding.code for finding in done.findings}
    assert by_eye == {"Left": left_code, "Right": right_code}
    assert done.triage.level is level
    assert {"macular oedema", "other eye disease"} <= set(done.not_assessed)


def test_signs_of_macular_oedema_in_an_eye_are_referred_and_not_called_clear() -> None:
    suspected = Finding(code="dme-suspected", text="Signs of macular oedema", severity=SOON)
    done = judge(photos=[msgspec.structs.replace(photo(), findings=(suspected,)), photo(Eye.RIGHT)])
    assert [finding.code for finding in done.findings if finding.text.startswith("Left")] == ["eye-dme-suspected"]
    assert done.triage.level is SOON
    assert any("within a month" in text for text in done.advice)


def test_three_failed_attempts_say_why() -> None:
    done = judge(photos=[photo(label="reject", reasons=("blur", "dark"), attempt=n) for n in (1, 2, 3)])
    text = done.findings[0].text
    assert "refer, ungradable after 3 attempts, because" in text
    assert "blurred" in text
    assert "too dark" in text


def test_an_eye_that_was_not_photographed_is_listed_and_an_unknown_eye_is_not_taken_for_it() -> None:
    done = judge(photos=[photo(Eye.LEFT), photo(None, 3)])
    assert "right eye" in done.not_assessed
    assert "left eye" not in done.not_assessed
    assert done.triage.level is URGENT


def test_no_unvalidated_camera_ever_reads_no_referral() -> None:
    done = judge(photos=[photo(validated=False), photo(Eye.RIGHT, validated=False)])
    texts = " ".join([*(finding.text for finding in done.findings), *done.triage.reasons, *done.advice])
    assert "no referral" not in texts.casefold()
    assert "awaiting review" in texts.casefold()


# ---- red flags, combinations, contradictions


@pytest.mark.parametrize("flag", RED_FLAGS)
def test_a_red_flag_never_ends_in_routine_nor_reassures(flag: str) -> None:
    healthy = [photo(), photo(Eye.RIGHT)]
    done = judge(*full_set(), answers=[*AWAKE, answer(flag)], ecgs=[ecg("N")], photos=healthy)
    assert done.triage.level > ROUTINE
    assert not codes(done) & {"eye-dr-none", "news2-low"}
    assert not any("no referral" in finding.text for finding in done.findings)


def test_a_red_flag_denied_changes_nothing() -> None:
    without = judge(*full_set(), answers=AWAKE)
    denied = judge(*full_set(), answers=[*AWAKE, *(answer(flag, "no") for flag in RED_FLAGS)])
    assert codes(denied) == codes(without)


def test_atrial_fibrillation_with_high_blood_pressure_asks_for_the_stroke_risk() -> None:
    done = judge(*pressure(150, 85), ecgs=[ecg("A")], answers=[answer("diabetes"), answer("stroke", "no")])
    (finding,) = [one for one in done.findings if one.code == "atrial-fibrillation-with-high-blood-pressure"]
    assert finding.severity is URGENT
    assert "at least 1" in finding.text
    assert "heart failure" in finding.text
    assert "diabetes" not in finding.text
    assert "atrial-fibrillation-with-high-blood-pressure" not in codes(judge(*pressure(130, 80), ecgs=[ecg("A")]))


def test_retinopathy_with_uncontrolled_glucose() -> None:
    assert "retinopathy-with-uncontrolled-glucose" in codes(judge(vital("hba1c", 9.0), photos=[photo(grade=2)]))
    assert "retinopathy-with-uncontrolled-glucose" not in codes(judge(vital("hba1c", 9.0), photos=[photo(grade=0)]))
    assert "retinopathy-with-uncontrolled-glucose" not in codes(judge(photos=[photo(grade=2)]))


def test_hypoxia_with_fever() -> None:
    assert "hypoxia-with-fever" in codes(judge(vital("spo2", 93), vital("temperature", 38.2)))
    assert "hypoxia-with-fever" not in codes(judge(vital("spo2", 93)))


def test_contradictions_are_shown() -> None:
    assert "sensors-disagree-on-rate" in codes(judge(vital("pulse_rate", 60), ecgs=[ecg("N", 90.0)]))
    assert "sensors-disagree-on-rate" not in codes(judge(vital("pulse_rate", 70), ecgs=[ecg("N", 90.0)]))
    cuff = vital("systolic_bp", 120, status=("irregular-pulse",))
    assert "sensors-disagree-on-rhythm" in codes(judge(cuff, ecgs=[ecg("N")]))


def test_atrial_fibrillation_with_a_steady_pulse_on_the_oximeter_is_a_contradiction() -> None:
    def pulses(values: tuple[int, ...]) -> list[VitalSign]:
        return [vital("pulse_rate", value, second, method="pulse oximeter") for second, value in enumerate(values)]

    steady, af_like, few = pulses((72, 72, 73, 72, 73, 72)), pulses((72, 88, 65, 93, 70, 81)), pulses((72, 72))
    name = "steady-pulse-in-atrial-fibrillation"
    assert name in codes(judge(*steady, ecgs=[ecg("A")]))
    assert "stroke-risk-to-assess" in codes(judge(*steady, ecgs=[ecg("A")]))
    for vitals, label in ((af_like, "A"), (few, "A"), (steady, "N")):
        assert name not in codes(judge(*vitals, ecgs=[ecg(label)]))


@pytest.mark.parametrize(("sex", "found"), [(Sex.MALE, True), (Sex.FEMALE, False), (Sex.UNKNOWN, False)])
def test_qtc_limit_depends_on_sex(sex: Sex, found: bool) -> None:
    patient = msgspec.structs.replace(PATIENT, sex=sex)
    done = judge(ecgs=[ecg("N", qtcf=455.0)], patient=patient)
    assert ("qtc-prolonged-for-a-man" in codes(done)) is found


def test_an_empty_exam_is_not_routine() -> None:
    done = judge()
    assert done.triage.level > ROUTINE
    assert "nothing-assessed" in codes(done)


def test_an_unusable_ecg_is_listed_as_not_assessed() -> None:
    assert "heart rhythm" in judge(ecgs=[ecg(None, usable=False)]).not_assessed
    assert "heart rhythm" not in judge(ecgs=[ecg("N")]).not_assessed


def test_an_ecg_that_no_model_has_read_is_not_routine() -> None:
    unread = msgspec.structs.replace(ecg(None, usable=False), findings=())
    done = judge(*full_set(), answers=AWAKE, ecgs=[unread])
    assert "ecg-not-interpreted" in codes(done)
    assert done.triage.level is SOON


def test_a_routine_answer_still_says_what_was_not_assessed() -> None:
    done = judge(vital("temperature", 37.0))
    assert done.triage.level is ROUTINE
    assert any(reason.startswith("Not assessed:") for reason in done.triage.reasons)


def test_a_site_s_limit_is_used_and_named() -> None:
    done = judge(vital("temperature", 37.6), limits={"vitals": {"fever": 37.5}})
    (finding,) = [one for one in done.findings if one.code == "fever"]
    assert "set at this site" in finding.source
    with pytest.raises(ConfigurationError):
        judge(limits={"vitals": {"fiever": 37.5}})


# ---- explained


def test_every_conclusion_is_explained_by_inputs_rule_version_and_limits() -> None:
    vitals = [*full_set(temperature=39.5), *pressure(150, 92, 5)]
    photos, ecgs = [photo(grade=3), photo(Eye.RIGHT)], [ecg("A")]
    done = judge(*vitals, answers=AWAKE, photos=photos, ecgs=ecgs)
    assert len(done.explanations) == len(done.findings)
    exam = Exam(
        id=uuid.UUID(int=5),
        patient=PATIENT.id,
        device=DEVICE,
        clinic=Clinic(id="c"),
        operator=Operator(id="o"),
        started=moment(100),
    )
    report = ExamReport(
        id=uuid.UUID(int=6),
        exam=exam,
        patient=PATIENT,
        triage=done.triage,
        findings=done.findings,
        ecg=tuple(ecgs),
        fundus=tuple(photos),
        vitals=tuple(vitals),
        answers=AWAKE,
    )
    explained = {one.rule: one for one in explain(report)}
    assert tuple(explain(report)) == done.explanations
    fever = explained["high-fever"]
    assert fever.inputs["temperature"] == 39.5
    assert fever.limits["high_fever"].startswith("39.1 Cel (RCP NEWS2")
    assert fever.version == "vitals 1.0.0"
