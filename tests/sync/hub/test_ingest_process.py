"""The ingest as a process beside the pages: as it serves for good, killed, and left alone by a hub that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import func, select

from aidpost.errors import BrokerError, StoreLockedError
from aidpost.sync.hub import _ingest_process, schema
from aidpost.sync.hub._ingest_process import IngestProcess
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.ingest import Incoming, Reply
from aidpost.sync.hub.lock import StateLock
from aidpost.sync.hub.server import HubServer
from aidpost.sync.hub.service import HubService, Trouble
from aidpost.sync.store import Store

from .conftest import make_report
from .test_with_device import accept, config, exams, sender, store, wait_for
from .web_client import Client

__all__ = ["config", "store"]


@pytest.fixture
def hub(config: HubConfig) -> Iterator[HubServer]:
    made = HubServer(config, apart=True)
    made.start()
    yield made
    made.stop()


def ingest_of(hub: HubServer) -> IngestProcess:
    assert isinstance(hub.service, IngestProcess)
    return hub.service


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_ingest_that_is_killed_is_started_again_and_nothing_is_lost_or_doubled(hub: HubServer, store: Store) -> None:
    ingest, reports = ingest_of(hub), [make_report() for _ in range(60)]
    first = ingest.pid
    assert first not in (None, os.getpid())
    with sender(store, hub.config) as publisher:
        for number, report in enumerate(reports):
            accept(store, report)
            if number == 20:
                wait_for(lambda: exams(hub), "the first exams arrive")
                assert first is not None
                os.kill(first, signal.SIGKILL)
                wait_for(lambda: ingest.trouble is Trouble.STORE or ingest.pid != first, "it is known to have ended")
        wait_for(lambda: ingest.trouble is Trouble.NONE and ingest.connected, "it serves again", 90)
        assert publisher.wait_until_empty(90)
    assert ingest.pid != first
    assert exams(hub) == {str(report.exam.id) for report in reports}
    with hub.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.envelopes)).scalar_one() == len(reports)
        assert connection.execute(select(func.count()).select_from(schema.conflicts)).scalar_one() == 0


def test_pages_say_that_nothing_is_stored_while_there_is_no_ingest(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = ingest_of(hub)
    wait_for(lambda: ingest.connected, "it is connected")
    assert ingest.trouble is Trouble.NONE
    client, begin = Client(hub.url), subprocess.Popen

    def no_memory(*_arguments: object, **_more: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(_ingest_process, "_LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(subprocess, "Popen", no_memory)
    assert ingest.pid is not None
    os.kill(ingest.pid, signal.SIGKILL)
    wait_for(lambda: client.get("/healthz") == 503, "the hub says so")
    assert json.loads(client.body)["status"] == "records cannot be stored"
    monkeypatch.setattr(subprocess, "Popen", begin)
    wait_for(lambda: client.get("/healthz") == 200 and json.loads(client.body)["status"] == "ok", "it serves again", 90)


def test_ingest_that_hangs_is_ended_and_started_again(
    hub: HubServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest, report = ingest_of(hub), make_report()
    wait_for(lambda: ingest.connected, "it is connected")
    first = ingest.pid
    assert first is not None
    monkeypatch.setattr(_ingest_process, "_SILENT_S", 8.0)  # more than between two signs of life
    time.sleep(2 * _ingest_process._TELL_EVERY_S + 1)
    assert ingest.pid == first, "one that serves is left alone"
    os.kill(first, signal.SIGSTOP)
    accept(store, report)
    with sender(store, hub.config) as publisher:
        wait_for(lambda: ingest.pid != first, "another one was begun", 60)
        assert publisher.wait_until_empty(90)
    assert gone(first)
    assert exams(hub) == {str(report.exam.id)}


def test_a_thread_that_does_not_come_back_is_a_sign_that_the_ingest_hangs(
    config: HubConfig, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, held, entered = HubServer(config), threading.Event(), threading.Event()
    service = hub.service
    assert isinstance(service, HubService)
    take = service._ingest.ingest

    def hangs(messages: Sequence[Incoming]) -> list[Reply]:
        entered.set()
        held.wait(60)
        return take(messages)

    monkeypatch.setattr(service._ingest, "ingest", hangs)
    monkeypatch.setattr(_ingest_process, "_STUCK_S", 3.0)
    monkeypatch.setattr(_ingest_process, "_TELL_EVERY_S", 0.1)
    told: list[float] = []
    monkeypatch.setattr(_ingest_process, "_tell", lambda _state: told.append(time.monotonic()))
    hub.start()
    stopping = threading.Event()
    teller = threading.Thread(target=_ingest_process._tell_changes, args=(service, stopping), daemon=True)
    teller.start()
    try:
        wait_for(lambda: len(told) > 5, "it gives signs of life")
        with sender(store, config) as publisher:
            accept(store, make_report())
            wait_for(entered.is_set, "a batch is in hand")
            wait_for(lambda: time.monotonic() - told[-1] > 2, "the signs of life end", 30)
            assert service.stuck_s >= 3
            held.set()
            assert publisher.wait_until_empty(60)
            wait_for(lambda: time.monotonic() - told[-1] < 0.5, "they come again")
    finally:
        held.set()
        stopping.set()
        teller.join(10)
        hub.stop()


def test_ingest_of_a_hub_that_was_killed_ends_by_itself_and_keeps_a_restore_away_till_then(config: HubConfig) -> None:
    code = (
        "import sys, threading, msgspec\n"
        "from aidpost.sync.hub.config import HubConfig\n"
        "from aidpost.sync.hub.server import HubServer\n"
        "hub = HubServer(msgspec.json.decode(sys.argv[1], type=HubConfig), apart=True)\n"
        "hub.start()\n"
        "print(hub.service.pid, flush=True)\n"
        "threading.Event().wait()\n"
    )
    command = [sys.executable, "-c", code, msgspec.json.encode(config).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ingest = int(process.stdout.readline())
        os.kill(ingest, signal.SIGSTOP)
        process.kill()
        process.wait()
        with pytest.raises(StoreLockedError), StateLock(config.state).alone("restoring"):
            pass
        assert not gone(ingest)
        os.kill(ingest, signal.SIGCONT)
        wait_for(lambda: gone(ingest), "the ingest ends", 60)
    with StateLock(config.state).alone("restoring"):
        pass


def test_hub_that_ends_commits_what_is_in_hand_and_leaves_no_process(config: HubConfig, store: Store) -> None:
    hub = HubServer(config, apart=True)
    hub.start()
    pid = ingest_of(hub).pid
    report = make_report()
    accept(store, report)
    with sender(store, config) as publisher:
        assert publisher.wait_until_empty(60)
    hub.stop()
    assert pid is not None
    assert gone(pid)


def test_what_the_ingest_cannot_begin_with_is_said_at_the_start(config: HubConfig) -> None:
    hub = HubServer(msgspec.structs.replace(config, broker_ca="/nowhere/ca.pem"), apart=True)
    with pytest.raises(BrokerError, match=r"ca\.pem|No such file") as refused:
        hub.start()
    assert "hub.broker_ca" in refused.value.remedy
    assert ingest_of(hub).pid is not None
    began = time.monotonic()
    hub.stop()
    assert time.monotonic() - began < 60
