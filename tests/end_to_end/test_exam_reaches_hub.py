"""Recordings make an exam that reaches the hub over Mosquitto and is receipted, whatever breaks meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from device_records import KEY, make_item
from hub_end import HUB_PROCESS, HubEnd

from aidpost.board import device
from aidpost.board.configuration import Configuration, DeviceSection
from aidpost.board.exam import ExamOutcome, ExamRunner, Plan
from aidpost.inference.worker import InferenceWorker
from aidpost.kernels import codec
from aidpost.records import Eye, Origin, Patient
from aidpost.sync import outbox
from aidpost.sync.clock import SystemClock
from aidpost.sync.hub.server import HubServer
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

CONFIGURATION = Configuration(device=DeviceSection(name="unit-1"))
PATIENT = uuid.UUID(int=5)

SENDER_PROCESS = """
import sys, threading
from pathlib import Path
from aidpost.sync import keys
from aidpost.sync.clock import SystemClock
from aidpost.sync.link import Link
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store
folder, port, hub_key = sys.argv[1:]
store = Store.open(Path(folder), keys.DeviceKey(bytes(range(32)), "test"), clock=SystemClock())
publisher = Publisher(store, Link("127.0.0.1", int(port), "hub", keys.public_key(bytes.fromhex(hub_key))))
publisher.start()
print("started", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as opened:
        yield opened


@pytest.fixture
def hub_end(tmp_path: Path, mosquitto: Any) -> HubEnd:
    return HubEnd(tmp_path / "hub", mosquitto.port)


def sources(data: Path | None) -> tuple[str, str]:
    """A MIT-BIH record and a photograph at full resolution; simulated ones where there is no data."""
    if data is None:
        return "sim:ecg?rhythm=af&seconds=30&seed=3", "sim:fundus?grade=2&seed=3&format=jpeg"
    return str(data / "ecg/mitdb/101.hea"), str(sorted((data / "fundus/fullres").glob("*.jpg"))[0])


def examine(store: Store, ecg: str, photo: str) -> ExamOutcome:
    plan = Plan(
        patient=Patient(id=uuid.uuid4(), name="Wanjiru"),
        ecg=ecg,
        fundus=((Eye.LEFT, photo),),
        vitals=("sim:vitals?seed=1",),
    )
    with InferenceWorker(device.worker_settings(CONFIGURATION), deadline_s=60) as worker:
        outcome = ExamRunner(CONFIGURATION, store, worker).run(plan)
    device.accept(store, outcome)
    return outcome


def data_folder() -> Path | None:
    folder = Path(os.environ.get("AIDPOST_DATA", Path(__file__).parents[2] / "../shared/data"))
    return folder if folder.is_dir() else None


def wait_for(condition: Any, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


def test_real_recordings_make_one_exam_that_reaches_the_hub(store: Store, hub_end: HubEnd) -> None:
    data = data_folder()
    print(f"recordings: {data or 'simulated, for there is no data folder'}")
    ecg, photo = sources(data)
    outcome = examine(store, ecg, photo)
    report = outcome.report
    assert outcome.problems == ()
    assert report.ecg[0].rhythm.probability
    assert report.ecg[0].beats.sample
    assert report.fundus[0].quality.label in {"good", "usable", "reject"}
    assert report.origin is Origin.SIMULATED, "its vital signs are"
    server = HubServer(hub_end.config)
    link = hub_end.enroll(store)
    server.start()
    try:
        with Publisher(store, link) as publisher:
            assert publisher.wait_until_empty(60), publisher.last_error
            assert publisher.connected
    finally:
        server.stop()
    (arrived,) = hub_end.reports()
    assert arrived == report
    if data is not None:
        assert arrived.fundus[0].body is not None
        assert hub_end.blob(arrived.fundus[0].body.sha256) == Path(photo).read_bytes()
    assert arrived.ecg[0].body is not None
    samples = codec.decode(hub_end.blob(arrived.ecg[0].body.sha256))
    assert samples.shape == (len(arrived.ecg[0].leads), round(arrived.ecg[0].duration_s * arrived.ecg[0].fs_hz))
    assert set(hub_end.committed().values()) == {1}
    assert all(one.queued == 0 for one in outbox.status(store))
    assert outbox.blob_status(store).queued == 0


def test_broker_down_for_the_first_half(store: Store, hub_end: HubEnd, mosquitto: Any) -> None:
    link = hub_end.enroll(store)
    mosquitto.stop()
    store.append_many([make_item(patient=PATIENT) for _ in range(20)])
    server = HubServer(hub_end.config)
    server.start()
    try:
        with Publisher(store, link) as publisher:
            assert not publisher.wait_until_empty(1.5)
            assert publisher.last_error
            assert not publisher.connected
            store.append_many([make_item(patient=PATIENT) for _ in range(20)])
            mosquitto.start()
            assert publisher.wait_until_empty(60), publisher.last_error
    finally:
        server.stop()
    assert hub_end.committed() == {("report", seq): 1 for seq in range(1, 41)}


def test_five_thousand_records_before_a_slow_hub_and_the_broker_s_default_queue(
    store: Store, hub_end: HubEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(10):
        store.append_many([make_item(patient=PATIENT) for _ in range(500)])
    server = HubServer(hub_end.config)
    assert server.service is not None
    ingest = server.service._ingest.ingest
    monkeypatch.setattr(server.service._ingest, "ingest", lambda batch: (time.sleep(0.02), ingest(batch))[1])
    link = hub_end.enroll(store)
    server.start()
    try:
        with Publisher(store, link) as publisher:
            assert publisher.wait_until_empty(180), publisher.last_error
    finally:
        server.stop()
    assert hub_end.committed() == {("report", seq): 1 for seq in range(1, 5001)}


def spawn(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == b"started"
    return process


def kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    assert process.stdout is not None
    process.stdout.close()


@pytest.mark.parametrize("seed", range(2))
def test_sender_broker_and_hub_killed_in_the_middle(
    store: Store, hub_end: HubEnd, mosquitto: Any, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    link = hub_end.enroll(store)
    hub_key = link.hub_key.public_bytes_raw().hex()
    accepted = 0
    sender = spawn(SENDER_PROCESS, str(tmp_path / "device"), str(mosquitto.port), hub_key)
    hub = spawn(HUB_PROCESS, hub_end.config_json)
    try:
        for turn in range(6):
            # accepted by this process while another one sends: any process may append
            store.append_many([make_item(patient=PATIENT) for _ in range(60)])
            accepted += 60
            time.sleep(chance.uniform(0.0, 0.6))
            if turn % 3 == 0:
                kill(sender)
                sender = spawn(SENDER_PROCESS, str(tmp_path / "device"), str(mosquitto.port), hub_key)
            elif turn % 3 == 1:
                mosquitto.kill()
                mosquitto.start()
            else:
                kill(hub)
                hub = spawn(HUB_PROCESS, hub_end.config_json)
        wait_for(lambda: outbox.status(store)[0].queued == 0, 120, "the hub has receipted everything")
    finally:
        kill(sender)
        kill(hub)
    assert hub_end.committed() == {("report", seq): 1 for seq in range(1, accepted + 1)}
