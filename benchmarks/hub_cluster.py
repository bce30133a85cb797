"""A country's hub on one machine: a cluster of three MQTT brokers, ingest workers that share the devices, PostgreSQL.

    python benchmarks/hub_cluster.py [--reports 6000] [--devices 12] [--seconds 60] [--share 15]

Two questions. How many exams a second do one, two and three workers commit, and what does that cost in processor time
of workers, brokers and database; and is anything lost or doubled when a worker and a broker are killed (SIGKILL) under
load. Brokers are Debian's nats-server behind HAProxy, PostgreSQL commits durably (fsync on). Load is real signed
messages; for the kills it comes from devices' own stores and senders. All shares one machine, so the rate says when
that machine is full; what scales is the processor time for each exam, which is what docs/hub.md extrapolates. So the
rates are measured twice: with workers as fast as the machine lets them be, and with each worker held to a share of one
processor (it is stopped for the rest of each tenth of a second), so that the machine is not what limits them.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

import msgspec
import paho.mqtt.client as mqtt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from device_records import KEY, make_item
from hub_end import HUB_PROCESS, HubEnd
from nats_cluster import NatsCluster
from paho.mqtt.enums import CallbackAPIVersion
from postgres import Postgres
from sqlalchemy import func, select

from aidpost.records import (
    Beats,
    BlobRef,
    Device,
    DrGrade,
    EcgMeasurements,
    EcgResult,
    ExamReport,
    Eye,
    FundusResult,
    ModelRef,
    Origin,
    Quality,
    Rhythm,
    VitalKind,
)
from aidpost.sync import outbox, publisher, topics
from aidpost.sync.clock import SystemClock
from aidpost.sync.envelope import Receipt, unpack_message
from aidpost.sync.hub import index, operations, schema
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database, now_ms
from aidpost.sync.hub.ingest import Incoming, Ingest
from aidpost.sync.publisher import Publisher
from aidpost.sync.ranges import numbers
from aidpost.sync.store import Store
from tests.sync.hub.conftest import FakeDevice, at, make_report, make_vital

PER_MESSAGE = 8
AGAIN_S = 10.0
MOST = 0.95
"""The rate is of the time until so much is in: a last message that nobody took is sent again after ten seconds."""


def full_report(chance: random.Random) -> ExamReport:
    """What clinics send of an exam besides its photographs and trace: no two alike."""
    digest = chance.randbytes(32).hex()
    quality = Quality(usable=True, score=round(chance.random(), 3), label="good")
    model = (ModelRef(name="fundus-dr", version="1.2.3", sha256="ab" * 32, runtime="ai-edge-litert 2.3.0"),)
    shares = [chance.random() for _ in range(5)]
    grades = tuple(round(share / sum(shares), 4) for share in shares)
    eyes = tuple(
        FundusResult(
            id=uuid.UUID(int=chance.getrandbits(128)), eye=eye, width=2048, height=1536, at=at(), origin=Origin.LIVE,
            camera=Device(name="camera", manufacturer="Kowa", model="VX-10"), quality=quality,
            dr=DrGrade(grade=1, probability=grades, referable_probability=grades[2], referable=False, threshold=0.4),
            not_assessed=("macular oedema", "other eye disease"), models=model,
            body=BlobRef(sha256=digest, size=400_000, media_type="image/jpeg"),
        )
        for eye in Eye
    )  # fmt: skip
    beats = tuple(sorted(chance.sample(range(9000), 35)))
    ecg = EcgResult(
        id=uuid.UUID(int=chance.getrandbits(128)), fs_hz=300.0, duration_s=30.0, leads=("I",), lsb_mv=(0.001,),
        baseline=(0,), lead="I", at=at(), origin=Origin.LIVE, device=Device(name="ecg"), quality=quality,
        beats=Beats(sample=beats, label=("N",) * 35), rhythm=Rhythm(label="N", probability={"N": 0.93, "A": 0.07}),
        measurements=EcgMeasurements(heart_rate_bpm=70.1, qrs_ms=92.0, qtcf_ms=410.0),
        body=BlobRef(sha256=digest[::-1], size=5000, media_type="application/octet-stream"),
    )  # fmt: skip
    kinds = (VitalKind.SPO2, VitalKind.PULSE_RATE, VitalKind.TEMPERATURE)
    units = {VitalKind.SPO2: "%", VitalKind.PULSE_RATE: "/min", VitalKind.TEMPERATURE: "Cel"}
    vitals = tuple(make_vital(kind=kind, unit=units[kind], value=float(chance.randrange(36, 99))) for kind in kinds)
    return make_report(fundus=eyes, ecg=(ecg,), vitals=vitals)


class Worker:
    """An ingest worker, a process of its own."""

    def __init__(self, config: HubConfig, name: str) -> None:
        told = msgspec.structs.replace(config, worker=name, share_devices=True, shared_group="")
        command = [sys.executable, "-c", HUB_PROCESS, msgspec.json.encode(told).decode()]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "started\n"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Throttle:
    """Holds processes to a share of one processor each: stopped once they had it, until the next period begins."""

    PERIOD_S = 0.1

    def __init__(self, pids: Sequence[int], share: float) -> None:
        self._ending = threading.Event()
        self._threads = [threading.Thread(target=self._hold, args=(pid, share), daemon=True) for pid in pids]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _hold(self, pid: int, share: float) -> None:
        began, least = time.monotonic(), self._cpu_s(pid)
        while not self._ending.wait(0.005):
            # what was not used is not saved up
            due = least + share * (time.monotonic() - began)
            spent = self._cpu_s(pid)
            os.kill(pid, signal.SIGSTOP if spent > due else signal.SIGCONT)
            if spent < due - share * self.PERIOD_S:
                began, least = time.monotonic() - self.PERIOD_S, spent
        os.kill(pid, signal.SIGCONT)

    @staticmethod
    def _cpu_s(pid: int) -> float:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


class Load:
    """A device that has signed everything before: it only sends, waits for receipts and sends again."""

    def __init__(self, device: FakeDevice, messages: Sequence[tuple[int, bytes]], port: int, config: HubConfig) -> None:
        self.device, self._messages, self.held = device, messages, set[int]()
        self.receipts: list[tuple[float, int]] = []
        self._hub, self._key = config.name, operations.public_key(config)
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=device.name)
        self._client.on_message = self._arrived
        self._client.on_connect = lambda client, *_: client.subscribe(topics.receipt(device.name), 1)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def run(self, stop: threading.Event) -> None:
        sent_at: dict[int, float] = {}
        while not self.done and not stop.is_set():
            under_way = 0
            for first, message in self._messages:
                if first in self.held:
                    continue
                if time.monotonic() - sent_at.get(first, -AGAIN_S) >= AGAIN_S:
                    self._client.publish(topics.up(self.device.name, "report"), message, qos=1)
                    sent_at[first] = time.monotonic()
                under_way += 1
                if under_way == 4:
                    break
            time.sleep(0.005)

    @property
    def done(self) -> bool:
        return all(first in self.held for first, _ in self._messages)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _arrived(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        key = Ed25519PublicKey.from_public_bytes(self._key)
        receipt = unpack_message(
            bytes(message.payload), lambda _: key, sender=self._hub, recipient=self.device.name
        ).content
        if isinstance(receipt, Receipt):
            for held in receipt.held:
                self.held.update(numbers(held.ranges))
            self.receipts.append((time.perf_counter(), len(self.held)))


def cpu_s(pids: Sequence[int]) -> float:
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def database_bytes(config: HubConfig) -> int:
    """What PostgreSQL keeps on the disk, indexes and all."""
    database = Database(config.url)
    with database.read() as connection:
        found = connection.execute(select(func.pg_database_size(func.current_database()))).scalar_one()
    database.close()
    return int(found)


@contextmanager
def layout(folder: Path, postgres: Postgres, workers: int) -> Iterator[tuple[HubEnd, NatsCluster, list[Worker]]]:
    with ExitStack() as stack:
        url = stack.enter_context(postgres.database())
        folder.mkdir()
        cluster = NatsCluster(folder)
        stack.callback(cluster.stop)
        end = HubEnd(folder / "hub", cluster.port, database_url=url)
        operations.public_key(end.config)  # made by one before several look for it
        Database(url).close()
        made = [Worker(end.config, f"worker-{number}") for number in range(1, workers + 1)]
        for worker in made:
            stack.callback(worker.stop)
        wait_for_workers(url, workers)
        yield end, cluster, made


def wait_for_workers(url: str, count: int) -> None:
    """Until each has said so, and all have had the time to hear it of each other."""
    database, deadline = Database(url), time.monotonic() + 120
    beats = select(func.count()).where(schema.workers.c.beat >= 3)
    while True:
        with database.read() as connection:
            if connection.execute(beats).scalar_one() >= count:
                break
        assert time.monotonic() < deadline, "the workers do not reach broker and database"
        time.sleep(0.2)
    database.close()


def time_of(loads: Sequence[Load], count: int) -> float:
    """When so many were in."""
    steps = sorted(
        (moment, now - before)
        for load in loads
        for (moment, now), (_, before) in zip(load.receipts, [(0.0, 0), *load.receipts], strict=False)
    )
    for moment, more in steps:
        count -= more
        if count <= 0:
            return moment
    raise AssertionError("not all came")


def throughput(
    folder: Path, postgres: Postgres, workers: int, devices: int, reports: int, share: float | None = None
) -> None:
    with layout(folder, postgres, workers) as (end, cluster, made):
        loads, chance = [], random.Random(1)
        for number in range(devices):
            device = FakeDevice(f"unit-{number}")
            operations.enroll(end.config, device.name, device.public_key)
            messages = []
            for _ in range(max(1, reports // devices // PER_MESSAGE)):
                envelopes = [device.envelope(full_report(chance)) for _ in range(PER_MESSAGE)]
                messages.append((envelopes[0].seq, device.message(*envelopes)))
            loads.append(Load(device, messages, cluster.port, end.config))
        total = sum(len(load._messages) for load in loads) * PER_MESSAGE
        size = sum(len(message) for load in loads for _, message in load._messages) / total
        pids = [worker.process.pid for worker in made]
        throttle = Throttle(pids, share) if share else None

        def cpu() -> tuple[float, ...]:
            return cpu_s(pids), cpu_s(cluster.pids()), postgres.cpu_s(), time.process_time()

        empty, before = database_bytes(end.config), cpu()
        stop, began = threading.Event(), time.perf_counter()
        threads = [threading.Thread(target=load.run, args=(stop,)) for load in loads]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(600)
        elapsed = time.perf_counter() - began
        most = time_of(loads, int(total * MOST)) - began
        stop.set()
        spent = [now - then for now, then in zip(cpu(), before, strict=True)]
        if throttle:
            throttle.stop()
        held = sum(len(load.held) for load in loads)
        for load in loads:
            load.close()
        assert held == total, f"{held} of {total}"
        each = [1000 * value / total for value in spent]
        kept = (database_bytes(end.config) - empty) / total
        busy = sum(spent) / elapsed
        figures = (f"{MOST * total / most:10.0f}", *(f"{value:10.2f}" for value in each), f"{busy:10.2f}")
        load = f"{os.getloadavg()[0]:10.1f}"
        print(f"{workers:7} {total:10}", *figures, f"{size:10.0f} {kept:10.0f}", load, flush=True)


def index_cost(folder: Path, postgres: Postgres, people: int = 400) -> None:
    """What the patient index costs for each person: the clinic has three devices, and each gets the entry."""
    with postgres.database() as url:
        config, chance = HubConfig(state_dir=str(folder), broker_host="", database_url=url), random.Random(1)
        devices = [FakeDevice(f"unit-{number}") for number in range(3)]
        for device in devices:
            operations.enroll(config, device.name, device.public_key, clinic="North clinic")
        database = Database(url)
        ingest, device = Ingest(database, BlobFiles(config.blobs), config), devices[0]
        for _ in range(people // PER_MESSAGE):
            message = device.message(*(device.envelope(full_report(chance)) for _ in range(PER_MESSAGE)))
            ingest.ingest([Incoming(device.name, message, now_ms())])
        before = time.process_time(), postgres.cpu_s()
        looked = index.bring_up(database, now_ms())
        hub, server = time.process_time() - before[0], postgres.cpu_s() - before[1]
        database.close()
    text = (
        "Patient index of {} people, three devices in the clinic; processor ms a person: worker {:.2f}, database {:.2f}"
    )
    print(text.format(looked, 1000 * hub / looked, 1000 * server / looked), flush=True)


def kills(folder: Path, postgres: Postgres, seconds: float) -> bool:
    """Devices' own stores and senders; a worker is killed after a third of the time, a broker after two thirds."""
    publisher._RESEND_S, publisher._HELLO_AGAIN_S = (2.0, 4.0), (2.0, 4.0)
    with ExitStack() as stack:
        end, cluster, workers = stack.enter_context(layout(folder, postgres, 3))
        stores = []
        for number in range(3):
            opened = Store.open(folder / f"device-{number}", KEY, clock=SystemClock(), name=f"unit-{number}")
            stores.append(stack.enter_context(opened))
        senders = [stack.enter_context(Publisher(store, end.enroll(store))) for store in stores]
        began, accepted, done = time.monotonic(), [0, 0, 0], 0
        while time.monotonic() - began < seconds:
            for number, store in enumerate(stores):
                store.append_many([make_item() for _ in range(4)])
                accepted[number] += 4
            gone = (time.monotonic() - began) / seconds
            if done == 0 and gone > 1 / 3:
                workers[1].stop()
                done = 1
                print(f"  after {time.monotonic() - began:.0f} s: SIGKILL to worker-2", flush=True)
            if done == 1 and gone > 2 / 3:
                cluster.kill(0)
                done = 2
                print(f"  after {time.monotonic() - began:.0f} s: SIGKILL to one of three brokers", flush=True)
            time.sleep(0.1)
        stopped = time.monotonic()
        empty = [sender.wait_until_empty(300) for sender in senders]
        print(f"  the last receipt came {time.monotonic() - stopped:.1f} s after the last exam", flush=True)
        ids = [report.exam.id for report in end.reports()]
        left = [one.queued + one.dead for store in stores for one in outbox.status(store)]
    print(
        f"  {sum(accepted)} exams accepted on 3 devices, {len(set(ids))} at the hub, {len(ids) - len(set(ids))} twice,"
        f" {sum(left)} left on devices",
        flush=True,
    )
    return all(empty) and len(ids) == len(set(ids)) == sum(accepted)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    arguments.add_argument("--reports", type=int, default=6000)
    arguments.add_argument("--devices", type=int, default=12)
    arguments.add_argument("--seconds", type=float, default=60, help="0: nothing is killed")
    arguments.add_argument("--share", type=float, default=15, help="per cent of a processor for each worker")
    chosen = arguments.parse_args()
    postgres = Postgres(fsync="on", shared_buffers="256MB")
    try:
        with tempfile.TemporaryDirectory() as name:
            names = ("exams", "a second", "by workers", "brokers", "database", "load", "processors", "bytes", "kept")
            for share in (None, chosen.share / 100):
                held = f", each worker held to {chosen.share:.0f} % of a processor" if share else ""
                print(f"Exams committed, three brokers, PostgreSQL{held}; processor ms and bytes for each exam:")
                print(f"{'workers':>7}", *(f"{name:>10}" for name in (*names, "machine's")))
                for workers in (1, 2, 3):
                    folder = Path(name) / f"rate-{workers}-{bool(share)}"
                    reports = int(chosen.reports * (share * workers if share else 1))
                    throughput(folder, postgres, workers, chosen.devices, reports, share)
            index_cost(Path(name) / "index", postgres)
            if not chosen.seconds:
                return
            print("Three workers, three brokers, load from devices' own stores:")
            good = kills(Path(name) / "kills", postgres, chosen.seconds)
            print("  nothing lost, nothing doubled" if good else "  LOST OR DOUBLED", flush=True)
    finally:
        postgres.stop()
    sys.exit(not good)


if __name__ == "__main__":
    main()
