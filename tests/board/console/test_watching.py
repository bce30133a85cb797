"""A patient who is watched, on the device itself: calls on every page, quiet, power cuts, and what the exam keeps."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from console import SENSORS, Running
from device_records import KEY
from failing_card import FailingCard

from aidpost.board import device
from aidpost.board.configuration import Configuration, SensorsSection
from aidpost.board.console import watching
from aidpost.board.console.people import Known
from aidpost.board.console.workspace import Workspace
from aidpost.errors import DeviceTimeoutError, UsageError
from aidpost.firmware_bridge.ports.sim import SimulatedSource
from aidpost.inference.worker import InferenceWorker
from aidpost.records import Patient, VitalKind, VitalSign
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

FALLING = SENSORS.replace('"sim:vitals"', '"sim:vitals?profile=desaturating"')


def until(what: Callable[[], object], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.1)


def test_a_falling_oxygen_calls_on_every_page_even_the_locked_one(tmp_path: Path) -> None:
    with Running(tmp_path, FALLING) as running:
        running.set_up()
        exam = running.register()
        assert "call-now" not in running.page("/")
        running.tap(f"{exam}/watch")
        until(lambda: "Oxygen is falling" in running.page("/calls"))
        assert f"{exam}/watch" in running.page("/calls")
        running.tap("/leave")
        running.cookie = ""
        locked = running.page("/calls")
        assert "Oxygen" in locked
        assert "Amina" not in locked
        assert exam not in locked


def test_after_a_power_cut_the_patient_is_watched_on(tmp_path: Path) -> None:
    with Running(tmp_path, FALLING) as running:
        running.set_up()
        exam = running.register()
        running.tap(f"{exam}/watch")
        running.kill()
        running.start()
        until(lambda: "Oxygen" in running.page("/calls"))
        running.unlock()
        status, where, text = running.ask("GET", f"{exam}/watch")
        assert status == 200 or where.endswith("/alarm")
        assert status != 200 or "Stop watching" in text


CONFIGURATION = Configuration(sensors=SensorsSection(vitals=("sim:vitals?profile=desaturating",)))


@pytest.fixture(scope="module")
def worker() -> Iterator[InferenceWorker]:
    with InferenceWorker(device.worker_settings(CONFIGURATION), deadline_s=60) as started:
        yield started


@pytest.fixture
def workspace(tmp_path: Path, worker: InferenceWorker, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    monkeypatch.setattr(watching, "EVERY_S", 0.02)
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store:
        made = Workspace(CONFIGURATION, store, worker, practice=False)
        yield made
        made.close()


def begin(workspace: Workspace) -> uuid.UUID:
    return workspace.begin(Known(patient=Patient(id=uuid.uuid4(), name="Amina")), "Rose").exam.id


def test_the_exam_keeps_few_readings_and_each_that_changed_a_call(workspace: Workspace) -> None:
    exam = begin(workspace)
    workspace.watching.start(exam)
    until(lambda: [c for c in workspace.watching.calls() if c.finding.code == "watch-spo2-very-low"])
    until(lambda: not [c for c in workspace.watching.calls() if c.finding.code.startswith("watch-spo2")])
    workspace.watching.stop(exam)
    kept = [one.value for one in workspace.drafts.get(exam).vitals if one.kind is VitalKind.SPO2]
    assert 3 <= len(kept) <= 20
    assert any(value is not None and value <= 91 for value in kept)
    assert workspace.watching.calls() == []


def test_quiet_is_for_what_is_known_and_not_for_worse(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    read, oxygen = SimulatedSource.read_vitals, [93.0]

    def shown(self: SimulatedSource) -> list[VitalSign]:
        clip = [one for one in read(self) if one.kind is VitalKind.SPO2]
        return [msgspec.structs.replace(one, value=oxygen[0]) for one in clip]

    monkeypatch.setattr(SimulatedSource, "read_vitals", shown)
    exam = begin(workspace)
    workspace.watching.start(exam)
    until(workspace.watching.calls)
    workspace.watching.quiet()
    assert [one.quiet for one in workspace.watching.calls()] == [True]
    oxygen[0] = 89.0
    until(lambda: [c for c in workspace.watching.calls() if not c.quiet])
    assert workspace.watching.calls()[0].finding.code == "watch-spo2-very-low"


def test_a_patient_is_watched_on_after_a_card_that_failed_for_a_moment(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, read = FailingCard(workspace.database._reader), SimulatedSource.read_vitals

    def with_times(self: SimulatedSource) -> list[VitalSign]:  # by which they are looked up among what came before
        return [msgspec.structs.replace(one, device_time="2026-01-01T00:00:00") for one in read(self)]

    exam = begin(workspace)
    with monkeypatch.context() as broken:
        broken.setattr(SimulatedSource, "read_vitals", with_times)
        broken.setattr(workspace.database, "_reader", card)
        workspace.watching.start(exam)
        card.fails(5)
        until(lambda: not workspace.watching.trouble())
    until(workspace.watching.calls)


def test_a_sensor_that_is_pulled_out_is_said_and_read_again_when_it_is_back(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = SimulatedSource.read_vitals

    def gone(self: SimulatedSource) -> list[VitalSign]:
        raise DeviceTimeoutError(operation="reading", target="clip", cause="the clip says nothing")

    exam = begin(workspace)
    workspace.watching.start(exam)
    until(workspace.watching.latest)
    monkeypatch.setattr(SimulatedSource, "read_vitals", gone)
    until(lambda: workspace.watching.trouble() == "the clip says nothing")
    monkeypatch.setattr(SimulatedSource, "read_vitals", read)
    until(lambda: workspace.watching.trouble() == "")


def test_one_patient_at_a_time_and_the_finished_exam_is_let_go(workspace: Workspace) -> None:
    first, second = begin(workspace), begin(workspace)
    workspace.watching.start(first)
    with pytest.raises(UsageError, match="another patient"):
        workspace.watching.start(second)
    workspace.watching.start(first)
    until(workspace.watching.latest)
    workspace.finish(first)
    assert workspace.watching.exam is None
    workspace.watching.start(second)
    assert workspace.watching.exam == second


def test_it_goes_on_where_it_was_and_stops_where_it_was_stopped(workspace: Workspace, worker: InferenceWorker) -> None:
    exam = begin(workspace)
    workspace.watching.start(exam)
    workspace.watching.close()
    again = Workspace(CONFIGURATION, workspace.store, worker, practice=False)
    again.watching.resume()
    assert again.watching.exam == exam
    again.watching.stop(exam)
    again.close()
    once_more = Workspace(CONFIGURATION, workspace.store, worker, practice=False)
    once_more.watching.resume()
    assert once_more.watching.exam is None
    once_more.close()


def test_without_a_sensor_it_says_so(tmp_path: Path, worker: InferenceWorker) -> None:
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store:
        made = Workspace(Configuration(), store, worker, practice=False)
        with pytest.raises(UsageError, match="no sensor of vital signs"):
            made.watching.start(begin(made))
        made.close()


def test_the_page_says_in_words_what_it_watches(tmp_path: Path) -> None:
    with Running(tmp_path, SENSORS) as running:
        running.set_up()
        exam = running.register()
        assert "Watch from now on" in running.page(f"{exam}/watch")
        running.tap(f"{exam}/watch")
        until(lambda: re.search(r"Oxygen</b>\s*<span class=\"value\">9\d", running.page(f"{exam}/watch/numbers")))
        running.tap(f"{exam}/watch/quiet")
        running.tap(f"{exam}/watch/stop")
        assert "Watch from now on" in running.page(f"{exam}/watch")
