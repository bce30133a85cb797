"""From one device of a clinic over a real broker to the other: a patient, their erasure, and limits that two people
signed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from device_records import KEY, FakeClock, make_item
from hub_end import HubEnd

from aidpost.board import remote, remote_rules
from aidpost.board.configuration import Configuration
from aidpost.records import ExamReport
from aidpost.sync import keys
from aidpost.sync.applier import Applier, Subject
from aidpost.sync.hub import accounts, operations
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.service import HubService
from aidpost.sync.link import Link
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

PASSWORD = "correct horse battery"


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def end(tmp_path: Path, mosquitto: Any) -> Iterator[HubEnd]:
    made = HubEnd(tmp_path / "hub", mosquitto.port)
    database = Database(made.config.url)
    service = HubService(made.config, database, BlobFiles(made.config.blobs))
    service.start()
    yield made
    service.stop()
    database.close()


def enrolled(end: HubEnd, store: Store) -> Link:
    """As `HubEnd.enroll`, in a clinic."""
    link = end.enroll(store)
    name, public = store.identity.name, keys.public_bytes(store.identity.public)
    operations.enroll(end.config, name, public, clinic="north")
    return link


def test_a_patient_of_one_device_is_known_at_the_other_and_erased_at_both(tmp_path: Path, end: HubEnd) -> None:
    item = make_item()
    assert isinstance(item.record, ExamReport)
    patient = item.record.patient
    with (
        Store.open(tmp_path / "one", KEY, clock=FakeClock(), name="unit-1") as one,
        Store.open(tmp_path / "two", KEY, clock=FakeClock(), name="unit-2") as two,
    ):
        links = [enrolled(end, store) for store in (one, two)]
        one.append(item)
        with Publisher(one, links[0]), Publisher(two, links[1]):
            wait_for(two.inbox.index, "the other device has the entry")
            [entry] = two.inbox.index()
            assert (entry.patient.id, entry.patient.name) == (patient.id, patient.name)
            assert entry.last is not None
            assert entry.last.exam == item.record.exam.id
            operations.erase_patient(end.config, patient.id)
            wait_for(lambda: patient.id in one.erased() and patient.id in two.erased(), "both have erased them")
        assert one.reports() == []
        assert two.inbox.index() == []


def test_limits_that_two_people_signed_serve_on_the_device_and_the_hub_knows(tmp_path: Path, end: HubEnd) -> None:
    for name, role in (("okoro", "clinician"), ("root", "administrator")):
        accounts.add_user(end.config, name, PASSWORD, role)
    state, own = tmp_path / "one", Configuration()
    with Store.open(state, KEY, clock=FakeClock(), name="unit-1") as store:
        link = enrolled(end, store)
        taker = remote_rules.RemoteRules(own, state, lambda: None)
        with Publisher(store, link), Applier(store, {"rules": Subject(taker.take_up)}):
            for limits, state_of in (
                ({"vitals": {"hypoxaemia": 91.0}}, "applied"),
                ({"vitals": {"hypo": 1}}, "refused"),
            ):
                number = operations.propose_limits(end.config, "north", limits, "altitude")  # type: ignore[arg-type]
                for user in ("okoro", "root"):
                    operations.sign_limits(end.config, number, user, PASSWORD)
                wait_for(
                    lambda state_of=state_of: state_of in {one.state for one in operations.fleet(end.config)},  # type: ignore[misc]
                    f"the hub knows that it was {state_of}",
                )
        assert remote.applied(own, state).limits == {"vitals": {"hypoxaemia": 91.0}}
