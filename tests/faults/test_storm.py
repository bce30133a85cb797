"""Whatever breaks, nothing that was accepted is lost and nothing counts twice: fifty kills, and every other fault once.

`python tests/faults/storm.py --runs 1000` is the same for a night.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

STORM = Path(__file__).with_name("storm.py")
BREAK = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import storm
from aidpost.sync.outbox import Outbox
Outbox._is_mine = lambda self, held: True
sys.exit(storm.main())
"""


def test_nothing_is_lost_and_nothing_doubled_in_fifty_kills_and_every_other_fault(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(STORM), "--runs", "50", "--seed", "7"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line[25:].split() for line in done.stdout.splitlines()[1:-1]]
    assert len(rows) == 13
    assert all(int(row[1]) >= 10 for row in rows), "each of them accepted something"
    assert {(row[3], row[4]) for row in rows} == {("0", "0")}


def test_a_device_that_believes_any_receipt_is_found_out(tmp_path: Path) -> None:
    """The table can say something else than zero."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", BREAK, str(STORM.parent), "--runs", "24", "--only", "database cloned"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        pytest.fail(f"nothing was lost:\n{done.stdout}")
    assert "BROKEN" in done.stdout
