"""The rhythm model is what its training makes, and what its preprocessing was trained with."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from aidpost.inference._rhythm_beats import find_beats
from aidpost.inference._rhythm_input import FEATURE_ROWS, LIMIT, RHYTHM_INPUT_VERSION, rhythm_input, rhythm_windows

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = Path(__file__).resolve().parents[2]
MODEL = TOP / "inference" / "models" / "ecg-rhythm"
DATA = Path(os.environ.get("AIDPOST_DATA", TOP.parent / "shared" / "data"))


@pytest.fixture(scope="module")
def golden_script() -> ModuleType:
    """training/ecg_golden.py, which needs NumPy only."""
    spec = importlib.util.spec_from_file_location("ecg_golden", TOP / "training" / "ecg_golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    with (MODEL / "card.toml").open("rb") as file:
        return tomllib.load(file)


def test_polarity_and_gain_change_nothing(golden_script: ModuleType) -> None:
    samples = golden_script.simulate("sinus", 250.0, 30.0, 1).astype(np.float64)
    np.testing.assert_allclose(rhythm_input(samples * -2.5, 250.0), rhythm_input(samples, 250.0), atol=1e-5)


@pytest.mark.parametrize("fs_hz", [100.0, 128.0, 257.0, 360.0, 500.0, 1000.0])
def test_any_rate_gives_the_same_beats_and_nearly_the_same_wave(golden_script: ModuleType, fs_hz: float) -> None:
    whole = rhythm_input(golden_script.simulate("sinus", fs_hz, 20.0, 3), fs_hz)
    assert whole.shape == (2000 + FEATURE_ROWS, 5)
    assert np.abs(whole).max() <= LIMIT
    channels = whole[:-FEATURE_ROWS]
    rr_s = 0.8 * 2.0 ** (channels[:, 1] / 2.0)
    between = rr_s[(channels[:, 1] != 0)]
    assert between.size > 1800
    assert np.all((between > 0.78) & (between < 0.92)), "simulated at 0.85 s with 20 ms of respiratory variation"
    assert 2.5 < channels[:, 0].max() <= LIMIT


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_mains_leaves_the_wave_alone(golden_script: ModuleType, mains_hz: float) -> None:
    samples = golden_script.simulate("sinus", 500.0, 10.0, 3).astype(np.float64)
    hum = 0.3 * np.sin(2 * np.pi * mains_hz * np.arange(samples.size) / 500.0)
    clean, hummed = rhythm_input(samples, 500.0), rhythm_input(samples + hum, 500.0)
    np.testing.assert_allclose(hummed[100:-120, 0], clean[100:-120, 0], atol=0.15)


def test_irregular_rhythm_shows_in_the_rr_change_channel(golden_script: ModuleType) -> None:
    spread = {
        rhythm: np.abs(rhythm_input(golden_script.simulate(rhythm, 300.0, 30.0, 2), 300.0)[:-FEATURE_ROWS, 2]).mean()
        for rhythm in ("sinus", "af")
    }
    assert spread["af"] > 3 * spread["sinus"]


def test_beats_are_found_between_the_samples() -> None:
    at = np.arange(0.5, 29.0, 0.8134)
    time = np.arange(3000) / 100.0
    wave = np.exp(-0.5 * ((time[:, None] - at) / 0.02) ** 2).sum(axis=1)
    found = find_beats(wave) / 100.0
    assert found.size == at.size
    np.testing.assert_allclose(np.diff(found), 0.8134, atol=0.003)


@pytest.mark.parametrize(
    ("samples", "fs_hz", "message"),
    [
        (np.zeros((2, 5000)), 500.0, "one lead"),
        (np.zeros(5000), 99.0, "100-1000 Hz"),
        (np.zeros(5000), 2000.0, "100-1000 Hz"),
        (np.zeros(400), 100.0, "at least 5 s"),
        (np.full(5000, np.nan), 500.0, "not finite"),
    ],
)
def test_what_cannot_be_read_is_refused(samples: np.ndarray, fs_hz: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rhythm_input(samples, fs_hz)


def test_a_flat_line_gives_a_flat_input() -> None:
    whole = rhythm_input(np.full(3000, 0.7), 300.0)
    assert not whole[:-FEATURE_ROWS, :4].any()
    assert np.isfinite(whole).all()


@pytest.mark.parametrize(
    ("length", "windows"), [(900, 1), (3000, 1), (3200, 1), (3400, 2), (6000, 2), (6100, 2), (9000, 3)]
)
def test_windows_cover_the_recording(length: int, windows: int) -> None:
    channels = np.arange(length, dtype=np.float32)[:, None].repeat(5, axis=1) + 1
    features = np.full((FEATURE_ROWS, 5), -1.0, np.float32)
    cut = rhythm_windows(np.concatenate((channels, features)))
    assert cut.shape == (windows, 3000 + FEATURE_ROWS, 5)
    assert (cut[:, -FEATURE_ROWS:] == -1.0).all(), "every window carries the recording's features"
    missing = np.setdiff1d(np.arange(1, length + 1), cut[:, :-FEATURE_ROWS])
    assert missing.size <= 300, "at most 3 s are left out"


def test_the_card_is_that_of_the_file(card: dict[str, Any]) -> None:
    model = (MODEL / "model.tflite").read_bytes()
    assert hashlib.sha256(model).hexdigest() == card["sha256"]
    assert len(model) <= 500_000
    assert card["input"]["preprocessing_version"] == RHYTHM_INPUT_VERSION
    assert f"{card['metrics']['mean_f1_nao']:.3f}" in (MODEL / "CARD.md").read_text(encoding="utf-8")


def test_golden_recordings_are_the_simulated_ones(golden_script: ModuleType) -> None:
    with np.load(MODEL / "golden.npz") as golden:
        for i, (signal, fs_hz) in enumerate(golden_script.signals_with_rate()):
            np.testing.assert_allclose(golden[f"signal_{i}"], signal, atol=0.0051)
            assert golden[f"fs_hz_{i}"] == fs_hz


def test_golden_probabilities_from_raw_recordings(card: dict[str, Any]) -> None:
    interpreter_module = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT is not installed here")
    interpreter = interpreter_module.Interpreter(str(MODEL / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (got, _embedding) = interpreter.get_input_details(), interpreter.get_output_details()
    assert given["dtype"] == got["dtype"] == np.int8

    def logits(window: np.ndarray) -> np.ndarray:
        scale, zero = given["quantization"]
        counts = np.clip(np.round(window / scale) + zero, -128, 127).astype(np.int8)
        interpreter.set_tensor(given["index"], counts[np.newaxis])
        interpreter.invoke()
        scale, zero = got["quantization"]
        return (interpreter.get_tensor(got["index"])[0].astype(np.float64) - zero) * scale

    with np.load(MODEL / "golden.npz") as golden:
        for i in range(len(golden.files) // 3):
            windows = rhythm_windows(rhythm_input(golden[f"signal_{i}"], float(golden[f"fs_hz_{i}"])))
            z = np.stack([logits(window) for window in windows]) / card["calibration"]["temperature"]
            e = np.exp(z - z.max(axis=1, keepdims=True))
            probability = (e / e.sum(axis=1, keepdims=True)).mean(axis=0)
            np.testing.assert_allclose(probability, golden[f"expected_{i}"], atol=card["golden"]["tolerance"])


def test_a_tiny_model_goes_from_data_to_card(tmp_path: Path) -> None:
    for name in ("torch", "tensorflow", "wfdb"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'aidpost[train]'")
    if not (DATA / "ecg/cinc2017/cinc2017.npz").exists():
        pytest.skip(f"no training data in {DATA}")
    command = [sys.executable, str(TOP / "training/ecg_rhythm.py"), "--tiny", "--data", str(DATA)]
    command += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "ecg-rhythm")]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    made = tmp_path / "ecg-rhythm"
    tiny = tomllib.loads((made / "card.toml").read_text(encoding="utf-8"))
    assert tiny["sha256"] == hashlib.sha256((made / "model.tflite").read_bytes()).hexdigest()
    assert {path.name for path in made.iterdir()} == {
        "model.tflite", "card.toml", "CARD.md", "golden.npz", "embedding.npz"
    }  # fmt: skip
    assert "| muscle noise, 6 dB |" in done.stdout
    taught = np.load(tmp_path / "work" / "tiny" / "taught.npy")
    total = taught.sum(axis=1)
    np.testing.assert_allclose(total[total > 0], 1.0, atol=1e-5)
    assert (total == 0).sum() == tiny["metrics"]["recordings"], "the fold that judges has no teacher"
