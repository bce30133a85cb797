"""The hub's page for a worker who is locked out: who may see a code, for which device, and what is kept of it."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import pytest
from sqlalchemy import select, update

from aidpost.records import Operator
from aidpost.sync.hub import audit, identity, schema
from aidpost.sync.hub.server import HubServer
from aidpost.sync.telephone import Line, spaced

from .conftest import FakeDevice, make_report
from .web_client import Client, logged_in, send


@pytest.fixture
def line(server: HubServer, device: FakeDevice) -> Line:
    """The device's end."""
    hub = identity.signing_key(server.config.state).public_key()
    return Line(device.key, hub, device.name)


def asked(client: Client, device: str, challenge: str) -> int:
    return client.submit("/unlock", "/unlock", device=device, challenge=challenge)


def rows(server: HubServer) -> list[tuple[str, str, str, str]]:
    table = schema.audit
    with server.database.read() as connection:
        assert audit.verify(connection).broken_at is None
        query = select(table.c.actor, table.c.action, table.c.target, table.c.detail)
        return [tuple(row) for row in connection.execute(query.where(table.c.action.startswith("unlock-code")))]


def test_clinician_reads_out_the_code_that_the_device_expects_and_it_is_audited(
    reader: Client, server: HubServer, device: FakeDevice, line: Line
) -> None:
    report, worker = make_report(), "Rose"
    # as the screen's exams name who made them
    report = msgspec.structs.replace(report, exam=msgspec.structs.replace(report.exam, operator=Operator(id=worker)))
    send(server, device, device.message(device.envelope(report)))
    challenge = line.challenge(worker)
    assert asked(reader, device.name, spaced(challenge)) == 200
    assert spaced(line.code(challenge)) in reader.text
    assert worker in reader.text
    assert rows(server) == [("okoro", "unlock-code", device.name, f"{challenge} {worker}")]


def test_worker_of_whom_nothing_has_come_yet_is_said_to_be_unknown(
    reader: Client, server: HubServer, device: FakeDevice, line: Line
) -> None:
    challenge = line.challenge("somebody new")
    assert asked(reader, device.name, challenge) == 200
    assert spaced(line.code(challenge)) in reader.text
    assert "No worker" in reader.text
    assert rows(server)[0][3] == f"{challenge} unknown worker"


def misheard(line: Line) -> str:
    """Digits that do not fit for sure, where any ten would fit by chance once in a thousand keys."""
    challenge = line.challenge("Rose")
    return challenge[:-1] + str((int(challenge[-1]) + 1) % 10)


@pytest.mark.parametrize("challenge", ["", "12", misheard, "letters only", "9" * 400])
def test_misheard_digits_give_no_code_and_are_audited(
    reader: Client, server: HubServer, device: FakeDevice, line: Line, challenge: str | Callable[[Line], str]
) -> None:
    challenge = challenge if isinstance(challenge, str) else challenge(line)
    assert not line.heard(challenge)
    assert asked(reader, device.name, challenge) == 400
    assert "misheard" in reader.text
    assert not re.search(r"\d{4} \d{4}", reader.text)
    assert rows(server) == [("okoro", "unlock-code-refused", device.name, "digits that do not fit")]


def test_viewers_and_strangers_see_no_code(server: HubServer, device: FakeDevice, line: Line) -> None:
    assert Client(server.url).get("/unlock") == 303
    viewer = logged_in(server, "viewer")
    assert viewer.get("/unlock") == 403
    assert viewer.submit("/", "/unlock", device=device.name, challenge=line.challenge("Rose")) == 403
    assert "/unlock" not in (viewer.text if viewer.get("/devices") == 200 else "/unlock")
    assert rows(server) == []


def test_device_of_another_clinic_or_a_revoked_one_is_not_there(
    reader: Client, server: HubServer, device: FakeDevice, line: Line
) -> None:
    with server.database.write() as connection:
        connection.execute(schema.user_scopes.insert().values(user="okoro", kind="clinic", value="elsewhere"))
    assert asked(reader, device.name, line.challenge("Rose")) == 404
    with server.database.write() as connection:
        connection.execute(schema.user_scopes.delete())
        connection.execute(update(schema.devices).values(revoked_ms=1))
    assert asked(reader, device.name, line.challenge("Rose")) == 404
    assert rows(server) == []


def test_somebody_who_asks_for_code_after_code_is_stopped(
    reader: Client, server: HubServer, device: FakeDevice, line: Line
) -> None:
    answers = [asked(reader, device.name, line.challenge("Rose")) for _ in range(6)]
    assert answers == [200] * 5 + [429]
    assert asked(logged_in(server, "adeyemi"), device.name, line.challenge("Rose")) == 429, "nor for that device"
    assert len(rows(server)) == 5
