"""The beat model that ships, through the whole pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aidpost.inference._beats import classify
from aidpost.inference.ecg import analyze
from aidpost.inference.model import Models
from aidpost.inference.output import ecg_json
from aidpost.kernels import rpeaks

from .conftest import MakeEcg, beats_at
from .test_beats import TIMES, with_pvcs


def test_a_regular_rhythm_has_normal_beats_only(models: Models, make_ecg: MakeEcg) -> None:
    result = analyze(make_ecg(beats_at(TIMES, 40.0)), models)
    assert set(result.beats.label) == {"N"}
    assert {one.name for one in result.models} == {"ecg-rhythm", "ecg-beats"}


@pytest.mark.parametrize("fs_hz", [128.0, 250.0, 500.0, 2000.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_wide_early_beats_are_ventricular_at_any_rate_and_polarity(
    models: Models, make_ecg: MakeEcg, fs_hz: float, sign: float
) -> None:
    numbers = [8, 20, 31]
    signal, times = with_pvcs(numbers, fs_hz)
    result = analyze(make_ecg(sign * signal, fs_hz=fs_hz), models)
    at = np.array(result.beats.sample) / fs_hz
    ventricular = at[np.array(result.beats.label) == "V"]
    assert len(ventricular) == len(numbers)
    np.testing.assert_allclose(ventricular, times[numbers], atol=0.12)


def test_findings_name_the_beats_that_made_them(models: Models, make_ecg: MakeEcg) -> None:
    signal, _ = with_pvcs([8, 20, 31, 40, 44])
    result = analyze(make_ecg(signal), models)
    found = {one.code: one for one in result.findings}
    ventricular = {s for s, k in zip(result.beats.sample, result.beats.label, strict=True) if k == "V"}
    assert set(found["ventricular-ectopy-frequent"].beats) == ventricular
    shown = {one["code"]: one for one in ecg_json(result, {"total": 1.0})["findings"]}
    assert shown["ventricular-ectopy-frequent"]["beats"] == sorted(ventricular)


@pytest.mark.parametrize(("fs_hz", "count"), [(80.0, 30), (250.0, 4)])
def test_too_slow_or_too_few_beats_are_q(models: Models, fs_hz: float, count: int) -> None:
    peaks = np.rint(TIMES[:count] * fs_hz).astype(np.int64)
    assert set(classify(models.find("ecg-beats"), beats_at(TIMES, 40.0, fs_hz), fs_hz, peaks)) == {"Q"}
    assert set(classify(None, beats_at(TIMES, 40.0), 250.0, peaks)) == {"Q"}


def test_ventricular_beats_of_a_real_patient(data_folder: Path, models: Models) -> None:
    """MIT-BIH 119, ten minutes; the released network saw it, so this guards against getting worse."""
    wfdb = pytest.importorskip("wfdb")
    path, stop = str(data_folder / "ecg/mitdb/119"), 10 * 60 * 360
    signal = np.ascontiguousarray(wfdb.rdrecord(path, sampto=stop).p_signal[:, 0])
    marks = wfdb.rdann(path, "atr", sampto=stop)
    due = marks.sample[np.array(marks.symbol) == "V"]
    peaks = rpeaks.detect(signal, 360.0).sample
    labels = np.array(classify(models.find("ecg-beats"), signal, 360.0, peaks))
    made = peaks[labels == "V"]
    near = np.abs(made[:, None] - due).min(axis=0) <= 54
    assert near.mean() > 0.97
    assert made.size <= 1.03 * due.size
