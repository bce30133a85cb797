"""The suspicion of ventricular fibrillation, on simulated and public recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aidpost.firmware_bridge.simulators.ecg import RHYTHMS, simulate_ecg
from aidpost.inference._fibrillation import looks_like_fibrillation
from aidpost.inference.ecg import analyze
from aidpost.inference.model import Models
from aidpost.records import TriageLevel

from .conftest import MakeEcg

CODE = "ventricular-fibrillation-suspected"


@pytest.mark.parametrize("fs_hz", [125.0, 250.0, 500.0])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_simulated_fibrillation_is_an_emergency(models: Models, make_ecg: MakeEcg, fs_hz: float, seed: int) -> None:
    signal = simulate_ecg("vf", seconds=20, fs_hz=fs_hz, seed=seed).millivolts[0]
    result = analyze(make_ecg(signal, fs_hz=fs_hz), models)
    assert CODE in {finding.code for finding in result.findings}
    assert result.triage is TriageLevel.EMERGENCY


@pytest.mark.parametrize("rhythm", sorted({*RHYTHMS} - {"vf"}))
def test_no_other_simulated_rhythm_is_taken_for_it(models: Models, make_ecg: MakeEcg, rhythm: str) -> None:
    for seed in (1, 2):
        signal = simulate_ecg(rhythm, seconds=20, fs_hz=250.0, seed=seed).millivolts[0]
        assert CODE not in {finding.code for finding in analyze(make_ecg(signal), models).findings}


def test_mains_and_slow_waves_are_not_taken_for_it() -> None:
    time = np.arange(1000) / 250.0
    for hz in (0.5, 12.0, 50.0):
        assert not looks_like_fibrillation(np.sin(2 * np.pi * hz * time), 250.0)
    assert looks_like_fibrillation(np.sin(2 * np.pi * 5.0 * time), 250.0)
    assert not looks_like_fibrillation(np.zeros(1000), 250.0)


def test_handheld_recordings_without_it_raise_no_alarm(data_folder: Path, models: Models, make_ecg: MakeEcg) -> None:
    with np.load(data_folder / "ecg/cinc2017/cinc2017.npz") as file:
        counts, offset = file["signal_uv"], file["offset"]
    alarms = 0
    for index in range(0, offset.size - 1, 100):
        recording = make_ecg(counts[offset[index] : offset[index + 1]] / 1000.0, fs_hz=300.0)
        alarms += CODE in {finding.code for finding in analyze(recording, models).findings}
    assert alarms == 0
