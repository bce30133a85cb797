"""Settings from the hub: validated as the device's own file, in one step, taken back where they cut the device off."""

from __future__ import annotations

import contextlib
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from console import Running as Process
from device_records import KEY, FakeClock
from hub_end import HubEnd
from hypothesis import given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from aidpost.board import remote, runtime
from aidpost.board.configuration import ClinicSection, Configuration, SyncSection, keys
from aidpost.board.remote import FILE, MOST_TRIES, RemoteSettings
from aidpost.errors import AidpostError, ConfigurationError, InvalidRecordError, UsageError
from aidpost.records import Timestamp, decode, encode
from aidpost.sync import publisher, settings
from aidpost.sync.applier import Applier, Subject
from aidpost.sync.bodies import Delivery, Outcome
from aidpost.sync.envelope import Envelope
from aidpost.sync.hub import operations
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.service import HubService
from aidpost.sync.store import Store

from ..conftest import Mosquitto

OWN = Configuration(clinic=ClinicSection(name="North", emergency_telephone="999"))
AT = Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=1, boot=0, synced=True)
NUMBER = "clinic.emergency_telephone"
LOCKED_OUT = (
    "sync.host",
    "sync.enabled",
    "store.key",
    "device.name",
    "console.port",
    "update.root_file",
    "limits",
    "hub",
)


class Device:
    """A store in a folder, and what is in force on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store.open(folder, KEY, clock=FakeClock(), name="unit-1")
        self.now = OWN
        self.settings = RemoteSettings(OWN, folder, self.store, self._use)
        self.applier = Applier(self.store, {"config": Subject(self.settings.take_up)})
        self.sent = 0

    def _use(self, configuration: Configuration) -> None:
        self.now = configuration

    def get(self, body: bytes | dict[str, Any]) -> str:
        """The hub sends it; what came of it."""
        self.sent += 1
        content = body if isinstance(body, bytes) else settings.pack(body)
        record = Delivery(
            id=uuid.uuid4(), subject="config", version=f"v{self.sent}", serial=self.sent, at=AT, body=content
        )
        self.store.inbox.keep([Envelope(b"hub-epoc", "config", self.sent, "Delivery", None, None, encode(record))], 1)
        self.applier.turn()
        return self.outcomes()[-1][1]

    def outcomes(self) -> list[tuple[str, str, str]]:
        rows = self.store.read("SELECT seq FROM record WHERE kind = 'Outcome' ORDER BY seq")
        found = [decode(Outcome, one.body) for one in self.store.envelopes("review-ack", [row[0] for row in rows])]
        return [(one.version, one.state, one.why) for one in found]

    @property
    def on_disk(self) -> Configuration:
        return remote.applied(OWN, self.folder)

    def close(self) -> None:
        self.store.close()


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    made = Device(tmp_path)
    yield made
    made.close()


def test_a_setting_goes_over_the_devices_own_at_once_and_after_a_start(device: Device) -> None:
    assert device.get({NUMBER: "112", "console.language": "fr"}) == "applied"
    assert device.now == device.on_disk
    assert (device.now.clinic.emergency_telephone, device.now.clinic.name) == ("112", "North")
    assert device.get({"console.language": "es"}) == "applied"
    assert device.now.clinic.emergency_telephone == "999"
    assert remote.read(device.folder).before == {NUMBER: "112", "console.language": "fr"}


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b"[]",
        {"clinic.nam": "x"},
        {"console.lock_minutes": 0},
        {"console.lock_minutes": "five"},
        {"console.paper": "A3"},
        {NUMBER: "112", "exam.ecg_seconds": 1e9},
        *({key: "x"} for key in LOCKED_OUT),
    ],
)
def test_what_the_file_could_not_have_is_refused_whole_with_the_reason(
    device: Device, body: bytes | dict[str, Any]
) -> None:
    device.get({NUMBER: "112"})
    before = (device.folder / FILE).read_bytes()
    assert device.get(body) == "refused"
    assert device.outcomes()[-1][2]
    assert (device.folder / FILE).read_bytes() == before
    assert device.now.clinic.emergency_telephone == "112"


_VALUES = st.one_of(st.booleans(), st.integers(-10, 1 << 40), st.floats(allow_nan=False), st.text(max_size=8))


@hypothesis(deadline=None, max_examples=60)
@given(values=st.dictionaries(st.sampled_from([*settings.REMOTE, *LOCKED_OUT]), _VALUES, max_size=4))
def test_whatever_comes_it_is_taken_whole_or_not_at_all_and_a_start_gives_the_same(values: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        device = Device(Path(folder))
        state = device.get(values)
        assert device.now == device.on_disk
        if state == "refused":
            assert device.now == OWN
        else:
            document = msgspec.to_builtins(device.now)
            for key, value in values.items():
                section, _, name = key.partition(".")
                assert document[section][name] == value
            rest = keys()
            assert {
                key for key in rest if not key.startswith(("hub", "limits")) and _at(device.now, key) != _at(OWN, key)
            } <= set(values)
        device.close()


def _at(configuration: Configuration, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(configuration, section), name)


def test_the_list_is_of_keys_that_exist_each_with_its_type() -> None:
    assert set(settings.REMOTE) <= set(keys())
    for key, kind in settings.REMOTE.items():
        value = _at(Configuration(), key)
        assert value is None or type(value) is kind, key


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [("exam.ecg_seconds", "20", 20.0), ("console.large_print", "True", True), (NUMBER, "0712", "0712")],
)
def test_a_typed_value_gets_its_keys_type(key: str, text: str, value: object) -> None:
    assert settings.value_of(key, text) == value
    assert type(settings.value_of(key, text)) is type(value)


def test_a_typed_value_of_another_type_or_key_is_refused() -> None:
    for key, text in [("console.lock_minutes", "five"), ("sync.host", "elsewhere")]:
        with pytest.raises(UsageError):
            settings.value_of(key, text)
    with pytest.raises(InvalidRecordError):
        settings.unpack(b'{"sync.host": "elsewhere"}')


def test_a_file_that_cannot_be_read_or_holds_no_longer_leaves_the_devices_own(device: Device) -> None:
    (device.folder / FILE).write_text("{")
    assert device.on_disk == OWN
    (device.folder / FILE).write_text(
        '{"values": {"clinic.of_a_later_version": "x"}, "before": {"console.language": "es"}}'
    )
    assert device.on_disk.console.language == "es"
    (device.folder / FILE).write_text('{"values": {"sync.host": "elsewhere"}}')
    assert device.on_disk == OWN


# -- on trial


def test_settings_of_the_link_are_proven_by_reaching_the_hub(device: Device) -> None:
    device.get({"sync.keepalive_s": 60})
    device.settings.attempted(False)
    device.settings.attempted(True)
    for _ in range(2 * MOST_TRIES):
        device.settings.attempted(False)
    assert device.now.sync.keepalive_s == 60


def test_other_settings_are_not_on_trial_while_the_device_is_offline(device: Device) -> None:
    device.get({NUMBER: "112"})
    for _ in range(2 * MOST_TRIES):
        device.settings.attempted(False)
    assert device.now.clinic.emergency_telephone == "112"


def test_settings_with_which_the_hub_is_not_reached_go_back_and_the_hub_is_told(device: Device) -> None:
    device.get({"sync.keepalive_s": 60})
    device.settings.attempted(True)
    device.get({"sync.keepalive_s": 600, NUMBER: "112"})
    device.get({"sync.keepalive_s": 700, NUMBER: "112"})  # one unproven after another: back to the last proven
    for _ in range(MOST_TRIES):
        assert device.now.sync.keepalive_s == 700
        device.settings.attempted(False)
    assert (device.now.sync.keepalive_s, device.now.clinic.emergency_telephone) == (60, "999")
    assert device.on_disk == device.now
    assert [one[:2] for one in device.outcomes()][-1] == ("v3", "rolled-back")
    for _ in range(2 * MOST_TRIES):
        device.settings.attempted(False)
    assert len(device.outcomes()) == 4


def test_starts_count_too_so_that_settings_that_end_the_program_do_not_last(device: Device) -> None:
    device.get({"sync.keepalive_s": 600})
    for _ in range(MOST_TRIES):
        assert device.on_disk.sync.keepalive_s == 600
        remote.begin(device.folder)
    assert device.on_disk == OWN
    device.settings.tell()
    device.settings.tell()
    assert [one[1] for one in device.outcomes()] == ["applied", "rolled-back"]


DIES = """
import os, signal, sys
from pathlib import Path
from aidpost.board import remote
from aidpost.board.configuration import Configuration, ClinicSection
from aidpost.sync import keys, _durable
from aidpost.sync.applier import Applier, Subject
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

folder, where = Path(sys.argv[1]), sys.argv[2]
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
store = Store.open(folder, keys.DeviceKey(bytes(range(32)), "test"), clock=SystemClock())
own = Configuration(clinic=ClinicSection(name="North", emergency_telephone="999"))
found = remote.RemoteSettings(own, folder, store, die if where == "before use" else lambda _: None)
write = remote._write
if where == "before the file":
    remote._write = die
elif where == "in the file":
    _durable.Path.replace = die
elif where == "behind the file":
    remote._write = lambda *a: (write(*a), die())
elif where == "before the note":
    store.append_many = die
Applier(store, {"config": Subject(found.take_up)}).turn()
"""


@pytest.mark.parametrize(
    "where", ["before the file", "in the file", "behind the file", "before use", "before the note"]
)
def test_killed_at_each_step_of_applying_the_old_or_the_new_serves_and_the_new_at_last(
    tmp_path: Path, where: str
) -> None:
    device = Device(tmp_path)
    device.get({NUMBER: "112"})
    device.applier._subjects = {}  # type: ignore[assignment]
    device.sent += 1
    record = Delivery(
        id=uuid.uuid4(), subject="config", version="v2", serial=2, at=AT, body=settings.pack({NUMBER: "911"})
    )
    device.store.inbox.keep([Envelope(b"hub-epoc", "config", 2, "Delivery", None, None, encode(record))], 1)
    device.close()
    died = subprocess.run([sys.executable, "-c", DIES, str(tmp_path), where], timeout=120, check=False)
    assert died.returncode == -signal.SIGKILL
    device = Device(tmp_path)
    assert device.on_disk.clinic.emergency_telephone in ("112", "911")
    device.applier.turn()
    assert device.now.clinic.emergency_telephone == "911"
    assert remote.read(tmp_path).before == {NUMBER: "112"}
    assert [one[1] for one in device.outcomes()] == ["applied", "applied"]
    device.close()


# -- both ends


class Gateway(socketserver.ThreadingTCPServer):
    """Between device and broker; lets nobody in who wants to be silent for more than a minute."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Gate)
        self.behind, self.port = port, self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Gate(socketserver.BaseRequestHandler):
    server: Gateway

    def handle(self) -> None:
        first = self.request.recv(4096)
        at = first.index(b"MQTT")  # the name of the protocol, then level, flags and keep-alive
        if int.from_bytes(first[at + 6 : at + 8], "big") > 60:
            return
        with socket.create_connection(("127.0.0.1", self.server.behind)) as broker:
            broker.sendall(first)
            back = threading.Thread(target=_copy, args=(broker, self.request), daemon=True)
            back.start()
            _copy(self.request, broker)
            back.join()


def _copy(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            to.sendall(piece)
        to.shutdown(socket.SHUT_WR)


class Hub:
    """A hub, its broker, and the gateway through which devices reach it."""

    def __init__(self, folder: Path) -> None:
        self.broker = Mosquitto(folder / "mosquitto")
        self.broker.start()
        self.gateway = Gateway(self.broker.port)
        self.end = HubEnd(folder / "hub", self.broker.port)
        self.database = Database(self.end.config.url)
        self.service = HubService(self.end.config, self.database, BlobFiles(self.end.config.blobs))
        self.service.start()

    def states(self) -> list[str]:
        return [one.state for one in operations.fleet(self.end.config)]

    def stop(self) -> None:
        self.service.stop()
        self.database.close()
        self.broker.stop()
        self.gateway.shutdown()
        self.gateway.server_close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path)
    yield made
    made.stop()


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


def test_a_device_that_its_new_settings_cut_off_comes_back_by_itself_and_says_so(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "_RECONNECT_S", (0.05,))
    monkeypatch.setattr(remote, "MOST_TRIES", 3)
    state = tmp_path / "state"
    with Store.open(state, KEY, clock=FakeClock(), name="unit-1") as store:
        hub.end.enroll(store)
    key_file = tmp_path / "hub.key"
    key_file.write_text(operations.public_key(hub.end.config).hex())
    own = Configuration(sync=SyncSection(port=hub.gateway.port, hub_key_file=str(key_file)))
    running = runtime.Running(own, state, KEY, practice_only=False)
    parts = {part.name: part for part in runtime.PARTS}
    with parts["store"].open(running), parts["sender"].open(running), parts["applier"].open(running):
        operations.set_devices(hub.end.config, "device", "unit-1", NUMBER, "112")
        wait_for(lambda: hub.states() == ["applied"], "the number is applied")
        operations.set_devices(hub.end.config, "device", "unit-1", "sync.keepalive_s", 50)
        wait_for(lambda: _is_proven(state, 50), "proven")
        operations.set_devices(hub.end.config, "device", "unit-1", "sync.keepalive_s", 61)
        wait_for(lambda: "rolled-back" in hub.states(), "the hub knows that it was taken back")
        assert running.configuration.sync.keepalive_s == 50
        assert running.configuration.clinic.emergency_telephone == "112"
    last = [one for one in operations.fleet(hub.end.config) if one.state == "rolled-back"]
    assert "not reached" in last[0].why


def _is_proven(state: Path, keepalive_s: int) -> bool:
    found = remote.read(state)
    return found.values.get("sync.keepalive_s") == keepalive_s and found.tries is None


def test_a_running_devices_screen_shows_it_without_a_restart(tmp_path: Path, hub: Hub) -> None:
    with Store.open(tmp_path / "device/state", KEY, clock=FakeClock(), name="unit-1"):
        pass
    key_file = tmp_path / "hub.key"
    key_file.write_text(operations.public_key(hub.end.config).hex())
    sync = f'[sync]\nport = {hub.broker.port}\nhub_key_file = "{key_file}"\n[device]\nname = "unit-9"\n'
    (tmp_path / "own/state").mkdir(parents=True)
    with Process(tmp_path / "own", sync, practice=False) as device:
        from aidpost.board.configuration import load
        from aidpost.board.device import device_key, open_store

        configuration = load(tmp_path / "own/aidpost.toml")
        key = device_key(configuration, tmp_path / "own/state", lambda: "")
        with open_store(configuration, tmp_path / "own/state", key) as store:
            hub.end.enroll(store)
        operations.set_devices(hub.end.config, "device", "unit-9", "clinic.name", "Kisumu West")
        wait_for(lambda: hub.states() == ["applied"], "it is applied")
        device.set_up()
        assert "Kisumu West" in device.ask("GET", "/")[2]


def test_the_devices_own_configuration_never_loses_to_a_broken_overlay() -> None:
    with pytest.raises(ConfigurationError):
        remote.overlay(OWN, {"clinic.nothing": "x"})
    assert issubclass(ConfigurationError, AidpostError)
