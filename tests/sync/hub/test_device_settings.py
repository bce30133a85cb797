"""Settings of clinics and devices: merged, sent when they differ from what a device has, administrators' to change."""

from __future__ import annotations

import os
from typing import Any

import pytest
from sqlalchemy import select

from aidpost.errors import UsageError
from aidpost.records import decode
from aidpost.sync import settings
from aidpost.sync.bodies import Delivery
from aidpost.sync.envelope import Hello
from aidpost.sync.hub import device_settings, operations, outgoing, schema
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, Hub, at
from .web_client import Client, logged_in

pytestmark = pytest.mark.both_databases

NUMBER = "clinic.emergency_telephone"


@pytest.fixture
def devices(config: HubConfig) -> list[FakeDevice]:
    made = [FakeDevice(f"unit-{number}") for number in (1, 2, 3)]
    for device, clinic in zip(made, ("north", "north", "south"), strict=True):
        operations.enroll(config, device.name, device.public_key, clinic=clinic)
    return made


def change(hub: Hub, scope: Any, name: str, key: str, value: settings.Value | None) -> list[str]:
    with hub.database.write() as connection:
        return device_settings.change(connection, hub.database.epoch, scope, name, key, value, "root", now_ms())


def waiting(hub: Hub, device: FakeDevice) -> list[dict[str, Any]]:
    with hub.database.read() as connection:
        found = list(outgoing.waiting_for(connection, device.name))
    return [settings.unpack(decode(Delivery, one.body).body) for one in found if one.cls == "config"]


def test_of_a_clinic_each_device_gets_it_and_its_own_goes_over_it(hub: Hub, devices: list[FakeDevice]) -> None:
    assert change(hub, "clinic", "north", NUMBER, "112") == ["unit-1", "unit-2"]
    assert change(hub, "device", "unit-2", NUMBER, "911") == ["unit-2"]
    assert change(hub, "clinic", "north", "console.language", "fr") == ["unit-1", "unit-2"]
    assert waiting(hub, devices[0]) == [{NUMBER: "112", "console.language": "fr"}]
    assert waiting(hub, devices[1]) == [{NUMBER: "911", "console.language": "fr"}]
    assert waiting(hub, devices[2]) == []


def test_what_a_device_was_sent_is_not_sent_again(hub: Hub, devices: list[FakeDevice]) -> None:
    change(hub, "clinic", "north", NUMBER, "112")
    assert change(hub, "clinic", "north", NUMBER, "112") == []
    assert change(hub, "device", "unit-1", NUMBER, "112") == []
    assert change(hub, "clinic", "north", NUMBER, None) == ["unit-2"]
    assert waiting(hub, devices[1]) == [{}]


def test_a_device_that_joins_the_clinic_later_gets_it_at_its_hello(hub: Hub, config: HubConfig) -> None:
    first, late = FakeDevice("unit-1"), FakeDevice("unit-9")
    operations.enroll(config, first.name, first.public_key, clinic="north")
    change(hub, "clinic", "north", NUMBER, "112")
    operations.enroll(config, late.name, late.public_key, clinic="north")
    for _ in range(2):
        hub.take(late, late.sign(Hello(os.urandom(16), at(), late.epoch, {})))
    assert waiting(hub, late) == [{NUMBER: "112"}]


@pytest.mark.parametrize(
    ("scope", "name", "key"), [("clinic", "west", NUMBER), ("device", "x", NUMBER), ("device", "unit-1", "sync.host")]
)
def test_what_cannot_be_set_is_refused(hub: Hub, devices: list[FakeDevice], scope: Any, name: str, key: str) -> None:
    with pytest.raises(UsageError):
        change(hub, scope, name, key, "x")


def test_every_change_is_audited(hub: Hub, devices: list[FakeDevice]) -> None:
    change(hub, "clinic", "north", NUMBER, "112")
    with hub.database.read() as connection:
        found = connection.execute(select(schema.audit.c.actor, schema.audit.c.action, schema.audit.c.target)).all()
    assert ("root", "setting-changed", f"clinic north {NUMBER}") in [tuple(row) for row in found]


def test_an_administrator_sets_it_on_the_devices_page_and_others_may_not(
    server: HubServer, device: FakeDevice, reader: Client
) -> None:
    root = logged_in(server, "root")
    form = {"of": f"device {device.name}", "key": "console.lock_minutes", "value": "9"}
    assert root.submit("/devices", "/devices/settings", **form) == 303
    root.get("/devices")
    assert "console.lock_minutes" in root.text
    with server.database.read() as connection:
        assert device_settings.desired(connection, device.name) == {"console.lock_minutes": 9}
    wrong = {"value": "nine"}, {"key": "sync.host"}, {"of": "device nobody"}, {"of": "everything unit-1"}
    for one in wrong:
        assert root.submit("/devices", "/devices/settings", **(form | one)) in (400, 404)
    reader.get("/devices")
    assert 'action="/devices/settings"' not in reader.text
    assert reader.submit("/account", "/devices/settings", **form) == 403
