"""Breaks device, broker and hub in every way that a clinic does, and counts what was lost and what was doubled.

    python tests/faults/storm.py [--runs 1000] [--seed 1] [--only NAME]

Device and hub are processes of their own, the broker is Mosquitto; they are killed by SIGKILL. `accepted` are records
of which the device was told that they are kept; `at the hub` is how many it has, with those that were kept but killed
before the word; a photograph that does not arrive whole counts as lost. Time-outs of sender and hub are shortened.
"""

from __future__ import annotations

import argparse
import errno
import io
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).parents[2]
sys.path.insert(0, str(TOP / "tests/support"))

from device_records import KEY, make_item  # noqa: E402
from hub_end import HubEnd  # noqa: E402
from ports import free_port  # noqa: E402
from sqlalchemy import select  # noqa: E402

from aidpost.errors import StoreError  # noqa: E402
from aidpost.records import ExamReport, decode  # noqa: E402
from aidpost.sync import _durable, _writer, outbox, publisher  # noqa: E402
from aidpost.sync.clock import SystemClock  # noqa: E402
from aidpost.sync.envelope import Hello, Receipt, RecordClass, pack_message, unpack_message  # noqa: E402
from aidpost.sync.hub import backup, operations, schema, service  # noqa: E402
from aidpost.sync.hub.blobs import BlobFiles  # noqa: E402
from aidpost.sync.hub.database import Database  # noqa: E402
from aidpost.sync.link import Link  # noqa: E402
from aidpost.sync.outbox import Outbox  # noqa: E402
from aidpost.sync.publisher import Publisher  # noqa: E402
from aidpost.sync.store import Store  # noqa: E402

CLASSES = (RecordClass.ALERT, RecordClass.REPORT, RecordClass.VITALS)
TEN_YEARS_MS = 3650 * 86_400_000
SETTLE_S = 240.0


class Jumping(SystemClock):
    """The system's clock, so far off, in a boot of its own."""

    def __init__(self, off_ms: int, boot: str) -> None:
        super().__init__()
        self._off_ms, self._boot = off_ms, boot

    def wall_ms(self) -> int:
        return super().wall_ms() + self._off_ms

    def boot_id(self) -> str:
        return self._boot


class Row(NamedTuple):
    """What a line of the table counts."""

    accepted: int
    at_hub: int
    lost: int
    doubled: int


def fork(work: Callable[[], None]) -> int:
    """Run `work` in a process of its own, which ends with it."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def kill(process: int) -> None:
    """SIGKILL, and wait for the end."""
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)


class Scene:
    """A device's folder, a broker, a hub, and what the device was told."""

    def __init__(self, folder: Path, chance: random.Random, **hub: object) -> None:
        self.folder, self.chance = folder, chance
        folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.end = HubEnd(folder / "hub", self.port, **hub)
        self.acks = folder / "accepted"
        with self.store() as store:
            self.link: Link = self.end.enroll(store)
        self._broker: subprocess.Popen[bytes] | None = None
        self._hub = 0
        self.off_ms = 0
        self.boots = 0

    def store(self, name: str = "device", off_ms: int = 0) -> Store:
        """The device's store, opened here."""
        return Store.open(self.folder / name, KEY, clock=Jumping(off_ms, f"boot-{off_ms}"), name="unit-1")

    def start_broker(self) -> None:
        """Mosquitto, with what it has kept."""
        folder = self.folder / "broker"
        folder.mkdir(exist_ok=True)
        conf = folder / "conf"
        conf.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\npersistence true\n"
            f"persistence_location {folder}/\nautosave_interval 1\nlog_dest none\n"
        )
        binary = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
        self._broker = subprocess.Popen([binary, "-c", conf], stderr=subprocess.DEVNULL)
        while self._broker.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError("mosquitto does not start")

    def kill_broker(self, *, forget: bool = False) -> None:
        """Without warning; with `forget` its state is gone too."""
        assert self._broker is not None
        self._broker.kill()
        self._broker.wait()
        if forget:
            shutil.rmtree(self.folder / "broker")

    def start_hub(self) -> None:
        """A hub without pages."""

        def work() -> None:
            service._RESEND_EVERY_S = 0.5
            config = self.end.config
            service.HubService(config, Database(config.url), BlobFiles(config.blobs)).start()
            time.sleep(3600)

        self._hub = fork(work)

    def kill_hub(self) -> None:
        """Without warning."""
        kill(self._hub)

    def start_device(
        self, *, accept: bool = True, name: str = "device", spoil: Callable[[Store], None] | None = None
    ) -> int:
        """A device that accepts records and sends; one that does not accept ends when all is at the hub."""
        off_ms, seed = self.off_ms, self.chance.random()

        def work() -> None:
            publisher._RESEND_S, publisher._HELLO_AGAIN_S = (1.0, 2.0, 4.0), (0.5, 1.0, 2.0)
            publisher._RECONNECT_S = (0.1, 0.2, 0.5)
            chance = random.Random(seed)
            with self.store(name, off_ms) as store, Publisher(store, self.link) as sender:
                if not accept:
                    if not sender.wait_until_empty(SETTLE_S):
                        raise RuntimeError(f"{outbox.status(store)} {sender.last_error}")
                    return
                if spoil is not None:
                    spoil(store)
                while True:
                    self.accept(store, chance)
                    time.sleep(chance.random() * 0.02)

        return fork(work)

    def accept(self, store: Store, chance: random.Random) -> None:
        """One record, and the word that it is kept."""
        photos = [chance.randbytes(20_000)] if chance.random() < 0.2 else []
        item = make_item(chance.choice(CLASSES), *photos)
        try:
            store.append(item)
        except StoreError:
            return  # refused, and nobody was told otherwise
        assert isinstance(item.record, ExamReport)
        said = {"id": str(item.record.id), "blob": item.blobs[0].ref.sha256 if photos else None}
        descriptor = os.open(self.acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, json.dumps(said).encode() + b"\n")
        os.close(descriptor)

    def pause(self, most: int = 6) -> None:
        """Until some more records are accepted, and a moment more, so that what comes next hits anything."""
        more, deadline = self._accepted() + self.chance.randint(1, most), time.monotonic() + 20
        while self._accepted() < more and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(self.chance.random() * 0.05)

    def _accepted(self) -> int:
        return self.acks.read_bytes().count(b"\n") if self.acks.exists() else 0

    def settle(self, *names: str) -> None:
        """All is well again, until nothing waits at any device."""
        for name in names or ("device",):
            process = self.start_device(accept=False, name=name)
            if os.waitpid(process, 0)[1]:
                raise RuntimeError(f"{name} did not get rid of its records")

    def stop(self) -> None:
        """The end of the scene."""
        if self._hub:
            self.kill_hub()
        if self._broker is not None and self._broker.poll() is None:
            self.kill_broker()

    def count(self) -> Row:
        """What was accepted, beside what the hub has."""
        lines = self.acks.read_text().splitlines() if self.acks.exists() else []
        told = [json.loads(line) for line in lines]
        database = Database(self.end.config.url)
        query = select(schema.envelopes.c.body).where(schema.envelopes.c.kind == "ExamReport")
        with database.read() as connection:
            found = Counter(str(decode(ExamReport, bytes(row.body)).id) for row in connection.execute(query))
        database.close()
        lost = sum(one["id"] not in found for one in told)
        for one in told:
            if one["blob"] is not None:
                try:
                    self.end.blob(one["blob"])
                except (OSError, AssertionError):
                    lost += 1
        return Row(len(told), len(found), lost, sum(found.values()) - len(found))


# -- the scenes


def killed(scene: Scene, runs: int, who: tuple[str, ...]) -> int:
    """SIGKILL of one of `who` after another, while records are accepted."""
    scene.start_broker()
    scene.start_hub()
    device = scene.start_device()
    for _ in range(runs):
        scene.pause()
        victim = scene.chance.choice(who)
        if victim == "device":
            kill(device)
            device = scene.start_device()
        elif victim == "hub":
            scene.kill_hub()
            scene.start_hub()
        else:
            scene.kill_broker(forget=victim == "broker and its state")
            scene.pause(2)
            scene.start_broker()
    kill(device)
    scene.settle()
    return runs


class Failing:
    """Stands for `os` in `_durable`: writes fail while the disk does."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.failing = True

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def write(self, descriptor: int, data: bytes) -> int:
        if self.failing:
            raise OSError(self._number, os.strerror(self._number))
        return os.write(descriptor, data)


def disk(scene: Scene, runs: int, what: str) -> int:
    """The device's disk takes nothing more for a while, again and again."""
    seed = scene.chance.random()

    def spoil(store: Store) -> None:
        chance = random.Random(seed)
        number, on, off = {
            "full": (errno.ENOSPC, "PRAGMA max_page_count = 1", "PRAGMA max_page_count = 1000000"),
            "read-only": (errno.EROFS, "PRAGMA query_only = ON", "PRAGMA query_only = OFF"),
        }[what]
        failing = Failing(number)
        _durable.os = failing  # type: ignore[assignment]
        writer: _writer.Writer = store._writer
        for _ in range(runs):
            failing.failing = True
            writer._connection.execute(on).fetchall()
            for _ in range(5):
                scene.accept(store, chance)
            failing.failing = False
            writer._connection.execute(off).fetchall()
            for _ in range(5):
                scene.accept(store, chance)
        (scene.folder / "spoilt").touch()

    scene.start_broker()
    scene.start_hub()
    device = scene.start_device(spoil=spoil)
    while not (scene.folder / "spoilt").exists():
        time.sleep(0.05)
    kill(device)
    scene.settle()
    return runs


def clock_jumps(scene: Scene, runs: int) -> int:
    """Ten years forward and back, at each start."""
    scene.start_broker()
    scene.start_hub()
    for number in range(runs):
        scene.off_ms = (-TEN_YEARS_MS, TEN_YEARS_MS, 0)[number % 3]
        device = scene.start_device()
        scene.pause()
        kill(device)
    scene.settle()
    return runs


def long_offline(scene: Scene, runs: int) -> int:
    """Ninety days without a network, a start each morning; then the network."""
    del runs
    for day in range(90):
        with scene.store(off_ms=day * 86_400_000) as store:
            for _ in range(5):
                scene.accept(store, scene.chance)
    scene.start_broker()
    scene.start_hub()
    scene.settle()
    return 90


def shuffled(scene: Scene, runs: int) -> int:
    """Every message several times, in any order, receipts too."""
    known = {scene.link.hub_name: scene.link.hub_key}
    with scene.store() as store:
        identity = store.identity
        for _ in range(runs):
            for _ in range(5):
                scene.accept(store, scene.chance)
        for _ in range(40):
            box, sent = Outbox(store, window_records=1000, window_bytes=1 << 20), []
            hello = Hello(bytes(16), store.now(), store.epoch, {}, b"", "", tuple(store.lives.all()))
            pieces = [hello, *(piece.content for piece in iter(box.next, None))]
            sent = [pack_message(one, sender=identity.name, key=identity.private) for one in pieces] * 3
            scene.chance.shuffle(sent)
            answers = operations.take_messages(scene.end.config, sent[: 2 * len(sent) // 3]) * 2
            scene.chance.shuffle(answers)
            for answer in answers:
                content = unpack_message(answer, known.get, recipient=identity.name).content
                assert isinstance(content, Receipt)
                box.receive(content)
            if not any(one.queued for one in outbox.status(store)) and not outbox.blob_status(store).queued:
                break
    return runs


def poisoned(scene: Scene, runs: int) -> int:
    """In each class a record that the hub cannot read, among good ones."""
    with scene.store() as store:
        for cls in RecordClass:
            bad = make_item(cls)
            store.append(bad._replace(patient=None))  # the envelope contradicts the record
            for _ in range(runs):
                scene.accept(store, scene.chance)
    scene.start_broker()
    scene.start_hub()
    scene.settle()
    with scene.store() as store:
        dead = outbox.dead_letters(store)
    if len(dead) != len(RecordClass):
        raise RuntimeError(f"{len(dead)} dead letters, not one in each class")
    return len(dead)


def restored(scene: Scene, runs: int) -> int:
    """The hub is restored from a backup, again and again: the devices bring it what it lost."""
    scene.start_broker()
    for _ in range(max(1, runs // 10)):
        scene.start_hub()
        scene.settle()
        scene.kill_hub()
        kept = io.BytesIO()
        backup.back_up(scene.end.config, kept)
        scene.start_hub()
        device = scene.start_device()
        scene.pause(20)
        kill(device)
        scene.settle()
        scene.kill_hub()
        shutil.rmtree(scene.folder / "hub")
        backup.restore(scene.end.config, io.BytesIO(kept.getvalue()))
    scene.start_hub()
    scene.settle()
    return max(1, runs // 10)


def cloned(scene: Scene, runs: int) -> int:
    """The device's folder is copied to a second device, and both go on under one name."""
    scene.start_broker()
    scene.start_hub()
    device = scene.start_device()
    scene.pause()
    kill(device)
    shutil.copytree(scene.folder / "device", scene.folder / "copy")
    for number in range(runs):
        device = scene.start_device(name=("device", "copy")[number % 2])
        scene.pause()
        kill(device)
    scene.settle("device", "copy", "device", "copy")
    return runs


SCENES: dict[str, Callable[[Scene, int], int]] = {
    "device killed": lambda scene, runs: killed(scene, runs, ("device",)),
    "broker killed": lambda scene, runs: killed(scene, runs, ("broker",)),
    "hub killed": lambda scene, runs: killed(scene, runs, ("hub",)),
    "each killed": lambda scene, runs: killed(scene, runs, ("device", "broker", "hub")),
    "broker's state lost": lambda scene, runs: killed(scene, max(1, runs // 5), ("broker and its state",)),
    "device's disk full": lambda scene, runs: disk(scene, runs, "full"),
    "device's disk read-only": lambda scene, runs: disk(scene, runs, "read-only"),
    "clock +-10 years": lambda scene, runs: clock_jumps(scene, max(3, runs // 3)),
    "90 days offline": long_offline,
    "repeated and reordered": shuffled,
    "poison in each class": poisoned,
    "hub restored": restored,
    "database cloned": lambda scene, runs: cloned(scene, max(4, runs // 3)),
}


def main() -> int:
    """Print the table; 1 where anything was lost or doubled."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, help="kills, over the four scenes that kill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=SCENES)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # that a broker is away is what this is about
    each, wrong = max(1, arguments.runs // 4), 0
    print(f"{'what breaks':25} {'times':>6} {'accepted':>9} {'at the hub':>11} {'lost':>5} {'doubled':>8}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        for number, (title, work) in enumerate(SCENES.items()):
            if arguments.only not in (None, title):
                continue
            scene = Scene(Path(name) / f"{number}", random.Random(arguments.seed * 100 + number))
            try:
                times = work(scene, each)
            finally:
                scene.stop()
            row = scene.count()
            wrong += row.lost + row.doubled
            print(f"{title:25} {times:6} {row.accepted:9} {row.at_hub:11} {row.lost:5} {row.doubled:8}", flush=True)
            shutil.rmtree(scene.folder)
    print("nothing lost, nothing doubled" if not wrong else "BROKEN", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
