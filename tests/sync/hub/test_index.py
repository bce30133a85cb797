"""The clinic's patient index: who gets whom, what is in it, and that it goes when a person refuses or is erased."""

from __future__ import annotations

import os
import uuid
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from aidpost.records import (
    Consent,
    ConsentPurpose,
    ExamReport,
    Identifier,
    Patient,
    Referral,
    ReferralStatus,
    ReviewDecision,
    TriageLevel,
    decode,
)
from aidpost.sync.bodies import Erasure, IndexEntry
from aidpost.sync.envelope import Held, Hello, Receipt
from aidpost.sync.hub import clocks, consents, index, operations, outgoing, patients, referrals, reviews, schema
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.readings import Rules, parts
from aidpost.sync.ranges import from_numbers

from .conftest import FakeDevice, Hub, at, make_report

pytestmark = pytest.mark.both_databases

DAY = 86_400_000


class Fleet:
    """Two devices of the north clinic, one of the south, and what each of them has been sent and has."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.north, self.other, self.south = (FakeDevice(name) for name in ("north-1", "north-2", "south-1"))
        for device, clinic in ((self.north, "north"), (self.other, "north"), (self.south, "south")):
            operations.enroll(hub.config, device.name, device.public_key, clinic=clinic)

    def examined(self, device: FakeDevice, **changes: Any) -> ExamReport:
        report = make_report(**changes)
        self.hub.take(device, device.message(device.envelope(report)))
        return report

    def sent(self, device: FakeDevice, *, receipted: bool = True) -> list[Any]:
        """What goes down to a device now, of the index and of erasures."""
        index.bring_up(self.hub.database, now_ms())
        with self.hub.database.read() as connection:
            found = [one for one in outgoing.waiting_for(connection, device.name) if one.cls in ("index", "erasure")]
        if receipted and found:
            held = [
                Held(self.hub.database.epoch, cls, from_numbers(one.seq for one in found if one.cls == cls))
                for cls in {one.cls for one in found}
            ]
            self.hub.take(device, device.sign(Receipt(device.epoch, held=tuple(held))))
        kinds = {"IndexEntry": IndexEntry, "Erasure": Erasure}
        return [decode(kinds[one.kind], one.body) for one in found]

    def says_hello(self, device: FakeDevice) -> None:
        self.hub.take(device, device.sign(Hello(os.urandom(16), at(), device.epoch, {})))


@pytest.fixture
def fleet(hub: Hub) -> Fleet:
    return Fleet(hub)


def test_devices_of_the_clinic_get_the_patient_and_others_do_not(fleet: Fleet) -> None:
    number = Identifier(system="north", value="A-17")
    patient = Patient(id=uuid.uuid4(), name="Amina Yusuf", birth_date="1961", identifiers=(number,))
    report = make_report()
    report = msgspec.structs.replace(
        report, patient=patient, exam=msgspec.structs.replace(report.exam, patient=patient.id)
    )
    fleet.hub.take(fleet.north, fleet.north.message(fleet.north.envelope(report)))
    for device in (fleet.north, fleet.other):
        [entry] = fleet.sent(device)
        assert entry.patient == patient
        assert (entry.last.exam, entry.last.triage, entry.last.confirmed) == (report.exam.id, TriageLevel.SOON, False)
        assert entry.last.result == "Raised blood pressure"
        assert entry.last.day == clocks.day(at().wall_ms)
    assert fleet.sent(fleet.south) == []
    assert fleet.sent(fleet.other) == []


def test_only_what_changed_is_sent_and_one_that_waits_is_replaced(fleet: Fleet) -> None:
    report = fleet.examined(fleet.north)
    fleet.examined(fleet.north)
    assert len(fleet.sent(fleet.other)) == 2
    hub = fleet.hub
    for text in ("first", "second"):
        with hub.database.write() as connection:
            signature = reviews.Signature("okoro", "dr.okoro", ReviewDecision.CONFIRMED, None, text, {})
            exam = connection.execute(select(schema.exams).where(schema.exams.c.id == report.exam.id)).one()
            reviews.sign(
                connection,
                hub.database.epoch,
                report,
                fleet.north.name,
                signature,
                parts(connection, exam),
                Rules(),
                now_ms(),
            )
    [entry] = fleet.sent(fleet.other)
    assert entry.patient.id == report.patient.id
    assert entry.last.confirmed


def test_overdue_referrals_come_with_the_day(fleet: Fleet) -> None:
    report = fleet.examined(fleet.north)
    fleet.sent(fleet.other)
    due = clocks.day(now_ms() + DAY)
    made = Referral(
        id=uuid.uuid4(), exam=report.exam.id, patient=report.patient.id, to="Kisumu eye unit", due=due, reason="dr",
        status=ReferralStatus.DUE, at=at(),
    )  # fmt: skip
    with fleet.hub.database.write() as connection:
        referrals.add(connection, made, "okoro")
    assert fleet.sent(fleet.other) == []
    later = now_ms() + 3 * DAY
    index.new_day(fleet.hub.database, later)
    index.bring_up(fleet.hub.database, later)
    [entry] = fleet.sent(fleet.other)
    assert [(one.to, one.due) for one in entry.overdue] == [("Kisumu eye unit", due)]


def test_who_refuses_that_results_are_passed_on_is_not_in_it(fleet: Fleet) -> None:
    report = fleet.examined(fleet.north)
    assert len(fleet.sent(fleet.other)) == 1
    with fleet.hub.database.write() as connection:
        consents.withdraw(connection, report.patient.id, ConsentPurpose.SHARING, "okoro", "asked", now_ms())
    [entry] = fleet.sent(fleet.other)
    assert (entry.removed, entry.patient.name, entry.last) == (True, "", None)
    refused = Consent(
        id=uuid.uuid4(), patient=uuid.uuid4(), purpose=ConsentPurpose.SHARING, version="1", language="en", given=False,
        at=at(),
    )  # fmt: skip
    report = make_report()
    refused = msgspec.structs.replace(refused, patient=report.patient.id)
    report = msgspec.structs.replace(report, consents=(refused,))
    fleet.hub.take(fleet.north, fleet.north.message(fleet.north.envelope(report)))
    assert fleet.sent(fleet.other) == []


def test_merged_records_are_one_entry_and_two_again_when_parted(fleet: Fleet) -> None:
    first = fleet.examined(fleet.north)
    second = fleet.examined(fleet.other)
    assert {one.patient.id for one in fleet.sent(fleet.north)} == {first.patient.id, second.patient.id}
    with fleet.hub.database.write() as connection:
        patients.link(connection, first.patient.id, second.patient.id, "okoro", "same person", now_ms())
    found = {one.patient.id: one for one in fleet.sent(fleet.north)}
    kept = [one for one in found.values() if not one.removed]
    assert len(kept) == 1
    assert {kept[0].patient.id, *kept[0].same_as} == {first.patient.id, second.patient.id}
    assert all(one.removed for one in found.values() if one is not kept[0])
    with fleet.hub.database.write() as connection:
        [link] = patients.links(connection, [first.patient.id])
        patients.part(connection, link.id, "okoro", now_ms())
    found |= {one.patient.id: one for one in fleet.sent(fleet.north)}
    assert {number: (one.removed, one.same_as) for number, one in found.items()} == {
        first.patient.id: (False, ()),
        second.patient.id: (False, ()),
    }


def test_erasure_goes_to_every_device_that_has_something_of_them_and_nothing_else_does(fleet: Fleet) -> None:
    report = fleet.examined(fleet.north)
    fleet.sent(fleet.other)
    assert operations.erase_patient(fleet.hub.config, report.patient.id) == 1
    for device in (fleet.north, fleet.other):
        [told] = fleet.sent(device)
        assert isinstance(told, Erasure)
        assert told.patient == report.patient.id
    assert fleet.sent(fleet.south) == []
    # the device itself says so, too, and again: nobody is told twice
    tombstone = Erasure(patient=report.patient.id, at=at())
    fleet.hub.take(
        fleet.north, fleet.north.message(fleet.north.envelope(tombstone, "alert", patient=report.patient.id))
    )
    assert [fleet.sent(one) for one in (fleet.north, fleet.other, fleet.south)] == [[], [], []]


def test_the_device_that_erased_is_not_told_and_the_others_are(fleet: Fleet) -> None:
    report = fleet.examined(fleet.north)
    fleet.sent(fleet.other)
    tombstone = Erasure(patient=report.patient.id, at=at())
    fleet.hub.take(
        fleet.north, fleet.north.message(fleet.north.envelope(tombstone, "alert", patient=report.patient.id))
    )
    assert [one for one in fleet.sent(fleet.north) if isinstance(one, Erasure)] == []
    [told] = fleet.sent(fleet.other)
    assert isinstance(told, Erasure)


def test_a_device_that_joins_later_or_has_a_new_store_gets_all(fleet: Fleet, config: HubConfig) -> None:
    reports = [fleet.examined(fleet.north) for _ in range(3)]
    late = FakeDevice("north-3")
    operations.enroll(config, late.name, late.public_key, clinic="north")
    fleet.says_hello(late)
    assert {one.patient.id for one in fleet.sent(late)} == {one.patient.id for one in reports}
    fleet.says_hello(late)
    assert fleet.sent(late) == []
    replaced = FakeDevice("north-3")
    operations.enroll(config, replaced.name, replaced.public_key, clinic="north", replace=True)
    fleet.says_hello(replaced)
    assert len(fleet.sent(replaced)) == 3


def test_a_device_that_moves_to_another_clinic_loses_the_old_ones_patients(fleet: Fleet, config: HubConfig) -> None:
    report, other = fleet.examined(fleet.north), fleet.examined(fleet.south)
    fleet.sent(fleet.other)
    operations.enroll(config, fleet.other.name, fleet.other.public_key, clinic="south")
    found = {one.patient.id: one.removed for one in fleet.sent(fleet.other)}
    assert found == {report.patient.id: True, other.patient.id: False}


def test_a_device_that_is_away_keeps_no_other_waiting(fleet: Fleet) -> None:
    for _ in range(30):
        fleet.examined(fleet.north)
    index.bring_up(fleet.hub.database, now_ms())
    with fleet.hub.database.write() as connection:
        due = outgoing.take_due(connection, now_ms())
    assert {one.device: len(one.envelopes) for one in due} == {"north-1": 16, "north-2": 16}
    with fleet.hub.database.write() as connection:
        again = outgoing.take_due(connection, now_ms())
    assert {one.device: len(one.envelopes) for one in again} == {"north-1": 14, "north-2": 14}
