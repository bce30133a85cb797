"""Alerts: hysteresis, snooze, and never a worse one hidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aidpost.inference.alerts import Alert, Limits, snooze, step

SPO2 = Limits(raise_at=(92.0, 88.0), clear_at=(94.0, 90.0), clear_after=3, falling=True)


def after(*values: float | None, alert: Alert | None = None) -> Alert:
    alert = alert or Alert()
    for now, value in enumerate(values):
        alert = step(alert, value, float(now), SPO2)
    return alert


def test_it_is_raised_at_once() -> None:
    assert after(97, 92).level == 1
    assert after(97, 85).level == 2


def test_between_the_two_limits_it_stays() -> None:
    assert after(92, 93, 93, 93, 93).level == 1


def test_it_is_cleared_only_by_enough_good_values_in_a_row() -> None:
    assert after(92, 95, 95).level == 1
    assert after(92, 95, 95, 92, 95, 95).level == 1
    assert after(92, 95, 95, 95).level == 0


def test_a_worse_level_goes_down_by_its_own_limit() -> None:
    assert after(85, 91, 91, 91).level == 1


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_what_is_not_known_neither_raises_nor_clears(nothing: float | None) -> None:
    assert after(92, nothing, nothing, nothing, nothing).level == 1
    assert after(97, nothing).level == 0


def test_a_snooze_hides_the_known_level_for_its_time_and_never_a_worse_one() -> None:
    quiet = snooze(after(92), now=1.0, for_how_long=10.0)
    assert not quiet.shown(5.0)
    assert quiet.shown(11.0)
    worse = step(quiet, 85, 5.0, SPO2)
    assert worse.shown(5.0)


@pytest.mark.parametrize("long", [0.0, -1.0, float("inf"), float("nan")])
def test_nothing_is_quiet_for_ever(long: float) -> None:
    with pytest.raises(ValueError, match="quiet"):
        snooze(Alert(1), 0.0, long)


@pytest.mark.parametrize(("up", "down"), [((), ()), ((92.0,), ()), ((88.0, 92.0), (90.0, 94.0)), ((92.0,), (91.0,))])
def test_levels_out_of_order_are_refused(up: tuple[float, ...], down: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="level"):
        Limits(raise_at=up, clear_at=down, falling=True)


@given(values=st.lists(st.one_of(st.none(), st.floats(60, 100)), max_size=50), at=st.integers(0, 49))
def test_a_value_at_a_level_is_always_shown_unless_that_level_was_snoozed(values: list[float | None], at: int) -> None:
    alert = Alert()
    for now, value in enumerate(values):
        if now == at:
            alert = snooze(alert, float(now), 20.0)
        alert = step(alert, value, float(now), SPO2)
        level = 0 if value is None else SPO2.reached(value, SPO2.raise_at)
        assert alert.level >= level
        if level > alert.quiet_level:
            assert alert.shown(float(now))
