"""The ECG pipeline on made and simulated recordings, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aidpost.errors import ConfigurationError, UsageError
from aidpost.firmware_bridge.simulators.ecg import simulate_ecg
from aidpost.inference.ecg import analyze
from aidpost.inference.model import Models
from aidpost.inference.output import ecg_json
from aidpost.records import EcgResult, TriageLevel

from .conftest import MakeEcg, beats_at


def codes(result: EcgResult) -> set[str]:
    return {finding.code for finding in result.findings}


def test_rate_and_beats_of_a_regular_rhythm(models: Models, make_ecg: MakeEcg) -> None:
    times = np.arange(0.5, 29.5, 0.8)
    result = analyze(make_ecg(beats_at(times, 30.0)), models)
    assert result.quality.usable
    assert result.measurements.heart_rate_bpm == pytest.approx(75.0, abs=0.5)
    found = np.array(result.beats.sample) / 250.0
    assert len(found) == len(times)
    np.testing.assert_allclose(found, times, atol=0.02)
    assert result.rhythm.label in ("N", "A", "O", "~", None)
    assert sum(result.rhythm.probability.values()) == pytest.approx(1.0, abs=1e-6)
    assert result.models[0].name == "ecg-rhythm"


@pytest.mark.parametrize("fs_hz", [100.0, 128.0, 300.0, 360.0, 1000.0, 2000.0])
def test_any_usual_rate_gives_the_same_heart_rate(models: Models, make_ecg: MakeEcg, fs_hz: float) -> None:
    signal = beats_at(np.arange(0.5, 20.0, 1.0), 20.0, fs_hz)
    result = analyze(make_ecg(signal, fs_hz=fs_hz), models)
    assert result.measurements.heart_rate_bpm == pytest.approx(60.0, abs=0.5)
    assert result.rhythm.probability


def test_upside_down_changes_neither_rate_nor_rhythm(models: Models, make_ecg: MakeEcg) -> None:
    signal = simulate_ecg("sinus", seconds=20, fs_hz=250.0, seed=3).millivolts[0]
    one, other = analyze(make_ecg(signal), models), analyze(make_ecg(-signal), models)
    assert one.measurements.heart_rate_bpm == pytest.approx(other.measurements.heart_rate_bpm, abs=1.0)
    for label, probability in one.rhythm.probability.items():
        assert other.rhythm.probability[label] == pytest.approx(probability, abs=0.1)


@pytest.mark.parametrize(
    ("rr_s", "code", "severity"),
    [
        (1.6, "severe-bradycardia", TriageLevel.URGENT),
        (1.3, "bradycardia", TriageLevel.SOON),
        (0.55, "tachycardia", TriageLevel.SOON),
        (0.42, "severe-tachycardia", TriageLevel.URGENT),
    ],
)
def test_rates_outside_the_limits_are_found(
    models: Models, make_ecg: MakeEcg, rr_s: float, code: str, severity: TriageLevel
) -> None:
    result = analyze(make_ecg(beats_at(np.arange(0.5, 29.5, rr_s), 30.0, p_wave=False)), models)
    found = {finding.code: finding for finding in result.findings}
    assert found[code].severity is severity
    assert found[code].source
    assert found[code].rule.startswith(f"{code}@ecg ")
    assert found[code].about == (result.id,)
    assert result.triage >= severity


@pytest.mark.parametrize(("gap_s", "code"), [(2.4, "pause"), (3.4, "long-pause"), (6.5, "very-long-pause")])
def test_pauses_are_found(models: Models, make_ecg: MakeEcg, gap_s: float, code: str) -> None:
    times = np.concatenate((np.arange(0.5, 12.0, 0.8), np.arange(11.7 + gap_s, 29.5, 0.8)))
    assert code in codes(analyze(make_ecg(beats_at(times, 30.0)), models))


def test_a_stretch_without_samples_is_no_pause(models: Models, make_ecg: MakeEcg) -> None:
    signal = beats_at(np.arange(0.5, 29.5, 0.8), 30.0)
    signal[2000:3500] = np.nan
    result = analyze(make_ecg(signal), models)
    assert not codes(result) & {"pause", "long-pause", "very-long-pause"}
    assert result.measurements.heart_rate_bpm == pytest.approx(75.0, abs=0.5)
    assert not any(2000 <= sample < 3500 for sample in result.beats.sample)
    assert result.quality.unusable_spans_s


def test_a_site_may_set_its_own_limit_and_the_finding_says_so(models: Models, make_ecg: MakeEcg) -> None:
    recording = make_ecg(beats_at(np.arange(0.5, 29.5, 0.8), 30.0))
    result = analyze(recording, models, limits={"tachycardia": 70})
    (finding,) = [one for one in result.findings if one.code == "tachycardia"]
    assert "set at this site" in finding.source
    with pytest.raises(ConfigurationError):
        analyze(recording, models, limits={"tachykardia": 70})


def test_the_best_of_the_preferred_leads_is_read(models: Models, make_ecg: MakeEcg) -> None:
    good = beats_at(np.arange(0.5, 19.5, 0.8), 20.0)
    noise = np.random.default_rng(1).standard_normal(good.size)
    names = ("V1", "I", "II")
    assert analyze(make_ecg(good, good, good, names=names), models).lead == "II"
    assert analyze(make_ecg(good, good, noise, names=names), models).lead == "I"
    assert analyze(make_ecg(good, good, good, names=names), models, "v1").lead == "V1"


def test_a_lead_that_is_not_there_is_an_error_with_the_names(models: Models, make_ecg: MakeEcg) -> None:
    with pytest.raises(UsageError, match="no lead 'V9'") as caught:
        analyze(make_ecg(beats_at([1.0], 10.0)), models, "V9")
    assert "II" in caught.value.remedy


BAD = {
    "zeros": np.zeros(7500),
    "one sample": np.zeros(1),
    "no samples received": np.full(7500, np.nan),
    "one second": beats_at([0.5], 1.0),
    "four seconds": beats_at([0.5, 1.3, 2.1, 2.9], 4.0),
    "rail": np.full(7500, 5.0),
    "impulses": np.where(np.arange(7500) % 7 == 0, 8.0, 0.0),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_read_says_so_and_reassures_nobody(models: Models, make_ecg: MakeEcg, kind: str) -> None:
    result = analyze(make_ecg(BAD[kind]), models)
    assert result.triage >= TriageLevel.SOON
    if kind != "impulses":
        assert not result.quality.usable
        assert result.quality.reasons
        assert codes(result) == {"ecg-not-assessed"}
        assert result.rhythm.label is None
        assert result.rhythm.abstained
        assert result.measurements.heart_rate_bpm is None
    assert ecg_json(result, {"total": 1.0})["schema"] == "aidpost.ecg/1"


def test_electrodes_off_all_through_is_not_assessed(models: Models, make_ecg: MakeEcg) -> None:
    import msgspec

    recording = make_ecg(beats_at(np.arange(0.5, 29.5, 0.8), 30.0))
    off = msgspec.structs.replace(recording, lead_off=((0, 0, 7500),))
    result = analyze(off, models)
    assert codes(result) == {"ecg-not-assessed"}
    assert "lead_off" in result.quality.reasons
    assert result.beats.sample == ()


@pytest.mark.parametrize("fs_hz", [20.0, 20_000.0])
def test_a_rate_that_no_ecg_has_is_not_assessed(models: Models, make_ecg: MakeEcg, fs_hz: float) -> None:
    result = analyze(make_ecg(beats_at([1.0, 2.0, 3.0], 10.0, fs_hz), fs_hz=fs_hz), models)
    assert codes(result) == {"ecg-not-assessed"}
    assert result.quality.reasons == ("rate",)


def test_a_slow_recorder_gets_its_rate_and_no_rhythm(models: Models, make_ecg: MakeEcg) -> None:
    result = analyze(make_ecg(beats_at(np.arange(0.5, 29.5, 0.8), 30.0, 80.0), fs_hz=80.0), models)
    assert result.measurements.heart_rate_bpm == pytest.approx(75.0, abs=0.5)
    assert result.rhythm.label is None
    assert "rhythm-unclear" in codes(result)


def test_without_a_beat_model_no_beat_has_a_class(model_folder: Path, make_ecg: MakeEcg) -> None:
    without = Models(roots=(model_folder.parent,))
    result = analyze(make_ecg(beats_at(np.arange(0.5, 29.5, 0.8), 30.0)), without)
    assert set(result.beats.label) == {"Q"}


def test_a_half_hour_is_read_in_windows(models: Models, make_ecg: MakeEcg) -> None:
    minutes = 4
    calm = simulate_ecg("sinus", seconds=60 * minutes / 2, fs_hz=250.0, seed=1).millivolts[0]
    af = simulate_ecg("af", seconds=60 * minutes / 2, fs_hz=250.0, seed=2).millivolts[0]
    result = analyze(make_ecg(np.concatenate((calm, af))), models)
    assert result.duration_s == 60 * minutes
    assert sum(result.rhythm.probability.values()) == pytest.approx(1.0, abs=1e-6)
    assert len(result.beats.sample) > 150


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    signal=hnp.arrays(
        np.float64,
        st.integers(1, 3000),
        elements=st.one_of(st.floats(-20, 20, width=32), st.just(float("nan"))),
    ),
    fs_hz=st.sampled_from([100.0, 250.0, 500.0]),
)
def test_no_signal_crashes_and_unusable_never_reassures(
    models: Models, make_ecg: MakeEcg, signal: np.ndarray, fs_hz: float
) -> None:
    result = analyze(make_ecg(signal, fs_hz=fs_hz), models)
    assert len(result.beats.sample) == len(result.beats.label)
    if not result.quality.usable or result.rhythm.label is None:
        assert result.triage >= TriageLevel.SOON
