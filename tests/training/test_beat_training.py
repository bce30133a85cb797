"""The beat model is what its training makes."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aidpost.inference._beats_input import BEATS_INPUT_VERSION, ROWS
from aidpost.inference.model import load_model

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOP = Path(__file__).resolve().parents[2]
MODEL = TOP / "inference" / "models" / "ecg-beats"
DATA = Path(os.environ.get("AIDPOST_DATA", TOP.parent / "shared" / "data"))


def test_the_card_is_that_of_the_file() -> None:
    card = tomllib.loads((MODEL / "card.toml").read_text(encoding="utf-8"))
    content = (MODEL / "model.tflite").read_bytes()
    assert hashlib.sha256(content).hexdigest() == card["sha256"]
    assert len(content) <= 500_000
    assert card["input"]["preprocessing_version"] == BEATS_INPUT_VERSION
    assert card["input"]["shape"] == [1, ROWS, 3]
    prose = (MODEL / "CARD.md").read_text(encoding="utf-8")
    for name in ("v_sensitivity", "v_precision", "s_sensitivity", "s_precision"):
        assert f"{card['metrics'][name]:.3f}" in prose


def test_golden_recordings_give_the_expected_probabilities() -> None:
    assert load_model(MODEL, check=True).card.name == "ecg-beats"


def test_a_tiny_model_goes_from_data_to_card(tmp_path: Path) -> None:
    for name in ("torch", "tensorflow", "wfdb"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install 'aidpost[train]'")
    if not (DATA / "ecg/mitdb").exists():
        pytest.skip(f"no training data in {DATA}")
    command = [sys.executable, str(TOP / "training/ecg_beat_model.py"), "--tiny", "--data", str(DATA)]
    command += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "ecg-beats")]
    done = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    made = tmp_path / "ecg-beats"
    assert {path.name for path in made.iterdir()} == {"model.tflite", "card.toml", "CARD.md", "golden.npz"}
    assert load_model(made).card.version
    assert "| muscle noise, 6 dB |" in done.stdout
