"""The hub on a real Mosquitto: killed, slow, cut off, and nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import func, select, update

from aidpost.records import Origin, Review, ReviewDecision
from aidpost.sync.envelope import Envelope, Held, Hello, Receipt, Records
from aidpost.sync.hub import identity, operations, outgoing, schema
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.service import HubService

from .conftest import Broker, FakeDevice, Link, at, make_report, make_vital, wait_for

HUB_PROCESS = """
import sys, time
import msgspec
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.service import HubService
config = msgspec.json.decode(sys.argv[1], type=HubConfig)
HubService(config, Database(config.url), BlobFiles(config.blobs)).start()
print("started", flush=True)
time.sleep(600)
"""


@pytest.fixture
def config(config: HubConfig, broker: Broker) -> HubConfig:
    return msgspec.structs.replace(config, broker_host="127.0.0.1", broker_port=broker.port, batch_messages=5)


@pytest.fixture
def link(config: HubConfig, device: FakeDevice) -> Iterator[Link]:
    made = Link(device, config.broker_port, identity.signing_key(config.state).public_key())
    yield made
    made.close()


class Running:
    """The service in this process."""

    def __init__(self, config: HubConfig) -> None:
        self.database = Database(config.url)
        self.service = HubService(config, self.database, BlobFiles(config.blobs))
        self.service.start()
        wait_for(lambda: self.service.connected, "the hub is connected")

    def stop(self) -> None:
        self.service.stop()
        self.database.close()


@pytest.fixture
def running(config: HubConfig) -> Iterator[Running]:
    made = Running(config)
    yield made
    made.stop()


def committed(config: HubConfig) -> int:
    database = Database(config.url)
    with database.read() as connection:
        number = int(connection.execute(select(func.count()).select_from(schema.envelopes)).scalar_one())
    database.close()
    return number


def vitals(device: FakeDevice, count: int) -> list[Envelope]:
    return [device.envelope(make_vital(), "vitals") for _ in range(count)]


def resend_until_held(link: Link, envelopes: list[Envelope], timeout_s: float = 60.0) -> None:
    """What a device does: sends what is not receipted, again and again, a few at a time."""
    deadline = time.monotonic() + timeout_s
    while missing := [e for e in envelopes if e.seq not in link.held(e.cls)]:
        assert time.monotonic() < deadline, f"{len(missing)} records were never receipted"
        for start in range(0, len(missing), 10):
            link.send(missing[0].cls, Records(tuple(missing[start : start + 10])))
        time.sleep(0.5)


def test_report_crosses_mosquitto_and_is_receipted(running: Running, link: Link, device: FakeDevice) -> None:
    link.send("report", Records((device.envelope(make_report()),)))
    wait_for(lambda: link.held("report") == {1}, "the receipt came")


def test_receipt_comes_only_after_the_commit(running: Running, link: Link, config: HubConfig) -> None:
    for envelope in vitals(link.device, 20):
        link.send("vitals", Records((envelope,)))
    while len(link.held("vitals")) < 20:
        told = len(link.held("vitals"))
        assert committed(config) >= told


def test_hub_that_is_away_gets_everything_when_it_comes(config: HubConfig, link: Link) -> None:
    envelopes = vitals(link.device, 300)
    sender = threading.Thread(target=resend_until_held, args=(link, envelopes))
    sender.start()
    time.sleep(1)
    hub = Running(config)
    sender.join()
    hub.stop()
    assert committed(config) == 300


def test_broker_killed_in_the_middle_loses_nothing(
    running: Running, broker: Broker, config: HubConfig, link: Link
) -> None:
    envelopes = vitals(link.device, 400)
    sender = threading.Thread(target=resend_until_held, args=(link, envelopes))
    sender.start()
    time.sleep(0.15)
    broker.kill()
    time.sleep(0.3)
    broker.start()
    sender.join()
    assert committed(config) == 400


def test_hub_killed_in_the_middle_of_batches_loses_nothing_and_doubles_nothing(config: HubConfig, link: Link) -> None:
    envelopes = vitals(link.device, 600)
    sender = threading.Thread(target=resend_until_held, args=(link, envelopes))
    sender.start()
    for delay in (0.4, 0.15, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", HUB_PROCESS, msgspec.json.encode(config).decode()],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        told = len(link.held("vitals"))
        assert committed(config) >= told
    hub = Running(config)
    sender.join()
    hub.stop()
    assert committed(config) == 600


def test_unacknowledged_messages_stay_with_the_broker_while_the_database_is_locked(
    running: Running, config: HubConfig, link: Link
) -> None:
    other = Database(config.url)
    with other.write() as connection:
        connection.execute(update(schema.devices).values(clinic="locked"))  # PostgreSQL locks rows, SQLite the file
        for envelope in vitals(link.device, 60):
            link.send("vitals", Records((envelope,)))
        time.sleep(1)
        assert not link.held("vitals")
    other.close()
    wait_for(lambda: len(link.held("vitals")) == 60, "all are receipted once the lock is gone")


def test_hello_over_mosquitto_brings_a_full_receipt(running: Running, link: Link) -> None:
    nonce = os.urandom(16)
    link.send("hello", Hello(nonce, at(), link.device.epoch, {"vitals": 2}))
    wait_for(lambda: any(receipt.answers == nonce for receipt in link.receipts), "the full receipt came")
    assert link.receipts[-1].wanted == (Held(link.device.epoch, "vitals", ((1, 3),)),)


def test_review_goes_down_again_until_the_device_receipts_it(running: Running, config: HubConfig, link: Link) -> None:
    report = make_report()
    review = Review(
        id=report.id,
        report=report.id,
        exam=report.exam.id,
        patient=report.patient.id,
        reviewer="dr.okoro",
        decision=ReviewDecision.CONFIRMED,
        at=at(),
    )
    with running.database.write() as connection:
        outgoing.put(
            connection,
            running.database.epoch,
            link.device.name,
            "review",
            review,
            patient=review.patient,
            exam=review.exam,
            now_ms=now_ms(),
        )
    running.service.wake()
    wait_for(lambda: link.down, "the review came down")
    link.send("hello", Hello(os.urandom(16), at(), link.device.epoch, {}))
    wait_for(lambda: len(link.down) == 2, "it came again after a reconnect")
    (envelope,) = link.down[0].envelopes
    assert link.down[1].envelopes == (envelope,)
    link.send("receipt", Receipt(running.database.epoch, held=(Held(envelope.epoch, envelope.cls, ((1, 2),)),)))
    wait_for(lambda: nothing_waits(running.database), "the receipt was noted")


def nothing_waits(database: Database) -> bool:
    with database.read() as connection:
        return not outgoing.anything(connection)


def test_message_that_breaks_the_hub_does_not_hold_up_its_neighbours(running: Running, link: Link) -> None:
    # a boot that began before the Big Bang: valid on the wire, beyond any column
    poison = Hello(os.urandom(16), at(monotonic_ms=(1 << 63) - 1, synced=False), link.device.epoch, {})
    for number, envelope in enumerate(vitals(link.device, 12)):
        if number % 4 == 0:
            link.send("hello", poison)
        link.send("vitals", Records((envelope,)))
    wait_for(lambda: len(link.held("vitals")) == 12, "the others are receipted")


def test_practice_data_is_refused_over_the_wire(running: Running, config: HubConfig, link: Link) -> None:
    operations.enroll(config, link.device.name, link.device.public_key, accept_simulated=False)
    link.send("report", Records((link.device.envelope(make_report(origin=Origin.SIMULATED)),)))
    wait_for(lambda: any(r.rejected for r in link.receipts), "the reject came")
    assert link.receipts[0].rejected[0].code == "origin"
