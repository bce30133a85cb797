"""How long each stage of an exam takes on this board, and what memory it needs: simulated inputs through the real
pipeline, so that a clinic sees what its own device does."""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from aidpost.board import _tree
from aidpost.firmware_bridge.clock import SystemClock
from aidpost.firmware_bridge.sources import open_source
from aidpost.inference.model import Models
from aidpost.records import Eye
from aidpost.sync._durable import replace_file

RECORD_BYTES = 4096


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage, or a step of the stage before it: the first run (which loads), median and slowest of the others, and
    their median processor time, which other programs on the board do not change much (None for a step); all in
    milliseconds."""

    name: str
    first_ms: float
    median_ms: float
    slowest_ms: float
    processor_ms: float | None


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """All stages, and the proportional set size of the process afterwards (None where the kernel does not tell)."""

    stages: tuple[Stage, ...]
    memory_mb: float | None


def _timed(name: str, work: Callable[[], object], runs: int) -> Stage:
    wall, processor = [], []
    for _ in range(runs + 1):
        started, spent = time.perf_counter(), time.process_time()
        work()
        wall.append((time.perf_counter() - started) * 1e3)
        processor.append((time.process_time() - spent) * 1e3)
    return Stage(
        name=name,
        first_ms=wall[0],
        median_ms=statistics.median(wall[1:]),
        slowest_ms=max(wall[1:]),
        processor_ms=statistics.median(processor[1:]),
    )


def _steps(name: str, elapsed: Sequence[Mapping[str, float]]) -> list[Stage]:
    """The steps of a stage, as each run of it has timed them."""
    found = []
    for step in (one for one in elapsed[-1] if one != "total"):
        first, *others = [one.get(step, 0.0) for one in elapsed]
        median = statistics.median(others)
        found.append(
            Stage(name=f"{name}: {step}", first_ms=first, median_ms=median, slowest_ms=max(others), processor_ms=None)
        )
    return found


def bench(models: Models, state_dir: Path, runs: int = 5, root: Path = Path("/")) -> Bench:
    """Time reading an ECG of 30 s, reading a photograph, and keeping a record safe on the disk of `state_dir`.

    Raises
    ------
    ModelError
        A model is missing or not sound.
    OSError
        The folder cannot be written.
    """
    from aidpost.inference import ecg, fundus

    clock = SystemClock(0)
    with contextlib.closing(open_source("sim:ecg?rhythm=sinus&seconds=30&seed=1", clock=clock)) as source:
        recording = source.read_ecg()
    with contextlib.closing(open_source("sim:fundus?grade=2&size=2048&seed=1", clock=clock)) as source:
        photo = source.read_photo(Eye.LEFT)
    place = state_dir
    while not place.exists() and place != place.parent:
        place = place.parent
    with tempfile.TemporaryDirectory(prefix=".aidpost-bench-", dir=place) as folder:
        record = os.urandom(RECORD_BYTES)
        elapsed: list[Mapping[str, float]] = []
        steps: list[dict[str, float]] = []

        def read_ecg() -> None:
            steps.append({})
            ecg.analyze(recording, models, elapsed_ms=steps[-1])

        stages = (
            _timed("ECG, 30 s", read_ecg, runs),
            *_steps("ECG", steps),
            _timed("photograph, 2048", lambda: elapsed.append(fundus.analyze(photo, models).elapsed_ms), runs),
            *_steps("photograph", elapsed),
            _timed("safe on disk, 4 kB", lambda: replace_file(Path(folder) / "record", record), runs * 4),
        )
    kilobytes = _tree.first(r"^Pss:\s*(\d+) kB", _tree.text(root / "proc/self/smaps_rollup"))
    return Bench(stages=stages, memory_mb=int(kilobytes) / 1024 if kilobytes else None)
