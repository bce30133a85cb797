"""A staged rollout is halted when devices take it back, and goes on when a person says so."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import select

from aidpost.errors import UsageError
from aidpost.sync.envelope import Installed, Status
from aidpost.sync.hub import operations, schema, updates
from aidpost.sync.hub.config import HubConfig

from .conftest import FakeDevice, Hub, at, hub_with

pytestmark = pytest.mark.both_databases

NEW = "1.2.0"


def enrolled(config: HubConfig, number: int) -> FakeDevice:
    made = FakeDevice(f"unit-{number}")
    operations.enroll(config, made.name, made.public_key)
    return made


def says(hub: Hub, device: FakeDevice, *installed: Installed, online: bool = True) -> None:
    hub.take(device, device.sign(Status(online, at(), installed=installed)))


def serves(version: str = NEW, name: str = "aidpost") -> Installed:
    return Installed(name, version, "serves")


def failed(version: str = NEW, name: str = "aidpost", why: str = "models: broken") -> Installed:
    return Installed(name, version, "failed", why)


def halted(hub: Hub) -> list[tuple[str, str]]:
    with hub.database.read() as connection:
        return updates.halted(connection)


def test_two_devices_that_took_it_back_halt_it_and_one_does_not(hub: Hub, config: HubConfig) -> None:
    devices = [enrolled(config, number) for number in range(4)]
    says(hub, devices[0], serves())
    says(hub, devices[1], serves("1.1.0"), failed())
    says(hub, devices[1], serves("1.1.0"), failed())  # the same device again is no second one
    assert halted(hub) == []
    says(hub, devices[2], serves("1.1.0"), failed(why="it does not start: no \0 kernel"))
    assert halted(hub) == [("aidpost", NEW)]
    found = {(one.name, one.version): one for one in operations.rollouts(config)}
    new = found["aidpost", NEW]
    assert (new.serves, new.trial, new.failed, new.why) == (1, 0, 2, "it does not start: no  kernel")
    assert new.halted_ms
    assert found["aidpost", "1.1.0"].serves == 2
    with hub.database.read() as connection:
        audited = connection.execute(select(schema.audit.c.action, schema.audit.c.detail)).all()
    assert ("update-halted", "2 of 3 devices took it back") in [tuple(row) for row in audited]
    assert [row.action for row in audited].count("update-failed") == 2


@hub_with(update_halt_failures=1, update_halt_share=0.5)
def test_failures_below_the_share_halt_nothing(hub: Hub, config: HubConfig) -> None:
    devices = [enrolled(config, number) for number in range(4)]
    for device in devices[:2]:
        says(hub, device, serves())
    says(hub, devices[2], failed())
    assert halted(hub) == []
    says(hub, devices[3], failed())
    assert halted(hub) == [("aidpost", NEW)]


@hub_with(update_halt_failures=1)
def test_a_model_is_halted_by_itself(hub: Hub, config: HubConfig) -> None:
    device = enrolled(config, 1)
    says(hub, device, serves(), serves("1.0.0", "ecg-beats"), failed("1.1.0", "ecg-beats"))
    assert halted(hub) == [("ecg-beats", "1.1.0")]


@hub_with(update_halt_failures=1)
def test_what_a_person_lets_go_on_the_hub_does_not_halt_again(hub: Hub, config: HubConfig) -> None:
    says(hub, enrolled(config, 1), failed())
    operations.resume_update(config, "aidpost", NEW)
    assert halted(hub) == []
    says(hub, enrolled(config, 2), failed())
    assert halted(hub) == []
    with pytest.raises(UsageError, match="not halted"):
        operations.resume_update(config, "aidpost", NEW)
    operations.halt_update(config, "aidpost", NEW, "the screen flickers")
    assert halted(hub) == [("aidpost", NEW)]


def test_a_revoked_device_has_no_say(hub: Hub, config: HubConfig) -> None:
    first, second = enrolled(config, 1), enrolled(config, 2)
    says(hub, first, failed())
    operations.revoke(config, first.name)
    says(hub, second, failed())
    assert halted(hub) == []
    assert [one.failed for one in operations.rollouts(config)] == [1]


def test_a_last_will_leaves_what_is_known_and_a_later_word_replaces_it(hub: Hub, config: HubConfig) -> None:
    device = enrolled(config, 1)
    says(hub, device, Installed("aidpost", NEW, "trial"), serves("2.0.0", "ecg-beats"))
    says(hub, device, online=False)
    assert [(one.version, one.trial) for one in operations.rollouts(config)] == [(NEW, 1), ("2.0.0", 0)]
    says(hub, device, serves())
    assert [(one.version, one.serves, one.trial) for one in operations.rollouts(config)] == [(NEW, 1, 0)]


@hub_with(update_halt_failures=1)
def test_devices_page_shows_what_updates_came_to_and_what_is_halted(hub: Hub, config: HubConfig, reader: Any) -> None:
    says(hub, enrolled(config, 5), serves(), failed("1.3.0", why="models: <broken>"))
    reader.get("/devices")
    row = next(line for line in re.split(r"<tr>", reader.text) if "1.3.0" in line)
    assert "halted" in row
    assert "models: &lt;broken&gt;" in row
    assert "halted" not in next(line for line in re.split(r"<tr>", reader.text) if NEW in line)
