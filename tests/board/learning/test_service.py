"""When a device learns: while nobody needs it and it is on the mains, in a process that can be killed."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from clinics import SECTION, Clinic, Hub, confirmed_exams, plan
from console import Running
from device_records import KEY

from aidpost.board.configuration import Configuration
from aidpost.board.learning.ledger import Ledger
from aidpost.board.learning.service import Learner
from aidpost.board.power import on_mains
from aidpost.records import ConsentPurpose, encode
from aidpost.sync import keys, rounds
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import Envelope
from aidpost.sync.hub import clocks
from aidpost.sync.rounds import RoundAnswer, RoundKeys
from aidpost.sync.store import Store

CONFIGURATION = Configuration(federated=SECTION)


def wait_for(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def supply(root: Path, name: str, **files: str) -> None:
    folder = root / "sys/class/power_supply" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in files.items():
        (folder / file).write_text(content + "\n")


@pytest.mark.parametrize(
    ("supplies", "mains"),
    [
        ({}, True),
        ({"AC": {"type": "Mains", "online": "1"}}, True),
        ({"AC": {"type": "Mains", "online": "0"}, "BAT0": {"type": "Battery", "status": "Discharging"}}, False),
        ({"AC": {"type": "Mains", "online": "1"}, "BAT0": {"type": "Battery", "status": "Discharging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Charging"}}, True),
        ({"BAT0": {"type": "Battery", "status": "Discharging"}}, False),
        ({"BAT0": {"type": "Battery", "status": "Unknown"}}, False),
        ({"usb": {"type": "USB", "online": "1"}, "BAT0": {"type": "Battery", "status": "Not charging"}}, True),
        ({"x": {"type": "Mains"}}, True),
    ],
)
def test_on_the_mains_is_what_the_kernel_says(tmp_path: Path, supplies: dict[str, dict[str, str]], mains: bool) -> None:
    for name, files in supplies.items():
        supply(tmp_path, name, **files)
    assert on_mains(tmp_path) is mains


def test_it_learns_once_the_device_is_idle_and_on_the_mains(hub: Hub, clinics: list[Clinic], tmp_path: Path) -> None:
    north, idle, looks = clinics[0], threading.Event(), [0]
    supply(tmp_path, "BAT0", type="Battery", status="Discharging")
    hub.open()
    north.carry()

    def mains() -> bool:
        looks[0] += 1
        return on_mains(tmp_path)

    with Learner(CONFIGURATION, north.store, KEY, idle.is_set, mains, every_s=0.05):
        idle.set()
        wait_for(lambda: looks[0] > 5, "it looks at the battery")
        assert north.sent(RoundAnswer) == []
        supply(tmp_path, "BAT0", type="Battery", status="Charging")
        wait_for(lambda: len(north.sent(RoundAnswer)) == 1, "it has learned")
    assert [kept.state for kept in north.me.ledger.all()] == ["answered"]


def test_what_takes_no_time_is_done_whoever_uses_the_device(hub: Hub, clinics: list[Clinic]) -> None:
    north = clinics[0]
    hub.open(secure=True, minimum=2)
    north.carry()
    with Learner(CONFIGURATION, north.store, KEY, lambda: False, lambda: False, every_s=0.05):
        wait_for(lambda: len(north.sent(RoundKeys)) == 1, "its keys are out")


def test_learning_is_killed_when_somebody_needs_the_device_and_begins_again(hub: Hub, clinics: list[Clinic]) -> None:
    north, looks = clinics[0], [0]
    hub.open()
    north.carry()

    def idle() -> bool:
        looks[0] += 1
        # the first look lets it begin; by the second somebody is at the screen, as long as nothing was given
        return looks[0] != 2

    with Learner(CONFIGURATION, north.store, KEY, idle, lambda: True, every_s=0.05):
        wait_for(lambda: [kept.state for kept in north.me.ledger.all()] == ["answered"], "it has learned in the end")
    assert len(north.sent(RoundAnswer)) == 1


@pytest.mark.skipif(not on_mains(), reason="this machine runs on its battery")
def test_the_running_device_answers_when_nobody_uses_it(hub: Hub, tmp_path: Path) -> None:
    """`aidpost run` itself, with its screen: a call is in its store, and the answer is given without anybody."""
    configuration = "[federated]\nenabled = true\nidle_minutes = 0\nleast_patients = 2\n[sync]\nenabled = false\n"
    running = Running(tmp_path / "device", configuration, practice=False, exam="")
    key = keys.from_file(running.state / "device.key", create=True)
    call = rounds.RoundCall(
        round=uuid.uuid4(),
        number=1,
        model=plan().model,
        base=plan().base,
        kind="softmax",
        rows=plan().shape[0],
        columns=plan().shape[1],
        head=bytes(4 * plan().shape[0] * plan().shape[1]),
        purpose=ConsentPurpose.MODEL_TRAINING,
        deadline_ms=1 << 50,
        minimum=2,
        strategy="fedavg",
        secure=False,
        steps=1,
        rate=16.0,
        clip=1.0,
        noise=2.33,
        pull=0.0,
        at=clocks.hub_time(1),
    )
    with Store.open(running.state, key, clock=SystemClock()) as store:
        confirmed_exams(store, 3)
        sent = Envelope(b"hub-epoc", rounds.CLASS, 1, "RoundCall", None, None, encode(call))
        assert store.inbox.keep([sent], 1).rejected == ()
        running.start()
        try:
            wait_for(lambda: store.sent(RoundAnswer, call.round), "it has answered", 300)
        finally:
            running.kill()
        assert Ledger(store).spent() == pytest.approx(1 / 2.33**2)
