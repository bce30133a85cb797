"""Several ingest workers on one broker: they share what comes, and one that dies takes nothing with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from device_records import KEY, make_item
from hub_end import HUB_PROCESS, HubEnd

from aidpost.sync import outbox, publisher
from aidpost.sync.clock import SystemClock
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.ingest import Incoming, Reply
from aidpost.sync.hub.service import HubService
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store


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
