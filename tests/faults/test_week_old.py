"""A hub that is restored from last week's backup gets the week back from the devices, as far as they still have it.

`python tests/faults/week_old.py --times 20` is the same for a night.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DAYS = 7
SCRIPT = Path(__file__).with_name("week_old.py")
BREAK = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import week_old
from aidpost.sync import outbox, publisher
week_old.WAIT_S = 20.0
if sys.argv.pop(1) == "records":
    outbox.queue_again = lambda db, wanted, epoch: None
else:
    publisher.returns.give_back = lambda store, receipts, key: 0
sys.exit(week_old.main())
"""


def test_the_week_comes_back_once_and_what_no_device_has_is_not_waited_for(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(SCRIPT), "--times", "1", "--seed", "7"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    kept, full = (list(map(int, line[28:].split())) for line in done.stdout.splitlines()[1:-1])
    old, week, found, let_go, reviews, signed, *wrong = kept
    assert (found, let_go, wrong) == (old + week - 1, 0, [0, 0, 0]), "all but the patient who was erased"
    assert reviews == signed == DAYS + 2, "one a day, the first of them in the backup, and one after the restore"
    old, week, found, let_go, reviews, signed, *wrong = full
    assert (found, wrong) == (old + week - 1 - let_go, [0, 0, 0])
    assert 2 <= signed < reviews, "those of exams that the device let go wait for a report that never comes"
    assert 0 < let_go < week, "the oldest, and no more than the disk needed"


@pytest.mark.parametrize("what", ["records", "reviews"])
def test_a_device_that_does_not_send_again_is_found_out(tmp_path: Path, what: str) -> None:
    """The table can say something else than zero."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", BREAK, str(SCRIPT.parent), what, "--times", "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout or "the hub waits for" in done.stderr
