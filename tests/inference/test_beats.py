"""Beat classes: what the network sees, what the device makes of it, and which beats a finding shows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aidpost.inference._beats import CLASSES, agreed, classes_of, doubting_early_beats, joined
from aidpost.inference._beats_input import FEWEST_BEATS, LIMIT, ROWS, beats_input
from aidpost.inference._beats_timing import rhythm
from aidpost.inference._ecg_signal import choose_lead, second_lead
from aidpost.inference.ecg import analyze
from aidpost.inference.model import Models
from aidpost.records import TriageLevel

from .conftest import MakeEcg, beats_at

TIMES = np.arange(0.6, 39.0, 0.8)


def with_pvcs(numbers: list[int], fs_hz: float = 250.0, seconds: float = 40.0) -> tuple[np.ndarray, np.ndarray]:
    """Normal beats every 0.8 s of which some are wide, tall and 0.3 s early: (signal, times)."""
    times = TIMES[seconds - 1 > TIMES].copy()
    times[numbers] -= 0.30
    normal = np.delete(times, numbers)
    time = np.arange(int(seconds * fs_hz)) / fs_hz
    signal = beats_at(normal, seconds, fs_hz)
    for at in times[numbers]:
        for offset, width, height in ((0.0, 0.04, 1.4), (0.09, 0.045, -0.6), (0.30, 0.06, -0.45)):
            signal = signal + height * np.exp(-0.5 * ((time - at - offset) / width) ** 2)
    return signal, times


@pytest.mark.parametrize("gain", [-1.0, 0.2, -3.0])
def test_gain_and_polarity_change_nothing_that_the_network_sees(gain: float) -> None:
    signal, times = with_pvcs([8, 20])
    peaks = np.rint(times * 250).astype(np.int64)
    np.testing.assert_allclose(beats_input(gain * signal, 250.0, peaks), beats_input(signal, 250.0, peaks), atol=1e-4)


def test_the_usual_beat_is_the_normal_one_also_in_bigeminy() -> None:
    signal, times = with_pvcs(list(range(3, 44, 2)))
    usual = beats_input(signal, 250.0, np.rint(times * 250).astype(np.int64))[0, :112, 1]
    wide = np.flatnonzero(usual[35:65] > np.arcsinh(12 * 0.4))
    assert wide.size <= 6, "the usual QRS is over 0.4 of its height for at most 48 ms"


def test_a_run_stands_out_against_the_minutes_around() -> None:
    calm = np.full(120, 0.8)
    run = rhythm(np.concatenate((calm, np.full(40, 0.5), calm)))
    exercise = rhythm(np.concatenate((calm, np.geomspace(0.8, 0.5, 40), np.geomspace(0.5, 0.8, 40), calm)))
    against_slow, fell = 11, 19  # before against the slow fifth; the last abrupt rise of the rate within 120 beats
    inside = slice(125, 155)
    assert (run[inside, against_slow] < -2.0).all()
    assert np.abs(run[:100, against_slow]).max() < 0.1
    assert run[inside, fell].min() > 2.0 > 0.8 > exercise[inside, fell].max()


@given(count=st.integers(FEWEST_BEATS, 1300), seed=st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_beats_of_one_shape_agree_on_v_and_on_nothing_else(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = rng.random(count) < 0.4
    waves = rng.standard_normal((2, 112))
    beats = np.zeros((count, ROWS, 3), np.float32)
    beats[:, :112, 0] = np.where(kind[:, None], waves[0], waves[1])
    logits = rng.normal(0.0, 1.0, (count, 4))
    logits[:, 2] += np.where(kind, 5.0, -5.0)
    doubtful = int(rng.integers(count))
    logits[doubtful, 2] = 0.0
    out = agreed(logits, beats)
    np.testing.assert_array_equal(np.delete(out, 2, axis=1), np.delete(logits, 2, axis=1))
    peers = (kind == kind[doubtful]).sum()
    if peers > 40:
        assert (out[doubtful, 2] > 0.0) == kind[doubtful]
    if peers == 1:
        assert out[doubtful, 2] == 0.0


def test_in_fibrillation_only_clearly_early_beats_are_s() -> None:
    probability = np.array([[0.6, 0.39, 0.005, 0.005], [0.02, 0.97, 0.005, 0.005]] * 2)
    out = doubting_early_beats(probability, np.array([True, True, False, False]))
    np.testing.assert_allclose(out.sum(axis=1), 1.0)
    thresholds = {"S": 0.15, "V": 0.4, "F": 0.3}
    assert [CLASSES[k] for k in classes_of(out, thresholds)] == ["N", "S", "S", "S"]


def test_a_second_lead_is_heard_only_where_it_is_usable(make_ecg: MakeEcg) -> None:
    first, second = np.zeros((3, 4)), np.ones((3, 4))
    heard = joined(first, second, np.array([True, False, True]))
    assert (heard[[0, 2]] > 0.0).all()
    assert (heard[1] == 0.0).all()
    signal, noise = beats_at(TIMES, 40.0), 3.0 * np.random.default_rng(5).standard_normal(10000)
    good = make_ecg(signal, 0.5 * signal, names=("II", "V1"))
    other = second_lead(good, choose_lead(good, None))
    assert other is not None
    assert other.name == "V1"
    for bad in (make_ecg(signal), make_ecg(signal, noise, names=("II", "V1"))):
        assert second_lead(bad, choose_lead(bad, None)) is None


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(FEWEST_BEATS, 40),
    fs_hz=st.sampled_from([100.0, 128.0, 300.0, 1000.0]),
    seed=st.integers(0, 2**31),
)
def test_every_beat_gives_finite_numbers_within_the_int8_range(count: int, fs_hz: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal(int(12 * fs_hz)) * 10.0 ** rng.integers(-4, 3)
    peaks = np.sort(rng.choice(signal.size, count, replace=False))
    seen = beats_input(signal, fs_hz, peaks)
    assert seen.shape == (count, ROWS, 3)
    assert np.isfinite(seen).all()
    assert np.abs(seen).max() <= LIMIT


@pytest.mark.parametrize(
    ("fs_hz", "count", "message"), [(99.0, 9, "100-1000 Hz"), (2000.0, 9, "100-1000"), (250.0, 4, "5 needed")]
)
def test_what_cannot_be_compared_is_refused(fs_hz: float, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        beats_input(np.zeros(5000), fs_hz, np.arange(1, count + 1) * 300)


@given(
    odds=st.lists(st.tuples(*[st.floats(0.01, 1.0)] * 4), min_size=1, max_size=9),
    limits=st.tuples(*[st.floats(0.1, 0.9)] * 3),
)
def test_a_class_needs_its_threshold(odds: list[tuple[float, ...]], limits: tuple[float, ...]) -> None:
    probability = np.array(odds) / np.sum(odds, axis=1, keepdims=True)
    thresholds = dict(zip(CLASSES[1:], limits, strict=True))
    for row, k in zip(probability, classes_of(probability, thresholds), strict=True):
        if k:
            assert row[k] >= thresholds[CLASSES[k]]
        else:
            assert all(p < limit for p, limit in zip(row[1:], limits, strict=True))


def test_a_pause_shows_the_beats_around_it(models: Models, make_ecg: MakeEcg) -> None:
    times = np.concatenate((np.arange(0.5, 12.0, 0.8), np.arange(15.1, 29.5, 0.8)))
    result = analyze(make_ecg(beats_at(times, 30.0)), models)
    (pause,) = [one for one in result.findings if one.code == "long-pause"]
    assert np.diff(pause.beats)[0] / 250.0 == pytest.approx(3.4, abs=0.05)


def test_what_is_not_assessed_has_no_class(models: Models, make_ecg: MakeEcg) -> None:
    noise = 3.0 * np.random.default_rng(5).standard_normal(7500)
    result = analyze(make_ecg(noise), models)
    assert not result.quality.usable
    assert set(result.beats.label) <= {"Q"}


def test_triage_of_a_run() -> None:
    from aidpost.inference._ectopy import measure_ectopy
    from aidpost.inference._rules import rule_book

    peaks = np.cumsum([0, 200, 100, 100, 100, 250, 200, 100, 300, 200, 200, 200, 200])
    found = measure_ectopy(peaks, "NVVVVNVVNNNNN", 250.0, 10.4)
    assert found is not None
    assert found.longest == (1, 2, 3, 4)
    assert found.pairs == ((6, 7),)
    facts = found.facts()
    conclusions = {one.rule.name: one.rule.severity for one in rule_book("ecg").conclusions(facts)}
    assert conclusions == {"ventricular-tachycardia-run": TriageLevel.URGENT}
    assert found.shown(peaks)["vt_longest_beats"] == tuple(int(peaks[k]) for k in (1, 2, 3, 4))
