"""The demonstration: simulated devices, one exam, a broker and a hub in this process, and the way between them.

Every stage is the real one: the models, the sealed store, the signed wire and the hub's database. Only the sensors are
simulated, which the exam says everywhere, and the broker keeps nothing (amqtt; a clinic runs Mosquitto).
"""

from __future__ import annotations

import secrets
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from aidpost.board import device
from aidpost.board._demo_broker import DemoBroker
from aidpost.board.configuration import ClinicSection, Configuration, DeviceSection
from aidpost.board.exam import ExamOutcome, ExamRunner, Plan
from aidpost.board.remote_rules import judge
from aidpost.errors import BrokerError
from aidpost.inference.worker import InferenceWorker
from aidpost.records import Answer, ExamReport, Eye, Patient, Sex
from aidpost.sync import keys
from aidpost.sync.hub import accounts, operations
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.server import HubServer
from aidpost.sync.link import Link
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

USER = "demo"
_CONFIGURATION = Configuration(
    clinic=ClinicSection(id="demo", name="Demonstration clinic"), device=DeviceSection(name="demo", operator="demo")
)


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """Which simulated patient comes."""

    rhythm: str = "af"
    grade: int = 2
    vitals: str = "hypertensive"
    seed: int = 1


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What a demonstration came to: the report, whether the hub has it, and where it can be looked at."""

    report: ExamReport
    synced: bool
    seconds: float
    hub_url: str
    exam_url: str
    user: str
    password: str


def plan(scene: Scene, store: Store) -> Plan:
    """The exam of that simulated patient."""
    seed, now = scene.seed, store.now()
    return Plan(
        patient=Patient(id=uuid.uuid4(), name=f"Simulated Patient {seed}", birth_date="1961", sex=Sex.FEMALE),
        ecg=f"sim:ecg?rhythm={scene.rhythm}&seconds=30&seed={seed}",
        fundus=(
            (Eye.RIGHT, f"sim:fundus?grade={scene.grade}&eye=right&seed={seed}&format=jpeg"),
            (Eye.LEFT, f"sim:fundus?grade={max(0, scene.grade - 1)}&eye=left&seed={seed + 1}&format=jpeg"),
        ),
        vitals=(f"sim:vitals?profile={scene.vitals}&seed={seed}",),
        answers=(
            Answer(question="chest-pain", answer="no", at=now),
            Answer(question="vision-loss", answer="no", at=now),
        ),
    )


@contextmanager
def hub_in(folder: Path, broker_port: int, port: int, store: Store) -> Iterator[tuple[HubServer, str]]:
    """A hub for the demonstration, with the device enrolled and one user; gives it and the user's password."""
    config = HubConfig(state_dir=str(folder / "hub"), broker_port=broker_port, listen_port=port, accept_simulated=True)
    password = secrets.token_urlsafe(12)
    operations.enroll(config, store.identity.name, keys.public_bytes(store.identity.public))
    accounts.add_user(config, USER, password, "clinician", "Demonstration")
    server = HubServer(config, judge_limits=judge)
    server.start()
    try:
        yield server, password
    finally:
        server.stop()


def demonstrate(
    folder: Path,
    scene: Scene,
    *,
    port: int = 0,
    timeout_s: float = 120.0,
    progress: Callable[[str], None] = lambda _: None,
    linger: Callable[[Shown], None] = lambda _: None,
) -> Shown:
    """Run the whole demonstration in `folder`, which is emptied first.

    Parameters
    ----------
    port
        Of the hub's pages; 0 takes a free one.
    linger
        Called while everything still runs, with what there is to look at.

    Raises
    ------
    BrokerError
        The hub's receipt did not come within `timeout_s`.
    NotPossibleError
        The demo's extra dependencies are not installed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    started = time.monotonic()
    key = device.device_key(_CONFIGURATION, folder / "device", passphrase=str)
    with device.open_store(_CONFIGURATION, folder / "device", key) as store, DemoBroker() as broker:
        progress(f"device {store.identity.name}: sealed store in {folder / 'device'}")
        progress(f"broker on port {broker.port} (embedded, for the demonstration only)")
        with hub_in(folder, broker.port, port, store) as (hub, password):
            progress(f"hub at {hub.url}")
            outcome = _examine(store, scene, progress)
            hub_key = keys.public_key(operations.public_key(hub.config))
            with Publisher(store, Link("127.0.0.1", broker.port, hub.config.name, hub_key)) as publisher:
                progress("sending; waiting for the hub's receipt")
                synced = publisher.wait_until_empty(timeout_s)
                if not synced:
                    raise BrokerError(
                        operation="waiting for the hub's receipt",
                        target=hub.url,
                        cause=publisher.last_error or f"it did not come within {timeout_s:g} s",
                    )
                progress("synced: the hub has committed the report, the photographs and the waveform")
                shown = Shown(
                    report=outcome.report,
                    synced=synced,
                    seconds=round(time.monotonic() - started, 2),
                    hub_url=hub.url,
                    exam_url=f"{hub.url.rstrip('/')}/exams/{outcome.report.exam.id}",
                    user=USER,
                    password=password,
                )
                linger(shown)
    return shown


def _examine(store: Store, scene: Scene, progress: Callable[[str], None]) -> ExamOutcome:
    """The exam itself, accepted by the store."""
    with InferenceWorker(device.worker_settings(_CONFIGURATION)) as worker:
        outcome = ExamRunner(_CONFIGURATION, store, worker, progress).run(plan(scene, store))
    device.accept(store, outcome)
    progress("accepted: sealed and on the disk")
    return outcome
