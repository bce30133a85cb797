"""What runs on the device: without a hub everything but the sender."""

from __future__ import annotations

import logging
import os
import signal
import time
from pathlib import Path

import pytest
from console import Running
from device_records import KEY, make_item

from aidpost.board import runtime
from aidpost.board.configuration import Configuration
from aidpost.sync import enrolment
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store


def running(store: Store, folder: Path) -> runtime.Running:
    return runtime.Running(configuration=Configuration(), state_dir=folder, key=KEY, practice_only=False, store=store)


def test_without_a_hub_exams_are_kept_and_nothing_is_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    [sender] = [part for part in runtime.PARTS if part.name == "sender"]
    with Store.open(tmp_path, KEY, clock=SystemClock(), name="unit-1") as store:
        device = running(store, tmp_path)
        assert sender.when(device)
        with caplog.at_level(logging.ERROR), sender.open(device):
            assert device.publisher is None
            store.append(make_item())
    assert "sync.hub_key_file" in caplog.text


def test_a_damaged_enrolment_keeps_nobody_from_an_exam(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / enrolment.FOLDER
    folder.mkdir()
    (folder / "hub.json").write_text("{")
    [sender] = [part for part in runtime.PARTS if part.name == "sender"]
    with Store.open(tmp_path, KEY, clock=SystemClock(), name="unit-1") as store:
        device = running(store, tmp_path)
        with caplog.at_level(logging.ERROR), sender.open(device):
            assert device.publisher is None
    assert str(folder) in caplog.text


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_device_in_order_with_exit_code_0(tmp_path: Path, which: signal.Signals) -> None:
    with Running(tmp_path) as device:
        device.set_up()
        assert device.process is not None
        workers = children(device.process.pid)
        os.kill(device.process.pid, which)
        assert device.process.wait(60) == 0
        assert device.process.stdout is not None
        device.process.stdout.close()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}/exe").exists() for pid in workers):
        assert time.monotonic() < deadline, "what it started is still there"
        time.sleep(0.05)
    assert not list((tmp_path / "state").rglob("*-wal")), "its databases are closed"


def children(pid: int) -> list[int]:
    return [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
