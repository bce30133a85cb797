"""How fast each model is on this board, and how much memory it takes."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aidpost.inference.model import SHIPPED, Model, list_models, load_model
from aidpost.inference.runtime import available_runtimes

__all__ = ["Bench", "bench"]


@dataclass(frozen=True)
class Bench:
    """One model on one runtime, one thread. `load_ms` has no golden check; `memory_mb` is what loading and a first run
    added to this process, None where the system does not tell."""

    name: str
    version: str
    runtime: str
    load_ms: float
    median_ms: float
    p95_ms: float
    memory_mb: float | None


def bench(
    roots: Iterable[Path] = (SHIPPED,), *, repeats: int = 50, statm: Path = Path("/proc/self/statm")
) -> list[Bench]:
    """Measure every model on every runtime that works here.

    Raises
    ------
    ModelError
        A model cannot be loaded.
    """
    folders = [folder for folder, _ in list_models(roots)]
    return [_measure(folder, runtime, repeats, statm) for folder in folders for runtime in available_runtimes()]


def _measure(folder: Path, runtime: str, repeats: int, statm: Path) -> Bench:
    before, start = _resident_mb(statm), time.perf_counter()
    model = load_model(folder, runtime=runtime, check=False)
    loaded = time.perf_counter()
    times = _times(model, repeats)
    after = _resident_mb(statm)
    return Bench(
        name=model.ref.name,
        version=model.ref.version,
        runtime=model.ref.runtime,
        load_ms=1000 * (loaded - start),
        median_ms=1000 * float(np.median(times)),
        p95_ms=1000 * float(np.quantile(times, 0.95)),
        memory_mb=None if before is None or after is None else max(0.0, after - before),
    )


def _times(model: Model, repeats: int) -> list[float]:
    shape = model.interpreter.input.shape
    counts = np.random.default_rng(0).integers(-128, 128, shape).astype(model.interpreter.input.dtype)
    model.run(counts)
    out = []
    for _ in range(max(1, repeats)):
        start = time.perf_counter()
        model.run(counts)
        out.append(time.perf_counter() - start)
    return out


def _resident_mb(statm: Path) -> float | None:
    try:
        pages = int(statm.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * mmap.PAGESIZE / 1e6
