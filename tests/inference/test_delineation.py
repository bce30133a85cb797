"""Delineation and intervals: on made beats with known waves, and on LUDB's annotated ones."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from aidpost.inference._delineation import delineate
from aidpost.inference._ecg_signal import choose_lead
from aidpost.inference._intervals import Measured, measure_intervals
from aidpost.inference.ecg import analyze, delineation
from aidpost.inference.model import Models
from aidpost.kernels import rpeaks
from aidpost.records import EcgMeasurements

from .conftest import MakeEcg, beats_at

TIMES = np.arange(0.6, 29.0, 0.9)
# of beats_at's waves: where each Gaussian has all but left the baseline, about 2.2 widths from its middle
P_START, QRS_START, QRS_END, T_END = -0.17 - 0.048, -0.028 - 0.020, 0.028 + 0.022, 0.26 + 0.11


@pytest.mark.parametrize("fs_hz", [250.0, 360.0, 500.0, 1000.0])
def test_known_waves_are_found_in_every_beat(fs_hz: float) -> None:
    found = delineate(beats_at(TIMES, 30.0, fs_hz), fs_hz, TIMES)
    inner = slice(1, -1)
    for wave, onset, end in ((found.p, P_START, None), (found.qrs, QRS_START, QRS_END), (found.t, None, T_END)):
        assert np.isfinite(wave[inner]).all()
        if onset is not None:
            np.testing.assert_allclose(wave[inner, 0] - TIMES[inner], onset, atol=0.022)
        if end is not None:
            np.testing.assert_allclose(wave[inner, 2] - TIMES[inner], end, atol=0.030)
    np.testing.assert_allclose(found.p[inner, 1] - TIMES[inner], -0.17, atol=0.012)
    np.testing.assert_allclose(found.t[inner, 1] - TIMES[inner], 0.26, atol=0.016)


def test_waves_come_in_order() -> None:
    found = delineate(beats_at(TIMES, 30.0), 250.0, TIMES)
    everything = np.concatenate((found.p, found.qrs, found.t), axis=1)[1:-1]
    assert (np.diff(everything, axis=1) > 0).all()


def test_no_p_wave_is_found_where_there_is_none_or_none_is_looked_for() -> None:
    without = delineate(beats_at(TIMES, 30.0, p_wave=False), 250.0, TIMES)
    assert np.isnan(without.p).mean() > 0.9
    assert np.isnan(delineate(beats_at(TIMES, 30.0), 250.0, TIMES, p_waves=False).p).all()


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_beats_give_nothing(count: int) -> None:
    found = delineate(beats_at(TIMES, 30.0), 250.0, TIMES[:count])
    assert found.qrs.shape == (count, 3)
    assert np.isnan(found.qrs).all()


def measure(models: Models, make_ecg: MakeEcg, signal: npt.ArrayLike, fs_hz: float = 500.0) -> EcgMeasurements:
    return analyze(make_ecg(signal, fs_hz=fs_hz), models).measurements


def test_intervals_of_known_beats(models: Models, make_ecg: MakeEcg) -> None:
    measured = measure(models, make_ecg, beats_at(TIMES, 30.0, 500.0))
    assert measured.pr_ms == pytest.approx(1000 * (QRS_START - P_START), abs=20)
    assert measured.qrs_ms == pytest.approx(1000 * (QRS_END - QRS_START), abs=16)
    assert measured.qt_ms == pytest.approx(1000 * (T_END - QRS_START), abs=35)
    assert measured.qt_ms is not None
    assert measured.qtcf_ms == pytest.approx(measured.qt_ms / 0.9 ** (1 / 3), abs=2)
    st = measured.st_mv["II"]
    assert st == pytest.approx(0.0, abs=0.06)


@pytest.mark.parametrize("shift_mv", [-0.2, 0.15, 0.3])
def test_st_level_is_measured_against_the_pq_level(models: Models, make_ecg: MakeEcg, shift_mv: float) -> None:
    time = np.arange(15000) / 500.0
    raised = np.zeros(time.size)
    for at in TIMES:
        raised[(time >= at + 0.05) & (time < at + 0.20)] = shift_mv
    flat = measure(models, make_ecg, beats_at(TIMES, 30.0, 500.0)).st_mv["II"]
    moved = measure(models, make_ecg, beats_at(TIMES, 30.0, 500.0) + raised + 0.1).st_mv["II"]
    assert flat is not None
    assert moved is not None
    assert moved - flat == pytest.approx(shift_mv, abs=0.06)


def test_a_slow_recorder_gives_no_intervals(models: Models, make_ecg: MakeEcg) -> None:
    measured = measure(models, make_ecg, beats_at(TIMES, 30.0, 125.0), fs_hz=125.0)
    assert measured.heart_rate_bpm is not None
    assert (measured.pr_ms, measured.qrs_ms, measured.qt_ms, measured.qtcf_ms) == (None, None, None, None)


def test_beats_that_disagree_give_no_interval(make_ecg: MakeEcg) -> None:
    rng = np.random.default_rng(4)
    signal = beats_at(TIMES, 30.0, 500.0) + 0.25 * rng.standard_normal(15000)
    lead = choose_lead(make_ecg(signal, fs_hz=500.0), None)
    found = measure_intervals(lead, np.rint(TIMES * 500).astype(np.int64), p_waves=True)
    assert found.pr is None
    assert found.qt is None


def test_each_interval_has_an_uncertainty(make_ecg: MakeEcg) -> None:
    lead = choose_lead(make_ecg(beats_at(TIMES, 30.0, 500.0), fs_hz=500.0), None)
    found = measure_intervals(lead, np.rint(TIMES * 500).astype(np.int64), p_waves=True)
    for one in (found.pr, found.qrs, found.qt, found.qtcf):
        assert isinstance(one, Measured)
        assert 0 < one.uncertainty < 10


def matches(reference: list[float], found: npt.NDArray[np.float64]) -> tuple[int, list[float]]:
    """One-to-one within 150 ms, nearest first: how many, and the errors in ms."""
    left, errors = list(found), []
    for one in reference:
        near = min(left, key=lambda other: abs(other - one), default=None)
        if near is not None and abs(near - one) <= 0.150:
            left.remove(near)
            errors.append(1000 * (near - one))
    return len(errors), errors


def annotated(record: str, lead: str) -> list[tuple[str, list[float]]]:
    """LUDB's waves as (kind, [onset, peak, end] in seconds)."""
    wfdb = pytest.importorskip("wfdb")
    notes = wfdb.rdann(record, lead)
    symbols, seconds = notes.symbol, notes.sample / 500.0
    return [
        (symbols[i + 1], list(seconds[i : i + 3]))
        for i in range(len(symbols) - 2)
        if symbols[i] == "(" and symbols[i + 2] == ")"
    ]


def test_ludb_every_fiducial_within_150_ms(data_folder: Path, models: Models, make_ecg: MakeEcg) -> None:
    """F1 over leads II and V5 of the shared records; the tuning saw them, so this guards against getting worse."""
    wfdb = pytest.importorskip("wfdb")
    counts: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    errors: dict[tuple[str, int], list[float]] = defaultdict(list)
    for path in sorted((data_folder / "ecg/ludb").glob("*.hea")):
        record = wfdb.rdrecord(str(path.with_suffix("")))
        for lead in ("ii", "v5"):
            waves = annotated(str(path.with_suffix("")), lead)
            signal = record.p_signal[:, record.sig_name.index(lead)]
            af = analyze(make_ecg(signal, fs_hz=500.0), models).rhythm.label == "A"
            peaks = rpeaks.detect(signal, 500.0).sample / 500.0
            found = delineate(signal, 500.0, peaks, p_waves=not af)
            first, last = min(w[0] for _, w in waves) - 0.02, max(w[2] for _, w in waves) + 0.02
            for kind, table in (("p", found.p), ("N", found.qrs), ("t", found.t)):
                for column in range(3):
                    mine = table[(table[:, column] >= first) & (table[:, column] <= last), column]
                    theirs = [wave[column] for name, wave in waves if name == kind]
                    hits, deviation = matches(theirs, mine)
                    for i, n in enumerate((hits, len(theirs), mine.size)):
                        counts[kind, column][i] += n
                    errors[kind, column] += deviation
    assert counts["N", 1][1] > 1500
    for key, (hits, reference, found_count) in counts.items():
        assert 2 * hits / (reference + found_count) >= 0.96, key
        assert abs(np.mean(errors[key])) < 15, key
        assert np.std(errors[key]) < 40, key


def test_st_is_measured_in_every_lead_and_each_value_has_its_uncertainty(models: Models, make_ecg: MakeEcg) -> None:
    time = np.arange(15000) / 500.0
    raised = np.zeros(time.size)
    for at in TIMES:
        raised[(time >= at + 0.05) & (time < at + 0.20)] = 0.25
    flat = beats_at(TIMES, 30.0, 500.0)
    noise = 3.0 * np.random.default_rng(3).standard_normal(15000)
    result = analyze(make_ecg(flat, flat + raised, noise, fs_hz=500.0, names=("II", "V2", "V5")), models)
    measured = result.measurements
    assert measured.st_mv["II"] is not None
    assert measured.st_mv["V2"] == pytest.approx(measured.st_mv["II"] + 0.25, abs=0.06)
    assert measured.st_mv["V5"] is None, "a lead that is not usable has no level"
    assert set(measured.uncertainty) == {"pr_ms", "qrs_ms", "qt_ms", "qtcf_ms", "st_mv.II", "st_mv.V2"}
    assert all(one > 0 for one in measured.uncertainty.values())


def test_what_is_null_has_no_uncertainty(models: Models, make_ecg: MakeEcg) -> None:
    assert measure(models, make_ecg, beats_at(TIMES, 30.0, 125.0), fs_hz=125.0).uncertainty == {}


def test_waves_are_samples_of_the_recording_one_row_a_beat(models: Models, make_ecg: MakeEcg) -> None:
    recording = make_ecg(beats_at(TIMES, 30.0, 500.0), fs_hz=500.0)
    result = analyze(recording, models)
    waves = delineation(result, recording)
    assert {name: len(rows) for name, rows in waves.items()} == dict.fromkeys(("p", "qrs", "t"), len(TIMES))
    for at, (onset, peak, end) in zip(TIMES[1:-1], waves["qrs"][1:-1], strict=True):
        assert None not in (onset, peak, end)
        assert onset < peak < end  # type: ignore[operator]
        assert peak == pytest.approx(500 * at, abs=10)


@pytest.mark.parametrize("fs_hz", [125.0, 500.0])
def test_no_waves_where_the_signal_or_the_rate_does_not_allow_them(
    models: Models, make_ecg: MakeEcg, fs_hz: float
) -> None:
    rng = np.random.default_rng(6)
    signal = beats_at(TIMES, 30.0, fs_hz) + (0.0 if fs_hz < 200 else 3.0) * rng.standard_normal(int(30 * fs_hz))
    recording = make_ecg(signal, fs_hz=fs_hz)
    result = analyze(recording, models)
    rows = [one for rows in delineation(result, recording).values() for row in rows for one in row]
    assert rows == [None] * (9 * len(result.beats.sample))
