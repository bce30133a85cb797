"""Which models' answers the devices of a clinic are told to hide, and that it comes down to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from device_records import KEY
from hub_end import HubEnd
from sqlalchemy import select, update

from aidpost.records import decode
from aidpost.sync.bodies import Shadow
from aidpost.sync.clock import SystemClock
from aidpost.sync.hub import operations, schema, service, shadow, tally
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.server import HubServer
from aidpost.sync.hub.service import HubService
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

from .conftest import FakeDevice, wait_for
from .test_web_work import add_exams
from .web_client import whole_report


def announce(server: HubServer, bound: float) -> int:
    with server.database.read() as connection:
        found = shadow.wanted(connection, bound)
    with server.database.write() as connection:
        return shadow.announce(connection, server.database.epoch, found, now_ms())


def told(server: HubServer) -> list[tuple[str, str, tuple[str, ...]]]:
    table = schema.outgoing
    with server.database.read() as connection:
        rows = connection.execute(
            select(table).where(table.c.cls == shadow.CLASS).order_by(table.c.device, table.c.seq)
        )
        found = [(row.device, decode(Shadow, bytes(row.body))) for row in rows]
    return [(device, one.clinic, one.tasks) for device, one in found]


def test_devices_hide_what_has_not_shown_to_work_in_their_clinic_and_are_told_once(
    server: HubServer, device: FakeDevice
) -> None:
    operations.enroll(server.config, "unit-2", FakeDevice("unit-2").public_key, clinic="New clinic")
    operations.enroll(server.config, "unit-3", FakeDevice("unit-3").public_key)
    report = whole_report(server, device)
    assert announce(server, 0.6) == 2
    expected = [("unit-1", "North clinic", ("dr", "af")), ("unit-2", "New clinic", ("dr", "af"))]
    assert told(server) == expected, "of a device that nobody has placed and that sent nothing, no clinic is known"
    assert announce(server, 0.6) == 0
    add_exams(server, report, 30, call=True, answer=True)
    add_exams(server, report, 30, call=False, answer=False, sampled=True)
    assert announce(server, 0.6) == 1
    assert told(server)[1] == ("unit-1", "North clinic", ("af",)), "of the rhythm nothing is known yet"
    assert announce(server, 0.99) == 1, "a higher bound"
    assert announce(server, 0.0) == 2, "shadow mode was switched off"
    assert told(server)[3] == ("unit-1", "North clinic", ())
    assert announce(server, 0.0) == 0


def test_a_hub_without_shadow_mode_says_nothing(server: HubServer, device: FakeDevice) -> None:
    whole_report(server, device)
    assert announce(server, 0.0) == 0
    assert told(server) == []


def test_device_that_moves_to_another_clinic_is_told_of_that_one(server: HubServer, device: FakeDevice) -> None:
    whole_report(server, device)
    announce(server, 0.6)
    with server.database.write() as connection:
        connection.execute(update(schema.exams).values(clinic="South clinic"))
    assert announce(server, 0.6) == 1
    assert told(server)[-1] == ("unit-1", "South clinic", ("dr", "af"))


def test_hub_that_has_not_counted_yet_tells_devices_nothing(
    config: HubConfig, server: HubServer, device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_report(server, device)
    monkeypatch.setattr(tally, "_BEHIND", -1)
    hub = HubService(msgspec.structs.replace(config, shadow_bound=0.7), server.database, server.files)
    hub._tell_shadow()
    assert told(server) == []
    monkeypatch.setattr(tally, "_BEHIND", 2000)
    hub._shadow_due_s = 0.0
    hub._tell_shadow()
    assert told(server) == [("unit-1", "North clinic", ("dr", "af"))]


def test_what_the_hub_says_is_on_the_device_and_stays_there(
    tmp_path: Path, mosquitto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_RESEND_EVERY_S", 0.2)
    monkeypatch.setattr(service, "_SHADOW_EVERY_S", 0.5)
    end = HubEnd(tmp_path / "hub", mosquitto.port, shadow_bound=0.7)
    database = Database(end.config.url)
    hub = HubService(end.config, database, BlobFiles(end.config.blobs))
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store:
        link = end.enroll(store)
        with database.write() as connection:
            connection.execute(update(schema.devices).values(clinic="Kisumu East"))
        hub.start()
        try:
            with Publisher(store, link):
                wait_for(lambda: store.inbox.records(Shadow, None), "the device has heard of it", 60)
        finally:
            hub.stop()
            database.close()
    with Store.open(tmp_path / "device", KEY, clock=SystemClock(), name="unit-1") as store:
        [said] = store.inbox.records(Shadow, None)
        assert (said.clinic, said.tasks) == ("Kisumu East", ("dr", "af"))
