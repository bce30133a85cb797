"""The doctor: what each check says of each state of a board, and that none of them stops the others."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from board_trees import COMPUTE_MODULE_4, JETSON_ORIN_NANO, PC, PI_4, PI_5, TREES, Tree, plant
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from device_records import KEY, make_item

from aidpost.board import _check, doctor
from aidpost.board.configuration import Configuration, StoreSection, SyncSection
from aidpost.board.doctor import CHECKS, Answer, Surroundings, examine, exit_code
from aidpost.errors import ModelIntegrityError
from aidpost.inference.model import SHIPPED, Verification
from aidpost.sync import keys
from aidpost.sync.store import Store

TOP = Path(__file__).parents[2]
NOW = datetime(2026, 11, 22, 6, 0, tzinfo=timezone.utc)


@dataclass
class FakeClock:
    """A clock that says what a test wants."""

    at: datetime = NOW
    confirmed: bool = True

    def wall_ms(self) -> int:
        return int(self.at.timestamp() * 1000)

    def monotonic_ms(self) -> int:
        return 1000

    def boot_id(self) -> str:
        return "boot"

    def synced(self) -> bool:
        return self.confirmed


def never(*_: object) -> Any:
    raise AssertionError("the check was not to use this")


Examine = Callable[..., Answer]


@pytest.fixture
def check(tmp_path: Path) -> Examine:
    """One check on a planted tree: `check("power", tree, **surroundings)`."""

    def run(name: str, tree: Tree | None = None, **more: Any) -> Answer:
        settings: dict[str, Any] = {
            "state_dir": tmp_path / "state",
            "configuration": Configuration(),
            "clock": FakeClock(),
            "connect": never,
            **more,
        }
        (tmp_path / "state").mkdir(exist_ok=True)
        return CHECKS[name](Surroundings(root=plant(tmp_path / "root", PI_4 if tree is None else tree), **settings))

    return run


MMC = "sys/block/mmcblk0/device/"
THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
TEMPERATURE = "sys/class/thermal/thermal_zone0/temp"
NO_FIRMWARE: Tree = {name: text for name, text in PI_4.items() if name != THROTTLED}
HWMON: Tree = NO_FIRMWARE | {"sys/class/hwmon/hwmon1/name": "rpi_volt\n"}
ORIN_COUNTER = "sys/class/hwmon/hwmon3/oc{}_event_cnt"
RTC = "sys/class/rtc/rtc0/since_epoch"
RFKILL: Tree = {
    "sys/class/rfkill/rfkill0/type": "wlan\n",
    "sys/class/rfkill/rfkill0/soft": "1\n",
    "sys/class/rfkill/rfkill1/type": "bluetooth\n",
}


def mounts(options: str, kind: str = "ext4") -> Tree:
    return PI_4 | {"proc/mounts": f"/dev/mmcblk0p2 / {kind} {options} 0 0\n"}


# (check, tree, state, what the answer says, a word of what mends it)
BOARD: list[tuple[str, Tree, str, str, str]] = [
    ("board", PI_4, "ok", "Raspberry Pi 4 Model B Rev 1.4 (raspberry-pi-4), 4 x aarch64, 3793 MB", ""),
    ("board", {}, "unknown", "unknown", "detect"),
    ("board", PI_4 | {"proc/meminfo": "MemTotal: 944424 kB\nMemAvailable: 60000 kB\n"}, "warning", "only 58 MB", "ps"),
    ("power", PI_4, "ok", "no under-voltage and no throttling", ""),
    ("power", PI_5, "ok", "no under-voltage", ""),
    ("power", PI_4 | {THROTTLED: "50000\n"}, "warning", "since boot: under-voltage, throttled", "supply"),
    ("power", PI_4 | {THROTTLED: "50005\n"}, "failed", "now: under-voltage, throttled", "supply"),
    ("power", PI_4 | {THROTTLED: "80008\n"}, "warning", "now: soft temperature limit", "cool|heat"),
    ("power", PI_4 | {THROTTLED: "e0000\n"}, "warning", "clock capped, throttled, soft temperature", "heat"),
    ("power", HWMON | {"sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"}, "failed", "now: under-voltage", "supply"),
    ("power", HWMON | {"sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n"}, "ok", "no under-voltage", ""),
    ("power", JETSON_ORIN_NANO, "ok", "no over-current", ""),
    ("power", JETSON_ORIN_NANO | {ORIN_COUNTER.format(1): "3\n"}, "warning", "under-voltage 3 times", "nvpmodel"),
    ("power", PC, "unknown", "not measured", ""),
    ("power", PI_4 | {THROTTLED: "nonsense\n"}, "unknown", "not measured", ""),
    ("temperature", PI_4, "ok", "48.3 °C", ""),
    ("temperature", PI_4 | {TEMPERATURE: "79999\n"}, "ok", "80.0 °C", ""),
    ("temperature", PI_4 | {TEMPERATURE: "80000\n"}, "warning", "80.0 °C", "sun"),
    ("temperature", PI_4 | {TEMPERATURE: "90000\n"}, "failed", "90.0 °C", "sun"),
    ("temperature", {}, "unknown", "no temperature sensor", ""),
    ("file system", PI_4, "ok", "/dev/mmcblk0p2 on / (ext4), writable", ""),
    ("file system", {}, "unknown", "no table of mounts", ""),
    ("file system", mounts("ro,noatime"), "failed", "read-only", "remount,rw /"),
    ("file system", mounts("rw,data=writeback"), "warning", "data=writeback", "fstab"),
    ("file system", mounts("rw,nobarrier"), "warning", "nobarrier", "fstab"),
    ("file system", mounts("rw,barrier=0"), "warning", "barrier=0", "fstab"),
    ("file system", mounts("rw", "vfat"), "warning", "no journal", "ext4"),
    ("file system", mounts("rw", "tmpfs"), "failed", "lost at power-off", "--state-dir"),
    ("file system", PI_4 | {"sys/fs/ext4/mmcblk0p2/errors_count": "2\n"}, "warning", "recorded 2 errors", "fsck"),
    ("storage wear", COMPUTE_MODULE_4, "ok", "mmcblk0: up to 20 % of its life used", ""),
    ("storage wear", COMPUTE_MODULE_4 | {MMC + "life_time": "0x01 0x09\n"}, "warning", "up to 90 %", "move"),
    ("storage wear", COMPUTE_MODULE_4 | {MMC + "life_time": "0x0b 0x0a\n"}, "failed", "beyond its life", "move"),
    ("storage wear", COMPUTE_MODULE_4 | {MMC + "pre_eol_info": "0x02\n"}, "warning", "80 % of its spare", "move"),
    ("storage wear", COMPUTE_MODULE_4 | {MMC + "pre_eol_info": "0x03\n"}, "failed", "nearly all", "move"),
    ("storage wear", COMPUTE_MODULE_4 | {MMC + "life_time": "0x00 0x00\n", MMC + "pre_eol_info": "0x00\n"},
     "unknown", "does not tell", "by age"),
    ("storage wear", PI_4, "unknown", "an SD card does not tell", "by age"),
    ("storage wear", PC, "unknown", "no eMMC", "smartctl"),
    ("clock", PI_4, "ok", "2026-11-22 06:00 UTC by arch_sys_counter, confirmed", ""),
    ("real-time clock", PI_5, "ok", "rtc0 keeps the time", ""),
    ("real-time clock", PI_4, "warning", "there is none", "DS3231"),
    ("real-time clock", PI_5 | {RTC: "86400\n"}, "warning", "never set, or its battery", "battery"),
    ("real-time clock", PI_5 | {RTC: "1795234200\n"}, "warning", "more than an hour off", "hwclock"),
    ("real-time clock", PI_5 | {RTC: "\n"}, "unknown", "cannot be read", "hwclock"),
    ("camera", PI_4, "ok", "video0", ""),
    ("camera", TREES["pi-3"], "warning", "no camera", "connect"),
    ("serial", PI_4, "ok", "ttyACM0, ttyAMA0", ""),
    ("serial", {}, "warning", "no serial port", "connect"),
    ("bluetooth", PI_4, "ok", "hci0", ""),
    ("bluetooth", JETSON_ORIN_NANO, "warning", "no adapter", "bluetooth"),
    ("bluetooth", PI_4 | RFKILL | {"sys/class/rfkill/rfkill1/soft": "0\n"}, "ok", "hci0", ""),
    ("bluetooth", PI_4 | RFKILL | {"sys/class/rfkill/rfkill1/soft": "1\n"}, "failed", "switched off", "rfkill unblock"),
    ("bluetooth", PI_4 | RFKILL | {"sys/class/rfkill/rfkill1/hard": "1\n"}, "failed", "by hardware", "switch"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "tree", "state", "why", "mend"), BOARD, ids=lambda value: str(value)[:30])
def test_board_check(name: str, tree: Tree, state: str, why: str, mend: str, check: Examine) -> None:
    found = check(name, tree)
    assert (found.state, why in found.why) == (state, True), found
    assert re.search(mend, found.mend) if mend else found.mend == "", found


@pytest.mark.parametrize("name", TREES)
def test_no_check_of_the_board_breaks_on_any_board(name: str, check: Examine) -> None:
    for one in ("board", "power", "temperature", "disk", "file system", "storage wear", "clock", "real-time clock",
                "camera", "serial", "bluetooth"):  # fmt: skip
        assert check(one, TREES[name]).why


@pytest.mark.parametrize(
    ("free_mb", "state"),
    [(64_000, "ok"), (1024, "ok"), (1023, "warning"), (64, "warning"), (63, "failed"), (0, "failed")],
)
def test_disk(free_mb: int, state: str, check: Examine) -> None:
    found = check("disk", free_bytes=lambda _: free_mb << 20)
    assert (found.state, f"{free_mb} MB free" in found.why) == (state, True)
    assert ("outbox" in found.mend) == (state != "ok")


def test_free_disk_of_a_state_folder_that_is_still_to_be_made(check: Examine, tmp_path: Path) -> None:
    assert "MB free" in check("disk", state_dir=tmp_path / "not/yet/there").why


def test_file_system_is_the_innermost_mount_and_the_later_of_two(check: Examine) -> None:
    table = (
        "/dev/mmcblk0p2 / ext4 rw 0 0\n"
        "/dev/sda1 /srv/aid\\040post ext4 rw 0 0\n/dev/sdb1 /srv/aid\\040post ext4 ro 0 0\n"
        "/dev/sdc1 /srv/aid ext4 rw,nobarrier 0 0\n"
    )
    found = check("file system", {"proc/mounts": table}, state_dir=Path("/srv/aid post/state"))
    assert (found.state, "/dev/sdb1 on /srv/aid post" in found.why) == ("failed", True)


@pytest.mark.parametrize(
    ("clock", "state", "why"),
    [
        (FakeClock(datetime(1970, 1, 1, 0, 5, tzinfo=timezone.utc)), "failed", "it says 1970-01-01 00:05"),
        (FakeClock(confirmed=False), "warning", "not confirmed"),
        (FakeClock(), "ok", "confirmed"),
    ],
)
def test_clock(clock: FakeClock, state: str, why: str, check: Examine) -> None:
    found = check("clock", clock=clock)
    assert (found.state, why in found.why) == (state, True)
    assert ("timedatectl" in found.mend) == (state != "ok")


@pytest.mark.parametrize(("name", "group"), [("camera", "video"), ("serial", "dialout")])
def test_a_device_that_this_user_may_not_open_has_failed(name: str, group: str, check: Examine) -> None:
    found = check(name, may_open=lambda _: False)
    assert (found.state, f"usermod -aG {group}" in found.mend) == ("failed", True)


def test_runtime(check: Examine) -> None:
    one = {"runtimes": lambda: ("ai-edge-litert 2.3.0",)}
    assert check("runtime", **one) == Answer("ok", "ai-edge-litert 2.3.0 with XNNPACK")
    found = check("runtime", **one, delegate=lambda name: "")
    assert (found.state, "without a delegate" in found.why) == ("warning", True)
    found = check("runtime", {"dev/hailo0": ""}, **one)
    assert "hailo0 is there and not used" in found.why
    found = check("runtime", runtimes=lambda: ())
    assert (found.state, "pip install" in found.mend) == ("failed", True)


def test_every_shipped_model_is_verified(check: Examine) -> None:
    found = check("models")
    assert found.state == "ok"
    assert all(folder.name in found.why for folder in SHIPPED.iterdir() if folder.is_dir())


def test_a_model_that_does_not_match_has_failed(check: Examine) -> None:
    error = ModelIntegrityError(operation="loading a model", target="x", cause="its SHA-256 is not the one on its card")
    found = check("models", verify_models=lambda _: [Verification("x", "1.0.0", "r 1", None, None, error)])
    assert (found.state, "x on r 1: its SHA-256" in found.why) == ("failed", True)
    assert check("models", verify_models=lambda _: []).state == "failed"


def test_a_site_s_own_models_are_verified_too(check: Examine, tmp_path: Path) -> None:
    (tmp_path / "models/mine").mkdir(parents=True)
    configuration = Configuration(inference=type(Configuration().inference)(models_dir=str(tmp_path / "models")))
    found = check("models", configuration=configuration)
    assert (found.state, "mine on" in found.why) == ("failed", True)


def test_kernels_are_all_imported(check: Examine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = check("kernels")
    fronts = [path for path in (TOP / "kernels").glob("[a-z]*.py") if not path.name.startswith("reference")]
    assert found == Answer("ok", f"{len(fronts)} kernels with their extensions")
    monkeypatch.delitem(sys.modules, "aidpost.kernels.codec", raising=False)
    monkeypatch.delattr("aidpost.kernels._codec")
    monkeypatch.setitem(sys.modules, "aidpost.kernels._codec", None)
    broken = check("kernels")
    assert (broken.state, "codec" in broken.why, "pip install" in broken.mend) == ("failed", True, True)


def configured(**sync: Any) -> Configuration:
    return Configuration(sync=SyncSection(**sync))


def stored(source: Any) -> Configuration:
    return Configuration(store=StoreSection(key=source))


TPM: Tree = {"sys/class/tpm/tpm0/tpm_version_major": "2\n"}


@pytest.mark.parametrize(
    ("source", "tree", "files", "state", "why"),
    [
        ("file", {}, {}, "warning", "weak"),
        ("file", {}, {"device.key": 0o600}, "warning", "weak"),
        ("file", {}, {"device.key": 0o644}, "failed", "other users"),
        ("file", {}, {"store.sqlite3": 0o600}, "failed", "missing"),
        ("passphrase", {}, {}, "ok", "asked for at start"),
        ("systemd-credential", {}, {}, "warning", "no TPM"),
        ("systemd-credential", TPM, {}, "ok", "not seen from here"),
    ],
)
def test_device_key(
    source: str, tree: Tree, files: dict[str, int], state: str, why: str, check: Examine, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    for name, mode in files.items():
        (tmp_path / "state" / name).write_bytes(b"")
        (tmp_path / "state" / name).chmod(mode)
    found = check("device key", tree, configuration=stored(source))
    assert (found.state, why in found.why) == (state, True), found
    assert bool(found.mend) == (state != "ok")


def certificate(folder: Path, *, begins: datetime, ends: datetime) -> dict[str, str]:
    """A certificate of its own and its key, as the three files of `[sync]`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "unit")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = builder.serial_number(1).not_valid_before(begins).not_valid_after(ends).sign(key, hashes.SHA256())
    (folder / "unit.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "unit.key").write_bytes(key.private_bytes(pem, pkcs8, serialization.NoEncryption()))
    (folder / "unit.key").chmod(0o600)
    paths = {"ca_file": "unit.pem", "certificate_file": "unit.pem", "key_file": "unit.key"}
    return {setting: str(folder / file) for setting, file in paths.items()}


@pytest.mark.parametrize(
    ("begins", "ends", "state", "why"),
    [
        (-10, 355, "ok", "sync.certificate_file: 355 days left"),
        (-10, 29, "warning", "29 days left"),
        (-400, -3, "failed", "expired on 2026-11-19"),
        (2, 300, "failed", "not valid before 2026-11-24, and the clock says 2026-11-22"),
    ],
)
def test_certificate(begins: int, ends: int, state: str, why: str, check: Examine, tmp_path: Path) -> None:
    files = certificate(tmp_path, begins=NOW + timedelta(days=begins), ends=NOW + timedelta(days=ends))
    found = check("certificates", configuration=configured(tls=True, **files))
    assert (found.state, why in found.why, bool(found.mend)) == (state, True, state != "ok"), found
    hub = {"tls_certificate": files["certificate_file"], "tls_key": files["key_file"]}
    of_hub = check("certificates", configuration=Configuration(hub=hub))
    assert (of_hub.state, why.replace("sync.certificate_file", "hub.tls_certificate") in of_hub.why) == (state, True)


def test_certificates_that_are_missing_damaged_open_to_others_or_not_used(check: Examine, tmp_path: Path) -> None:
    assert check("certificates") == Answer("ok", "none are configured")
    files = certificate(tmp_path, begins=NOW, ends=NOW + timedelta(days=100))
    lacking = check("certificates", configuration=configured(tls=True, ca_file=files["ca_file"]))
    assert (lacking.state, "sync.certificate_file, sync.key_file" in lacking.why) == ("failed", True)
    (tmp_path / "unit.key").chmod(0o640)
    found = check("certificates", configuration=configured(tls=True, **files))
    assert (found.state, "chmod 600" in found.mend) == ("failed", True)
    (tmp_path / "unit.key").chmod(0o600)
    (tmp_path / "unit.pem").write_text("no certificate")
    assert check("certificates", configuration=configured(tls=True, **files)).state == "failed"
    plain = check("certificates", configuration=configured(host="hub.example.org", hub_key_file="x"))
    assert (plain.state, "sync.tls is off" in plain.why) == ("warning", True)


@pytest.fixture
def hub_key(tmp_path: Path) -> str:
    (tmp_path / "hub.key").write_text(keys.public_bytes(keys.Identity.create("hub").public).hex())
    return str(tmp_path / "hub.key")


def test_hub_that_is_not_configured_or_switched_off_is_not_called(check: Examine, tmp_path: Path) -> None:
    assert check("hub", configuration=configured(enabled=False)).state == "ok"
    assert check("hub").state == "warning"
    (tmp_path / "wrong.key").write_text("no key")
    wrong = check("hub", configuration=configured(hub_key_file=str(tmp_path / "wrong.key")))
    assert (wrong.state, "hexadecimal" in wrong.why) == ("failed", True)


def test_broker_is_connected_to_and_one_that_refuses_is_named(check: Examine, hub_key: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        there = configured(host="127.0.0.1", port=port, hub_key_file=hub_key)
        assert check("hub", configuration=there, connect=_check.connect).state == "ok"
    away = check("hub", configuration=there, connect=_check.connect)
    assert (away.state, f"127.0.0.1:{port}" in away.why, "ping 127.0.0.1" in away.mend) == ("warning", True, True)


def test_broker_that_never_answers_costs_the_deadline_and_no_more(
    check: Examine, hub_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def hang(*_: object, **__: object) -> None:
        # a look-up of a name that hangs: no time-out of a socket ends it
        over.wait(30)
        raise OSError("name unknown")

    monkeypatch.setattr(socket, "create_connection", hang)
    found = check("hub", configuration=configured(hub_key_file=hub_key), connect=_check.connect, deadline_s=0.05)
    over.set()
    assert (found.state, "no answer within 0.05 s" in found.why) == ("warning", True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of one report that waits since NOW; closed by the test."""
    (tmp_path / "state").mkdir(exist_ok=True)
    made = Store.open(tmp_path / "state", KEY, clock=FakeClock(), name="unit")
    made.append(make_item())
    return made


@pytest.mark.parametrize(
    ("days", "sql", "state", "why"),
    [
        (0, "", "ok", "1 records wait, the oldest for 0 s"),
        (7, "", "ok", "the oldest for 7 days"),
        (8, "", "warning", "the oldest for 8 days"),
        (0, "UPDATE record SET state = 1", "ok", "nothing waits"),
        (0, "UPDATE record SET state = 2, code = 'invalid'", "warning", "the hub refused 1 records"),
        (
            0,
            "INSERT INTO note VALUES (1, 5, 'copied', 'the hub has another')",
            "warning",
            "copied: the hub has another",
        ),
        (0, "PRAGMA user_version = 99", "failed", "a newer version wrote it"),
    ],
)
def test_outbox(days: int, sql: str, state: str, why: str, check: Examine, store: Store) -> None:
    if sql.startswith(("UPDATE", "INSERT")):
        store.write(lambda db: (db.execute(sql), None)[1])
    store.close()
    if sql.startswith("PRAGMA"):
        connection = sqlite3.connect(store.path)
        connection.execute(sql)
        connection.close()
    before = hashlib.sha256(store.path.read_bytes()).digest()
    found = check("outbox", clock=FakeClock(NOW + timedelta(days=days)), free_bytes=lambda _: 1 << 40)
    assert (found.state, why in found.why, bool(found.mend)) == (state, True, state != "ok"), found
    assert hashlib.sha256(store.path.read_bytes()).digest() == before


def test_outbox_is_read_while_the_device_writes(check: Examine, store: Store) -> None:
    with store:
        assert "1 records wait" in check("outbox").why
        store.append(make_item())
        assert "2 records wait" in check("outbox").why


@pytest.mark.parametrize(("free_mb", "days", "state"), [(64 + 900, 10, "warning"), (1 << 20, 91, "ok")])
def test_outbox_says_for_how_many_days_there_is_room(
    free_mb: int, days: int, state: str, check: Examine, store: Store
) -> None:
    """Thirty exams a day of 3 MB, where a device has no days of its own to tell."""
    store.close()
    found = check("outbox", free_bytes=lambda _: free_mb << 20)
    assert (found.state, f"room for {days} days of work, if the hub stays away" in found.why) == (state, True), found
    assert bool(found.mend) == (state != "ok")


def test_outbox_that_was_never_made_or_is_damaged(check: Examine, tmp_path: Path) -> None:
    assert check("outbox") == Answer("ok", "no record has been made yet")
    assert list((tmp_path / "state").iterdir()) == []
    (tmp_path / "state/store.sqlite3").write_bytes(b"this is no database" * 100)
    found = check("outbox")
    assert (found.state, "damaged" in found.why, "quarantine" in found.mend) == ("failed", True, True)


def test_sender_is_the_process_that_holds_the_lock(check: Examine, tmp_path: Path) -> None:
    assert check("sender").why == "no process has sent from here yet"
    lock = tmp_path / "state/sender.lock"
    lock.write_bytes(b"")
    assert check("sender").why == "no process owns the sender"
    tree = PI_4 | {
        "proc/locks": "1: POSIX  ADVISORY  WRITE 900 08:01:77 0 EOF\n"
        f"2: FLOCK  ADVISORY  WRITE 1234 b3:02:{lock.stat().st_ino} 0 EOF\n",
        "proc/1234/comm": "aidpost\n",
    }
    assert check("sender", tree).why == "process 1234 (aidpost) owns the sender"
    assert check("sender", PI_4 | {"proc/locks": "\n"}).why == "no process owns the sender"
    with lock.open("r+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert check("sender", PI_4 | {"proc/locks": "\n"}).why == "another process owns the sender"
        # and by the kernel's own table
        assert (
            f"process {os.getpid()} "
            in CHECKS["sender"](
                Surroundings(state_dir=tmp_path / "state", configuration=Configuration(), clock=FakeClock())
            ).why
        )


def test_a_check_that_breaks_says_unknown_and_stops_no_other(tmp_path: Path) -> None:
    def broken(at: Surroundings) -> Answer:
        raise RuntimeError("no such thing")

    at = Surroundings(state_dir=tmp_path, configuration=Configuration(), clock=FakeClock(), root=tmp_path)
    found = examine(at, {"broken": broken, "well": lambda at: Answer("ok", "fine")})
    assert [(one.name, one.state) for one in found] == [("broken", "unknown"), ("well", "ok")]
    assert found[0].why == "the check broke: RuntimeError: no such thing"


@pytest.mark.parametrize(
    ("states", "code"), [(["ok"], 0), (["ok", "warning", "unknown"], 0), (["ok", "failed", "ok"], 1)]
)
def test_exit_code_is_1_where_a_check_failed(states: list[doctor.State], code: int) -> None:
    assert exit_code([doctor.Check(name="x", state=state, why="", mend="") for state in states]) == code


def doctor_command(*arguments: object) -> subprocess.CompletedProcess[str]:
    main = "from aidpost.board.cli import main\nif __name__ == '__main__': main()"
    command = [sys.executable, "-c", main, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_command_prints_each_check_and_below_it_what_mends_it(tmp_path: Path) -> None:
    root = plant(tmp_path / "root", PI_4 | {THROTTLED: "50005\n"})
    done = doctor_command("--state-dir", tmp_path / "state", "board", "doctor", "--root", root)
    assert (done.returncode, done.stderr) == (1, "")
    shown = done.stdout.splitlines()
    assert [line[9:25].strip() for line in shown if line[:8].strip()] == list(CHECKS)
    number = shown.index(next(line for line in shown if line.startswith("failed   power ")))
    assert shown[number + 1].startswith(" " * 26 + "do: use the board's own supply")
    assert not (tmp_path / "state").exists()


def test_command_gives_one_json_object(tmp_path: Path) -> None:
    root = plant(tmp_path / "root", PI_5 | {"run/systemd/timesync/synchronized": ""})
    done = doctor_command("--state-dir", tmp_path / "state", "board", "doctor", "--json", "--root", root)
    found = json.loads(done.stdout)
    assert (done.returncode, found["schema"]) == (0, "aidpost.doctor/1")
    assert [one["name"] for one in found["checks"]] == list(CHECKS)
    assert all(set(one) == {"name", "state", "why", "mend"} and one["why"] for one in found["checks"])
    states = {one["name"]: one["state"] for one in found["checks"]}
    assert (states["models"], states["kernels"], states["clock"]) == ("ok", "ok", "ok")


def test_every_check_is_documented() -> None:
    text = (TOP / "docs/board.md").read_text(encoding="utf-8")
    table = text.split("## The doctor")[1].split("\n## ")[0]  # the page has tables of other things too
    assert re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) == list(CHECKS)


def test_bench_times_every_stage_and_says_the_memory(tmp_path: Path) -> None:
    from aidpost.board.bench import bench
    from aidpost.inference.model import Models

    found = bench(Models(), tmp_path / "state", runs=1)
    names = [one.name for one in found.stages]
    assert [one for one in names if ": " not in one] == ["ECG, 30 s", "photograph, 2048", "safe on disk, 4 kB"]
    for stage in ("ECG", "photograph"):
        steps = [one for one in found.stages if one.name.startswith(f"{stage}: ")]
        (whole,) = (one for one in found.stages if one.name.startswith(f"{stage}, "))
        assert len(steps) > 2
        assert sum(one.median_ms for one in steps) <= whole.slowest_ms
    for one in found.stages:
        assert 0 <= one.median_ms <= one.slowest_ms
        assert one.processor_ms is None or one.processor_ms >= 0
    assert found.memory_mb is None or found.memory_mb > 10
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("speak", "language", "state"), [(False, "xx", "ok"), (True, "en", "ok"), (True, "xx", "warning")]
)
def test_speech_that_cannot_be_is_a_warning_only_where_it_is_wanted(
    check: Examine, speak: bool, language: str, state: str
) -> None:
    section = type(Configuration().console)(speak=speak, language=language)
    assert check("speech", configuration=Configuration(console=section)).state == state
