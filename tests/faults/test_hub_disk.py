"""The hub's disk fills up, stops or fails under it: nothing is receipted that it has not; then it serves again.

`python tests/faults/hub_disk.py --times 100` is the same for a night.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("hub_disk.py")
BREAK = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import hub_disk
from sqlalchemy.exc import OperationalError
from aidpost.sync.hub._full_receipt import held_blocks
from aidpost.sync.hub.ingest import Ingest, Reply
from aidpost.sync.envelope import Receipt, Records
commit = Ingest._commit

def hasty(self, policies, opened, refused):
    try:
        return commit(self, policies, opened, refused)
    except (OperationalError, OSError):
        epoch = self._database.epoch
        taken = [(m.sender, e) for m, _ in opened if isinstance(m.content, Records) for e in m.content.envelopes]
        blocks = [(name, tuple(held_blocks(one.epoch, one.cls, {one.seq: one.hash}))) for name, one in taken]
        return [Reply(name, Receipt(epoch, held=held)) for name, held in blocks]

Ingest._commit = hasty
until = hub_disk.until
hub_disk.until = lambda true, what: None if "cannot store" in what else until(true, what)
sys.exit(hub_disk.main())
"""


@pytest.fixture(autouse=True)
def root(tmp_path: Path) -> None:
    folder = tmp_path / "mount"
    folder.mkdir()
    tried = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("only root may mount a disk")
    subprocess.run(["umount", folder], check=True)


def test_nothing_is_lost_doubled_or_receipted_too_early_on_a_disk_that_breaks(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), "--times", "3", "--seed", "7"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line[32:].split() for line in done.stdout.splitlines()[1:-1]]
    assert len(rows) == 5
    assert all(int(row[1]) >= 10 for row in rows), "each of them accepted something"
    assert {tuple(row[3:]) for row in rows} == {("0", "0", "0")}


def test_a_hub_that_receipts_before_its_commit_is_found_out(tmp_path: Path) -> None:
    """The table can say something else than zero."""
    (tmp_path / "scenes").mkdir()
    environment = {**os.environ, "AIDPOST_FAIL_DIR": str(tmp_path / "scenes"), "AIDPOST_FAIL": str(tmp_path / "fail")}
    command = [sys.executable, "-c", BREAK, str(SCRIPT.parent), "--times", "3", "--only", "hub's disk full"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout
