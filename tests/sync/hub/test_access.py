"""Who gets in: passwords, second factors, and what a stolen one alone opens."""

from __future__ import annotations

import hashlib
import re
import time

import pyotp
import pytest
from sqlalchemy import select, update

from aidpost.errors import UsageError
from aidpost.sync.hub import accounts, schema
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, hub_with
from .web_client import PASSWORD, Client, whole_report


def stored_password(server: HubServer) -> str:
    with server.database.read() as connection:
        table = schema.users
        return str(connection.execute(select(table.c.password).where(table.c.name == "okoro")).scalar_one())


def set_up(client: Client) -> pyotp.TOTP:
    """Sets up a second factor as a user does, and returns their app."""
    assert client.submit("/account", "/account/offer") == 200
    key = re.search(r"<code>([A-Z2-7]{32})</code>", client.text)
    assert key is not None
    app = pyotp.TOTP(key[1])
    csrf = re.search(r'name="csrf" value="([^"]+)"', client.text)
    assert csrf is not None
    assert client.post("/account/confirm", {"csrf": csrf[1], "code": "000000"}) == 400
    assert client.post("/account/confirm", {"csrf": csrf[1], "code": app.now()}) == 303
    return app


def test_password_is_kept_as_argon2id_and_an_older_hash_is_renewed_at_login(server: HubServer) -> None:
    assert stored_password(server).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    salt = b"0123456789abcdef"
    old = hashlib.scrypt(PASSWORD.encode(), salt=salt, n=1 << 15, r=8, p=3, maxmem=64 << 20, dklen=32)
    with server.database.write() as connection:
        connection.execute(update(schema.users).values(password=f"scrypt${salt.hex()}${old.hex()}"))
    client = Client(server.url)
    assert client.log_in("okoro", PASSWORD + "x") == 401
    assert client.log_in("okoro") == 303
    assert stored_password(server).startswith("$argon2id$")
    assert Client(server.url).log_in("okoro") == 303


def test_second_factor_is_asked_for_once_it_was_set_up_and_each_code_counts_once(
    server: HubServer, reader: Client
) -> None:
    app = set_up(reader)
    stolen = Client(server.url)
    assert stolen.log_in("okoro") == 401, "the password alone opens nothing"
    with server.database.write() as connection:
        connection.execute(update(schema.second_factors).values(last_step=0))
    fields = {"name": "okoro", "password": PASSWORD, "code": app.now()}
    assert Client(server.url).post("/login", fields) == 303
    assert Client(server.url).post("/login", fields) == 401, "a code read over a shoulder is worth nothing"
    fields["code"] = app.at(int(time.time()) - 300)
    assert Client(server.url).post("/login", fields) == 401
    assert reader.submit("/account", "/account/offer") == 409


def test_secret_is_sealed_and_reset_by_command(server: HubServer, reader: Client) -> None:
    app = set_up(reader)
    with server.database.read() as connection:
        assert app.secret.encode() not in bytes(connection.execute(select(schema.second_factors.c.secret)).scalar_one())
    accounts.reset_second_factor(server.config, "okoro")
    assert Client(server.url).log_in("okoro") == 303
    with pytest.raises(UsageError, match="none"):
        accounts.reset_second_factor(server.config, "okoro")


@hub_with(second_factor=True)
def test_hub_that_asks_for_a_second_factor_shows_no_patient_before(
    server: HubServer, device: FakeDevice, reader: Client
) -> None:
    report = whole_report(server, device)
    page = f"/exams/{report.exam.id}"
    for path in ("/", page, "/export.csv"):
        assert reader.get(path) == 303
        assert reader.headers["location"] == "/account"
    assert reader.get(f"/fhir/Patient/{report.patient.id}") == 401
    set_up(reader)
    assert reader.get(page) == 200
