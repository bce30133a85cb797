"""From a device that took an update back, over the hub, to the devices that are spared it."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from device_records import KEY
from enrolment_hub import enrolment_hub

from aidpost.board.update.install import settle, update, update_models
from aidpost.board.update.report import told
from aidpost.board.update.slots import Slots
from aidpost.board.update.source import Source
from aidpost.errors import UpdateError
from aidpost.sync import _https, enrolment
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import Installed, Status, pack_message
from aidpost.sync.hub import operations
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.ingest import Incoming, Ingest
from aidpost.sync.store import Store

from .conftest import HERE, Publisher, tar_of, unpack
from .test_update import on_trial, run, well


def test_a_device_tells_what_serves_is_on_trial_and_was_taken_back(publisher: Publisher) -> None:
    assert told(publisher.slots) == ()
    publisher.release("1.0.0")
    run(publisher)
    assert told(publisher.slots) == (Installed("aidpost", "1.0.0", "serves"),)
    publisher.release("1.1.0", well=False)
    with pytest.raises(UpdateError):
        run(publisher)
    publisher.model("fundus-dr", "2.0.0", tar_of({"version": b"2.0.0"}))
    with pytest.raises(UpdateError):
        update_models(publisher.source(), publisher.slots, HERE, lambda root: "golden recordings differ")
    publisher.model("ecg-beats", "1.0.0", tar_of({"version": b"1.0.0"}))
    assert update_models(publisher.source(), publisher.slots, HERE, lambda root: "") == ["ecg-beats 1.0.0"]
    assert set(told(publisher.slots)) == {
        Installed("aidpost", "1.0.0", "serves"),
        Installed("aidpost", "1.1.0", "failed", "models: broken"),
        Installed("fundus-dr", "2.0.0", "failed", "golden recordings differ"),
        Installed("ecg-beats", "1.0.0", "serves"),
    }


def test_a_release_on_trial_is_told_as_that(publisher: Publisher) -> None:
    assert told(on_trial(publisher)) == (Installed("aidpost", "1.1.0", "trial"),)


def test_a_release_that_is_well_stays_on_trial_until_the_service_has_started_with_it(publisher: Publisher) -> None:
    publisher.release("1.0.0")
    run(publisher)
    publisher.release("1.1.0")
    assert update(publisher.source(), publisher.slots, HERE, well, unpack, confirm=False) == "1.1.0"
    assert publisher.slots.trial() == ("1.0.0", "1.1.0", 0)
    assert settle(publisher.slots, well) == "1.1.0"
    assert publisher.slots.trial() is None
    publisher.release("1.2.0", well=False)
    with pytest.raises(UpdateError, match=r"1\.1\.0 serves again"):
        update(publisher.source(), publisher.slots, HERE, well, unpack, confirm=False)


def test_a_model_that_did_not_pass_is_not_tried_every_night(publisher: Publisher) -> None:
    tried: list[Path] = []

    def prove(root: Path) -> str:
        tried.append(root)
        return "broken"

    publisher.model("m", "1.0.0", tar_of({"version": b"1.0.0"}))
    with pytest.raises(UpdateError):
        update_models(publisher.source(), publisher.slots, HERE, prove)
    assert update_models(publisher.source(), publisher.slots, HERE, prove) == []
    assert len(tried) == 1


def test_two_devices_that_took_it_back_spare_the_third(publisher: Publisher, tmp_path: Path) -> None:
    """A real update that fails, its word through the hub's ingest, and a third device over the hub's own TLS."""
    publisher.release("1.0.0")
    run(publisher)
    publisher.release("1.1.0", well=False)
    with pytest.raises(UpdateError):
        run(publisher)
    third = Slots(tmp_path / "third")
    with (
        Store.open(tmp_path / "state", KEY, clock=SystemClock(), name="unit-1") as store,
        enrolment_hub(tmp_path / "hub", updates_dir=str(publisher.folder / "served")) as (config, database),
    ):
        folder = store.folder / enrolment.FOLDER
        code = operations.enrolment_code(config, store.identity.name)
        enrolment.enroll(code, store.identity, store.key, folder, synced=False)
        known = enrolment.told(folder)
        assert known is not None

        def source() -> Source:
            tls = _https.context(known.authority, synced=False)
            device = tmp_path / "third"
            return Source(f"{known.url}/updates", device / "trust", device / "downloads", publisher.root, tls)

        assert {one.version for one in source().offers} == {"1.0.0", "1.1.0"}
        ingest = Ingest(database, BlobFiles(config.blobs), config)
        for number in range(2):
            name, key = f"taken-back-{number}", Ed25519PrivateKey.generate()
            operations.enroll(config, name, key.public_key().public_bytes_raw())
            status = Status(True, store.now(), installed=told(publisher.slots))
            ingest.ingest([Incoming(name, pack_message(status, sender=name, key=key), 1)])
        assert {one.version for one in source().offers} == {"1.0.0"}
        assert update(source(), third, HERE, well, unpack) == "1.0.0"
        operations.resume_update(config, "aidpost", "1.1.0")
        assert {one.version for one in source().offers} == {"1.0.0", "1.1.0"}

        with pytest.raises(UpdateError, match=r"(?i)certificate"):  # as anybody else's hub
            Source(f"{known.url}/updates", tmp_path / "a", tmp_path / "b", publisher.root)
        for name in ("keys/root.pem", "../keys/root.pem", "metadata/../../keys/root.pem", "%2e%2e/keys/root.pem"):
            tls = _https.context(known.authority, synced=False)
            with pytest.raises(OSError, match="404"):
                urllib.request.urlopen(f"{known.url}/updates/{name}", context=tls)
        # the database is gone: "I do not know" must not be taken for "nothing is halted"
        database.close()
        (config.state / "hub.sqlite3").write_bytes(b"no database")
        with pytest.raises(UpdateError, match="500"):
            source()


def test_a_hub_that_is_away_leaves_everything_as_it_is(publisher: Publisher, tmp_path: Path) -> None:
    tls = ssl.create_default_context()
    with pytest.raises(UpdateError, match="refused"):
        Source("https://127.0.0.1:9/updates", tmp_path / "a", tmp_path / "b", publisher.root, tls)
