"""What the hub sends down to be taken up: given to whom it was sent, kept while somebody lacks it, shown as it is."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from aidpost.errors import UsageError
from aidpost.records import decode
from aidpost.sync.bodies import Delivery, Outcome
from aidpost.sync.envelope import BlobHeld, Chunks, Held, Receipt
from aidpost.sync.hub import deliveries, operations, outgoing, schema
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import now_ms
from aidpost.sync.hub.ingest import Incoming
from aidpost.sync.hub.server import HubServer
from aidpost.sync.ranges import merge

from .conftest import FakeDevice, Hub, at
from .web_client import Client

pytestmark = pytest.mark.both_databases

BODY = hashlib.shake_128(b"a release").digest(600_000)
SHA256 = hashlib.sha256(BODY).digest()


def send(hub: Hub, device: FakeDevice, body: bytes | Path = BODY, subject: str = "release", **more: Any) -> uuid.UUID:
    with hub.database.write() as connection:
        arguments = {"version": "1", "by": "root", "now_ms": now_ms()} | more
        return deliveries.send(connection, hub.database.epoch, device.name, subject, body=body, **arguments)


def ask(hub: Hub, device: FakeDevice, blob: BlobHeld) -> list[Any]:
    message = device.sign(Receipt(device.epoch, blobs=(blob,)))
    return [reply.content for reply in hub.ingest.ingest([Incoming(device.name, message, now_ms())])]


def say(hub: Hub, device: FakeDevice, number: uuid.UUID, state: Any, why: str = "") -> None:
    said = Outcome(id=uuid.uuid4(), delivery=number, subject="x", version="1", state=state, at=at(), why=why)
    hub.take(device, device.message(device.envelope(said, "review-ack")))


def sent(hub: Hub, device: FakeDevice) -> dict[str, deliveries.Sent]:
    return {one.version: one for one in operations.fleet(hub.config) if one.device == device.name}


def bodies(hub: Hub) -> int:
    with hub.database.read() as connection:
        return int(connection.execute(select(func.count()).select_from(schema.delivery_bodies)).scalar_one())


@pytest.fixture
def other(config: HubConfig) -> FakeDevice:
    made = FakeDevice("unit-2")
    operations.enroll(config, made.name, made.public_key)
    return made


@pytest.mark.parametrize("as_file", [False, True])
def test_a_device_gets_all_of_a_body_by_asking_for_what_it_lacks(
    hub: Hub, device: FakeDevice, tmp_path: Path, as_file: bool
) -> None:
    if as_file:
        (tmp_path / "body").write_bytes(BODY)
    send(hub, device, tmp_path / "body" if as_file else BODY)
    with hub.database.read() as connection:
        [envelope] = outgoing.waiting_for(connection, device.name)
    record = decode(Delivery, envelope.body)
    assert (envelope.cls, record.body) == ("release", b"")
    assert record.blob is not None
    assert bytes.fromhex(record.blob.sha256) == SHA256
    got: dict[int, bytes] = {}
    for number in range(1000):
        held = merge((start, start + len(data)) for start, data in got.items())
        if held == ((0, len(BODY)),):
            break
        [chunks] = ask(hub, device, BlobHeld(SHA256, held, False, room=40_000))
        assert isinstance(chunks, Chunks)
        assert len(chunks.chunks) <= 3
        # of each answer one chunk is lost on the way
        got |= {one.offset: one.data for one in chunks.chunks[number % 2 :]}
    assert b"".join(got[start] for start in sorted(got)) == BODY
    assert sent(hub, device)["1"].state == "waiting"
    assert 0 < sent(hub, device)["1"].held_bytes < len(BODY)
    assert ask(hub, device, BlobHeld(SHA256, ((0, len(BODY)),), True)) == []
    assert sent(hub, device)["1"].state == "held"
    assert bodies(hub) == 0


def test_a_device_is_given_only_what_was_sent_to_it(hub: Hub, device: FakeDevice, other: FakeDevice) -> None:
    send(hub, device)
    [answer] = ask(hub, other, BlobHeld(SHA256, (), False))
    assert isinstance(answer, Receipt)
    assert [one.refused for one in answer.blobs] == ["the hub has withdrawn it"]
    assert sent(hub, other) == {}


def test_a_body_is_kept_once_while_one_device_lacks_it(hub: Hub, device: FakeDevice, other: FakeDevice) -> None:
    send(hub, device)
    before = bodies(hub)
    number = send(hub, other)
    assert bodies(hub) == before
    ask(hub, device, BlobHeld(SHA256, ((0, len(BODY)),), True))
    assert bodies(hub) == before
    assert isinstance(ask(hub, other, BlobHeld(SHA256, (), False))[0], Chunks)
    say(hub, other, number, "refused", "no room")
    assert bodies(hub) == 0
    assert (sent(hub, other)["1"].state, sent(hub, other)["1"].why) == ("refused", "no room")


def test_a_later_one_withdraws_what_waits_and_the_device_is_told(hub: Hub, device: FakeDevice) -> None:
    send(hub, device)
    send(hub, device, b"small", version="2")
    send(hub, device, b"round", "round", version="3", latest=False)
    send(hub, device, b"round", "round", version="4", latest=False)
    with hub.database.read() as connection:
        waiting = [decode(Delivery, one.body) for one in outgoing.waiting_for(connection, device.name)]
    assert [one.version for one in waiting] == ["2", "3", "4"]
    [answer] = ask(hub, device, BlobHeld(SHA256, (), False))
    assert answer.blobs[0].refused
    assert bodies(hub) == 0


def test_serials_rise_even_when_the_clock_goes_back(hub: Hub, device: FakeDevice) -> None:
    send(hub, device, b"1", version="1", latest=False)
    send(hub, device, b"2", version="2", latest=False, now_ms=5)
    with hub.database.read() as connection:
        found = [decode(Delivery, one.body).serial for one in outgoing.waiting_for(connection, device.name)]
    assert found[0] < found[1]


def test_outcomes_are_noted_of_the_own_device_in_any_order(hub: Hub, device: FakeDevice, other: FakeDevice) -> None:
    number = send(hub, device, b"x", "config")
    say(hub, other, number, "refused")
    assert sent(hub, device)["1"].state == "waiting"
    say(hub, device, number, "rolled-back", "no answer from the hub")
    say(hub, device, number, "applied")
    assert (sent(hub, device)["1"].state, sent(hub, device)["1"].why) == ("rolled-back", "no answer from the hub")
    with hub.database.read() as connection:
        actions = connection.execute(select(schema.audit.c.action)).scalars().all()
    assert actions.count("delivery-rolled-back") == 1


def test_the_one_applied_is_shown_beside_the_one_under_way(hub: Hub, device: FakeDevice) -> None:
    say(hub, device, send(hub, device, b"1", "config", version="1"), "applied")
    say(hub, device, send(hub, device, b"2", "config", version="2"), "refused")
    send(hub, device, b"3", "config", version="3")
    assert {version: one.state for version, one in sent(hub, device).items()} == {"1": "applied", "3": "waiting"}


def test_withdrawn_by_a_person_it_goes_no_further(hub: Hub, device: FakeDevice) -> None:
    number = send(hub, device)
    with hub.database.write() as connection:
        deliveries.withdraw(connection, number, "root", now_ms())
        assert not list(outgoing.waiting_for(connection, device.name))
    assert sent(hub, device)["1"].state == "withdrawn"
    with pytest.raises(UsageError), hub.database.write() as connection:
        deliveries.withdraw(connection, number, "root", now_ms())


def test_a_device_that_is_not_enrolled_and_an_empty_file_are_refused(
    hub: Hub, device: FakeDevice, tmp_path: Path
) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError):
        send(hub, device, tmp_path / "empty")
    with pytest.raises(UsageError):
        send(hub, FakeDevice("nobody"))
    operations.revoke(hub.config, device.name)
    with pytest.raises(UsageError):
        send(hub, device)


def test_a_delivery_that_a_device_sends_up_is_refused(hub: Hub, device: FakeDevice) -> None:
    forged = Delivery(id=uuid.uuid4(), subject="config", version="1", serial=1, at=at(), body=b"x")
    [receipt] = hub.take(device, device.message(device.envelope(forged, "config")))
    assert [one.code for one in receipt.rejected] == ["foreign"]


def test_a_receipt_for_the_record_is_not_yet_an_outcome(hub: Hub, device: FakeDevice) -> None:
    send(hub, device, b"x", "config")
    held = Held(hub.database.epoch, "config", ((1, 2),))
    hub.take(device, device.sign(Receipt(device.epoch, held=(held,))))
    with hub.database.read() as connection:
        assert not list(outgoing.waiting_for(connection, device.name))
    assert sent(hub, device)["1"].state == "waiting"


def test_the_fleet_page_shows_what_each_device_has(server: HubServer, reader: Client, device: FakeDevice) -> None:
    with server.database.write() as connection:
        for subject, body in (("config", b"x"), ("release", BODY)):
            deliveries.send(
                connection, server.database.epoch, device.name, subject, "7", body, by="root", now_ms=now_ms()
            )
        deliveries.note_held(connection, device.name, BlobHeld(SHA256, ((0, 300_000),), False), now_ms())
    reader.get("/devices")
    assert "config 7" in reader.text
    assert "50 %" in reader.text
