"""The clustered layout, small: three brokers in one cluster, two workers, PostgreSQL, and SIGKILL to one of each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from device_records import KEY, make_item
from hub_end import HUB_PROCESS, HubEnd
from nats_cluster import NatsCluster
from postgres import Postgres
from sqlalchemy import func, select

from aidpost.sync import outbox, publisher
from aidpost.sync.clock import SystemClock
from aidpost.sync.hub import operations, schema
from aidpost.sync.hub.database import Database
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

from .conftest import wait_for

DEVICES = 3


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    made = NatsCluster(tmp_path)
    yield made
    made.stop()


def started(end: HubEnd, name: str) -> subprocess.Popen[str]:
    told = msgspec.structs.replace(end.config, worker=name, share_devices=True)
    command = [sys.executable, "-c", HUB_PROCESS, msgspec.json.encode(told).decode()]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    return process


def workers_known(database: Database) -> bool:
    with database.read() as connection:
        beats = select(func.count()).where(schema.workers.c.beat >= 2)
        return connection.execute(beats).scalar_one() == 2


def test_worker_and_broker_are_killed_and_nothing_is_lost_or_doubled(
    tmp_path: Path, cluster: NatsCluster, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_RESEND_S", (2.0, 4.0))
    monkeypatch.setattr(publisher, "_HELLO_AGAIN_S", (2.0, 4.0))
    with ExitStack() as stack:
        end = HubEnd(tmp_path / "hub", cluster.port, database_url=stack.enter_context(postgres.database()))
        operations.public_key(end.config)
        database = Database(end.config.url)
        stack.callback(database.close)
        workers = [started(end, name) for name in ("first", "second")]
        for worker in workers:
            stack.callback(worker.communicate)
            stack.callback(worker.kill)
        wait_for(lambda: workers_known(database), "both workers reach broker and database", 120)
        stores = [
            stack.enter_context(
                Store.open(tmp_path / f"unit-{number}", KEY, clock=SystemClock(), name=f"unit-{number}")
            )
            for number in range(DEVICES)
        ]
        senders = [stack.enter_context(Publisher(store, end.enroll(store))) for store in stores]

        def accept() -> None:
            for store in stores:
                store.append_many([make_item() for _ in range(20)])

        accept()
        workers[1].kill()
        accept()
        for sender in senders:
            assert sender.wait_until_empty(240), sender.last_error
        accept()
        cluster.kill(0)
        accept()
        for sender in senders:
            assert sender.wait_until_empty(240), sender.last_error
        exams = [report.exam.id for report in end.reports()]
        left = [one.queued + one.dead for store in stores for one in outbox.status(store)]
    assert len(exams) == len(set(exams)) == 4 * 20 * DEVICES
    assert left == [0] * len(left)
