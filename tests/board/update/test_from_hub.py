"""Updates by the hub's own way down, and downloads that go on where they were cut off."""

from __future__ import annotations

import hashlib
import http.server
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from device_records import KEY, FakeClock

from aidpost.board.cli import Settings
from aidpost.board.cli.update import _source
from aidpost.board.configuration import Configuration, UpdateSection
from aidpost.board.update import from_hub
from aidpost.board.update.install import update
from aidpost.board.update.slots import Slots
from aidpost.board.update.source import Source
from aidpost.errors import UpdateError
from aidpost.records import BlobRef, Timestamp, decode, encode
from aidpost.sync.applier import Applier, Subject
from aidpost.sync.bodies import Delivery, Outcome
from aidpost.sync.envelope import CHUNK, Chunk, Envelope
from aidpost.sync.store import Store

from .conftest import HERE, Publisher, shell_release, unpack

AT = Timestamp(wall_ms=1_760_000_000_000, monotonic_ms=1, boot=0, synced=True)


class Device:
    """A store to which the hub's bundles come in chunks."""

    def __init__(self, folder: Path, publisher: Publisher) -> None:
        self.state = folder
        self.store = Store.open(folder, KEY, clock=FakeClock(), name="unit-1")
        section = UpdateSection(folder=str(publisher.folder / "device"), root_file=str(publisher.root))
        self.configuration = Configuration(update=section)
        taker = from_hub.HubBundles(self.configuration, folder)
        self.applier = Applier(self.store, {from_hub.SUBJECT: Subject(taker.take_up)})
        self.sent = 0

    def get(self, content: bytes) -> tuple[str, str]:
        """The hub sends it; what came of it, and why."""
        self.sent += 1
        sha256 = hashlib.sha256(content)
        blob = BlobRef(sha256=sha256.hexdigest(), size=len(content), media_type="application/octet-stream")
        record = Delivery(id=uuid.uuid4(), subject="update", version=f"{self.sent}", serial=self.sent, at=AT, blob=blob)
        self.store.inbox.keep([Envelope(b"hub-epoc", "update", self.sent, "Delivery", None, None, encode(record))], 1)
        for at in range(0, len(content), CHUNK):
            self.store.deliveries.keep_chunks([Chunk(sha256.digest(), len(content), at, content[at : at + CHUNK])])
        self.applier.turn()
        rows = self.store.read("SELECT max(seq) FROM record WHERE kind = 'Outcome'")
        [told] = self.store.envelopes("review-ack", [rows[0][0]])
        outcome = decode(Outcome, told.body)
        return outcome.state, outcome.why


@pytest.fixture
def device(tmp_path: Path, publisher: Publisher) -> Iterator[Device]:
    made = Device(tmp_path / "state", publisher)
    yield made
    made.store.close()


def well(_: Slots) -> str:
    return ""


def test_a_signed_bundle_is_kept_and_the_nightly_update_installs_it(
    device: Device, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.release("1.0.0")
    publisher.release("1.1.0")
    assert device.get(publisher.bundle().read_bytes()) == ("applied", "")
    section = device.configuration.update
    config = tmp_path / "aidpost.toml"
    config.write_text(f'[update]\nfolder = "{section.folder}"\nroot_file = "{section.root_file}"\n')
    found = _source(Settings(config, device.state), "")
    assert update(found, publisher.slots, HERE, well, unpack) == "1.1.0"


def test_a_bundle_that_is_altered_foreign_or_older_is_refused_and_the_one_before_stays(
    device: Device, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.release("1.0.0")
    old = publisher.bundle("old").read_bytes()
    publisher.release("1.1.0")
    good = publisher.bundle("new").read_bytes()
    assert device.get(good)[0] == "applied"
    publisher.source(publisher.folder / "new")  # the nightly update has seen it
    foreign = Publisher(tmp_path / "foreign")
    foreign.release("9.9.9")
    altered = bytearray(good)
    altered[len(good) // 2] ^= 1
    for content in (old, foreign.bundle().read_bytes(), bytes(altered[:-9]), b"no bundle"):
        state, why = device.get(content)
        assert state == "refused"
        assert why
    assert (device.state / from_hub.BUNDLE).read_bytes() == good
    assert sorted(one.name for one in device.state.glob("hub.*")) == [from_hub.BUNDLE]


def test_without_a_root_of_trust_no_bundle_is_kept(device: Device, publisher: Publisher) -> None:
    publisher.release("1.0.0")
    content = publisher.bundle().read_bytes()
    publisher.root.unlink()
    assert device.get(content)[0] == "refused"
    assert not (device.state / from_hub.BUNDLE).exists()


# -- over HTTPS


class Server(http.server.ThreadingHTTPServer):
    """Serves a repository with ETag and Range, and ends a connection after `most` bytes of a release."""

    daemon_threads = True

    def __init__(self, folder: Path, *, ranges: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.ranges, self.most = folder, ranges, 1 << 40
        self.asked: list[tuple[str, int]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path = self.server.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        wanted = self.headers.get("Range", "") if self.headers.get("If-Range") == etag and self.server.ranges else ""
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if wanted and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        large = path.name.endswith(".tar")
        if large:
            self.server.asked.append((path.name, start))
        self.wfile.write(content[start : start + self.server.most] if large else content)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(publisher: Publisher) -> Iterator[Server]:
    publisher.release("1.0.0", content=shell_release("1.0.0") + bytes(3_000_000))
    made = Server(publisher.folder / "served")
    yield made
    made.shutdown()
    made.server_close()


def source(server: Server, publisher: Publisher) -> Source:
    device = publisher.folder / "device"
    return Source(server.url, device / "trust", device / "downloads", publisher.root)


def get(server: Server, publisher: Publisher) -> bytes:
    found = source(server, publisher)
    return found.get(found.offers[0]).read_bytes()


def test_a_download_that_was_cut_off_goes_on_where_it_was(server: Server, publisher: Publisher) -> None:
    expected = shell_release("1.0.0") + bytes(3_000_000)
    server.most = 1_000_000
    for _ in range(3):
        with pytest.raises(UpdateError):
            get(server, publisher)
    server.most = 1 << 40
    assert get(server, publisher) == expected
    starts = [start for _, start in server.asked]
    assert starts == [0, 1_000_000, 2_000_000, 3_000_000]
    assert not list((publisher.folder / "device/downloads").glob("*.part"))


def test_a_server_without_ranges_or_with_another_file_is_asked_for_all(server: Server, publisher: Publisher) -> None:
    server.most = 1_000_000
    with pytest.raises(UpdateError):
        get(server, publisher)
    server.most, server.ranges = 1 << 40, False
    assert len(get(server, publisher)) > 3_000_000
    assert [start for _, start in server.asked] == [0, 0]


def test_a_part_that_was_damaged_is_refused_by_its_hash_and_begun_anew(server: Server, publisher: Publisher) -> None:
    server.most = 1_000_000
    with pytest.raises(UpdateError):
        get(server, publisher)
    [part] = (publisher.folder / "device/downloads").glob("*.part")
    part.write_bytes(bytes(1_000_000))
    server.most = 1 << 40
    with pytest.raises(UpdateError, match="signed"):
        get(server, publisher)
    assert len(get(server, publisher)) > 3_000_000
    assert [start for _, start in server.asked] == [0, 1_000_000, 0]
