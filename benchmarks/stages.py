"""Where the time of a 30 s ECG (raw counts to findings) and of a photograph (JPEG to findings) goes, stage by stage.

CPU milliseconds of one thread, the median of several runs; a stage's own time is without that of the stages within it.
Run from the repository's top: python benchmarks/stages.py [--data ../shared/data] [--runs 15]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
from pipelines import AT, DEVICE, photograph, recording

from aidpost.firmware_bridge.simulators.ecg import simulate_ecg
from aidpost.inference import _fundus_input, _rhythm, ecg, fundus
from aidpost.inference.model import Model, Models
from aidpost.kernels import ecg_quality, rpeaks
from aidpost.records import FundusPhoto, Origin

# (stage, where it is called from, by what name)
ECG = (
    ("signal quality", ecg_quality, "assess"),
    ("choose the lead", ecg, "choose_lead"),
    ("R-peaks", rpeaks, "detect"),
    ("resample", _rhythm, "resample"),
    ("rhythm model: input", ecg, "read_rhythm"),
    ("rhythm model: LiteRT", Model, "run"),
    ("heart rate, pauses", ecg, "measure_timing"),
    ("beat classes", ecg, "classify"),
    ("intervals, ST", ecg, "measure_intervals"),
    ("ectopy", ecg, "measure_ectopy"),
    ("fibrillation", ecg, "suspected_spans"),
    ("rules to findings", ecg, "_findings"),
)
PHOTOGRAPH = (
    ("decode, field of view", fundus, "decode"),
    ("crop, normalise", _fundus_input, "normalise"),
    ("crop for the quality model", _fundus_input, "plain"),
    ("models: LiteRT", Model, "run"),
    ("quality, the rest", fundus, "read_quality"),
    ("grading, the rest", fundus, "grade_photo"),
    ("heatmap", fundus, "_heatmap"),
    ("rules to findings", fundus, "_findings"),
)


class Clock:
    """Own CPU time by stage: what runs within a stage and is one itself is taken off it."""

    def __init__(self) -> None:
        self.ms: Counter[str] = Counter()
        self._within: list[float] = []

    def timed(self, stage: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            self._within.append(0.0)
            start = time.process_time()
            try:
                return call(*arguments, **named)
            finally:
                spent = time.process_time() - start
                self.ms[stage] += 1000 * (spent - self._within.pop())
                if self._within:
                    self._within[-1] += spent

        return wrapped


@contextmanager
def watched(stages: tuple[tuple[str, Any, str], ...]) -> Iterator[Clock]:
    clock = Clock()
    with ExitStack() as stack:
        for stage, owner, name in stages:
            stack.enter_context(patch.object(owner, name, clock.timed(stage, getattr(owner, name))))
        yield clock


def table(title: str, stages: tuple[tuple[str, Any, str], ...], call: Callable[[], object], runs: int) -> None:
    with watched(stages) as clock:
        call()
        rows: list[Counter[str]] = []
        for _ in range(runs):
            clock.ms.clear()
            start = time.process_time()
            call()
            total = 1000 * (time.process_time() - start)
            rows.append(clock.ms + Counter({"all else": total - sum(clock.ms.values()), "whole": total}))
    whole = statistics.median(row["whole"] for row in rows)
    print(f"\n| {title} | CPU ms | share |\n|---|---|---|")
    for stage in [*(stage for stage, _, _ in stages), "all else", "whole"]:
        spent = statistics.median(row[stage] for row in rows)
        print(f"| {stage} | {spent:.2f} | {100 * spent / whole:.0f} % |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AIDPOST_DATA", "../shared/data")))
    parser.add_argument("--runs", type=int, default=15)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    models = Models()
    given = recording(simulate_ecg("sinus", seconds=30, fs_hz=300.0, seed=1).millivolts[0], 300.0)
    table("ECG, 30 s at 300 Hz, one lead", ECG, lambda: ecg.analyze(given, models), arguments.runs)
    name, encoded = photograph(arguments.data)
    photo = FundusPhoto(
        id=uuid.uuid4(), encoded=encoded, media_type="image/jpeg", eye=None, at=AT, origin=Origin.FILE, camera=DEVICE
    )
    table(name, PHOTOGRAPH, lambda: fundus.analyze(photo, models, force=True), arguments.runs)


if __name__ == "__main__":
    main()
