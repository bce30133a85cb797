"""Clinical limits at the hub: two people of two roles sign, and only then anything goes down."""

from __future__ import annotations

import os
import uuid

import pytest
from sqlalchemy import select

from aidpost.errors import UsageError
from aidpost.records import decode
from aidpost.sync import rules as wire
from aidpost.sync.bodies import Delivery
from aidpost.sync.envelope import Hello
from aidpost.sync.hub import accounts, operations, outgoing, rules, schema
from aidpost.sync.hub.config import HubConfig

from .conftest import FakeDevice, Hub, at

pytestmark = pytest.mark.both_databases

PASSWORD = "correct horse battery"
LIMITS = {"vitals": {"hypoxaemia": 88.0}}


@pytest.fixture
def devices(config: HubConfig) -> list[FakeDevice]:
    made = [FakeDevice(name) for name in ("unit-1", "unit-2", "unit-3")]
    for device, clinic in zip(made, ("north", "north", "south"), strict=True):
        operations.enroll(config, device.name, device.public_key, clinic=clinic)
    for name, role in (("okoro", "clinician"), ("eze", "clinician"), ("root", "administrator"), ("vi", "viewer")):
        accounts.add_user(config, name, PASSWORD, role, f"Dr {name.title()}")
    return made


def waiting(hub: Hub, device: FakeDevice) -> list[wire.RuleChange]:
    with hub.database.read() as connection:
        found = [one for one in outgoing.waiting_for(connection, device.name) if one.cls == "rules"]
    return [wire.unpack(decode(Delivery, one.body).body) for one in found]


def propose(hub: Hub, limits: wire.Limits = LIMITS) -> uuid.UUID:
    return operations.propose_limits(hub.config, "north", limits, "altitude 2,400 m")


def sign(hub: Hub, number: uuid.UUID, user: str, password: str = PASSWORD) -> rules.Proposed:
    return operations.sign_limits(hub.config, number, user, password)


def test_two_people_of_two_roles_send_it_and_one_alone_does_not(hub: Hub, devices: list[FakeDevice]) -> None:
    number = propose(hub)
    assert sign(hub, number, "okoro").state == "proposed"
    assert [waiting(hub, device) for device in devices] == [[], [], []]
    for user, password in (
        ("okoro", PASSWORD),
        ("eze", PASSWORD),
        ("vi", PASSWORD),
        ("root", "wrong"),
        ("nobody", "x"),
    ):
        with pytest.raises(UsageError):
            sign(hub, number, user, password)
    assert [waiting(hub, device) for device in devices] == [[], [], []]
    assert sign(hub, number, "root").state == "sent"
    for device in devices[:2]:
        [change] = waiting(hub, device)
        assert change.limits == LIMITS
        assert {(one.user, one.role) for one in change.signatures} == {
            ("okoro", "clinician"),
            ("root", "administrator"),
        }
    assert waiting(hub, devices[2]) == []
    with hub.database.read() as connection:
        actions = connection.execute(select(schema.audit.c.action)).scalars().all()
    assert actions.count("limits-signed") == 2


def test_who_changes_role_between_two_signatures_is_still_one_person(hub: Hub, devices: list[FakeDevice]) -> None:
    number = propose(hub)
    sign(hub, number, "okoro")
    accounts.add_user(hub.config, "okoro", PASSWORD, "administrator")
    with pytest.raises(UsageError):
        sign(hub, number, "okoro")
    assert waiting(hub, devices[0]) == []


def test_a_withdrawn_or_sent_change_is_not_signed_and_a_reason_is_needed(hub: Hub, devices: list[FakeDevice]) -> None:
    number = propose(hub)
    operations.withdraw_limits(hub.config, number)
    for change in (number, uuid.uuid4()):
        with pytest.raises(UsageError):
            sign(hub, change, "okoro")
        with pytest.raises(UsageError):
            operations.withdraw_limits(hub.config, change)
    with pytest.raises(UsageError):
        operations.propose_limits(hub.config, "north", LIMITS, " ")
    assert [one.state for one in operations.limit_changes(hub.config)] == ["withdrawn"]


def test_the_last_signed_change_counts_and_goes_to_a_device_that_joins(hub: Hub, devices: list[FakeDevice]) -> None:
    for limits in (LIMITS, {}):
        number = propose(hub, limits)
        sign(hub, number, "eze")
        sign(hub, number, "root")
    assert [one.limits for one in waiting(hub, devices[0])] == [{}]
    late = FakeDevice("unit-9")
    operations.enroll(hub.config, late.name, late.public_key, clinic="north")
    for _ in range(2):
        hub.take(late, late.sign(Hello(os.urandom(16), at(), late.epoch, {})))
    assert [one.limits for one in waiting(hub, late)] == [{}]
