"""A hub's backup and its own broker: whole or refused, and back by itself."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from ports import free_port
from sqlalchemy import select

from aidpost.errors import ConfigurationError, UnreadableInputError
from aidpost.sync.hub import accounts, identity, schema
from aidpost.sync.hub.backup import back_up, restore
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.mosquitto import Mosquitto, own_broker
from aidpost.sync.hub.server import HubServer

from .conftest import FakeDevice, wait_for
from .pacs import listens
from .web_client import JPEG, whole_report

PHOTO = hashlib.sha256(JPEG).hexdigest()


@pytest.mark.both_databases
def test_backup_comes_back_with_keys_blobs_and_a_new_epoch(
    server: HubServer, device: FakeDevice, config: HubConfig
) -> None:
    report = whole_report(server, device)
    key, epoch = identity.public_key(config.state), server.database.epoch
    out = io.BytesIO()
    saved = back_up(config, out)
    assert saved.blobs == 2
    server.stop()
    server.files.erase(PHOTO)
    (config.state / "hub.key").unlink()
    out.seek(0)
    done = restore(config, out)
    assert (done.blobs, done.missing, done.erased) == (2, 0, 0)
    assert identity.public_key(config.state) == key
    assert server.files.path(PHOTO).read_bytes() == JPEG
    database = Database(config.url)
    assert database.epoch != epoch
    with database.read() as connection:
        assert connection.execute(select(schema.exams.c.id)).scalars().all() == [report.exam.id]
    database.close()


def test_backup_without_blobs_asks_devices_for_what_is_not_here(
    server: HubServer, device: FakeDevice, config: HubConfig
) -> None:
    whole_report(server, device)
    out = io.BytesIO()
    assert back_up(config, out, blobs=False).blobs == 0
    server.stop()
    server.files.erase(PHOTO)
    out.seek(0)
    assert restore(config, out).missing == 1
    database = Database(config.url)
    with database.read() as connection:
        table = schema.manifests
        waiting = connection.execute(select(table.c.sha256).where(table.c.waiting.is_(True))).scalars().all()
    database.close()
    assert waiting == [PHOTO]


def test_damaged_or_cut_off_backup_is_refused_and_touches_nothing(
    server: HubServer, device: FakeDevice, config: HubConfig
) -> None:
    whole_report(server, device)
    out = io.BytesIO()
    back_up(config, out)
    server.stop()
    whole = out.getvalue()
    before = sorted(path.name for path in config.state.iterdir())
    damaged = whole.replace(JPEG, JPEG[:-1] + b"!")
    middle = whole.index(b"SQLite format 3") + 4096
    torn = whole[:middle] + bytes(8192) + whole[middle + 8192 :]
    for data in (b"", b"not a tar", whole[: len(whole) // 2], whole[:-20480], damaged, torn):
        with pytest.raises(UnreadableInputError, match="nothing was touched"):
            restore(config, io.BytesIO(data))
        assert sorted(path.name for path in config.state.iterdir()) == before
        assert server.files.path(PHOTO).read_bytes() == JPEG


def test_broker_is_started_again_and_a_left_over_one_is_ended(config: HubConfig) -> None:
    with pytest.raises(ConfigurationError, match="public_host"):
        own_broker(config)
    config = own_broker(msgspec.structs.replace(config, public_host="127.0.0.1", public_broker_port=free_port()))
    first = Mosquitto(config)
    first.start()
    pid = first.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: first.pid != pid and listens(config.public_broker_port), "it was started again", 60)
    first._stopping.set()  # as if the hub had been killed: its broker stays
    first._thread.join()
    second = Mosquitto(config)
    second.start()
    assert first._process is not None
    assert first._process.wait(20) is not None
    assert listens(config.public_broker_port)
    second.stop()
    assert not listens(config.public_broker_port)


def test_one_command_runs_hub_and_broker_and_makes_an_administrator(tmp_path: Path) -> None:
    port, pages = free_port(), free_port()
    file = tmp_path / "hub.toml"
    file.write_text(
        f'[hub]\npublic_host = "127.0.0.1"\npublic_broker_port = {port}\nlisten_port = {pages}\n'
        f'enrolment_bind = "127.0.0.1"\nenrolment_port = {free_port()}\n'
    )
    command = [
        sys.executable,
        "-c",
        "from aidpost.board.cli import main; main()",
        "--config",
        str(file),
        "--state-dir",
        str(tmp_path / "state"),
    ]
    process = subprocess.Popen([*command, "hub", "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert "administrator admin, password " in process.stdout.readline()
        assert f"http://127.0.0.1:{pages}/" in process.stdout.readline()
        wait_for(lambda: listens(port) and listens(pages), "broker and pages listen", 60)
        log = subprocess.run([*command, "hub", "backup", str(tmp_path / "b.tar")], capture_output=True, text=True)
        assert log.returncode == 0, log.stderr
        assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        process.stdout.close()
    assert not listens(port)
    with (tmp_path / "b.tar").open("rb") as source:
        again = subprocess.run([*command, "hub", "restore", "-"], stdin=source, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert accounts.first_user(HubConfig(state_dir=str(tmp_path / "state/hub"))) is None, "the user is back, too"
