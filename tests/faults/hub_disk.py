"""Breaks the hub's disk under a hub that takes records, and counts what was lost, doubled or receipted too early.

    python tests/faults/hub_disk.py [--times 10] [--seed 1] [--only NAME]

The disk is a real one of 24 MB (tmpfs, so it needs root): it fills up, or is mounted read-only under a hub that is
started on it. Errors of a medium (EIO, of every write or only of fsync, and EROFS, as a file system gives that has
stopped itself) come from `failing.c`, under a hub that runs. `early` are records that the device holds for receipted
and the hub has not; it is counted while the disk is broken, after a SIGKILL of the hub every third time. But for the
one that is mounted read-only, a hub that was not killed must say so at /healthz, and serve again by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import storm  # noqa: E402
from sqlalchemy import select  # noqa: E402

from aidpost.errors import AidpostError  # noqa: E402
from aidpost.sync._durable import replace_file  # noqa: E402
from aidpost.sync.hub import schema, service  # noqa: E402
from aidpost.sync.hub.database import Database  # noqa: E402
from aidpost.sync.hub.server import HubServer  # noqa: E402

DISK_MB = 24
WAIT_S = 120.0


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[Path]:
    """A file system of its own at `folder`."""
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "none", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


class HubScene(storm.Scene):
    """A scene whose hub shows its pages, on a disk of its own."""

    def start_hub(self) -> None:
        """Until it serves, or cannot."""
        address = self.folder / "address"
        address.unlink(missing_ok=True)

        def work() -> None:
            service._RESEND_EVERY_S, service._RETRY_S = 0.5, (0.1, 0.3)
            try:
                server = HubServer(self.end.config)
                server.start()
            except (AidpostError, OSError):
                return  # a supervisor starts it again
            replace_file(address, server.url.encode())
            time.sleep(3600)

        self._hub = storm.fork(work)
        until(lambda: address.exists() or os.waitpid(self._hub, os.WNOHANG)[0] != 0, "the hub starts or ends")
        self.serves = address.exists()

    def kill_hub(self) -> None:
        """Without warning; it may have ended by itself."""
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            storm.kill(self._hub)

    def health(self) -> str:
        """What the hub says of itself."""
        url = (self.folder / "address").read_text()
        try:
            with urllib.request.urlopen(f"{url}healthz", timeout=20) as answer:
                said = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read()
        return str(json.loads(said)["status"])

    def receipted(self) -> set[tuple[str, int]]:
        """What the device holds for receipted."""
        path = self.folder / "device/store.sqlite3"
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
        try:
            return set(db.execute("SELECT cls, seq FROM record WHERE state = 1"))
        finally:
            db.close()

    def early(self) -> int:
        """Records that the device holds for receipted and the hub has not."""
        told = self.receipted()  # first: what comes in between is at the hub before
        database = Database(self.end.config.url)
        query = select(schema.streams.c.cls, schema.envelopes.c.seq).join(
            schema.envelopes, schema.streams.c.id == schema.envelopes.c.stream
        )
        with database.read() as connection:
            there = {(row.cls, row.seq) for row in connection.execute(query)}
        database.close()
        return len(told - there)


def until(true: Callable[[], bool], what: str) -> None:
    """Wait for a state."""
    deadline = time.monotonic() + WAIT_S
    while not true():
        if time.monotonic() > deadline:
            raise RuntimeError(f"after {WAIT_S:.0f} s not yet: {what}")
        time.sleep(0.05)


def broken_under_way(scene: HubScene, times: int, break_it: Callable[[], None], mend: Callable[[], None]) -> int:
    """The disk breaks under a hub that takes records, and is well again, so many times."""
    scene.start_broker()
    scene.start_hub()
    device, early = scene.start_device(), 0
    for number in range(times):
        scene.pause()
        break_it()
        until(lambda: scene.health() == "records cannot be stored", "the hub says that it cannot store")
        scene.pause()
        if killed := number % 3 == 2:
            scene.kill_hub()
        mend()
        early += scene.early()
        if killed:
            scene.start_hub()
        until(lambda: scene.health() == "ok", "the hub serves again")
    storm.kill(device)
    scene.settle()
    return early


def full(scene: HubScene, times: int) -> int:
    """Not a byte is left."""
    ballast = scene.folder / "hub/ballast"

    def fill() -> None:
        with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 12))

    return broken_under_way(scene, times, fill, ballast.unlink)


def failing(number: int, only: str = "") -> Callable[[HubScene, int], int]:
    """The medium, or a file system that has stopped itself."""
    flag = Path(os.environ.get("AIDPOST_FAIL", ""))
    return lambda scene, times: broken_under_way(
        scene, times, lambda: replace_file(flag, f"{number}{only}".encode()), flag.unlink
    )


def read_only(scene: HubScene, times: int) -> int:
    """Mounted read-only when the hub is started on it: it may serve or not, and stores and receipts nothing."""
    scene.start_broker()
    scene.start_hub()
    device, early = scene.start_device(), 0
    for _ in range(times):
        scene.pause()
        scene.kill_hub()
        subprocess.run(["mount", "-o", "remount,ro", scene.folder / "hub"], check=True)
        scene.start_hub()
        scene.pause()
        scene.kill_hub()
        subprocess.run(["mount", "-o", "remount,rw", scene.folder / "hub"], check=True)
        early += scene.early()
        scene.start_hub()
        until(lambda: scene.health() == "ok", "the hub serves again")
    storm.kill(device)
    scene.settle()
    return early


SCENES: dict[str, Callable[[HubScene, int], int]] = {
    "hub's disk full": full,
    "hub's disk mounted read-only": read_only,
    "hub's disk stops itself": failing(errno.EROFS),
    "hub's disk: input/output error": failing(errno.EIO),
    "hub's disk: error of fsync only": failing(errno.EIO, "s"),
}


def again_under_shim(folder: Path) -> int:
    """This script once more, with a disk that can be made to fail."""
    shim = folder / "failing.so"
    compiler = shutil.which("gcc") or "cc"
    source = HERE / "failing.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", shim, source, "-ldl"], check=True)
    scenes = folder / "scenes"
    environment = {"LD_PRELOAD": str(shim), "AIDPOST_FAIL": str(folder / "fail"), "AIDPOST_FAIL_DIR": str(scenes)}
    return subprocess.run([sys.executable, *sys.argv], env={**os.environ, **environment}, check=False).returncode


def main() -> int:
    """Print the table; 1 where anything was lost, doubled or receipted too early, 2 where there is no disk to break."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=SCENES)
    arguments = parser.parse_args()
    if "AIDPOST_FAIL_DIR" not in os.environ:
        with tempfile.TemporaryDirectory() as name:
            return again_under_shim(Path(name).resolve())
    logging.disable(logging.CRITICAL)  # that nothing can be stored is what this is about
    columns = f"{'accepted':>9} {'at the hub':>11} {'lost':>5} {'doubled':>8} {'early':>6}"
    print(f"{'what breaks':32} {'times':>6} {columns}", flush=True)
    wrong = 0
    for number, (title, work) in enumerate(SCENES.items()):
        if arguments.only not in (None, title):
            continue
        folder = Path(os.environ["AIDPOST_FAIL_DIR"]) / f"{number}"
        with mounted(folder / "hub"):
            scene = HubScene(folder, random.Random(arguments.seed * 100 + number), reserve_mb=1)
            try:
                early = work(scene, arguments.times)
            finally:
                scene.stop()
            row = scene.count()
        wrong += row.lost + row.doubled + early
        figures = f"{row.accepted:9} {row.at_hub:11} {row.lost:5} {row.doubled:8} {early:6}"
        print(f"{title:32} {arguments.times:6} {figures}", flush=True)
        shutil.rmtree(folder)
    print("nothing lost, nothing doubled, nothing receipted too early" if not wrong else "BROKEN", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
