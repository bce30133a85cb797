"""From a round's head to a model on a device: each gate in its order, and nothing around them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clinics import Clinic, Hub, confirmed_exams, rhythm
from sqlalchemy import update

from aidpost.board.learning import candidate
from aidpost.board.update.install import Here, update_models
from aidpost.board.update.publish import Repository
from aidpost.board.update.report import told
from aidpost.board.update.slots import Slots
from aidpost.board.update.source import Offer, Source
from aidpost.errors import ModelIntegrityError, UpdateRefusedError
from aidpost.inference.head import fit
from aidpost.inference.model import SHARED, SHIPPED, Models, load_model
from aidpost.sync import rounds
from aidpost.sync.hub import schema
from aidpost.sync.hub.database import Database

AIDPOST = [sys.executable, "-c", "from aidpost.board.cli import main\nif __name__ == '__main__': main()"]
FOLDER = SHIPPED / "ecg-rhythm"
HERE = Here(device="clinic/north")
GRADES = ("sinus", "af", "other")
NEXT = f"{rhythm().card.version}.1"
"""A release that is newer than the one that ships."""


def reviewed(hub: Hub, clinic: Clinic, number: int, seed: int) -> None:
    """Exams at the hub that a clinician has read there."""
    made = confirmed_exams(clinic.store, number, seed=seed)
    clinic.carry()
    for i, report in enumerate(made):
        hub.sign(clinic.name, report, GRADES[i % 3])


def set_head(hub: Hub, weights: Any) -> None:
    """In the place of what a few noisy patients gave: the path of a candidate is what is tested."""
    database = Database(hub.config.url)
    with database.write() as connection:
        connection.execute(update(schema.rounds).values(head=rounds.from_floats(weights)))
    database.close()


def learned(hub: Hub) -> Any:
    """A head that does fit what clinicians said."""
    from aidpost.board.learning.candidate import _judged
    from aidpost.sync.hub import candidates
    from aidpost.sync.hub.blobs import BlobFiles

    database = Database(hub.config.url)
    with database.read() as connection:
        found = list(candidates.reviewed(connection))
    database.close()
    return fit("softmax", _judged(rhythm(), BlobFiles(hub.config.blobs), found).cases, 0.3)


@pytest.fixture
def closed(hub: Hub, clinics: list[Clinic]) -> Hub:
    """A hub with reviewed cases and a round that has made a head."""
    reviewed(hub, clinics[0], 9, seed=40)
    hub.open()
    for one in clinics:
        one.carry()
        one.act()
        one.carry()
    assert hub.status().state == "closed"
    return hub


def judged(hub: Hub, *, shadow: bool = False) -> Any:
    return candidate.judge_round(hub.config, rhythm(), FOLDER, "ecg-rhythm/1", shadow=shadow, least=6)


def test_a_good_head_passes_shadow_and_becomes_a_model_that_a_board_proves(
    closed: Hub, clinics: list[Clinic], tmp_path: Path
) -> None:
    set_head(closed, learned(closed))
    with pytest.raises(UpdateRefusedError, match="it is none"):
        judged(closed, shadow=True)
    with pytest.raises(UpdateRefusedError, match="as a candidate it is none"):
        candidate.export(closed.config, FOLDER, "ecg-rhythm/1", NEXT, tmp_path)
    assert judged(closed).passed
    assert judged(closed, shadow=True).reasons == ("0 reviewed cases, 6 are needed",), "none was made since"
    assert closed.status().candidate == "failed"
    assert judged(closed).passed
    reviewed(closed, clinics[1], 9, seed=60)
    move_rounds_back(closed)
    assert judged(closed, shadow=True).passed
    made = candidate.export(closed.config, FOLDER, "ecg-rhythm/1", NEXT, tmp_path)
    assert made.name == f"ecg-rhythm-{NEXT}.tar"
    slots = publish(made, tmp_path)
    assert update_models(source(tmp_path), slots, HERE) == [f"ecg-rhythm {NEXT}"], "its golden recordings passed here"
    root = slots.models
    model = Models(roots=(root, SHIPPED)).get("ecg-rhythm")
    assert (model.card.version, model.ref.version) == (NEXT, NEXT)
    assert model.shared is not None
    assert model.shared.weights.ravel() == pytest.approx(closed.head().ravel())
    assert model.card.head is not None
    assert [one.split()[0] for one in model.card.head.rounds] == ["ecg-rhythm/1"]
    assert model.card.base != rhythm().card.base == model.card.network
    assert "a head that clinics taught together" in (root / "ecg-rhythm/CARD.md").read_text()
    assert [detail for _, detail in closed.audited("candidate-exported")] == [f"ecg-rhythm-{NEXT}.tar"]
    assert len(closed.audited("candidate-passed")) == 2

    path = root / "ecg-rhythm" / SHARED
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelIntegrityError):
        load_model(root / "ecg-rhythm")
    assert slots.roll_back_model("ecg-rhythm", "readers disagree") == NEXT
    assert Models(roots=(root, SHIPPED)).get("ecg-rhythm").card.version == rhythm().card.version
    assert update_models(source(tmp_path), slots, HERE) == [], "it is not tried again"
    assert [(one.state, one.why) for one in told(slots)] == [("failed", "readers disagree")], "so the hub hears of it"


def publish(model: Path, folder: Path) -> Slots:
    """A person signs it, for all devices."""
    repository = Repository.create(folder / "served", folder / "keys")
    repository.add(Offer(kind="model", name="ecg-rhythm", version=NEXT, target=model.name), model)
    repository.bundle(folder / "aidpost.bundle")
    return Slots(folder / "opt")


def source(folder: Path) -> Source:
    root = folder / "served/metadata/1.root.json"
    return Source(str(folder / "aidpost.bundle"), folder / "opt/trust", folder / "opt/downloads", root)


def move_rounds_back(hub: Hub) -> None:
    """The round ended before those exams were made: a simulated exam's own time is far in the past."""
    database = Database(hub.config.url)
    with database.write() as connection:
        times = connection.execute(schema.exams.select().order_by(schema.exams.c.started_ms)).all()
        middle = times[len(times) // 2].started_ms
        connection.execute(update(schema.rounds).values(ended_ms=middle - 1))
    database.close()


def test_a_head_that_is_worse_is_refused_and_cannot_be_exported(closed: Hub, tmp_path: Path) -> None:
    set_head(closed, -2.0 * learned(closed))
    verdict = judged(closed)
    assert not verdict.passed
    assert closed.status().candidate == "failed"
    with pytest.raises(UpdateRefusedError, match="failed"):
        candidate.export(closed.config, FOLDER, "ecg-rhythm/1", NEXT, tmp_path)
    assert list(tmp_path.glob("*.tar")) == []
    assert [actor for actor, _ in closed.audited("candidate-failed")] == ["command-line"]


def test_a_head_that_renames_a_golden_recording_is_refused(closed: Hub) -> None:
    weights = np.zeros(rhythm().head_shape)
    weights[3, -1] = 100.0
    set_head(closed, weights)
    assert any("golden recording 0 becomes ~" in reason for reason in judged(closed).reasons)


def test_a_round_without_a_head_is_no_candidate(hub: Hub, clinics: list[Clinic]) -> None:
    hub.open()
    hub.close()
    with pytest.raises(UpdateRefusedError, match="the round is void and made no head"):
        judged(hub)


def test_commands_open_judge_and_refuse(closed: Hub, tmp_path: Path) -> None:
    config = tmp_path / "hub.toml"
    config.write_text(f'[hub]\nstate_dir = "{closed.config.state_dir}"\nbroker_host = ""\n')
    set_head(closed, learned(closed))

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*AIDPOST, "--config", str(config), "--state-dir", str(tmp_path), "hub", "rounds", *words],
            capture_output=True,
            text=True,
            check=False,
        )

    done = run("judge", "ecg-rhythm/1", "--least", "6", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["passed"] is True
    done = run("judge", "ecg-rhythm/1")
    assert done.returncode == 1
    assert "9 reviewed cases, 100 are needed" in done.stdout
    done = run("export", "ecg-rhythm/1", str(tmp_path), "--release", NEXT)
    assert done.returncode == 1
    assert "as a candidate it is failed" in done.stderr
    done = run("open", "ecg-rhythm", "--json")
    assert done.returncode == 0, done.stderr
    [opened] = json.loads(done.stdout)["rounds"]
    assert (opened["number"], opened["asked"], opened["phase"]) == (2, 3, "answer")
    done = run("status")
    assert "ecg-rhythm/2  open  fedavgm  answer: 0 of 3 devices" in done.stdout
    done = run("close", "ecg-rhythm/2")
    assert "0 answers of 3 needed" in done.stdout
