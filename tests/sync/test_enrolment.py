"""A device comes to the hub with a one-time code, and comes back by itself after any time away.

Everything is real: the hub's HTTPS port, Mosquitto with the configuration that the hub wrote, TLS on both.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as mqtt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from device_records import KEY, FakeClock, make_item
from paho.mqtt.enums import CallbackAPIVersion
from ports import free_port
from sqlalchemy import insert, select, update

from aidpost.errors import EnrolmentError, KeyUnavailableError, UsageError
from aidpost.sync import _https, enrolment
from aidpost.sync.enrolment import Enrolled
from aidpost.sync.hub import broker, operations, schema
from aidpost.sync.hub.authority import Authority
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.enrolment import Registrar
from aidpost.sync.hub.server import EnrolmentPort, HubServer
from aidpost.sync.keys import DeviceKey
from aidpost.sync.publisher import Publisher
from aidpost.sync.store import Store

DAY_MS = 86_400_000


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def config(tmp_path: Path) -> HubConfig:
    return HubConfig(
        state_dir=str(tmp_path / "hub"),
        name="hub-1",
        broker_host="",
        listen_port=0,
        public_host="127.0.0.1",
        public_broker_port=free_port(),
        enrolment_bind="127.0.0.1",
        enrolment_port=free_port(),
        accept_simulated=True,
    )


@pytest.fixture
def database(config: HubConfig) -> Iterator[Database]:
    made = Database(config.url)
    yield made
    made.close()


@pytest.fixture
def port(config: HubConfig, database: Database) -> Iterator[EnrolmentPort]:
    made = EnrolmentPort(config, database)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()


def enroll(config: HubConfig, store: Store, code: str = "") -> Enrolled:
    code = code or operations.enrolment_code(config, store.identity.name)
    return enrolment.enroll(code, store.identity, store.key, store.folder / enrolment.FOLDER, synced=False)


def audited(database: Database) -> list[tuple[str, str]]:
    with database.read() as connection:
        rows = connection.execute(select(schema.audit.c.action, schema.audit.c.detail).order_by(schema.audit.c.id))
        return [(row.action, row.detail) for row in rows]


def age(config: HubConfig, database: Database, enrolled: Enrolled, store: Store, days: int) -> None:
    """As if the device had been enrolled that many days ago and off ever since."""
    folder = store.folder / enrolment.FOLDER
    key = enrolled._certificate().public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    began = now_ms() - days * DAY_MS
    old = Authority(config.state, config.name).device(store.identity.name, key, began)
    (folder / "device.pem").write_bytes(old.public_bytes(Encoding.PEM))
    row = {"serial": format(old.serial_number, "x"), "device": store.identity.name, "key_hash": bytes(32)}
    with database.write() as connection:
        connection.execute(insert(schema.certificates).values(**row, issued_ms=began, not_after_ms=began))


class TlsBroker:
    """Mosquitto with the configuration that `aidpost hub broker` writes."""

    def __init__(self, config: HubConfig, folder: Path) -> None:
        path = broker.write(config, folder, bind="127.0.0.1")
        if os.geteuid() == 0:
            path.write_text(path.read_text() + "user root\n")
        path.write_text(path.read_text() + f"log_dest file {folder}/log\n")
        binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        if not Path(binary).exists():
            pytest.skip("Mosquitto is not installed")
        self.process = subprocess.Popen([binary, "-c", str(path)], stderr=subprocess.DEVNULL)
        wait_for(lambda: listens(config.public_broker_port))


def wait_for(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def site(config: HubConfig, tmp_path: Path) -> Iterator[HubServer]:
    """A hub with its broker and its enrolment port, all over TLS."""
    folder = tmp_path / "broker"
    mosquitto = TlsBroker(config, folder)
    names = {"broker_ca": "authority.pem", "broker_certificate": "hub.pem", "broker_key": "hub.key"}
    files = {key: str(folder / name) for key, name in names.items()}
    server = HubServer(
        msgspec.structs.replace(config, broker_host="127.0.0.1", broker_port=config.public_broker_port, **files)
    )
    server.start()
    yield server
    server.stop()
    mosquitto.process.terminate()
    mosquitto.process.wait(10)


def test_a_device_with_a_code_sends_over_mutual_tls(config: HubConfig, site: HubServer, store: Store) -> None:
    enrolled = enroll(config, store)
    store.append(make_item())
    with Publisher(store, enrolled.link()) as publisher:
        assert publisher.wait_until_empty(60), publisher.last_error
    again = enrolment.load(store.folder / enrolment.FOLDER, store.key)
    told = enrolment.told(store.folder / enrolment.FOLDER)  # what the doctor may know without a key
    assert told is not None
    assert (told.host, told.port) == (config.public_host, config.public_broker_port)
    assert again is not None
    assert again.link().hub_name == "hub-1"


def test_after_400_days_with_the_clock_at_1970_it_comes_back_by_itself(
    config: HubConfig, site: HubServer, store: Store, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    enrolled = enroll(config, store)
    age(config, site.database, enrolled, store, 400)
    old, clock.wall = enrolled.not_after, 5_000
    store.append(make_item())
    with Publisher(store, enrolled.link()) as publisher:
        assert publisher.wait_until_empty(90), publisher.last_error
    assert enrolled.not_after - old > timedelta(days=390)
    assert "certificates are checked without their dates" in caplog.text
    assert "certificate-renewed" in [action for action, _ in audited(site.database)]
    folder = store.folder / enrolment.FOLDER
    assert not (folder / "device.next.pem").exists(), "it has worked, so it is the one now"


def test_a_revoked_device_is_out(config: HubConfig, site: HubServer, store: Store, tmp_path: Path) -> None:
    enrolled = enroll(config, store)
    operations.revoke(config, store.identity.name)
    with pytest.raises(EnrolmentError, match="was revoked"):
        enrolled.renew(store.identity, synced=False)
    broker.write_revocations(config, tmp_path / "broker")
    revoked = x509.load_pem_x509_crl((tmp_path / "broker/revoked.pem").read_bytes())
    assert revoked.get_revoked_certificate_by_serial_number(enrolled._certificate().serial_number) is not None


class Client:
    """A device's certificate in the hands of somebody who tries other topics with it."""

    def __init__(self, enrolled: Enrolled, port: int, client_id: str, *filters: str) -> None:
        self.got: list[str] = []
        self.granted: list[Any] = []
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
        self.client.tls_set_context(enrolled.context(synced=True))
        self.client.on_message = lambda _c, _d, message: self.got.append(message.topic)
        self.client.on_subscribe = lambda *arguments: self.granted.append(arguments)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        wait_for(self.client.is_connected)
        self.client.subscribe([(one, 1) for one in filters])
        wait_for(lambda: self.granted)

    def publish(self, *topics: str) -> None:
        for topic in topics:
            self.client.publish(topic, b"x", qos=1).wait_for_publish(30)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_a_device_is_confined_to_its_own_topics(
    config: HubConfig, site: HubServer, store: Store, open_store: Callable[..., Store], tmp_path: Path
) -> None:
    other = Store.open(tmp_path / "other", KEY, clock=FakeClock(), name="unit-2")
    port = config.public_broker_port
    own = Client(enroll(config, store), port, "a", "aidpost/1/#")
    # under the other's client id, with which it must not take over the other's session
    thief = Client(enroll(config, other), port, "unit-1", "aidpost/1/#", "$SYS/#")
    assert own.client.is_connected()
    thief.publish("aidpost/1/unit-1/receipt", "aidpost/1/unit-1/down/review", "aidpost/1/unit-1/up/report")
    thief.publish("aidpost/1/unit-2/receipt", "aidpost/1/unit-2/down/review", "elsewhere")
    hub = site.service
    assert hub is not None
    hub._client.publish("aidpost/1/unit-2/receipt", b"y", qos=1)
    wait_for(lambda: thief.got)
    own.close()
    thief.close()
    other.close()
    assert thief.got == ["aidpost/1/unit-2/receipt"]
    assert own.got == []
    # of all that was published, the hub saw nothing under a name that is not the sender's
    assert [action for action, _ in audited(site.database)].count("refused-message") == 0


def test_a_code_works_once_and_for_the_same_key_again(
    config: HubConfig, database: Database, port: EnrolmentPort, store: Store, tmp_path: Path
) -> None:
    code = operations.enrolment_code(config, "unit-1")
    enroll(config, store, code)
    enroll(config, store, code)  # the answer to the first was lost on the way
    second = Store.open(tmp_path / "second", KEY, clock=FakeClock(), name="unit-1")
    with pytest.raises(EnrolmentError, match="used already"):
        enroll(config, second, code)
    second.close()
    assert [action for action, _ in audited(database)] == [
        "enrolment-code",
        "enrolled",
        "enrolled",
        "enrolment-refused",
    ]


def test_codes_for_others_too_old_or_of_nobody_are_refused(
    config: HubConfig, database: Database, port: EnrolmentPort, store: Store
) -> None:
    with pytest.raises(EnrolmentError, match="not for this device"):
        enroll(config, store, operations.enrolment_code(config, "unit-9"))
    code = operations.enrolment_code(config, "unit-1")
    with database.write() as connection:
        connection.execute(update(schema.enrolment_tokens).values(expires_ms=now_ms() - 1))
    with pytest.raises(EnrolmentError, match="too old"):
        enroll(config, store, code)
    with pytest.raises(EnrolmentError, match="not whole"):
        enroll(config, store, code[:-1])
    assert not (store.folder / enrolment.FOLDER / "hub.json").exists()
    with pytest.raises(UsageError, match="public_host"):
        operations.enrolment_code(msgspec.structs.replace(config, public_host=""), "unit-1")


def test_the_token_is_said_to_no_other_hub(config: HubConfig, port: EnrolmentPort, store: Store) -> None:
    code = enrolment.Code.parse(operations.enrolment_code(config, "unit-1"))
    with pytest.raises(EnrolmentError, match="another hub"):
        enroll(config, store, str(code._replace(fingerprint="A" * 26)))


def test_renewal_asks_for_both_keys(config: HubConfig, port: EnrolmentPort, store: Store, database: Database) -> None:
    enrolled = enroll(config, store)
    folder = store.folder / enrolment.FOLDER
    (folder / "device.key").unlink()
    enrolment._tls_key(folder, store.key, create=True)
    with pytest.raises(EnrolmentError, match="does not hold the key"):
        enrolled.renew(store.identity, synced=False, every_s=0)
    stranger = type(store.identity).create("unit-1")
    key = enrolment._tls_key(folder, store.key)
    made = Authority(config.state, config.name).device("unit-1", key.public_key(), now_ms())
    pem = made.public_bytes(Encoding.PEM).decode()
    request = enrolment._signed(stranger, enrolment._request(stranger, key), certificate=pem)
    with pytest.raises(EnrolmentError, match="revoked"):
        Registrar(config, database).renew(request)


def test_the_old_certificate_stays_until_the_new_one_has_worked(
    config: HubConfig, port: EnrolmentPort, store: Store
) -> None:
    enrolled = enroll(config, store)
    folder = store.folder / enrolment.FOLDER
    old = (folder / "device.pem").read_bytes()
    assert enrolled.renew(store.identity, synced=False)
    assert not enrolled.renew(store.identity, synced=False), "not again within ten minutes"
    new = (folder / "device.next.pem").read_bytes()
    enrolled.context(synced=False)  # the new one; there was no connection
    enrolled.context(synced=False)  # so now the old one
    enrolled.worked()
    assert ((folder / "device.pem").read_bytes(), (folder / "device.next.pem").read_bytes()) == (old, new)
    enrolled.context(synced=False)
    enrolled.worked()
    assert (folder / "device.pem").read_bytes() == new


def test_renewal_is_due_when_a_third_is_left_and_an_unset_clock_cannot_tell(
    config: HubConfig, port: EnrolmentPort, store: Store
) -> None:
    enrolled = enroll(config, store)
    for days, due in ((200, False), (250, True), (500, True)):
        assert enrolled.due(now_ms() + days * DAY_MS, synced=True) is due
        assert not enrolled.due(now_ms() + days * DAY_MS, synced=False)


def test_dates_are_checked_where_the_clock_is_set_and_never_before_the_hubs_last_word(
    config: HubConfig, port: EnrolmentPort, store: Store
) -> None:
    enrolled = enroll(config, store)
    enrolled.require_recent({"notAfter": "Jan  1 00:00:00 2090 GMT"})
    for ended in ({"notAfter": "Jan  1 00:00:00 2020 GMT"}, {}, None):
        with pytest.raises(EnrolmentError, match="ended on"):
            enrolled.require_recent(ended)
    authority = store.folder / enrolment.FOLDER / "authority.pem"
    strict, weak = _https.context(authority, synced=True), _https.context(authority, synced=False)
    assert int(weak.verify_flags) & ~int(strict.verify_flags) == 0x200000
    assert (weak.verify_mode, weak.check_hostname) == (strict.verify_mode, strict.check_hostname)


def test_a_copied_card_has_no_tls_key(config: HubConfig, port: EnrolmentPort, store: Store) -> None:
    enroll(config, store)
    folder = store.folder / enrolment.FOLDER
    assert b"ENCRYPTED" in (folder / "device.key").read_bytes()
    stolen = enrolment.load(folder, DeviceKey(bytes(32), "guessed"))
    assert stolen is not None
    with pytest.raises(KeyUnavailableError):
        stolen.renew(store.identity, synced=False)


def test_a_device_cannot_take_the_hubs_name(config: HubConfig) -> None:
    with pytest.raises(UsageError):
        operations.enrolment_code(config, "hub:hub-1")
