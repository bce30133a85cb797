"""A patient's own course: baseline, slope and change of level over irregular, gappy readings."""

from __future__ import annotations

import uuid
from datetime import datetime, timezone

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.inference import trends as course
from aidpost.inference._series import series
from aidpost.inference.trends import trend, trends
from aidpost.inference.triage import triage
from aidpost.records import VITAL_UNITS, Origin, Timestamp, TriageLevel, VitalKind, VitalSign

from .exam import DEVICE, PATIENT, answer

DAY_MS = 86_400_000
NOW = Timestamp(wall_ms=1_790_000_000_000, monotonic_ms=5_000_000, boot=9, synced=True)
SYSTOLIC = VitalKind.SYSTOLIC_BP


def reading(value: float, days_ago: float, kind: VitalKind = SYSTOLIC, **more: object) -> VitalSign:
    at = Timestamp(wall_ms=NOW.wall_ms - round(days_ago * DAY_MS), monotonic_ms=0, boot=3, synced=True)
    fields: dict[str, object] = {"at": at, **more}
    return VitalSign(
        id=uuid.uuid4(),
        kind=kind,
        value=value,
        unit=VITAL_UNITS[kind],
        origin=Origin.LIVE,
        device=DEVICE,
        **fields,  # type: ignore[arg-type]
    )


def usual(value: float, kind: VitalKind = SYSTOLIC, days: int = 8) -> list[VitalSign]:
    return [reading(value + (-1) ** day, 7.0 * day, kind) for day in range(1, days + 1)]


def test_baseline_is_the_median_of_earlier_days_and_today_is_not_part_of_it() -> None:
    found = trend(SYSTOLIC, [*usual(120), reading(160, 0.01)], NOW)
    assert found is not None
    assert (found.latest, found.baseline, found.days) == (160, 120, 9)
    assert found.spread == course.REPEATABILITY[SYSTOLIC]  # its own is smaller than a cuff can tell


def test_a_day_of_many_readings_weighs_as_one() -> None:
    many = [reading(180, 14 + k / 100) for k in range(40)]
    found = trend(SYSTOLIC, [*usual(120), *many, reading(121, 0.1)], NOW)
    assert found is not None
    assert abs(found.baseline - 120) <= 1


def test_theil_sen_slope_is_not_moved_by_an_outlier_and_holds_the_true_one() -> None:
    rng = np.random.default_rng(3)
    line = [reading(130 + 6 * (120 - day) / 30 + rng.normal(0, 3), float(day)) for day in range(0, 120, 6)]
    line[4] = reading(230, 96.0)
    found = trend(SYSTOLIC, line, NOW)
    assert found is not None
    assert found.slope_low is not None
    assert found.slope_high is not None
    assert found.slope_low < 6 < found.slope_high
    assert found.slope == pytest.approx(6, abs=1.5)


def test_a_change_of_level_is_dated_and_noise_has_none() -> None:
    rng = np.random.default_rng(5)
    stepped = [reading((120 if day > 60 else 150) + rng.normal(0, 4), float(day)) for day in range(0, 150, 5)]
    found = trend(SYSTOLIC, stepped, NOW)
    assert found is not None
    assert found.changed_days_ago == pytest.approx(60, abs=5)
    assert found.step == pytest.approx(30, abs=5)
    steady = trend(SYSTOLIC, [reading(130 + rng.normal(0, 4), float(day)) for day in range(0, 150, 5)], NOW)
    assert steady is not None
    assert steady.changed_days_ago is None


@pytest.mark.parametrize("readings", [[], usual(120), [reading(120, 0.1)], [*usual(120)[:2], reading(120, 0.1)]])
def test_too_little_gives_no_course(readings: list[VitalSign]) -> None:
    assert trend(SYSTOLIC, readings, NOW) is None


def test_readings_of_an_unset_clock_are_left_out_and_counted_those_of_this_boot_are_not() -> None:
    unset = Timestamp(wall_ms=5_000, monotonic_ms=5_000, boot=8, synced=False)
    today = Timestamp(wall_ms=5_000, monotonic_ms=NOW.monotonic_ms - 60_000, boot=NOW.boot, synced=False)
    found = trend(SYSTOLIC, [*usual(120), reading(300, 0, at=unset), reading(140, 0, at=today)], NOW)
    assert found is not None
    assert (found.latest, found.left_out) == (140, 1)


def test_a_stored_reading_counts_when_it_was_made_not_when_it_arrived() -> None:
    arrived = msgspec.structs.replace(NOW, utc_offset_min=60)
    assert datetime.fromtimestamp(NOW.wall_ms / 1000, timezone.utc).isoformat() == "2026-09-21T14:13:20+00:00"
    # the device's clock shows the local time, an hour east: three hours ago
    stored = reading(5.5, 0, VitalKind.GLUCOSE, at=arrived, device_time="2026-09-21 12:13:20")
    assert series(VitalKind.GLUCOSE, [stored], NOW).age_h.tolist() == [pytest.approx(3.0)]
    unknown = reading(5.5, 0, VitalKind.GLUCOSE, at=arrived, device_time="0000-00-00 12:00:00")
    assert series(VitalKind.GLUCOSE, [unknown], NOW).left_out == 1


def test_control_solution_and_disowned_readings_have_no_course() -> None:
    control = reading(5.5, 1, VitalKind.GLUCOSE, context="control solution")
    faulty = reading(5.5, 1, VitalKind.GLUCOSE, status=("sensor malfunction",))
    assert series(VitalKind.GLUCOSE, [control, faulty], NOW).value.size == 0


def test_the_same_reading_twice_is_one() -> None:
    one = reading(5.5, 1, VitalKind.GLUCOSE)
    assert series(VitalKind.GLUCOSE, [one, one], NOW).value.tolist() == [5.5]


RULES = [
    ("trend-systolic-above-own", SYSTOLIC, 120, 150, 149, ()),
    ("trend-systolic-below-own", SYSTOLIC, 150, 120, 121, ()),
    ("trend-pulse-above-own", VitalKind.PULSE_RATE, 60, 90, 89, ()),
    ("trend-spo2-below-own", VitalKind.SPO2, 97, 94, 95, ()),
    ("trend-weight-loss", VitalKind.WEIGHT, 80, 76, 76.5, ()),
    ("trend-weight-gain-in-heart-failure", VitalKind.WEIGHT, 80, 82, 81.5, ("heart-failure",)),
    ("trend-peak-flow-fall", VitalKind.PEAK_FLOW, 400, 320, 330, ()),
]


@pytest.mark.parametrize(("code", "kind", "own", "holds", "short", "said"), RULES)
def test_rules_of_the_course_at_their_limits(
    code: str, kind: VitalKind, own: float, holds: float, short: float, said: tuple[str, ...]
) -> None:
    def found(today: float) -> dict[str, TriageLevel]:
        vitals = [reading(today, 0.01, kind)]
        flat = [reading(own, 7.0 * day, kind) for day in range(1, 9)]
        conclusion = triage(
            patient=PATIENT,
            at=NOW,
            vitals=vitals,
            answers=[answer(one) for one in said],
            trends=trends([*flat, *vitals], NOW),
        )
        return {one.code: one.severity for one in conclusion.findings}

    assert found(holds)[code] >= TriageLevel.SOON
    assert code not in found(short)


def test_rising_pressure_is_said_with_its_least_slope_and_about_today_s_reading() -> None:
    line = [reading(150 - 5 * day / 30, float(day)) for day in range(0, 150, 10)]
    conclusion = triage(patient=PATIENT, at=NOW, vitals=line[:1], trends=trends(line, NOW))
    [finding] = [one for one in conclusion.findings if one.code == "trend-systolic-rising"]
    assert "+5.0 a month" in finding.text
    assert finding.about == (line[0].id,)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.tuples(st.floats(40, 300), st.floats(0, 500)), max_size=40),
    seed=st.integers(0, 1000),
)
def test_any_readings_in_any_order_give_the_same_finite_course(values: list[tuple[float, float]], seed: int) -> None:
    readings = [reading(value, age) for value, age in values]
    shuffled = [readings[i] for i in np.random.default_rng(seed).permutation(len(readings))]
    assert trends(readings, NOW) == trends(shuffled, NOW)
