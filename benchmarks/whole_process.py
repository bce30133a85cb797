"""Whole processes, as an operator starts them: CPU seconds, wall seconds and peak memory, beside the targets.

    python benchmarks/whole_process.py [--data ../shared/data] [--runs 5]

Without the data folder the inputs are simulated: the ECG is written as CSV, the photograph as a 4288 x 2848 JPEG.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def measure(command: list[str], runs: int) -> tuple[float, float, float, int]:
    """Median CPU and wall seconds, highest peak memory (MB) and the last exit code, after one uncounted run."""
    cpu, wall, memory, code = [], [], [], 0
    for run in range(runs + 1):
        with tempfile.TemporaryFile() as sink:
            before = os.times()
            process = subprocess.Popen(command, stdout=sink, stderr=sink)
            _, status, usage = os.wait4(process.pid, 0)
            after = os.times()
        code = os.waitstatus_to_exitcode(status)
        process.returncode = code
        if run:
            cpu.append(usage.ru_utime + usage.ru_stime)
            wall.append(after.elapsed - before.elapsed)
            memory.append(usage.ru_maxrss / 1024)
    return statistics.median(cpu), statistics.median(wall), max(memory), code


def thirty_seconds_of_ecg(folder: Path) -> Path:
    """A simulated 30 s recording as CSV."""
    from aidpost.firmware_bridge.clock import SystemClock
    from aidpost.firmware_bridge.sources import open_source

    recording = open_source("sim:ecg?rhythm=af&seconds=30&seed=1", clock=SystemClock(boot=0)).read_ecg()
    path = folder / "ecg.csv"
    columns = [recording.millivolts(lead) for lead in range(len(recording.leads))]
    with path.open("w") as file:
        file.write("time_s," + ",".join(f"{lead}_mV" for lead in recording.leads) + "\n")
        for index, row in enumerate(zip(*columns, strict=True)):
            file.write(f"{index / recording.fs_hz:.6f}," + ",".join(f"{value:.4f}" for value in row) + "\n")
    return path


def full_size_photograph(folder: Path, data: Path) -> Path:
    """A photograph as a Kowa VX-10 takes it, or a simulated one enlarged to that size."""
    real = sorted((data / "fundus" / "fullres").glob("*.jpg"))
    if real:
        return real[0]
    import cv2
    import numpy as np

    from aidpost.firmware_bridge.clock import SystemClock
    from aidpost.firmware_bridge.sources import open_source

    photo = open_source("sim:fundus?seed=1", clock=SystemClock(boot=0)).read_photo()
    image = cv2.imdecode(np.frombuffer(photo.encoded, np.uint8), cv2.IMREAD_COLOR)
    path = folder / "fundus.jpg"
    cv2.imwrite(str(path), cv2.resize(image, (4288, 2848)))
    return path


def main() -> int:
    """Print the table; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AIDPOST_DATA", "../shared/data")))
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    aidpost = [sys.executable, "-c", "from aidpost.board.cli import main; main()"]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        cases = [
            ("aidpost --help", [*aidpost, "--help"], 0.3, 250),
            ("analyze ecg, 30 s", [*aidpost, "analyze", "ecg", str(thirty_seconds_of_ecg(Path(folder)))], 1.5, 250),
            (
                "analyze fundus, 4288 x 2848",
                [*aidpost, "analyze", "fundus", str(full_size_photograph(Path(folder), arguments.data))],
                1.5,
                250,
            ),
        ]
        print(f"{'whole process':30} {'CPU s':>7} {'wall s':>7} {'target':>7} {'peak MB':>8} {'target':>7}")
        for name, command, seconds, megabytes in cases:
            cpu, wall, memory, code = measure(command, arguments.runs)
            # CPU seconds count on one core: a busy machine lengthens the wall, not these
            met = code == 0 and cpu <= seconds and memory <= megabytes
            missed += not met
            verdict = "" if met else f"  exit {code}" if code else "  missed"
            print(f"{name:30} {cpu:7.2f} {wall:7.2f} {seconds:7.1f} {memory:8.0f} {megabytes:7.0f}{verdict}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
