"""A device made of a key and a few records, a hub in a temporary folder, and the brokers that both talk through."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from paho.mqtt.enums import CallbackAPIVersion
from ports import free_port
from postgres import Postgres

from aidpost.records import (
    Clinic,
    Device,
    Exam,
    ExamReport,
    Finding,
    Operator,
    Origin,
    Patient,
    Record,
    Sex,
    Timestamp,
    Triage,
    TriageLevel,
    VitalKind,
    VitalSign,
    encode,
)
from aidpost.sync import topics
from aidpost.sync.envelope import Content, Envelope, Receipt, Records, pack_message, unpack_message
from aidpost.sync.hub import operations
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.ingest import Incoming, Ingest
from aidpost.sync.hub.quality import in_sample
from aidpost.sync.hub.server import HubServer
from aidpost.sync.ranges import numbers

HANDHELD = Device(name="handheld", manufacturer="Aidpost")


def at(
    wall_ms: int = 1_760_000_000_000, *, synced: bool = True, monotonic_ms: int = 60_000, boot: int = 3
) -> Timestamp:
    return Timestamp(wall_ms=wall_ms, monotonic_ms=monotonic_ms, boot=boot, synced=synced)


def make_report(**changes: Any) -> ExamReport:
    patient = Patient(id=uuid.uuid4(), name="Amina Yusuf", birth_date="1961", sex=Sex.FEMALE)
    number = uuid.uuid4()
    while in_sample(number):  # a tenth would be read without seeing the device's findings
        number = uuid.uuid4()
    exam = Exam(
        id=number,
        patient=patient.id,
        device=HANDHELD,
        clinic=Clinic(id="c1", name="North clinic"),
        operator=Operator(id="op7", name="R. Banda"),
        started=at(),
    )
    fields: dict[str, Any] = {
        "id": uuid.uuid4(),
        "exam": exam,
        "patient": patient,
        "triage": Triage(level=TriageLevel.SOON, reasons=("raised blood pressure",)),
        "findings": (Finding(code="bp-high", text="Raised blood pressure", severity=TriageLevel.SOON),),
        "origin": Origin.LIVE,
    }
    return ExamReport(**(fields | changes))


def make_vital(**changes: Any) -> VitalSign:
    fields: dict[str, Any] = {
        "id": uuid.uuid4(),
        "kind": VitalKind.SPO2,
        "value": 97.0,
        "unit": "%",
        "at": at(),
        "origin": Origin.LIVE,
        "device": Device(name="oximeter"),
    }
    return VitalSign(**(fields | changes))


class FakeDevice:
    """What a device is to the hub: a name, a key, an epoch, and sequences that only go up."""

    def __init__(self, name: str = "unit-1") -> None:
        self.name, self.key, self.epoch = name, Ed25519PrivateKey.generate(), os.urandom(8)
        self.last: dict[str, int] = {}

    @property
    def public_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def envelope(
        self,
        record: Record | bytes,
        cls: str = "report",
        *,
        kind: str | None = None,
        patient: uuid.UUID | None = None,
        exam: uuid.UUID | None = None,
        seq: int | None = None,
    ) -> Envelope:
        if seq is None:
            seq = self.last[cls] = self.last.get(cls, 0) + 1
        if isinstance(record, ExamReport):
            patient, exam = record.patient.id, record.exam.id
        body = record if isinstance(record, bytes) else encode(record)
        return Envelope(self.epoch, cls, seq, kind or type(record).__name__, patient, exam, body)

    def message(self, *envelopes: Envelope) -> bytes:
        return self.sign(Records(envelopes))

    def sign(self, content: Content) -> bytes:
        return pack_message(content, sender=self.name, key=self.key)


class Hub:
    """A hub without a broker."""

    def __init__(self, config: HubConfig) -> None:
        self.config = config
        self.database = Database(config.url)
        self.files = BlobFiles(config.blobs)
        self.ingest = Ingest(self.database, self.files, config)

    def take(self, device: FakeDevice, *messages: bytes, received_ms: int | None = None) -> list[Receipt]:
        batch = [Incoming(device.name, message, received_ms or now_ms()) for message in messages]
        return [reply.content for reply in self.ingest.ingest(batch) if isinstance(reply.content, Receipt)]

    def close(self) -> None:
        self.database.close()


def held_of(receipts: list[Receipt], cls: str) -> set[int]:
    return {n for receipt in receipts for held in receipt.held if held.cls == cls for n in numbers(held.ranges)}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "database_url" in metafunc.fixturenames and metafunc.definition.get_closest_marker("both_databases"):
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A private server, started by the first test that wants it."""
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """SQLite in the hub's folder; with the mark `both_databases` also a PostgreSQL database of the test's own."""
    if getattr(request, "param", "sqlite") == "sqlite":
        yield ""
        return
    with request.getfixturevalue("postgres").database() as url:
        yield url


def hub_with(**changes: object) -> pytest.MarkDecorator:
    """The test's hub has these settings."""
    return pytest.mark.parametrize("changes", [changes], indirect=True, ids=["-".join(changes)])


@pytest.fixture
def changes(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(getattr(request, "param", {}))


@pytest.fixture
def config(tmp_path: Path, database_url: str, changes: dict[str, Any]) -> HubConfig:
    folder = str(tmp_path / "hub")
    settings = {"state_dir": folder, "database_url": database_url, "name": "hub-1", "broker_host": "", "listen_port": 0}
    return HubConfig(**(settings | changes))


@pytest.fixture
def device(config: HubConfig) -> FakeDevice:
    made = FakeDevice()
    operations.enroll(config, made.name, made.public_key)
    return made


@pytest.fixture
def hub(config: HubConfig) -> Iterator[Hub]:
    made = Hub(config)
    yield made
    made.close()


class Broker:
    """Mosquitto on a free loopback port."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        mosquitto = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if mosquitto is None:
            pytest.skip("mosquitto is not installed (apt-get install mosquitto)")
        self._process = subprocess.Popen([mosquitto, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        wait_for(self._answers, "Mosquitto listens")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


class Link:
    """A device's side of the broker, as simple as can be: publishes what it is given, keeps every receipt."""

    def __init__(self, device: FakeDevice, port: int, hub_key: Ed25519PublicKey) -> None:
        self.device, self._hub_key = device, hub_key
        self.receipts: list[Receipt] = []
        self.down: list[Records] = []
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device.name)
        self._client.on_message = self._arrived
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(topics.receipt(device.name), 1), (topics.down(device.name, "#"), 1)]
        )
        self._client.reconnect_delay_set(1, 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        wait_for(self._client.is_connected, "the device is connected")

    def send(self, leaf: str, content: Content) -> None:
        self._client.publish(topics.up(self.device.name, leaf), self.device.sign(content), qos=1)

    def held(self, cls: str) -> set[int]:
        return held_of(list(self.receipts), cls)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _arrived(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        content = unpack_message(
            bytes(message.payload), lambda _name: self._hub_key, sender="hub-1", recipient=self.device.name
        ).content
        if isinstance(content, Receipt):
            self.receipts.append(content)
        elif isinstance(content, Records):
            self.down.append(content)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    made = Broker(tmp_path)
    yield made
    made.kill()


@pytest.fixture
def server(config: HubConfig, device: FakeDevice) -> Iterator[HubServer]:
    operations.enroll(config, device.name, device.public_key, accept_simulated=True)
    made = HubServer(config)
    from .web_client import add_people

    add_people(made.database)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def reader(server: HubServer) -> Any:
    from .web_client import logged_in

    return logged_in(server, "okoro")
