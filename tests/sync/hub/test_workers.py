"""Several ingest workers on one broker: they share what comes, and one that dies takes nothing with it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
from device_records import KEY, make_item
from hub_end import HUB_PROCESS, HubEnd
from refusing_broker import RefusingBroker

from aidpost.sync import outbox, publisher
from aidpost.sync.clock import SystemClock
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.ingest import Incoming, Reply
from aidpost.sync.hub.service import HubService
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

from .conftest import wait_for


def test_three_workers_share_what_comes_and_one_that_is_killed_takes_nothing_with_it(
    tmp_path: Path, mosquitto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_RESEND_S", (1.0, 2.0))
    monkeypatch.setattr(publisher, "_HELLO_AGAIN_S", (1.0, 2.0))
    end = HubEnd(tmp_path / "hub", mosquitto.port, shared_group="ingest")
    here, there = (msgspec.structs.replace(end.config, worker=name) for name in ("here", "there"))
    database = Database(here.url)
    workers = [
        HubService(msgspec.structs.replace(here, worker=f"here-{n}"), database, BlobFiles(here.blobs)) for n in "12"
    ]
    taken = [0, 0]
    for number, worker in enumerate(workers):

        def counted(
            batch: Sequence[Incoming], number: int = number, ingest: Any = worker._ingest.ingest
        ) -> list[Reply]:
            taken[number] += len(batch)
            done: list[Reply] = ingest(batch)
            return done

        monkeypatch.setattr(worker._ingest, "ingest", counted)
    command = [sys.executable, "-c", HUB_PROCESS, msgspec.json.encode(there).decode()]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "started\n"
    for worker in workers:
        worker.start()
    try:
        with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store:
            with Publisher(store, end.enroll(store)) as sender:
                for _ in range(60):
                    store.append(make_item())
                assert sender.wait_until_empty(120), sender.last_error
                assert len(end.reports()) == 60
                store.append_many([make_item() for _ in range(20)])
                other.kill()
                store.append_many([make_item() for _ in range(20)])
                assert sender.wait_until_empty(120), sender.last_error
            assert [(one.queued, one.receipted, one.dead) for one in outbox.status(store)] == [(0, 100, 0)]
        assert set(end.committed().values()) == {1}
        assert len(end.committed()) == 100
        assert min(taken) > 0, "the broker gave each its share"
    finally:
        other.kill()
        other.communicate(timeout=10)
        for worker in workers:
            worker.stop()
        database.close()


def test_workers_on_a_broker_without_shared_subscriptions_take_a_device_each_and_a_killed_ones_too(
    tmp_path: Path, mosquitto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_RESEND_S", (1.0, 2.0))
    monkeypatch.setattr(publisher, "_HELLO_AGAIN_S", (1.0, 2.0))
    end = HubEnd(tmp_path / "hub", mosquitto.port, share_devices=True, worker="first")
    database = Database(end.config.url)
    here = HubService(end.config, database, BlobFiles(end.config.blobs))
    taken: set[str] = set()

    def noted(batch: Sequence[Incoming], ingest: Any = here._ingest.ingest) -> list[Reply]:
        taken.update(str(incoming.device) for incoming in batch)
        done: list[Reply] = ingest(batch)
        return done

    monkeypatch.setattr(here._ingest, "ingest", noted)
    there = msgspec.structs.replace(end.config, worker="second")
    command = [sys.executable, "-c", HUB_PROCESS, msgspec.json.encode(there).decode()]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "started\n"
    here.start()
    names = [f"unit-{number}" for number in range(8)]
    try:
        wait_for(lambda: here._shares is not None and here._shares.alive == ("first", "second"), "both are known", 60)
        assert here._shares is not None
        mine = {name for name in names if here._shares.is_mine(name)}
        assert 0 < len(mine) < len(names)
        with ExitStack() as stack:
            stores = [
                stack.enter_context(Store.open(tmp_path / name, KEY, clock=SystemClock(), name=name)) for name in names
            ]
            senders = [stack.enter_context(Publisher(store, end.enroll(store))) for store in stores]
            for store in stores:
                store.append_many([make_item() for _ in range(5)])
            for sender in senders:
                assert sender.wait_until_empty(120), sender.last_error
            assert taken == mine, "the other worker's devices were left to it"
            other.kill()
            for store in stores:
                store.append_many([make_item() for _ in range(5)])
            for sender in senders:
                assert sender.wait_until_empty(120), sender.last_error
        assert taken == set(names)
        assert len(end.reports()) == 80
    finally:
        other.kill()
        other.communicate(timeout=10)
        here.stop()
        database.close()


def test_refused_subscription_is_noticed_by_device_and_hub_and_asked_for_again(
    tmp_path: Path, mosquitto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_RESEND_S", (1.0, 2.0))
    monkeypatch.setattr(publisher, "_HELLO_AGAIN_S", (1.0, 2.0))
    for_hub, for_device = RefusingBroker(mosquitto.port), RefusingBroker(mosquitto.port)
    end = HubEnd(tmp_path / "hub", for_hub.port)
    database = Database(end.config.url)
    hub = HubService(end.config, database, BlobFiles(end.config.blobs))
    hub.start()
    try:
        with (
            Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store,
            Publisher(store, dataclasses.replace(end.enroll(store), port=for_device.port)) as sender,
        ):
            store.append(make_item())
            wait_for(lambda: min(for_hub.refused, for_device.refused) >= 2, "both asked again", 60)
            assert not outbox.status(store)[0].receipted
            for_hub.refusing = for_device.refusing = False
            assert sender.wait_until_empty(120), sender.last_error
        assert len(end.reports()) == 1
    finally:
        hub.stop()
        database.close()
        for_hub.stop()
        for_device.stop()
