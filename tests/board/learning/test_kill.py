"""A device killed between paying and giving: it has paid, and gives once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from clinics import Clinic, Hub

from aidpost.sync.rounds import RoundAnswer, RoundKeys, RoundReveal, RoundShares
from aidpost.sync.store import Store

DEVICE_THAT_DIES = """
import os, signal, sys
from pathlib import Path
from aidpost.board.configuration import Configuration, FederatedSection
from aidpost.board.learning import ledger, participant, service
from aidpost.sync import keys, store
from aidpost.sync.clock import SystemClock

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

folder, where = sys.argv[1:]
if where == "paid":
    participant.train = die
else:
    append = store.Store.append
    store.Store.append = lambda self, item: (append(self, item), die()) if where == "given" else die()
opened = store.Store.open(Path(folder), keys.DeviceKey(bytes(range(32)), "test"), clock=SystemClock())
section = FederatedSection(enabled=True, least_patients=2)
service.answer_rounds(Configuration(federated=section), opened)
"""


def dies(clinic: Clinic, where: str) -> None:
    """The device does what is due in a process of its own, and is killed there."""
    clinic.store.close()
    done = subprocess.run([sys.executable, "-c", DEVICE_THAT_DIES, str(clinic.folder), where], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    from device_records import KEY

    clinic.store = Store.open(Path(clinic.folder), KEY, clock=clinic.clock, name=clinic.name)


@pytest.mark.parametrize("where", ["paid", "before it is accepted", "given"])
def test_killed_device_has_paid_and_answers_once(hub: Hub, clinics: list[Clinic], where: str) -> None:
    north = clinics[0]
    hub.open()
    north.carry()
    dies(north, where)
    assert north.me.ledger.spent() == pytest.approx(1 / 2.33**2)
    assert [kept.state for kept in north.act()] == ["answered"]
    assert north.me.ledger.spent() == pytest.approx(1 / 2.33**2), "the same answer is not paid for twice"
    assert len(north.sent(RoundAnswer)) == 1
    assert north.act() == []


@pytest.mark.parametrize("where", ["before it is accepted", "given"])
def test_killed_in_each_phase_of_a_secure_sum_it_says_each_thing_once(
    hub: Hub, clinics: list[Clinic], where: str
) -> None:
    hub.open(secure=True, minimum=2)
    north = clinics[0]
    for _ in range(4):
        for one in clinics:
            one.carry()
            if one is north:
                dies(north, where)
            one.act()
            one.carry()
    assert (hub.status().state, hub.status().counted) == ("closed", 3)
    assert [len(north.sent(kind)) for kind in (RoundKeys, RoundShares, RoundAnswer, RoundReveal)] == [1, 1, 1, 1]
