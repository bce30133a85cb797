"""A real device's store and sender, real Mosquitto, a real hub: what the one accepted, the other has, once."""

from __future__ import annotations

import hashlib
import random
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import func, select

from aidpost.errors import StoreLockedError
from aidpost.records import BlobRef, ExamReport, Origin
from aidpost.sync import outbox
from aidpost.sync.bodies import BlobManifest
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import RecordClass
from aidpost.sync.hub import audit, identity, operations, schema
from aidpost.sync.hub._erasure import erase
from aidpost.sync.hub.backup import back_up, restore
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer
from aidpost.sync.keys import DeviceKey, public_bytes
from aidpost.sync.link import Link
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Blob, Item, Store

from .conftest import Broker, make_report, wait_for

PHOTO = random.Random(1).randbytes(300_000)


@pytest.fixture
def config(config: HubConfig, broker: Broker) -> HubConfig:
    return msgspec.structs.replace(config, broker_host="127.0.0.1", broker_port=broker.port)


@pytest.fixture
def store(tmp_path: Path, config: HubConfig) -> Iterator[Store]:
    key = DeviceKey(bytes(range(32)), "test")
    opened = Store.open(tmp_path / "device", key, clock=SystemClock(), name="unit-1")
    operations.enroll(config, "unit-1", public_bytes(opened.identity.public))
    yield opened
    opened.close()


def sender(store: Store, config: HubConfig) -> Publisher:
    hub_key = identity.signing_key(config.state).public_key()
    return Publisher(store, Link("127.0.0.1", config.broker_port, config.name, hub_key))


def accept(store: Store, report: ExamReport, *blobs: Blob) -> None:
    store.append(Item(RecordClass.REPORT, report, report.patient.id, report.exam.id, blobs))


def photograph() -> Blob:
    ref = BlobRef(sha256=hashlib.sha256(PHOTO).hexdigest(), size=len(PHOTO), media_type="image/jpeg")
    return Blob(ref, PHOTO, Origin.LIVE)


def exams(hub: HubServer) -> set[str]:
    with hub.database.read() as connection:
        return {str(number) for number in connection.execute(select(schema.exams.c.id)).scalars()}


def test_exam_and_its_photograph_arrive_and_the_outbox_empties(store: Store, config: HubConfig) -> None:
    hub = HubServer(config)
    hub.start()
    report, blob = make_report(), photograph()
    accept(store, report, blob)
    with sender(store, config) as publisher:
        assert publisher.wait_until_empty(60)
    assert exams(hub) == {str(report.exam.id)}
    assert hub.files.path(blob.ref.sha256).read_bytes() == PHOTO
    assert not any(status.queued for status in outbox.status(store))
    with hub.database.read() as connection:
        kinds = connection.execute(select(schema.envelopes.c.kind)).scalars().all()
    assert sorted(kinds) == [BlobManifest.__name__, "ExamReport"]
    hub.stop()


def test_simulated_exam_ends_in_the_dead_letters_and_the_rest_flows(store: Store, config: HubConfig) -> None:
    hub = HubServer(config)
    hub.start()
    simulated, live = make_report(origin=Origin.SIMULATED), make_report()
    accept(store, simulated)
    accept(store, live)
    with sender(store, config) as publisher:
        wait_for(lambda: exams(hub) == {str(live.exam.id)}, "the live exam arrived")
        wait_for(lambda: outbox.dead_letters(store), "the other is a dead letter")
        assert publisher.connected
    (letter,) = outbox.dead_letters(store)
    assert letter.code == "origin"
    hub.stop()


def test_hub_and_broker_that_come_and_go_lose_and_double_nothing(
    store: Store, config: HubConfig, broker: Broker
) -> None:
    reports = [make_report() for _ in range(120)]

    def record() -> None:
        for report in reports:
            accept(store, report)
            time.sleep(0.01)

    recording = threading.Thread(target=record)
    recording.start()
    with sender(store, config) as publisher:
        for _ in range(2):
            hub = HubServer(config)
            hub.start()
            time.sleep(0.6)
            hub.stop()
            broker.kill()
            time.sleep(0.2)
            broker.start()
        recording.join()
        hub = HubServer(config)
        hub.start()
        wait_for(lambda: len(exams(hub)) == len(reports), "everything arrived", 90)
        assert publisher.wait_until_empty(60)
    assert exams(hub) == {str(report.exam.id) for report in reports}
    with hub.database.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.envelopes)).scalar_one() == len(reports)
        assert connection.execute(select(func.count()).select_from(schema.conflicts)).scalar_one() == 0
    hub.stop()


def test_backup_taken_while_ingesting_is_restored_and_devices_fill_the_rest(
    store: Store, config: HubConfig, tmp_path: Path
) -> None:
    hub = HubServer(config)
    hub.start()
    reports = [make_report() for _ in range(60)]
    path = tmp_path / "backup.tar"
    with sender(store, config) as publisher:
        accept(store, reports[0], photograph())
        for report in reports[1:20]:
            accept(store, report)
        wait_for(lambda: exams(hub), "the first exams arrive")
        with path.open("wb") as file:
            backing = threading.Thread(target=back_up, args=(config, file))
            backing.start()
            for report in reports[20:]:
                accept(store, report)
                time.sleep(0.01)
            backing.join()
        wait_for(lambda: len(exams(hub)) == 60, "all exams arrived", 90)
        assert publisher.wait_until_empty(60)
        erased = uuid.UUID(next(iter(exams(hub))))
        with hub.database.write() as connection:
            patient = connection.execute(select(schema.exams.c.patient).where(schema.exams.c.id == erased)).scalar_one()
            erase(connection, patient, "root", now_ms())
        with path.open("rb") as file, pytest.raises(StoreLockedError):
            restore(config, file)
        hub.stop()
    with path.open("rb") as file:
        done = restore(config, file)
    assert done.replaced is not None
    assert (done.replaced / "hub.sqlite3").exists()
    hub = HubServer(config)
    assert str(erased) not in exams(hub), "erased since the backup, and erased again"
    hub.start()
    with sender(store, config) as publisher:
        wait_for(lambda: len(exams(hub)) == 59, "the hub has what its backup lacked", 90)
        assert publisher.wait_until_empty(60)
        wait_for(lambda: hub.files.is_complete(hashlib.sha256(PHOTO).hexdigest()), "the photograph is here", 60)
    with hub.database.read() as connection:
        assert audit.verify(connection).broken_at is None
    hub.stop()
