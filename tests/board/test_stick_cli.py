"""The way by USB stick as its users type it: export at the device, import at the hub, import at the device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

AIDPOST = [sys.executable, "-c", "from aidpost.board.cli import main\nif __name__ == '__main__': main()"]


class Site:
    """A device and a hub on one machine, each with its state folder, and a stick."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stick = folder / "kisumu-3.aidpost"
        (folder / "hub.toml").write_text("[hub]\naccept_simulated = true\n")
        (folder / "device.toml").write_text(
            f"[device]\nname = 'kisumu-3'\n[sync]\nport = 1\nhub_key_file = '{folder / 'hub.key'}'\n"
        )
        (folder / "hub.key").write_text("0" * 64)
        identity = self.json("device", "board", "identity", "--json")
        enrolled = self.json("hub", "hub", "enroll", "kisumu-3", identity["public_key"], "--json")
        (folder / "hub.key").write_text(enrolled["hub_public_key"])

    def run(self, end: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        options = ["--config", self.folder / f"{end}.toml", "--state-dir", self.folder / end]
        command = [*AIDPOST, *map(str, [*options, *arguments])]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def json(self, end: str, *arguments: object) -> dict[str, Any]:
        done = self.run(end, *arguments)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def queued(self) -> int:
        return sum(one["queued"] for one in self.json("device", "outbox", "status", "--json")["classes"])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_exam_goes_by_stick_and_the_receipts_come_back(site: Site) -> None:
    done = site.run("device", "exam", "--vitals", "sim:vitals", "--json")
    assert done.returncode == 0, done.stderr
    queued = site.queued()
    assert queued > 0
    exported = site.json("device", "outbox", "export", site.stick, "--json")
    assert exported["records"] == queued
    taken = site.json("hub", "hub", "import", site.stick, "--json")
    assert (taken["device"], taken["held"], taken["refused"]) == ("kisumu-3", queued, 0)
    back = site.json("device", "outbox", "import", taken["receipts"], "--json")
    assert back["queued"] == 0
    assert site.queued() == 0
    again = site.run("hub", "hub", "import", site.stick)
    assert again.returncode == 0, again.stderr
    assert f"{queued} records of the stick are at the hub" in again.stdout


def test_words_say_what_to_carry_where(site: Site) -> None:
    exported = site.run("device", "outbox", "export", site.stick)
    assert exported.returncode == 0, exported.stderr
    assert f"{site.stick.name}.receipts" in exported.stdout
    taken = site.run("hub", "hub", "import", site.stick)
    assert str(site.stick) + ".receipts" in taken.stdout
    back = site.run("device", "outbox", "import", f"{site.stick}.receipts")
    assert back.returncode == 0, back.stderr
    assert "0 records still wait" in back.stdout


def test_unreadable_stick_has_its_exit_code_and_says_what_to_do(site: Site) -> None:
    site.stick.write_text("holiday pictures")
    for end, command in (("hub", "hub"), ("device", "outbox")):
        done = site.run(end, command, "import", site.stick)
        assert done.returncode == 3
        assert "aidpost outbox export" in done.stderr
        assert "do:" in done.stderr


def test_stick_of_an_unknown_device_is_refused_with_its_name(site: Site, tmp_path: Path) -> None:
    site.run("device", "outbox", "export", site.stick)
    (tmp_path / "other.toml").write_text("")
    done = site.run("other", "hub", "import", site.stick)
    assert done.returncode == 1
    assert "kisumu-3" in done.stderr


def test_export_without_a_hubs_key_says_where_it_comes_from(site: Site) -> None:
    (site.folder / "device.toml").write_text("")
    done = site.run("device", "outbox", "export", site.stick)
    assert done.returncode == 2
    assert "hub enroll" in done.stderr
    assert not site.stick.exists()
