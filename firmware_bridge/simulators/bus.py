"""A private D-Bus for the simulated BlueZ: never the system's."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from aidpost.errors import NotPossibleError

_CONFIGURATION = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth> <policy context="default"><allow
send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>"""


@contextlib.contextmanager
def private_bus(folder: Path) -> Iterator[str]:
    """Runs a dbus-daemon whose socket is in `folder`; gives the address for DBUS_SYSTEM_BUS_ADDRESS.

    Raises
    ------
    NotPossibleError
        There is no dbus-daemon, or it does not start.
    """
    daemon = shutil.which("dbus-daemon")
    if daemon is None:
        raise _impossible("dbus-daemon is not installed", "Install it: sudo apt install dbus-daemon.")
    configuration = folder / "bus.conf"
    configuration.write_text(_CONFIGURATION.format(path=folder / "bus"))
    command = [daemon, f"--config-file={configuration}", "--nofork", "--print-address"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().strip() if process.stdout else ""
            if not address:
                raise _impossible("dbus-daemon does not start", "Give a folder with a short path.")
            yield address
        finally:
            process.terminate()


def _impossible(cause: str, remedy: str) -> NotPossibleError:
    return NotPossibleError(operation="starting a private D-Bus", target="dbus-daemon", cause=cause, remedy=remedy)
