"""What the hub ingests with one, two and four workers, on SQLite and on PostgreSQL, in one run.

    python benchmarks/hub_workers.py [--records 20000] [--workers 1 2 4]

Each worker is a process that takes the signed messages (64 records) of a device of its own, eight messages a commit, as
workers do that share a broker; they begin together, and the last one to end counts. From signed message to durable rows
and receipts. PostgreSQL is a private server, as durable as it comes; its own processors' time is not in `CPU us`.
SQLite lets one worker write at a time, so that more workers help it only with what is not writing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _postgres
import msgspec
from hub_ingest import Sender, report, vital

from aidpost.records import Record
from aidpost.sync.hub.blobs import BlobFiles
from aidpost.sync.hub.config import HubConfig
from aidpost.sync.hub.database import Database
from aidpost.sync.hub.ingest import Incoming, Ingest

PER_COMMIT = 8
KINDS: dict[str, tuple[Callable[[], Record], int]] = {"vital signs": (vital, 1), "exam reports": (report, 4)}
"""What is sent, and by how much fewer, since a report makes some ten rows."""


def worker(config: HubConfig, messages: list[Incoming], begin: Barrier, answer: multiprocessing.SimpleQueue) -> None:  # type: ignore[type-arg]
    """Take everything; answer with when it began and ended, and the CPU that it took."""
    database = Database(config.url)
    ingest = Ingest(database, BlobFiles(config.blobs), config)
    begin.wait()
    start, cpu = time.monotonic(), time.process_time()
    for first in range(0, len(messages), PER_COMMIT):
        ingest.ingest(messages[first : first + PER_COMMIT])
    answer.put((start, time.monotonic(), time.process_time() - cpu))
    database.close()


def rate(config: HubConfig, kind: str, count: int, workers: int) -> tuple[float, float]:
    """Records a second of all workers, and microseconds of their CPU a record."""
    make, fewer = KINDS[kind]
    count = count // fewer
    shares = []
    for number in range(workers):
        sender = Sender(config, f"{kind.split()[0]}-{workers}-{number}")
        shares.append(sender.messages([make() for _ in range(count // workers)]))
    context = multiprocessing.get_context("spawn")
    begin, answer = context.Barrier(workers), context.SimpleQueue()
    running = [context.Process(target=worker, args=(config, share, begin, answer)) for share in shares]
    for one in running:
        one.start()
    spans = [answer.get() for _ in running]
    for one in running:
        one.join()
    taken = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    return count / taken, sum(cpu for _, _, cpu in spans) / count * 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    chosen = parser.parse_args()
    print(f"{'':14} {'database':>11} {'workers':>8} {'records/s':>10} {'CPU us':>7}")
    with tempfile.TemporaryDirectory() as name, _postgres.server() as postgres:
        for url in filter(None, ("sqlite", postgres)):
            folder = str(Path(name) / "hub")
            config = HubConfig(state_dir=folder, broker_host="", listen_port=0, accept_simulated=True)
            if url != "sqlite":
                config = msgspec.structs.replace(config, database_url=url, state_dir=f"{folder}-postgres")
            for kind in KINDS:
                for workers in chosen.workers:
                    per_second, cpu_us = rate(config, kind, chosen.records, workers)
                    kept = config.url.split(":")[0].split("+")[0]
                    print(f"{kind:14} {kept:>11} {workers:8} {per_second:10.0f} {cpu_us:7.1f}", flush=True)
    print(f"load of this machine over the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
