"""A statement in a process of its own, killed at its n-th step on the disk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
EVENTS = ("os.rename", "os.remove", "os.link", "os.mkdir", "open", "sqlite3.connect")
folder, events, left = sys.argv[1], 0, int(sys.argv[3])
def count(event, arguments):
    global events
    if event in EVENTS and folder in str(arguments):
        events += 1
        if events == left:
            os.kill(os.getpid(), signal.SIGKILL)
{imports}
sys.addaudithook(count)
{statement}
"""


def killed_at(step: int, folder: Path, imports: str, statement: str) -> int:
    """The exit code: -9 where it was killed, 0 where it ended before. `statement` finds the folder as `folder`, and may
    import what is in `tests/support`."""
    code = _KILLED.format(imports=imports, statement=statement)
    command = [sys.executable, "-c", code, str(folder), str(Path(__file__).parent), str(step)]
    return subprocess.run(command, check=False).returncode
