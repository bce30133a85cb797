"""Confirmed cases of this device: whose they may be, what is left out, and that a head is kept, used and taken back."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from confirmed import keep_exam, review
from device_records import KEY

from aidpost.board import teach
from aidpost.errors import UsageError
from aidpost.firmware_bridge.clock import SystemClock as SensorClock
from aidpost.inference.head import Adaptation
from aidpost.inference.model import SHIPPED, Model, load_model
from aidpost.records import (
    Origin,
    ReviewDecision,
    Timestamp,
)
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

AIDPOST = [sys.executable, "-c", "from aidpost.board.cli import main\nif __name__ == '__main__': main()"]
AT = Timestamp(wall_ms=1, monotonic_ms=1, boot=1, synced=True)


@pytest.fixture(scope="module")
def rhythm() -> Model:
    return load_model(SHIPPED / "ecg-rhythm", check=False)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as opened:
        yield opened


def test_only_confirmed_cases_of_patients_who_consent_are_learned_from(store: Store, rhythm: Model) -> None:
    willing, silent, withdrawn = keep_exam(store, True), keep_exam(store), keep_exam(store, True, False)
    keep_exam(store, True)  # nobody has read it
    for seq, report in enumerate((willing, silent, withdrawn), 1):
        review(store, report, seq, "sinus")
    found = teach.from_store(rhythm, store)
    assert len(found.cases) == 1
    assert found.cases.labels.tolist() == [0]
    assert found.left_out == {"the patient has not consented to model training": 2}


def test_the_last_word_counts_and_a_retake_is_none(store: Store, rhythm: Model) -> None:
    corrected, retaken = keep_exam(store, True), keep_exam(store, True)
    first = review(store, corrected, 1, "sinus")
    review(store, corrected, 2, "af", supersedes=first.id, decision=ReviewDecision.CORRECTED)
    review(store, retaken, 3, "sinus", decision=ReviewDecision.RETAKE)
    assert teach.from_store(rhythm, store).cases.labels.tolist() == [1]


def test_a_simulated_exam_teaches_nothing(store: Store, rhythm: Model) -> None:
    review(store, keep_exam(store, True, origin=Origin.SIMULATED), 1, "sinus")
    found = teach.from_store(rhythm, store)
    assert (len(found.cases), found.left_out) == (0, {"simulated": 1})


def test_two_exams_of_one_patient_are_one_patients(store: Store, rhythm: Model) -> None:
    first = keep_exam(store, True)
    second = keep_exam(store, True, patient=first.patient.id)
    other = keep_exam(store, True)
    for seq, report in enumerate((first, second, other), 1):
        review(store, report, seq, "other")
    whose = teach.from_store(rhythm, store).cases.patients
    assert sorted(np.bincount(whose).tolist()) == [1, 2]


def test_a_head_is_written_whole_listed_and_taken_back(rhythm: Model, tmp_path: Path) -> None:
    weights = np.zeros((4, 33))
    learned = Adaptation(60, 40, 1.0, 0.5, 0.5, 0.1, weights, "")
    head = teach.write_head(tmp_path / "heads", rhythm, learned)
    assert [path.name for path in (tmp_path / "heads").iterdir()] == ["ecg-rhythm.head"]
    listed = json.loads(run(tmp_path, "models", "list", "--json").stdout)
    assert {row["name"]: row["head"] for row in listed}["ecg-rhythm"] == head.version
    assert "removed" in run(tmp_path, "models", "adapt", "ecg-rhythm", "--undo").stdout
    assert "nothing was learned" in run(tmp_path, "models", "adapt", "ecg-rhythm", "--undo").stdout


def run(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*AIDPOST, "--state-dir", str(state), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_photographs_of_another_hospital_teach_the_model_or_are_refused_as_a_command(
    data_dir: Path, tmp_path: Path
) -> None:
    with (data_dir / "fundus" / "labels.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["dataset"] == "EyePACS-raw"][:120]
    table = tmp_path / "labels.csv"
    named = [f"{data_dir.resolve() / 'fundus' / row['file']},{row['dr_grade']},{row['patient']}" for row in rows]
    table.write_text("\n".join(["file,label,patient", *named, f"{table},0,x", f"{table},moderate,y"]))
    (tmp_path / "c.toml").write_text('[inference]\nprofile = "clinical"\n')
    state = tmp_path / "state"
    options = ("--config", str(tmp_path / "c.toml"), "models", "adapt", "fundus-dr", "--labels", str(table), "--json")
    tried = run(state, *options, "--dry-run")
    assert tried.returncode == 0, tried.stderr
    answer = json.loads(tried.stdout)
    assert (answer["model"], answer["cases"], answer["head"]) == ("fundus-dr-open", 120, None)
    assert answer["gain"] > answer["gain_error"] > 0
    assert sum(answer["left_out"].values()) == 2
    assert not (state / "heads").exists()


@pytest.mark.parametrize("content", ["file,grade\na.jpg,1\n", "\xff\xfe"])
def test_a_table_that_is_none_is_refused(rhythm: Model, tmp_path: Path, content: str) -> None:
    table = tmp_path / "labels.csv"
    table.write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match="columns file, label") as caught:
        teach.from_table(rhythm, table, SensorClock(boot=0).now())
    assert str(table) in str(caught.value)
