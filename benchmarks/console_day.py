"""A day at the device's screen in a real Chromium, by touch: what of each exam the software itself took, the device's
memory (PSS of all its processes, models loaded), its start, and the processor time of the live pictures.

    python benchmarks/console_day.py [EXAMS]

How the overhead is counted stands in tests/support/console_day.py. Every fifth exam has a retake, and the language
changes after every tenth. Live pictures: the share of one core that the device and the browser's own processes take
while an ECG is recorded, and while the camera's preview is shown.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

TOP = Path(__file__).parents[1]
sys.path[:0] = [str(TOP), str(TOP / "tests/support")]

from browser import Browser  # noqa: E402
from console import SENSORS, Running  # noqa: E402
from console_day import Day  # noqa: E402

ECG_S = 9.0


def family(pid: int) -> list[int]:
    """A process and all that came of it."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*"):
            found += [int(child) for child in (task / "children").read_text().split()]
    return found


def pss_mb(pid: int) -> float:
    """Memory of a family, what is shared counted once."""
    rollups = [Path(f"/proc/{one}/smaps_rollup").read_text() for one in family(pid)]
    return sum(int(line.split()[1]) for text in rollups for line in text.splitlines() if line.startswith("Pss:")) / 1024


def cpu_s(pid: int) -> float:
    """Processor seconds of a family so far."""
    ticks = 0
    for one in family(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def live(browser: Browser, device: Running, exam: str) -> None:
    """The live ECG and the camera's preview, by processor time."""
    assert device.process is not None
    pids = (device.process.pid, browser.pid)
    for name, path, begin, seconds in (
        ("live ECG", "/ecg?again=1", "document.getElementById('start').click()", ECG_S - 2),
        ("camera preview", "/eye/left", "0", 8.0),
    ):
        browser.open(f"{device.url}{exam}{path}")
        time.sleep(1.5)
        browser.evaluate(begin)
        frames = browser.evaluate("window.frames_drawn || 0")
        before, began = [cpu_s(pid) for pid in pids], time.monotonic()
        time.sleep(seconds)
        wall = time.monotonic() - began
        spent = [cpu_s(pid) - old for pid, old in zip(pids, before, strict=True)]
        drawn = (browser.evaluate("window.frames_drawn || 0") - frames) / wall
        shown = f", {drawn:.1f} frames/s" if path.startswith("/eye") else ""
        print(f"{name}: device {spent[0] / wall:.1%} + browser {spent[1] / wall:.1%} of a core{shown}")


def main() -> None:
    """Prints a line a figure."""
    exams = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory() as folder, Browser(800, 480) as browser:
        device = Running(Path(folder), f"{SENSORS}\n[console]\nlock_minutes = 600\n")
        wall = device.start()
        device.page("/lock")
        assert device.process is not None
        print(f"start to the first page: {wall:.2f} s wall, {cpu_s(device.process.pid):.2f} s of processor")
        with_device(browser, device, exams)


def with_device(browser: Browser, device: Running, exams: int) -> None:
    """The day itself."""
    try:
        browser.open(device.url)
        browser.fill("[name=name]", "Rose")
        browser.fill("[name=pin]", "2580")
        browser.fill("[name=again]", "2580")
        browser.tap("footer .primary")
        day, taken = Day(browser, device, ECG_S), []
        for number in range(exams):
            taken.append(day.exam(f"Amina {number}", retakes=int(number % 5 == 4)))
            if number % 10 == 9:
                browser.open(f"{device.url}/more")
                browser.tap(f"[value={('es', 'zh', 'en')[number // 10 % 3]}]")
        for name, values in (
            ("overhead", [one.seconds for one in taken]),
            ("of it waits", [one.waited_s for one in taken]),
            ("taps", [float(one.taps) for one in taken]),
            ("screens", [float(one.screens) for one in taken]),
        ):
            print(f"{name} an exam, {exams} exams: median {statistics.median(values):.1f}, most {max(values):.1f}")
        assert device.process is not None
        print(f"memory of the whole device, models loaded: {pss_mb(device.process.pid):.0f} MB PSS")
        browser.open(device.url + "/")
        day.register("Zawadi")
        live(browser, device, str(browser.evaluate("location.pathname")))
    finally:
        device.__exit__(None, None, None)


if __name__ == "__main__":
    main()
