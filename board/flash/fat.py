"""Files on the boot partition (FAT), read and written with mtools (Debian package `mtools`) inside an image or card, at
its offset: nothing is mounted, so nothing needs root or is left mounted after a crash."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from aidpost.errors import DeviceError, NotPossibleError


class BootFiles:
    """The files of the FAT file system that begins `offset` bytes into `disk`, an image file or a block device."""

    def __init__(self, disk: Path, offset: int) -> None:
        if shutil.which("mcopy") is None:
            raise NotPossibleError(
                operation="opening the boot partition",
                target=str(disk),
                cause="mtools is not installed",
                remedy="sudo apt-get install mtools",
            )
        self._disk, self._image = disk, f"{disk}@@{offset}"

    def _run(self, tool: str, *arguments: str, given: bytes = b"") -> bytes:
        # no file of the user's or the system's may redefine drives
        environment = {"PATH": os.environ.get("PATH", ""), "MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"}
        command = [tool, "-i", self._image, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, env=environment, timeout=120, check=False)
        if done.returncode:
            raise DeviceError(
                operation=f"using the boot partition ({tool})",
                target=str(self._disk),
                cause=done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}",
                remedy="Write the card again; if it happens twice, use another card.",
            )
        return done.stdout

    def names(self) -> frozenset[str]:
        """The names in the top folder, in lower case; folders end in a slash."""
        listed = self._run("mdir", "-b", "-a", "::/").decode("utf-8", "replace")
        return frozenset(line.removeprefix("::/").lower() for line in listed.splitlines() if line.strip())

    def read(self, name: str) -> bytes:
        """A file's content."""
        return self._run("mtype", f"::/{name}")

    def write(self, name: str, content: bytes) -> None:
        """Write a file, in place of one of the same name; its folder is made."""
        folder = name.rpartition("/")[0]
        if folder and f"{folder.lower()}/" not in self.names():
            self._run("mmd", f"::/{folder}")
        self._run("mcopy", "-o", "-", f"::/{name}", given=content)
