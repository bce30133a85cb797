"""What the next hours are likely to bring: honest intervals, nothing said where too little is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.errors import ConfigurationError
from aidpost.inference import forecast as module
from aidpost.inference._series import Series
from aidpost.inference.forecast import HOURS, forecast, forecasts, predict, table
from aidpost.inference.triage import triage
from aidpost.records import TriageLevel, VitalKind, VitalSign

from .exam import PATIENT
from .test_trends import NOW, reading

GLUCOSE = VitalKind.GLUCOSE


def sensor(values: np.ndarray) -> list[VitalSign]:
    """One value in five minutes, the last one now."""
    return [reading(float(v), (len(values) - 1 - i) * 5 / 1440, GLUCOSE) for i, v in enumerate(values)]


def falling(rate: float = 0.5) -> np.ndarray:
    return np.concatenate([np.full(60, 10.0), 10.0 - rate * np.arange(1, 12)])


def test_the_interval_holds_its_median_and_widens_with_the_hours() -> None:
    made = forecast(GLUCOSE, sensor(np.full(100, 7.0)), NOW)
    assert made is not None
    widths = np.array(made.high) - np.array(made.low)
    assert made.hours == HOURS
    assert (np.diff(widths[:4]) > 0).all()
    assert all(0 <= p <= 1 for p in (*made.below, *made.above))


def test_a_fall_goes_on_for_a_while_and_comes_back_to_the_patient_s_own_level() -> None:
    made = forecast(GLUCOSE, sensor(falling()), NOW)
    assert made is not None
    assert made.median[0] < 4.5
    assert made.median[-1] > 6


def test_what_is_known_exactly_of_a_gaussian_process_is_what_it_gives() -> None:
    process = table()[GLUCOSE]
    one = Series(np.array([0.0]), np.array([9.0]))
    mean, sd = predict(process, one, [1.0])
    k0, k1 = (float(process.covariance(np.array([lag]))[0]) for lag in (0.0, 1.0))
    noise = process.noise_sd**2
    assert mean[0] == pytest.approx(process.mean + k1 / (k0 + noise) * (np.log(9.0) - process.mean), rel=1e-6)
    assert sd[0] == pytest.approx(np.sqrt(k0 + noise - k1**2 / (k0 + noise)), rel=1e-6)


def test_thinning_old_readings_hardly_changes_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    values = np.exp(2 + 0.3 * np.sin(np.arange(600) / 20) + rng.normal(0, 0.03, 600))
    known = Series((599 - np.arange(600)) * 5 / 60, values)
    thin = predict(table()[GLUCOSE], known, HOURS)
    monkeypatch.setattr(module, "_STEPS", ())
    whole = predict(table()[GLUCOSE], known, HOURS)
    assert np.abs(thin[0] - whole[0]).max() < 0.05
    assert np.abs(thin[1] - whole[1]).max() < 0.02


@pytest.mark.parametrize(
    "readings",
    [
        [],
        sensor(np.full(3, 7.0)),
        [reading(7.0, 0.5 + k / 10, GLUCOSE) for k in range(20)],  # none for half a day
        [reading(7.0, k, VitalKind.TEMPERATURE) for k in range(20)],  # a kind of which nothing is foretold
        [reading(7.0, k / 10, GLUCOSE, context="control solution") for k in range(20)],
    ],
)
def test_too_little_gives_no_forecast(readings: list[VitalSign]) -> None:
    assert forecasts(readings, NOW) == ()


def test_finger_pricks_give_a_forecast_and_no_warning() -> None:
    made = forecast(GLUCOSE, [reading(7.0, k / 5, GLUCOSE) for k in range(12)], NOW)
    assert made is not None
    assert (made.soon_low, made.soon_high) == (None, None)


def test_a_warning_comes_before_the_low_and_not_of_a_steady_level() -> None:
    low, steady = forecast(GLUCOSE, sensor(falling()), NOW), forecast(GLUCOSE, sensor(np.full(80, 8.0)), NOW)
    assert falling()[-1] > 3.9
    assert low is not None
    assert low.soon_low is not None
    assert low.soon_low > 0.5
    assert steady is not None
    assert steady.soon_low is not None
    assert steady.soon_low < 0.1


def test_an_expected_low_makes_the_triage_urgent_and_says_what_it_rests_on() -> None:
    readings = sensor(falling())
    conclusion = triage(patient=PATIENT, at=NOW, vitals=readings[-1:], forecasts=forecasts(readings, NOW))
    [finding] = [one for one in conclusion.findings if one.code == "forecast-glucose-low"]
    assert conclusion.triage.level is TriageLevel.URGENT
    assert "not validated on patients" in finding.source
    assert finding.about == (readings[-1].id,)


def test_blood_pressure_of_home_readings_is_foretold_around_its_own_level() -> None:
    rng = np.random.default_rng(1)
    readings = [reading(150 + rng.normal(0, 7), k / 2, VitalKind.SYSTOLIC_BP) for k in range(40)]
    made = forecast(VitalKind.SYSTOLIC_BP, readings, NOW)
    assert made is not None
    assert all(
        abs(m - 150) < 8 and low < 140 and high > 160
        for m, low, high in zip(made.median, made.low, made.high, strict=True)
    )


@settings(max_examples=100, deadline=None)
@given(values=st.lists(st.tuples(st.floats(0.1, 60), st.floats(0, 8)), max_size=60))
def test_any_readings_give_a_finite_forecast_or_none(values: list[tuple[float, float]]) -> None:
    made = forecast(GLUCOSE, [reading(value, age, GLUCOSE) for value, age in values], NOW)
    assert made is None or np.isfinite([*made.low, *made.high]).all()


def test_a_wrong_table_is_an_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("table") / "forecast.toml"
    path.write_text("version = '1'\n[glucose]\nsource = 'x'\n")
    with pytest.raises(ConfigurationError):
        table(path)
