"""What a device does to its releases while it is traced: a first one, a good one, one that is not well, and a model.

Run as a process of its own with the shim: `python update_workload.py FOLDER ROOT BUNDLE...`. What was done is written
to FOLDER's `acknowledged` after the call has returned.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

from aidpost.board.update.install import Here, update, update_models
from aidpost.board.update.slots import Slots
from aidpost.board.update.source import Source
from aidpost.errors import UpdateError

HERE = Here(device="clinic/device", python="3.11", machine="aarch64", store_reads=3)


def tar(name: str, content: bytes) -> bytes:
    """A release or model of one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(content), 0o755
        archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def unpack(archive: Path) -> Callable[[Path], None]:
    def install(folder: Path) -> None:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")

    return install


def content(slots: Slots) -> str:
    """What serves, by the whole content of its command; empty where that is not all there."""
    try:
        return (slots.folder / "current/bin/aidpost").read_text()
    except OSError:
        return ""


def health(slots: Slots) -> str:
    """As the real one answers, without a process: a cut file's permissions are not part of the trace."""
    return "" if content(slots).endswith("well\n") else "models: broken"


def step(device: Path, root: Path, bundle: Path, acknowledge: Callable[[Slots], None] = lambda slots: None) -> None:
    """One night: a release, then models. What is not well is taken back, as is said."""
    slots = Slots(device)
    source = Source(str(bundle), device / "trust", device / "downloads", root)
    try:
        update(source, slots, HERE, health, unpack)
    except UpdateError as error:
        if "is not well" not in error.cause:
            raise
    acknowledge(slots)
    update_models(source, slots, HERE, lambda folder: "")


def main(folder: Path, root: Path, bundles: list[Path]) -> None:
    descriptor = os.open(folder / "acknowledged", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def acknowledge(slots: Slots) -> None:
        said = {"serves": slots.named("current"), "failed": list(slots.failures())}
        os.write(descriptor, json.dumps(said).encode() + b"\n")

    device = folder / "device"
    device.mkdir()
    for bundle in bundles:
        step(device, root, bundle, acknowledge)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
