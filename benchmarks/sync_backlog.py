"""What a device pays for a backlog of 10^3 to 10^6 records: a record at a time, and in memory.

    python benchmarks/sync_backlog.py [--largest 1000000]

Each size is a store of its own, of vital signs of a hundred patients, filled 100 records a group; `accept` is of the
last ten thousand, or all. A fresh process then opens the store (which checks the whole database: `open` is the one
column that grows with it, and `a record` is its share), makes its hello, hears from a hub that was made anew and wants
all of it (one commit), asks for the status as a page does, for one patient's history, and sends and settles 10,000
records, or all. `memory` is the most that this process had. `accept`, `open` and `send` are CPU, all else is time on
the wall.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sync_device import open_store, vital

from aidpost.sync import outbox
from aidpost.sync.envelope import Held, Receipt, RecordClass, Records, records_check
from aidpost.sync.outbox import Outbox
from aidpost.sync.ranges import from_numbers
from aidpost.sync.store import Item, Store

HUB = b"hub-1234"
GROUP = 100
PATIENTS = 100
LAST = 10_000
SENT = 10_000
COLUMNS = (
    ("accept us", 10),
    ("bytes a record", 15),
    ("open ms", 8),
    ("a record us", 12),
    ("hello ms", 9),
    ("wanted ms", 10),
    ("status ms", 10),
    ("history ms", 11),
    ("send us", 8),
    ("memory MB", 10),
)


def fill(folder: Path, size: int) -> float:
    """Accept `size` records; microseconds of CPU of each of the last ten thousand."""
    with open_store(folder) as store:
        start = time.process_time()
        for first in range(0, size, GROUP):
            if size - first == LAST:
                start = time.process_time()
            numbers = range(first, min(size, first + GROUP))
            store.append_many([Item(RecordClass.VITALS, vital(n), uuid.UUID(int=1 + n % PATIENTS)) for n in numbers])
        return (time.process_time() - start) / min(LAST, size) * 1e6


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1e3


def send(store: Store, count: int) -> None:
    """As the sender does, with a hub that receipts at once."""
    box, settled = Outbox(store, widen=16), 0
    while settled < count and (piece := box.next()):
        assert isinstance(piece.content, Records)
        sent = piece.content.envelopes
        held = Held(store.epoch, piece.leaf, from_numbers(one.seq for one in sent), records_check(e.hash for e in sent))
        box.receive(Receipt(HUB, held=(held,)))
        settled += len(sent)


def measure(folder: Path, size: int) -> None:
    """Print what a process pays that finds the store so, separated by spaces."""
    before = time.process_time()
    store = open_store(folder)
    opened = (time.process_time() - before) * 1e3
    hello = timed(lambda: list(store.lives.all()))
    wanted = (Held(store.epoch, RecordClass.VITALS.value, ((1, size + 1),)),)
    box, answer = Outbox(store), Receipt(HUB, wanted=wanted, answers=bytes(16))
    heard = timed(lambda: (box.gone(answer), box.receive(answer)))
    status = timed(lambda: (outbox.status(store), store.space.days_left()))
    history = timed(lambda: store.history(uuid.UUID(int=1)))
    cpu, count = time.process_time(), min(size, SENT)
    send(store, count)
    cpu_us = (time.process_time() - cpu) / count * 1e6
    store.close()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(opened, opened / size * 1e3, hello, heard, status, history, cpu_us, memory)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=1_000_000)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(Path(arguments.measure[0]), int(arguments.measure[1]))
        return
    print(f"{'backlog':>9}" + "".join(f"{title:>{width}}" for title, width in COLUMNS))
    for size in (n for n in (1_000, 10_000, 100_000, 1_000_000) if n <= arguments.largest):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "state"
            accept = fill(folder, size)
            on_disk = sum(one.stat().st_size for one in folder.iterdir() if one.is_file()) / size
            command = [sys.executable, __file__, "--measure", str(folder), str(size)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            shutil.rmtree(folder)
        figures = [accept, on_disk, *map(float, answer.split())]
        cells = (f"{figure:{width}.1f}" for figure, (_, width) in zip(figures, COLUMNS, strict=True))
        print(f"{size:9}" + "".join(cells), flush=True)
    print(f"load of this machine over the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")


if __name__ == "__main__":
    main()
