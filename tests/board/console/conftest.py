"""Workspaces: with real models; and one whose clock nobody set and whose models never answer, with a finished exam, of
which the paper is made."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from device_records import KEY

from aidpost.board import device
from aidpost.board.configuration import Configuration
from aidpost.board.console.people import Known
from aidpost.board.console.workspace import Workspace
from aidpost.errors import InferenceTimeoutError
from aidpost.firmware_bridge.sources import open_source
from aidpost.inference.fundus import FundusAnalysis
from aidpost.inference.worker import InferenceWorker
from aidpost.records import EcgRecording, EcgResult, ExamReport, Eye, FundusPhoto, Patient, Sex
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store


class Dead:
    """An analyst whose models never answer: the paper must say so, and be whole all the same."""

    def ecg(self, recording: EcgRecording, lead: str | None = None) -> EcgResult:
        raise InferenceTimeoutError(operation="analysing", target="ECG", cause="no answer within 1 s")

    def fundus(self, photo: FundusPhoto, *, force: bool = False, attempt: int = 1) -> FundusAnalysis:
        raise InferenceTimeoutError(operation="analysing", target="photograph", cause="no answer within 1 s")


@pytest.fixture(scope="module")
def worker() -> Iterator[InferenceWorker]:
    """The models, in their process."""
    with InferenceWorker(device.worker_settings(Configuration()), deadline_s=60) as started:
        yield started


@pytest.fixture
def clock() -> SystemClock:
    """The store's clock."""
    return SystemClock()


@pytest.fixture
def configuration() -> Configuration:
    """The workspace's configuration."""
    return Configuration()


@pytest.fixture
def store(tmp_path: Path, clock: SystemClock) -> Iterator[Store]:
    """A device's store."""
    with Store.open(tmp_path / "device", KEY, clock=clock, name="unit-1") as opened:
        yield opened


@pytest.fixture
def workspace(store: Store, worker: InferenceWorker, configuration: Configuration) -> Iterator[Workspace]:
    """A workspace of real exams with real models."""
    made = Workspace(configuration, store, worker, practice=False)
    yield made
    made.close()


def begin(workspace: Workspace, name: str = "Amina") -> uuid.UUID:
    """A registered patient's new exam."""
    patient = Patient(id=uuid.uuid4(), name=name, sex=Sex.FEMALE, birth_date="1961")
    workspace.patients.keep(Known(patient=patient))
    return workspace.begin(Known(patient=patient), "Rose").exam.id


@pytest.fixture(scope="module")
def paper_workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    folder: Path = tmp_path_factory.mktemp("device")
    # a clock that nobody set
    with Store.open(folder, KEY, clock=SystemClock(folder_root(folder)), name="unit-1") as store:
        made = Workspace(Configuration(), store, Dead(), practice=False)
        yield made
        made.close()


def folder_root(folder: Path) -> Path:
    """A root where no time server ever set the clock."""
    boot = folder / "root/proc/sys/kernel/random"
    boot.mkdir(parents=True)
    (boot / "boot_id").write_text("boot-1\n")
    return folder / "root"


@pytest.fixture(scope="module")
def report(paper_workspace: Workspace) -> ExamReport:
    workspace = paper_workspace
    patient = Patient(id=uuid.uuid4(), name="Amina Yusuf", birth_date="1961", sex=Sex.FEMALE)
    exam = workspace.begin(Known(patient=patient), "Rose").exam.id
    workspace.take_photo(exam, open_source("sim:fundus?size=256", clock=workspace.store).read_photo(Eye.RIGHT))
    workspace.take_ecg(exam, open_source("sim:ecg?seconds=10", clock=workspace.store).read_ecg())
    workspace.answer(exam, "chest-pain", "yes")
    workspace.acknowledge(exam, "Rose")
    return workspace.finish(exam)
