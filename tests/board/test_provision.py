"""From a board to a device of a clinic and back: idempotent, resumable, and nothing readable is left."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from card_images import BOOT_START, make_card, make_image, mtools

from aidpost.board import configuration, provision
from aidpost.board.flash import receipt
from aidpost.board.flash.first_boot import FirstBoot, new_nonce
from aidpost.board.flash.plan import confirm, make_plan, run
from aidpost.board.provision import Wanted
from aidpost.errors import AidpostError, ConfigurationError, StoreError, UnreadableInputError, UsageError
from aidpost.sync.keys import Identity

AIDPOST = [sys.executable, "-c", "from aidpost.board.cli import main\nif __name__ == '__main__': main()"]


def aidpost(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*AIDPOST, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "etc/aidpost.toml"
    path.parent.mkdir()
    path.write_text('# kept\n[clinic]\nid = "old"  # the number on the door\n[exam]\necg_seconds = 20.0\n')
    return path


WANTED = Wanted(clinic="c7", clinic_name="North 'clinic'", hub="hub.example:8883", hub_name="h", hub_key="ab" * 32)


def test_configuration_is_written_into_the_file_and_everything_else_in_it_stays(
    config_path: Path, tmp_path: Path
) -> None:
    assert provision.configure(config_path, WANTED, tmp_path).state == "done"
    text = config_path.read_text()
    assert "# kept" in text
    assert "# the number on the door" in text
    found = configuration.load(config_path)
    assert (found.clinic.id, found.clinic.name, found.exam.ecg_seconds) == ("c7", "North 'clinic'", 20.0)
    assert (found.sync.host, found.sync.port, found.sync.hub_name) == ("hub.example", 8883, "h")
    assert Path(found.sync.hub_key_file).read_text().strip() == "ab" * 32
    assert provision.configure(config_path, WANTED, tmp_path).state == "kept"
    assert config_path.read_text() == text


@pytest.mark.parametrize(
    "wrong", [Wanted(hub_key="abc"), Wanted(hub="//"), Wanted(hub="host:99999")], ids=["key", "no host", "port"]
)
def test_what_cannot_be_is_refused_and_the_file_stays(wrong: Wanted, config_path: Path, tmp_path: Path) -> None:
    before = config_path.read_text()
    with pytest.raises(UsageError):
        provision.configure(config_path, wrong, tmp_path)
    assert config_path.read_text() == before


def test_a_damaged_configuration_is_not_overwritten(config_path: Path, tmp_path: Path) -> None:
    config_path.write_text("[clinic\n")
    with pytest.raises(ConfigurationError):
        provision.configure(config_path, WANTED, tmp_path)
    assert config_path.read_text() == "[clinic\n"


def steps(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return {one["step"]: one for one in json.loads(done.stdout)["steps"]}


def test_provisioning_again_keeps_the_key_and_does_only_what_is_missing(config_path: Path, tmp_path: Path) -> None:
    start = ["--config", config_path, "--state-dir", tmp_path / "state", "board", "provision", "--json"]
    first = steps(aidpost(*start, "--clinic", "c7"))
    assert first["key"]["state"] == first["configuration"]["state"] == "done"
    assert first["hub"]["state"] == "waiting"
    assert re.search(r"aidpost hub enroll \S+ [0-9a-f]{64}", first["hub"]["what"])
    more = ["--hub", "hub.example:8883", "--hub-name", "h", "--hub-key", "ab" * 32, "--sheet", tmp_path / "sheet.html"]
    second = steps(aidpost(*start, *more))
    assert second["key"] == {**first["key"], "state": "kept"}
    assert second["hub"]["state"] == "kept"
    assert second["sheet"]["state"] == "done"
    third = steps(aidpost(*start, *more))
    assert {name: one["state"] for name, one in third.items() if name != "time"} == {
        "key": "kept",
        "configuration": "kept",
        "hub": "kept",
        "sheet": "kept",
    }


def test_the_sheet_holds_a_code_that_names_the_device_and_nothing_private(tmp_path: Path) -> None:
    identity = Identity.create("dev<7>")
    provision.sheet(tmp_path / "s.html", identity, configuration.Configuration(), "Raspberry Pi 4")
    page = (tmp_path / "s.html").read_text()
    assert "<svg" in page
    assert "dev&lt;7&gt;" in page
    assert identity.private.private_bytes_raw().hex() not in page


def system(root: Path, *, hostname: str = "clinic0") -> Path:
    (root / "etc").mkdir(parents=True, exist_ok=True)
    (root / "etc/hostname").write_text(f"{hostname}\n")
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nworker:x:1000:1000::/home/worker:/bin/sh\n")
    (root / "etc/localtime").symlink_to("/usr/share/zoneinfo/Africa/Kampala")
    return root


def test_the_receipt_says_what_the_system_has_and_not_what_was_asked(tmp_path: Path) -> None:
    root = system(tmp_path, hostname="raspberrypi")
    asked = {
        "hostname": "clinic0",
        "user": "worker",
        "timezone": "Africa/Kampala",
        "wifi_ssid": "Clinic",
        "clinic": "c7",
    }
    found = provision.applied(root, asked, configuration.Configuration(), lambda: "")
    assert found == {"hostname": "raspberrypi", "user": "worker", "timezone": "Africa/Kampala"}


def test_from_the_flash_to_the_boards_own_word(tmp_path: Path) -> None:
    """A card is written; the board boots from it, is set up by its first-boot service, and the plan is confirmed."""
    image, target = make_image(tmp_path / "os.img"), make_card(tmp_path / "card")
    told = FirstBoot(
        hostname="clinic0", hub="hub.example:8883", clinic="c7", timezone="Africa/Kampala", nonce=new_nonce()
    )
    plan = make_plan(image, [(target, told)], file_sha256=hashlib.sha256(image.read_bytes()).hexdigest())
    assert all(outcome.written for outcome in run(plan))
    root = system(tmp_path / "board")
    boot = root / "boot/firmware/aidpost"
    boot.mkdir(parents=True)
    (boot / "setup.toml").write_bytes(mtools("mtype", "-i", f"{target}@@{BOOT_START}", "::/aidpost/setup.toml"))
    config = tmp_path / "aidpost.toml"
    start = ["--config", config, "--state-dir", tmp_path / "state", "board", "provision", "--from-card", "--root", root]
    done = steps(aidpost(*start, "--json"))
    assert done["receipt"]["state"] == "done"
    found = confirm(plan, (boot / "receipt.json").read_bytes(), "card")
    assert found.missing == ()
    assert found.device == done["key"]["what"]
    again = steps(aidpost(*start, "--json"))
    assert again["key"]["state"] == "kept"


def test_the_receipt_is_sent_to_whoever_waits_for_it_and_its_absence_is_no_failure(tmp_path: Path) -> None:
    heard: list[bytes] = []
    listener = receipt.Listener("127.0.0.1", 0, lambda content, source: heard.append(content))
    boot = tmp_path / "boot/firmware"
    (boot / "aidpost").mkdir(parents=True)
    setup = {"nonce": "n", "report_to": f"http://127.0.0.1:{listener.port}"}
    thread = threading.Thread(target=lambda: listener.wait(lambda: bool(heard), 20))
    thread.start()
    config, identity = configuration.Configuration(), Identity.create("d")
    done = provision.leave_receipt(boot, system(tmp_path), setup, config, identity)
    thread.join()
    assert [one.state for one in done] == ["done", "done"]
    assert receipt.read(heard[0], "net").device == "d"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        setup["report_to"] = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = provision.leave_receipt(boot, tmp_path, setup, config, identity)
    assert [one.state for one in done] == ["done", "waiting"]


@pytest.mark.parametrize("content", [None, "[setup", "[other]\n", "setup = 3\n"])
def test_a_card_without_settings_or_with_damaged_ones_says_so(content: str | None, tmp_path: Path) -> None:
    folder = tmp_path / "boot/firmware/aidpost"
    folder.mkdir(parents=True)
    if content is not None:
        (folder / "setup.toml").write_text(content)
    with pytest.raises(UnreadableInputError):
        provision.card_settings(tmp_path)


def provisioned(tmp_path: Path) -> Path:
    state = tmp_path / "state"
    (tmp_path / "c.toml").write_text("")
    done = aidpost("--config", tmp_path / "c.toml", "--state-dir", state, "board", "provision", "--json")
    assert done.returncode == 0, done.stderr
    return state


def test_wiping_destroys_the_keys_first_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = provisioned(tmp_path)
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials/aidpost-device-key").write_bytes(b"sealed")
    removed = provision.deprovision(state, 0, 0, tmp_path / "credentials")
    assert removed[0].endswith("device.key")
    assert list(state.iterdir()) == []
    assert list((tmp_path / "credentials").iterdir()) == []
    assert provision.deprovision(state, 0, 0, tmp_path / "credentials") == []


def test_interrupted_after_the_keys_what_is_left_opens_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = provisioned(tmp_path)
    key = (state / "device.key").read_bytes()

    def cut(path: Path) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "iterdir", cut)
    with pytest.raises(KeyboardInterrupt):
        provision.deprovision(state, 0, 0, tmp_path)
    monkeypatch.undo()
    assert (state / "store.sqlite3").exists()
    left = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert key not in left
    done = aidpost("--state-dir", state, "board", "identity")
    assert done.returncode != 0
    provision.deprovision(state, 0, 0, tmp_path)
    assert list(state.iterdir()) == []


def test_records_that_the_hub_has_not_stop_the_wiping(tmp_path: Path) -> None:
    state = provisioned(tmp_path)
    before = sorted(path.name for path in state.iterdir())
    with pytest.raises(StoreError, match=r"has not receipted 3 records.*--lose 3"):
        provision.deprovision(state, 3, 2, tmp_path)
    assert sorted(path.name for path in state.iterdir()) == before


def test_an_exam_that_waits_stops_the_wiping_on_the_command_line(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = aidpost("--state-dir", state, "exam", "--vitals", "sim:vitals")
    assert done.returncode == 0, done.stderr
    refused = aidpost("--state-dir", state, "board", "deprovision", "--yes")
    assert refused.returncode == 1
    found = re.search(r"--lose (\d+)", refused.stderr)
    assert found
    assert aidpost("--state-dir", state, "board", "deprovision", "--yes", "--lose", found[1]).returncode == 0
    assert list(state.iterdir()) == []


def test_every_error_of_provisioning_is_one_of_ours(tmp_path: Path) -> None:
    done = aidpost("board", "provision")
    assert done.returncode == 2
    assert "--config FILE" in done.stderr
    assert issubclass(StoreError, AidpostError)


def test_a_code_enrols_once_and_is_kept_when_provisioned_again(tmp_path: Path) -> None:
    from aidpost.board.device import device_key, open_store
    from aidpost.sync.clock import SystemClock
    from aidpost.sync.hub import operations
    from aidpost.sync.hub.config import HubConfig
    from aidpost.sync.hub.database import Database
    from aidpost.sync.hub.server import EnrolmentPort

    def free_port() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    hub = HubConfig(
        state_dir=str(tmp_path / "hub"),
        name="hub-1",
        broker_host="",
        listen_port=0,
        public_host="127.0.0.1",
        public_broker_port=free_port(),
        enrolment_bind="127.0.0.1",
        enrolment_port=free_port(),
    )
    config, state = configuration.Configuration(), tmp_path / "state"
    database = Database(hub.url)
    port = EnrolmentPort(hub, database)
    port.start()
    try:
        with open_store(config, state, device_key(config, state, passphrase=lambda: "", credentials=None)) as store:
            assert provision.enrol_step(store, state, "", SystemClock()) is None
            code = operations.enrolment_code(hub, store.identity.name)
            done = provision.enrol_step(store, state, code, SystemClock())
            again = provision.enrol_step(store, state, code, SystemClock())
        assert done is not None
        assert again is not None
        assert (done.state, again.state) == ("done", "kept")
    finally:
        port.stop()
        database.close()
