"""The services: sandboxed, ordered, watched; and what the watchdog tells systemd."""

from __future__ import annotations

import configparser
import contextlib
import http.server
import queue
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from aidpost.board import watchdog
from aidpost.board.configuration import load
from aidpost.board.update.slots import STARTS_ON_TRIAL

PACKAGING = Path(__file__).parents[2] / "packaging"
UNITS = sorted((PACKAGING / "systemd").glob("*.service"))


def unit(path: Path) -> dict[str, dict[str, list[str]]]:
    """A unit file; a key may stand several times."""
    sections: dict[str, dict[str, list[str]]] = {}
    current: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if found := re.fullmatch(r"\[(\w+)\]", line):
            current = sections.setdefault(found[1], {})
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            current.setdefault(key, []).append(value)
    return sections


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_exposure_of_each_service_is_below_three(path: Path) -> None:
    assert shutil.which("systemd-analyze"), "sudo apt-get install systemd"
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-300:] + done.stderr
    level = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert level
    assert float(level[1]) < 3.0


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_each_service_runs_as_nobody_who_matters(path: Path) -> None:
    service = unit(path)["Service"]
    assert service["User"] in (["aidpost"], ["aidpost-screen"])
    assert service["NoNewPrivileges"] == ["yes"]


def test_the_screen_starts_after_the_device_and_the_device_after_the_guard() -> None:
    device, screen = (unit(PACKAGING / f"systemd/{name}.service")["Unit"] for name in ("aidpost", "aidpost-kiosk"))
    assert "aidpost-boot-guard.service" in device["After"][0]
    assert "aidpost-boot-guard.service" in device["Wants"][0]
    assert "aidpost-first-boot.service" in device["After"][0]
    assert "aidpost.service" in screen["After"][0]
    assert screen["Requires"] == ["aidpost.service"]
    assert "network" not in str(device), "an exam needs no network"


def test_the_device_is_watched_and_restarted() -> None:
    service = unit(PACKAGING / "systemd/aidpost.service")["Service"]
    assert service["Type"] == ["notify"]
    assert service["WatchdogSec"] == ["60"]
    assert service["Restart"] == ["always"]


def test_the_release_that_serves_cannot_alter_releases() -> None:
    service = unit(PACKAGING / "systemd/aidpost.service")["Service"]
    assert service["ProtectSystem"] == ["strict"]
    assert not any("/opt" in path for path in service.get("ReadWritePaths", []))


def test_only_a_release_whose_screen_answers_is_confirmed() -> None:
    boot = unit(PACKAGING / "systemd/aidpost-update-boot.service")["Unit"]
    assert boot["Requisite"] == boot["After"] == ["aidpost.service"]
    update = unit(PACKAGING / "systemd/aidpost-update.service")["Service"]
    assert "--on-trial" in update["ExecStart"][0], "a release that has never served is not confirmed"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_system_call_that_is_not_allowed_is_refused_and_does_not_kill(path: Path) -> None:
    """NumPy's OpenBLAS asks for memory policies when it is loaded, and does without them."""
    assert unit(path)["Service"]["SystemCallErrorNumber"] == ["EPERM"]


def test_the_device_needs_no_group_that_a_system_may_lack() -> None:
    """systemd starts nothing with a group that is not there; the package adds the account to those that are."""
    assert "SupplementaryGroups" not in unit(PACKAGING / "systemd/aidpost.service")["Service"]


def test_the_package_s_configuration_takes_the_models_that_updates_bring() -> None:
    configuration = load(PACKAGING / "aidpost.toml")
    assert configuration.inference.models_dir == f"{configuration.update.folder}/models"


def test_the_package_brings_what_the_service_imports() -> None:
    wheels = re.search(r"\$wheel\[([\w,]+)\]", (PACKAGING.parent / "scripts/make-deb").read_text())
    assert wheels
    assert {"console", "formats", "update", "provision"} <= set(wheels[1].split(","))


def test_the_journal_is_bounded() -> None:
    parser = configparser.ConfigParser()
    parser.read(PACKAGING / "journald.conf")
    assert parser["Journal"]["SystemMaxUse"] == "200M"
    assert parser["Journal"]["SystemKeepFree"] == "1G"


def test_the_guard_counts_as_many_starts_as_the_library() -> None:
    assert f'"$starts" -lt {STARTS_ON_TRIAL}' in (PACKAGING / "boot-guard").read_text()


@pytest.mark.parametrize("script", ["boot-guard", "debian/postinst", "debian/prerm", "debian/postrm"])
def test_scripts_are_shell_that_parses(script: str) -> None:
    subprocess.run(["sh", "-n", str(PACKAGING / script)], check=True)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """systemd's end of the notification socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(str(tmp_path / "notify"))
        end.settimeout(10)
        yield end


def test_ready_is_said_when_the_page_answers_and_silence_follows_when_it_does_not(
    systemd: socket.socket, tmp_path: Path
) -> None:
    works, looks = threading.Event(), queue.SimpleQueue[bool]()

    def page_works(_deadline_s: float) -> bool:
        looks.put(works.is_set())
        return works.is_set()

    def looked_in_vain(times: int) -> None:
        while times:
            times -= not looks.get(timeout=10)

    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "150000"}
    dog = watchdog.Watchdog(environment, page_works).start()
    looked_in_vain(2)
    works.set()
    assert systemd.recv(100) == b"READY=1"
    assert systemd.recv(100) == b"WATCHDOG=1"
    works.clear()
    looked_in_vain(2)  # at the second look, what it said after the one before the first is on its way
    systemd.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            systemd.recv(100)
    looked_in_vain(3)
    with pytest.raises(BlockingIOError):
        systemd.recv(100)
    dog.stop()
    assert systemd.recv(100) == b"STOPPING=1"


def test_outside_systemd_the_watchdog_does_nothing() -> None:
    dog = watchdog.start({}, "http://127.0.0.1:9/")
    assert not dog._thread.is_alive()
    dog.stop()


@pytest.mark.parametrize(("status", "alive"), [(200, True), (303, True), (401, True), (404, True), (500, False)])
def test_a_page_that_fails_is_no_life(status: int, alive: bool) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/" else 200)
            self.send_header("location", "/other")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        assert watchdog.answers(f"http://127.0.0.1:{server.server_address[1]}/", 5) is alive
        server.shutdown()
        thread.join()


def test_a_page_that_hangs_is_no_life() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        assert not watchdog.answers(f"http://127.0.0.1:{listening.getsockname()[1]}/", 0.2)
    assert not watchdog.answers("http://127.0.0.1:9/", 0.2)
