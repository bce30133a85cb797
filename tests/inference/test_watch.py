"""Watching: what calls, when it ends, what quiet hides and what it never hides."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.errors import ConfigurationError
from aidpost.inference._rules import rule_book
from aidpost.inference.watch import Watch
from aidpost.records import (
    VITAL_UNITS,
    AbsentReason,
    Answer,
    Device,
    Origin,
    Patient,
    Timestamp,
    TriageLevel,
    VitalKind,
    VitalSign,
)

ADULT = Patient(id=uuid.UUID(int=1), birth_date="1970")
CHILD = Patient(id=uuid.UUID(int=2), birth_date="2023-09")


def moment(seconds: float) -> Timestamp:
    ms = round(seconds * 1000)
    return Timestamp(wall_ms=1_760_000_000_000 + ms, monotonic_ms=ms, boot=1, synced=True)


def reading(kind: VitalKind, value: float | None, seconds: float, *status: str) -> VitalSign:
    return VitalSign(
        id=uuid.uuid4(),
        kind=kind,
        value=value,
        unit=VITAL_UNITS[kind],
        at=moment(seconds),
        origin=Origin.LIVE,
        device=Device(name="sensor"),
        absent=AbsentReason.NOT_A_NUMBER if value is None else None,
        status=status,
    )


def watched(patient: Patient = ADULT, *answers: tuple[str, str], limits: dict[str, float] | None = None) -> Watch:
    given_ones = tuple(Answer(question=q, answer=a, at=moment(0)) for q, a in answers)
    return Watch(patient, moment(0), given_ones, overrides=limits)


def codes_after(
    watch: Watch, kind: VitalKind, *values: float | None, start: float = 0.0, every: float = 2.0
) -> list[str]:
    at = start
    for value in values:
        watch.take([reading(kind, value, at)], moment(at))
        at += every
    return [one.finding.code for one in watch.calls(moment(at)) if not one.quiet]


def test_a_call_comes_at_the_limit_and_ends_only_beyond_the_margin() -> None:
    watch = watched()
    assert codes_after(watch, VitalKind.SPO2, 97, 94) == []
    assert codes_after(watch, VitalKind.SPO2, 93, start=10) == ["watch-spo2-low"]
    assert codes_after(watch, VitalKind.SPO2, 94, 94, 94, 94, start=20) == ["watch-spo2-low"]
    assert codes_after(watch, VitalKind.SPO2, 95, 95, start=30) == ["watch-spo2-low"]
    assert codes_after(watch, VitalKind.SPO2, 95, start=40) == []


def test_worse_is_said_at_once_and_with_what_to_do() -> None:
    watch = watched()
    codes_after(watch, VitalKind.SPO2, 93, 88)
    (call,) = watch.calls(moment(4))
    assert call.finding.code == "watch-spo2-very-low"
    assert call.finding.severity is TriageLevel.URGENT
    assert call.finding.text == "Oxygen is very low: 88 %."
    assert "RCP NEWS2 2017" in call.finding.source


def test_quiet_hides_what_is_known_for_its_time_and_never_what_is_worse() -> None:
    watch = watched()
    codes_after(watch, VitalKind.SPO2, 93)
    watch.quiet(moment(2), 600)
    assert [one.quiet for one in watch.calls(moment(3))] == [True]
    assert codes_after(watch, VitalKind.SPO2, 90, start=4) == ["watch-spo2-very-low"]
    watch.quiet(moment(8), 600)
    assert codes_after(watch, VitalKind.PULSE_RATE, 135, start=10) == ["watch-pulse-very-high"]
    assert {one.finding.code for one in watch.calls(moment(609)) if not one.quiet} >= {"watch-spo2-very-low"}


def test_a_sensor_that_falls_silent_calls() -> None:
    watch = watched()
    assert watch.calls(moment(59)) == []
    assert [one.finding.code for one in watch.calls(moment(61))] == ["watch-silent"]
    codes_after(watch, VitalKind.SPO2, 97, start=70)
    assert watch.calls(moment(71)) == []
    codes_after(watch, VitalKind.PULSE_RATE, 70, 70, 70, 70, start=80, every=20)
    assert [one.finding.code for one in watch.calls(moment(141))] == ["watch-spo2-silent"]


@pytest.mark.parametrize("status", ["sensor disconnected", "questionable pulse detected"])
def test_a_number_that_its_device_disowns_is_silence_and_not_a_value(status: str) -> None:
    watch = watched()
    watch.take([reading(VitalKind.SPO2, 60, 1, status)], moment(1))
    assert watch.calls(moment(2)) == []
    assert [one.finding.code for one in watch.calls(moment(61))] == ["watch-silent"]


def test_a_patient_with_the_lower_oxygen_target_has_other_limits() -> None:
    watch = watched(ADULT, ("spo2-scale-2", "yes"), ("on-oxygen", "yes"))
    assert codes_after(watch, VitalKind.SPO2, 88) == []
    assert codes_after(watch, VitalKind.SPO2, 85, start=4) == ["watch-spo2-low-scale-2"]
    assert codes_after(watch, VitalKind.SPO2, 97, 97, 97, start=10) == ["watch-spo2-high-scale-2"]


def test_a_child_has_the_ranges_of_its_age() -> None:
    assert codes_after(watched(CHILD), VitalKind.PULSE_RATE, 139) == []
    assert codes_after(watched(CHILD), VitalKind.PULSE_RATE, 141) == ["watch-pulse-outside"]
    assert codes_after(watched(ADULT), VitalKind.PULSE_RATE, 141) == ["watch-pulse-very-high"]


def test_who_is_of_no_known_age_is_watched_as_an_adult() -> None:
    assert codes_after(watched(Patient(id=uuid.UUID(int=3))), VitalKind.RESPIRATORY_RATE, 26) == [
        "watch-breaths-very-high"
    ]


def test_falling_sugar_is_said_before_it_is_low() -> None:
    """From 9.5 by 0.3 every five minutes."""
    watch = watched()
    at, said = 0.0, []
    for step in range(40):
        at = step * 300.0
        value = 9.5 if step < 14 else 9.5 - 0.3 * (step - 14)
        watch.take([reading(VitalKind.GLUCOSE, round(value, 1), at)], moment(at))
        said = [one.finding.code for one in watch.calls(moment(at))]
        if said:
            break
    assert said == ["watch-glucose-soon-low"]
    assert value > 3.9


def test_a_site_moves_a_limit_and_a_senseless_one_is_refused() -> None:
    assert codes_after(watched(limits={"spo2_low": 95}), VitalKind.SPO2, 95) == ["watch-spo2-low"]
    with pytest.raises(ConfigurationError, match="levels rise"):
        watched(limits={"spo2_low": 80})
    with pytest.raises(ConfigurationError, match="no limit"):
        watched(limits={"spo2": 80})


@given(st.lists(st.one_of(st.none(), st.integers(50, 100)), min_size=1, max_size=60))
def test_what_is_worse_than_a_limit_always_calls(values: list[int | None]) -> None:
    watch, book = watched(), rule_book("watch")
    for n, value in enumerate(values):
        watch.take([reading(VitalKind.SPO2, value, 2.0 * n)], moment(2.0 * n))
        codes = {one.finding.code for one in watch.calls(moment(2.0 * n)) if not one.quiet}
        if value is not None and value <= book["spo2_very_low"]:
            assert "watch-spo2-very-low" in codes
        elif value is not None and value <= book["spo2_low"]:
            assert codes & {"watch-spo2-low", "watch-spo2-very-low"}
