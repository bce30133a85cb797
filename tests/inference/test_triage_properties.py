"""What must hold of a triage, whatever is put in."""

from __future__ import annotations

import random
from itertools import pairwise

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.records import (
    Answer,
    Eye,
    TriageLevel,
    VitalSign,
)

from .exam import (
    AWAKE,
    PATIENT,
    RED_FLAGS,
    ROUTINE,
    answer,
    codes,
    ecg,
    judge,
    photo,
    pressure,
    vital,
)

NORMAL = {
    "respiratory_rate": 16.0, "spo2": 98.0, "systolic_bp": 120.0, "diastolic_bp": 75.0, "pulse_rate": 70.0,
    "temperature": 37.0, "glucose": 5.5,
}  # fmt: skip
RANGES = {
    "respiratory_rate": (4, 50), "spo2": (60, 98), "systolic_bp": (60, 260), "diastolic_bp": (30, 150),
    "pulse_rate": (25, 220), "temperature": (30, 42.5), "glucose": (1, 40),
}  # fmt: skip

observations = st.fixed_dictionaries({}, optional={k: st.floats(lo, hi) for k, (lo, hi) in RANGES.items()})
answers_given = st.lists(
    st.sampled_from([answer(flag, word) for flag in RED_FLAGS for word in ("yes", "no")] + list(AWAKE)), max_size=4
)
# birth date -> what is normal at that age where it differs from NORMAL
AGES: dict[str | None, dict[str, float]] = {
    None: {},
    "1970": {},
    "1940-02": {},
    "2009-12-30": {"pulse_rate": 80.0},
    "2023-01-01": {"pulse_rate": 115.0, "respiratory_rate": 28.0, "systolic_bp": 100.0, "diastolic_bp": 60.0},
}
ages = st.sampled_from(list(AGES))


def of(values: dict[str, float]) -> list[VitalSign]:
    return [vital(kind, value) for kind, value in values.items()]


@settings(max_examples=200, deadline=None)
@given(values=observations, data=st.data(), given_answers=answers_given, birth=ages)
def test_worsening_any_single_vital_sign_never_lowers_the_triage(
    values: dict[str, float], data: st.DataObject, given_answers: list[Answer], birth: str | None
) -> None:
    patient = msgspec.structs.replace(PATIENT, birth_date=birth)
    kind = data.draw(st.sampled_from(sorted(RANGES)))
    low, high = RANGES[kind]
    middle = {**NORMAL, **AGES[birth]}[kind]
    start = values.get(kind, middle)
    worse = data.draw(st.floats(start, max(high, start)) if start >= middle else st.floats(min(low, start), start))
    if kind == "spo2":
        worse = min(start, worse) if start >= middle else worse
    before = judge(*of({**values, kind: start}), answers=given_answers, patient=patient)
    after = judge(*of({**values, kind: worse}), answers=given_answers, patient=patient)
    assert after.triage.level >= before.triage.level


@settings(max_examples=50, deadline=None)
@given(values=observations, given_answers=answers_given, seed=st.integers(0, 1000))
def test_the_order_of_arrival_changes_nothing(values: dict[str, float], given_answers: list[Answer], seed: int) -> None:
    vitals = [*of(values), *pressure(150, 95, 7), *pressure(130, 85, 9)]
    photos = [photo(), photo(Eye.RIGHT, 2), photo(Eye.RIGHT, 3, score=0.5), photo(label="reject")]
    ecgs = [ecg("N"), ecg("A", 90.0), ecg(None, usable=False)]
    first = judge(*vitals, answers=given_answers, photos=photos, ecgs=ecgs)
    shuffler = random.Random(seed)
    for group in (vitals, photos, ecgs, given_answers):
        shuffler.shuffle(group)
    assert judge(*vitals, answers=given_answers, photos=photos, ecgs=ecgs) == first


@settings(max_examples=100, deadline=None)
@given(values=observations, data=st.data(), given_answers=answers_given)
def test_unknown_never_counts_as_normal(
    values: dict[str, float], data: st.DataObject, given_answers: list[Answer]
) -> None:
    """Taking a value away never makes anything reassuring that was not, and is listed."""
    if not values:
        return
    kind = data.draw(st.sampled_from(sorted(values)))
    known = judge(*of(values), answers=given_answers)
    unknown = judge(*of({k: v for k, v in values.items() if k != kind}), answers=given_answers)
    reassuring = {"news2-low", "eye-dr-none"}
    assert (codes(unknown) & reassuring) <= (codes(known) & reassuring)
    assert len(unknown.not_assessed) >= len(known.not_assessed)


@settings(max_examples=100, deadline=None)
@given(values=observations, flag=st.sampled_from(RED_FLAGS), given_answers=answers_given)
def test_whatever_else_is_known_a_red_flag_never_ends_in_routine(
    values: dict[str, float], flag: str, given_answers: list[Answer]
) -> None:
    assert judge(*of(values), answers=[*given_answers, answer(flag)]).triage.level > ROUTINE


def test_the_levels_are_ordered() -> None:
    assert all(a < b for a, b in pairwise(TriageLevel))
