"""Three devices and a hub, each a process of its own, teach a model together over Mosquitto, and one dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clinics import confirmed_exams, plan
from device_records import KEY
from hub_end import HUB_PROCESS, HubEnd
from sqlalchemy import select

from aidpost.board.learning.ledger import Ledger
from aidpost.records import decode
from aidpost.sync import rounds
from aidpost.sync.clock import SystemClock
from aidpost.sync.hub import operations, schema
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.rounds import Progress
from aidpost.sync.link import Link
from aidpost.sync.rounds import RoundAnswer, RoundCall
from aidpost.sync.store import Store

DEVICE_PROCESS = """
import sys, threading
from pathlib import Path
from aidpost.board.configuration import Configuration, FederatedSection
from aidpost.board.learning.service import Learner
from aidpost.board.power import on_mains
from aidpost.sync import keys
from aidpost.sync.clock import SystemClock
from aidpost.sync.link import Link
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store
folder, board, port, hub_key = sys.argv[1:]
key = keys.DeviceKey(bytes(range(32)), "test")
store = Store.open(Path(folder), key, clock=SystemClock())
link = Link("127.0.0.1", int(port), "hub", keys.public_key(bytes.fromhex(hub_key)))
configuration = Configuration(federated=FederatedSection(enabled=True, least_patients=2))
mains = lambda: on_mains(Path(board))
with Publisher(store, link), Learner(configuration, store, key, lambda: True, mains, every_s=0.5):
    print("started", flush=True)
    threading.Event().wait()
"""
NAMES = ("north", "south", "west")
DEADLINE_S = 300


def wait_for(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.2)


class Process:
    """A process that says "started", in a group of its own with what it starts."""

    def __init__(self, code: str, *arguments: str) -> None:
        self._run = [sys.executable, "-c", code, *arguments]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._run, stdout=subprocess.PIPE, start_new_session=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == b"started"

    def kill(self) -> None:
        """The plug is pulled."""
        assert self.process.stdout is not None
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)
        self.process.stdout.close()


class District:
    """The three devices' folders, the hub, and what runs."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.hub = HubEnd(folder / "hub", port)
        self.links: dict[str, Link] = {}
        for number, name in enumerate(NAMES):
            with self.store(name) as store:
                confirmed_exams(store, 3, seed=10 * number)
                self.links[name] = self.hub.enroll(store)
        self.running: dict[str, Process] = {"hub": Process(HUB_PROCESS, self.hub.config_json)}

    def store(self, name: str) -> Store:
        """A device's; any process may open it."""
        return Store.open(self.folder / name, KEY, clock=SystemClock(), name=name)

    def begin(self, name: str) -> None:
        key = self.links[name].hub_key.public_bytes_raw().hex()
        arguments = (str(self.folder / name), str(self.folder / "board"), str(self.port), key)
        self.running[name] = Process(DEVICE_PROCESS, *arguments)

    def status(self) -> Progress:
        return operations.round_progress(self.hub.config)[0]

    def row(self, number: int) -> Any:
        database = Database(self.hub.config.url)
        with database.read() as connection:
            found = connection.execute(select(schema.rounds).where(schema.rounds.c.number == number)).one()
        database.close()
        return found

    def answers(self) -> dict[tuple[str, Any], RoundAnswer]:
        """By device and round; each once."""
        database, streams = Database(self.hub.config.url), schema.streams
        query = (
            select(streams.c.device, schema.envelopes.c.body)
            .join(schema.envelopes, streams.c.id == schema.envelopes.c.stream)
            .where(schema.envelopes.c.kind == "RoundAnswer")
        )
        with database.read() as connection:
            found = [(row.device, decode(RoundAnswer, bytes(row.body))) for row in connection.execute(query)]
        database.close()
        assert set(Counter((device, one.id) for device, one in found).values()) <= {1}
        return {(device, one.id): one for device, one in found}


@pytest.fixture
def district(tmp_path: Path, mosquitto: Any) -> Iterator[District]:
    made = District(tmp_path, mosquitto.port)
    try:
        yield made
    finally:
        for one in made.running.values():
            one.kill()


def test_two_rounds_with_one_device_killed_in_the_middle_of_each(district: District) -> None:
    first = operations.open_round(district.hub.config, plan(minimum=3))
    for name in NAMES:
        district.begin(name)
    # west dies while it learns: what it costs is on the disk, and perhaps the answer
    wait_for(lambda: list((district.folder / "west/rounds").glob("*.round")), "west has begun")
    district.running["west"].kill()
    district.begin("west")
    wait_for(lambda: district.status().state == "closed", "the first round has its head")
    assert district.status().counted == 3
    vectors = [rounds.to_floats(one.vector) for one in district.answers().values()]
    total = np.sum(vectors, axis=0)
    made = rounds.to_floats(bytes(district.row(1).head))
    assert made == pytest.approx(total[:-1] / total[-1], abs=1e-4)

    # the second is a secure sum: south shares, dies, and never answers
    battery = district.folder / "board/sys/class/power_supply/BAT0"
    battery.mkdir(parents=True)
    (battery / "type").write_text("Battery\n")
    (battery / "status").write_text("Discharging\n")
    second = operations.open_round(district.hub.config, plan(minimum=2, secure=True))
    wait_for(lambda: district.status().phase == "answer", "keys and shares are at the hub, and nobody learns")
    district.running["south"].kill()
    (battery / "status").write_text("Charging\n")
    wait_for(lambda: district.status().answered == 2, "north and west have answered")
    operations.close_round(district.hub.config, str(second.round))
    wait_for(lambda: district.status().state == "closed", "the second round has its head")
    assert district.status().counted == 2
    call = decode(RoundCall, bytes(district.row(2).call))
    assert call.head == bytes(district.row(1).head)
    answers = district.answers()
    assert {device for device, number in answers if number == second.round} == {"north", "west"}
    for name in NAMES:
        with district.store(name) as store:
            states = {one.round: one.state for one in Ledger(store).all()}
        assert states[first.round] == "answered"
    audit = operations.verify_audit(district.hub.config)
    assert audit.broken_at is None
