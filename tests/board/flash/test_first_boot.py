"""The first boot: the mechanism that the image really uses, and the board's own receipt before anybody says success."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from card_images import BOOKWORM, BOOT_START, BULLSEYE, TRIXIE, make_card, make_image, mtools
from hypothesis import given
from hypothesis import strategies as st

from aidpost.board.flash import receipt
from aidpost.board.flash.fat import BootFiles
from aidpost.board.flash.first_boot import (
    WRITERS,
    FirstBoot,
    Mechanism,
    detect_mechanism,
    first_boot_files,
    new_nonce,
    wifi_key,
)
from aidpost.board.flash.plan import confirm, make_plan, receipt_on, run
from aidpost.errors import UnreadableInputError, UnsupportedFormatError, UsageError
from aidpost.sync.keys import Identity

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVq someone@laptop"
FULL = FirstBoot(
    hostname="clinic7",
    user="worker",
    password_hash="$6$salt$hash",
    ssh_keys=(KEY,),
    wifi_ssid="Klinik 'Süd' \"2\"",
    wifi_psk="ab" * 32,
    wifi_country="UG",
    timezone="Africa/Kampala",
    hub="https://hub.example:8443",
    token="tok-123",
    clinic="c1",
    nonce="n" * 32,
)


def boot(tmp_path: Path, files: Mapping[str, str]) -> BootFiles:
    return BootFiles(make_image(tmp_path / "os.img", files), BOOT_START)


@pytest.mark.parametrize(
    ("files", "mechanism"),
    [
        (BOOKWORM, "custom-toml"),
        (BULLSEYE, "firstrun"),
        (TRIXIE, "cloud-init"),
        ({"user-data": "#cloud-config\n", "meta-data": "x\n"}, "cloud-init"),
        ({"rpi-preseed.toml": "", "cmdline.txt": "root=/dev/mmcblk0p2\n"}, "rpi-preseed"),
    ],
    ids=["bookworm", "bullseye", "trixie", "ubuntu", "preseed"],
)
def test_mechanism_is_told_by_the_image(files: Mapping[str, str], mechanism: Mechanism, tmp_path: Path) -> None:
    assert detect_mechanism(boot(tmp_path, files), "os.img") == mechanism


@pytest.mark.parametrize(
    "files",
    [
        {"config.txt": ""},
        {"cmdline.txt": "root=/dev/sda2\n"},
        {**TRIXIE, "rpi-preseed.toml": ""},
        {**BOOKWORM, "user-data": "#cloud-config\n", "meta-data": "x\n"},
    ],
    ids=["nothing", "unknown", "two", "bookworm-and-cloud"],
)
def test_an_image_that_does_not_tell_for_sure_is_refused(files: Mapping[str, str], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormatError, match="Nothing was written"):
        detect_mechanism(boot(tmp_path, files), "os.img")


def test_an_image_of_ones_own_says_it_itself(tmp_path: Path) -> None:
    image = boot(tmp_path, {**TRIXIE, "rpi-preseed.toml": ""})
    image.write("aidpost/image.toml", b'first_boot = "cloud-init"\n')
    assert detect_mechanism(image, "os.img") == "cloud-init"


def made(mechanism: Mechanism, settings: FirstBoot, tmp_path: Path, package: bytes | None = None) -> dict[str, bytes]:
    files = {"firstrun": BULLSEYE, "custom-toml": BOOKWORM}.get(mechanism, TRIXIE)
    return first_boot_files(mechanism, settings, boot(tmp_path, files).read, package)


@pytest.mark.parametrize("mechanism", list(WRITERS))
def test_every_mechanism_carries_the_hub_the_token_and_the_number(mechanism: Mechanism, tmp_path: Path) -> None:
    setup = tomllib.loads(made(mechanism, FULL, tmp_path)["aidpost/setup.toml"].decode())["setup"]
    assert setup["hub"] == FULL.hub
    assert setup["token"] == "tok-123"
    assert setup["nonce"] == FULL.nonce
    assert "wifi_psk" not in setup


def test_firstrun_is_a_script_that_bash_takes_and_that_ends_itself(tmp_path: Path) -> None:
    files = made("firstrun", FULL, tmp_path, b"deb")
    script = files["firstrun.sh"].decode()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    assert "rm -f /boot/firstrun.sh /boot/firmware/firstrun.sh" in script
    assert script.endswith("exit 0\n")
    line = files["cmdline.txt"].decode()
    assert line.count("\n") == 1
    assert line.startswith("console=serial0,115200 root=PARTUUID=1-02 rootwait")
    assert "systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot" in line
    assert files["aidpost/aidpost.deb"] == b"deb"


def test_firstrun_does_to_a_system_what_it_was_told(tmp_path: Path) -> None:
    """Runs the script, with the system's helpers replaced by ones that write down their arguments."""
    script = made("firstrun", FULL, tmp_path)["firstrun.sh"].decode()
    log, stub = tmp_path / "log", tmp_path / "stub"
    stub.write_text(f"#!/bin/bash\nprintf '%s|' \"$@\" >> {log}\necho >> {log}\n")
    stub.chmod(0o755)
    command_line = tmp_path / "cmdline.txt"
    command_line.write_text("root=1 systemd.run=/boot/firstrun.sh systemd.run_success_action=reboot\n")
    script = re.sub(r"/usr/lib/\S+/(imager_custom|userconf)", str(stub), script)
    script = script.replace("/boot/cmdline.txt", str(command_line)).replace("rm -f /boot/", f"rm -f {tmp_path}/")
    subprocess.run(["bash"], input=script, text=True, check=True)
    assert log.read_text().splitlines() == [
        "set_hostname|clinic7|",
        "worker|$6$salt$hash|",
        f"enable_ssh|-k|{KEY}|",
        f"set_wlan|{FULL.wifi_ssid}|{'ab' * 32}|UG|",
        "set_timezone|Africa/Kampala|",
    ]
    assert command_line.read_text() == "root=1\n"


def test_custom_toml_is_toml_with_the_keys_of_raspberrypi_sys_mods(tmp_path: Path) -> None:
    found = tomllib.loads(made("custom-toml", FULL, tmp_path)["custom.toml"].decode())
    assert found["config_version"] == 1
    assert found["system"] == {"hostname": "clinic7"}
    assert found["user"] == {"name": "worker", "password": "$6$salt$hash", "password_encrypted": True}
    assert found["ssh"] == {"enabled": True, "password_authentication": False, "authorized_keys": [KEY]}
    assert found["wlan"]["ssid"] == FULL.wifi_ssid
    assert found["locale"] == {"timezone": "Africa/Kampala"}


def test_cloud_init_gets_user_network_and_a_new_instance(tmp_path: Path) -> None:
    files = made("cloud-init", FULL, tmp_path, b"deb")
    head, _, body = files["user-data"].decode().partition("\n")
    assert head == "#cloud-config"
    user = json.loads(body)
    assert user["users"][0]["ssh_authorized_keys"] == [KEY]
    assert "apt-get install -y" in user["runcmd"][-1]
    network = json.loads(files["network-config"])
    assert network["wifis"]["wlan0"]["access-points"] == {FULL.wifi_ssid: {"password": "ab" * 32}}
    assert "ds=nocloud;i=aidpost-" in files["cmdline.txt"].decode()
    assert "rpi-imager-1" not in files["cmdline.txt"].decode()


def test_a_mechanism_that_cannot_install_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="installs nothing"):
        made("rpi-preseed", FULL, tmp_path, b"deb")


@given(st.text(st.characters(exclude_characters="\x7f", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8))
def test_any_name_of_a_network_comes_through_every_form(ssid: str) -> None:
    settings = FirstBoot(wifi_ssid=ssid, wifi_psk="0" * 64, wifi_country="UG")

    def read(name: str) -> bytes:
        return b"root=1\n"

    toml = tomllib.loads(first_boot_files("custom-toml", settings, read)["custom.toml"].decode())
    assert toml["wlan"]["ssid"] == ssid
    network = json.loads(first_boot_files("cloud-init", settings, read)["network-config"])
    assert list(network["wifis"]["wlan0"]["access-points"]) == [ssid]
    script = first_boot_files("firstrun", settings, read)["firstrun.sh"].decode()
    line = next(line for line in script.splitlines() if " set_wlan " in line)
    done = subprocess.run(["bash", "-c", f'set -- {line}; printf %s "$3"'], capture_output=True, check=True)
    assert done.stdout.decode() == ssid


@pytest.mark.parametrize(
    "wrong",
    [
        {"hostname": "Not A Name"},
        {"user": "root; rm"},
        {"hub": "https://x\nevil"},
        {"ssh_keys": ("-----BEGIN OPENSSH PRIVATE KEY-----",), "user": "a"},
        {"ssh_keys": (KEY,)},
        {"wifi_ssid": "x"},
        {"wifi_ssid": "ü" * 17, "wifi_country": "UG"},
        {"wifi_psk": "short"},
    ],
)
def test_a_setting_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        FirstBoot(**wrong)  # type: ignore[arg-type]


def test_wifi_key_is_that_of_the_standards_example() -> None:
    assert wifi_key("IEEE", "password") == "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"
    with pytest.raises(UsageError):
        wifi_key("IEEE", "short")


def spoken(nonce: str, **applied: str) -> bytes:
    return receipt.make(nonce, Identity.create("dev7"), "Raspberry Pi 4", applied)


def planned(tmp_path: Path, count: int = 1):  # type: ignore[no-untyped-def]
    image = make_image(tmp_path / "os.img")
    targets = [
        (make_card(tmp_path / f"card{number}"), FirstBoot(hostname=f"clinic{number}", nonce=new_nonce()))
        for number in range(count)
    ]
    return make_plan(image, targets, file_sha256=hashlib.sha256(image.read_bytes()).hexdigest())


def test_success_is_the_boards_own_signed_word_on_the_card(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    run(plan)
    card = tmp_path / "card0"
    with pytest.raises(UnreadableInputError, match="has not come to its end"):
        receipt_on(card, plan)
    nonce = plan.jobs[0].first_boot.nonce
    mtools(
        "mcopy", "-i", f"{card}@@{BOOT_START}", "-", "::/aidpost/receipt.json", given=spoken(nonce, hostname="clinic0")
    )
    found = confirm(plan, receipt_on(card, plan), str(card))
    assert (found.device, found.missing) == ("dev7", ())


def test_a_board_that_did_not_do_what_it_was_told_is_no_success(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    found = confirm(plan, spoken(plan.jobs[0].first_boot.nonce, hostname="raspberrypi"), "card")
    assert found.missing == ("hostname: asked for 'clinic0', and the board has 'raspberrypi'",)


def test_an_altered_or_foreign_receipt_confirms_nothing(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    content = spoken(plan.jobs[0].first_boot.nonce, hostname="raspberrypi")
    with pytest.raises(UnreadableInputError, match="altered"):
        confirm(plan, content.replace(b"raspberrypi", b"clinic00000"), "card")
    with pytest.raises(UnreadableInputError, match="no card of this plan"):
        confirm(plan, spoken(new_nonce(), hostname="clinic0"), "card")
    for end in range(0, len(content), 40):
        with pytest.raises(UnreadableInputError):
            confirm(plan, content[:end], "card")


def test_boards_that_call_home_are_counted_and_a_forger_is_not(tmp_path: Path) -> None:
    plan, heard = planned(tmp_path, 2), set()

    def take(content: bytes, source: str) -> None:
        heard.add(confirm(plan, content, source).disk)

    listener = receipt.Listener("127.0.0.1", 0, take)

    def boards() -> None:
        url = f"http://127.0.0.1:{listener.port}/receipt"
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(url, spoken(new_nonce()), timeout=10)
        for number, job in enumerate(plan.jobs):
            urllib.request.urlopen(url, spoken(job.first_boot.nonce, hostname=f"clinic{number}"), timeout=10).close()

    thread = threading.Thread(target=boards)
    thread.start()
    assert listener.wait(lambda: len(heard) == 2, 20)
    thread.join()
    assert heard == {job.disk for job in plan.jobs}
    assert not receipt.Listener("127.0.0.1", 0, take).wait(lambda: False, 0.3)


def test_a_receipt_of_any_length_of_rubbish_is_refused() -> None:
    for content in (b"", b"{}", b"[1]", b"x" * 20_000, msgspec.json.encode({"receipt": "{}", "signature": ""})):
        with pytest.raises(UnreadableInputError):
            receipt.read(content, "card")
