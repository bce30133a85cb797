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
from enrolment_hub import enrolment_hub

from aidpost.board import configuration, provision
from aidpost.board.deprovision import deprovision
from aidpost.board.device import device_key, open_store
from aidpost.board.flash import receipt
from aidpost.board.flash.first_boot import FirstBoot, new_nonce
from aidpost.board.flash.plan import confirm, make_plan, run
from aidpost.board.provision import Wanted
from aidpost.errors import AidpostError, ConfigurationError, StoreError, UnreadableInputError, UsageError
from aidpost.sync.clock import SystemClock
from aidpost.sync.hub import operations
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
    removed = deprovision(state, 0, 0, tmp_path / "credentials")
    assert removed[0].endswith("device.key")
    assert list(state.iterdir()) == []
    assert list((tmp_path / "credentials").iterdir()) == []
    assert deprovision(state, 0, 0, tmp_path / "credentials") == []


def test_interrupted_after_the_keys_what_is_left_opens_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = provisioned(tmp_path)
    key = (state / "device.key").read_bytes()

    def cut(path: Path) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "iterdir", cut)
    with pytest.raises(KeyboardInterrupt):
        deprovision(state, 0, 0, tmp_path)
    monkeypatch.undo()
    assert (state / "store.sqlite3").exists()
    left = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert key not in left
    done = aidpost("--state-dir", state, "board", "identity")
    assert done.returncode != 0
    deprovision(state, 0, 0, tmp_path)
    assert list(state.iterdir()) == []


def test_records_that_the_hub_has_not_stop_the_wiping(tmp_path: Path) -> None:
    state = provisioned(tmp_path)
    before = sorted(path.name for path in state.iterdir())
    with pytest.raises(StoreError, match=r"has not receipted 3 records.*--lose 3"):
        deprovision(state, 3, 2, tmp_path)
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
    config, state = configuration.Configuration(), tmp_path / "state"
    key = device_key(config, state, passphrase=lambda: "", credentials=None)
    with enrolment_hub(tmp_path / "hub") as (hub, _), open_store(config, state, key) as store:
        assert provision.enrol_step(store, state, "", SystemClock()) is None
        code = operations.enrolment_code(hub, store.identity.name)
        done = provision.enrol_step(store, state, code, SystemClock())
        again = provision.enrol_step(store, state, code, SystemClock())
        page = tmp_path / "sheet.html"
        provision.sheet(page, store.identity, config, "Raspberry Pi 4", enrolled_at="https://hub:8443")
    assert done is not None
    assert again is not None
    assert (done.state, again.state) == ("done", "kept")
    assert "https://hub:8443" in page.read_text()
    assert "aidpost hub enroll" not in page.read_text(), "an enrolled device is not to be enrolled once more"


def test_a_sensor_is_paired_with_before_it_is_written_and_kept_when_provisioned_again(config_path: Path) -> None:
    asked: list[str] = []

    def prove(key: str, source: str) -> str:
        asked.append(source)
        assert source not in config_path.read_text()
        return f"{source}, paired with an oximeter"

    one, other = "ble:AA:BB:CC:DD:EE:FF", "ble:AA:BB:CC:DD:EE:00"
    assert provision.sensor_step(config_path, "vitals", one, prove).state == "done"
    assert provision.sensor_step(config_path, "vitals", other, prove).state == "done"
    assert provision.sensor_step(config_path, "vitals", one, prove).state == "kept"
    assert provision.sensor_step(config_path, "ecg", "sim:ecg", prove).state == "done"
    assert provision.sensor_step(config_path, "ecg", "sim:ecg", prove).state == "kept"
    assert asked == [one, other, "sim:ecg"]
    found = configuration.load(config_path).sensors
    assert (found.ecg, found.vitals) == ("sim:ecg", (one, other))
    assert "# kept" in config_path.read_text()


def test_a_sensor_that_does_not_answer_is_waited_for_and_not_written(config_path: Path) -> None:
    before = config_path.read_text()
    found = provision.sensor_step(config_path, "ecg", "serial:/dev/ttyACM99?device=healthypi4")
    assert (found.step, found.state) == ("sensor ecg", "waiting")
    assert "ttyACM99" in found.what
    assert config_path.read_text() == before


_KILLED_AT_EACH_SYNC = """
import json, os, signal, sys
from pathlib import Path
from aidpost.board.cli import cli
from aidpost.board.cli.provision import provision  # imported before the first fork

def provisioned(folder, code, kill_at):
    words = ["--config", folder / "aidpost.toml", "--state-dir", folder / "state", "board", "provision"]
    words += ["--root", folder, "--clinic", "c7", "--name", folder.name, "--code", code, "--ecg", "sim:ecg"]
    words += ["--sheet", folder / "s.html"]
    if (child := os.fork()) == 0:
        real, left = os.fsync, [kill_at]
        def fsync(descriptor):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)
        os.fsync = fsync
        try:
            sys.stdout = (folder / "out").open("w")
            cli.main([*map(str, words), "--json"], standalone_mode=False)
        except SystemExit as end:
            assert not end.code, end.code
        finally:
            sys.stdout.flush()
            os._exit(0 if sys.exc_info()[0] in (None, SystemExit) else 1)
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

for number, code in enumerate(sys.argv[2:], 1):
    folder = Path(sys.argv[1]) / f"unit-{number}"
    folder.mkdir()
    cut = provisioned(folder, code, number)
    again = provisioned(folder, code, 0)
    steps = {one["step"]: one["state"] for one in json.loads((folder / "out").read_text())["steps"]}
    last = provisioned(folder, code, 0) if cut == 0 or number % 5 == 0 else 0
    kept = {one["step"]: one["state"] for one in json.loads((folder / "out").read_text())["steps"]}
    print(json.dumps([cut, again, steps, last, kept]), flush=True)
    if cut == 0:
        break
"""


def test_killed_at_each_write_provisioning_goes_on_where_it_was(tmp_path: Path) -> None:
    """Key, configuration, sensor, enrolment at a real hub and sheet; the same code is used again after each kill."""
    with enrolment_hub(tmp_path / "hub") as (hub, _):
        codes = [operations.enrolment_code(hub, f"unit-{number}") for number in range(1, 60)]
        command = [sys.executable, "-c", _KILLED_AT_EACH_SYNC, str(tmp_path), *codes]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    assert runs[-1][0] == 0, "the last one was not killed: every write was"
    assert len(runs) > 10
    for number, (cut, again, steps, last, kept) in enumerate(runs, 1):
        assert cut == (0 if number == len(runs) else -9)
        assert (again, last) == (0, 0), (number, done.stderr[-1000:])
        assert {state for step, state in steps.items() if step != "time"} <= {"done", "kept"}, (number, steps)
        if cut == 0 or number % 5 == 0:
            assert {state for step, state in kept.items() if step != "time"} == {"kept"}, (number, kept)
