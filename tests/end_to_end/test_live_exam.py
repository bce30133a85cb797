"""Live sensors, all that is fake being the devices: a board on a pty, a camera's folder, a cuff on BlueZ's D-Bus."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_records import KEY
from hub_end import HubEnd

from aidpost.board import device
from aidpost.board.configuration import Configuration, DeviceSection, ExamSection
from aidpost.board.exam import ExamRunner, Plan
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.decoders.gatt import DeviceTime
from aidpost.firmware_bridge.ports import _ble
from aidpost.firmware_bridge.simulators import sensors
from aidpost.firmware_bridge.simulators.bluez import FakeBluez
from aidpost.firmware_bridge.simulators.boards import BoardSimulator
from aidpost.firmware_bridge.simulators.bus import private_bus
from aidpost.firmware_bridge.sources import open_source
from aidpost.inference.worker import InferenceWorker
from aidpost.records import Eye, Origin, Patient, VitalKind
from aidpost.sync import outbox
from aidpost.sync.clock import SystemClock
from aidpost.sync.hub.server import HubServer
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

CONFIGURATION = Configuration(device=DeviceSection(name="unit-1"), exam=ExamSection(ecg_seconds=12))


@pytest.fixture
def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with private_bus(tmp_path) as address:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        monkeypatch.setattr(_ble, "SETTLE_S", 0.3)
        monkeypatch.setattr(_ble, "QUIET_S", 0.5)
        yield address


def counts_of(recording: str) -> list[int]:
    """The first lead of a recording in the counts of a HealthyPi v4, at its rate."""
    board = BOARDS["healthypi4"]
    read = open_source(recording, clock=FileClock()).read_ecg(15)
    values = read.millivolts(0)
    times = np.arange(0, read.duration_s, 1 / board.fs_hz)
    resampled = np.interp(times, np.arange(values.size) / read.fs_hz, values)
    scale = (board.uv_per_count or 1.0) / 1000
    return [int(count) for count in (resampled / scale + board.baseline).round()]


class FileClock:
    def now(self) -> Any:
        from aidpost.records import Timestamp

        return Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=False)


def clock_of(moment: datetime) -> DeviceTime:
    return DeviceTime(moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second)


def test_board_camera_and_cuff_make_one_live_exam_that_reaches_the_hub(
    bus: str, mosquitto: Any, tmp_path: Path, data_dir: Path
) -> None:
    counts = counts_of(str(data_dir / "ecg/mitdb/101.hea"))
    photo = sorted((data_dir / "fundus/fullres").glob("*.jpg"))[0]
    camera = tmp_path / "camera"
    camera.mkdir()
    now = datetime.now(timezone.utc)
    # the cuff uploads its memory, oldest first: yesterday's reading is somebody else's
    readings = [(188, 112, 99, clock_of(now - timedelta(days=1))), (142, 91, 78, clock_of(now))]
    cuff = sensors.blood_pressure_cuff(readings=readings)
    hub = HubEnd(tmp_path / "hub", mosquitto.port)
    plan = Plan(patient=Patient(id=uuid.uuid4(), name="B"), fundus=((Eye.LEFT, f"watch:{camera}?wait=60"),))

    def drop_photograph() -> None:
        time.sleep(1.0)
        shutil.copy(photo, camera / "IMG_0001.jpg")

    with (
        Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store,
        BoardSimulator("healthypi4", counts) as board,
        FakeBluez(bus, (cuff,)),
        InferenceWorker(device.worker_settings(CONFIGURATION), deadline_s=60) as worker,
    ):
        plan = Plan(
            patient=plan.patient,
            ecg=f"serial:{board.port}?device=healthypi4",
            fundus=plan.fundus,
            vitals=(f"ble:{cuff.address}?wait=20",),
        )
        dropper = threading.Thread(target=drop_photograph)
        runner = ExamRunner(CONFIGURATION, store, worker, lambda step: dropper.start() if step == "left eye" else None)
        outcome = runner.run(plan)
        dropper.join()
        assert outcome.problems == (), [str(problem.error) for problem in outcome.problems]
        report = outcome.report
        assert report.origin is Origin.LIVE or report.origin is Origin.FILE
        assert report.ecg[0].origin is Origin.LIVE
        assert 8 <= len(report.ecg[0].beats.sample) <= 20
        pressures = {v.kind: v.value for v in report.vitals}
        assert pressures[VitalKind.SYSTOLIC_BP] == 142
        assert 188 not in {v.value for v in report.vitals}
        assert 188 in {v.value for v in outcome.unassigned}
        device.accept(store, outcome)
        link = hub.enroll(store)
        server = HubServer(hub.config)
        server.start()
        try:
            with Publisher(store, link) as publisher:
                assert publisher.wait_until_empty(60), publisher.last_error
        finally:
            server.stop()
        assert all(one.queued == 0 for one in outbox.status(store))
    (arrived,) = hub.reports()
    assert arrived == report
    assert arrived.fundus[0].body is not None
    assert hub.blob(arrived.fundus[0].body.sha256) == photo.read_bytes()
