"""From the port to the live value: how long after its bytes were on the wire a sample can be drawn.

Run: python benchmarks/live_ecg.py [SECONDS]. A board of our own protocol writes each of its 250 samples a second at its
own time to a pseudo-terminal; the port's process reads them, this one decodes them and puts them into the recording, as
an exam does. A sample's number is its count, so that each is timed by itself. The target is 100 ms. The last line is
what the two processes took of a core, the simulated board included.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
import tty
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from aidpost.firmware_bridge.assembler import EcgAssembler
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.clock import SystemClock
from aidpost.firmware_bridge.decoders.own import encode_hello, encode_samples
from aidpost.firmware_bridge.ports.serial import SerialSource
from aidpost.firmware_bridge.sources import SourceSpec

FS_HZ = 250
TARGET_MS = 100


class Board:
    """A board that notes when it wrote each sample."""

    def __init__(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self.written: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        began = time.monotonic()
        while not self._ended.wait(max(0.0, began + len(self.written) / FS_HZ - time.monotonic())):
            number = len(self.written)
            data = encode_samples(number, [(number,)])
            if number % FS_HZ == 0:
                data = encode_hello("timed board", FS_HZ, ("I",), (1.0,)) + data
            self.written.append(time.monotonic())
            os.write(self._master, data)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


def latencies_ms(seconds: float) -> np.ndarray:
    """For each sample, from its writing to its being in the recording, milliseconds."""
    board = Board()
    source = SerialSource(SourceSpec("serial", board.port, (("device", "aidpost"),)), SystemClock(boot=0))
    found: list[float] = []
    seen = 0

    def watch(assembler: EcgAssembler) -> None:
        nonlocal seen
        now, (millivolts, _) = time.monotonic(), assembler.tail(seen)
        seen = len(assembler)
        found.extend((now - board.written[round(value * 1000)]) * 1e3 for value in millivolts)

    source.watcher = watch
    try:
        source.read_ecg(seconds)
    finally:
        source.close()
        board.close()
    return np.array(found)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60
    began = time.monotonic()
    found = latencies_ms(seconds)
    took = time.monotonic() - began
    used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    p50, p95, p99 = np.percentile(found, (50, 95, 99))
    within = 100 * np.mean(found <= TARGET_MS)
    print(f"{len(found)} samples of {BOARDS['aidpost'].title} at {FS_HZ} Hz, load {os.getloadavg()[0]:.1f}")
    print(f"median {p50:.1f} ms, p95 {p95:.1f}, p99 {p99:.1f}, maximum {found.max():.1f}; {within:.2f} % within 100 ms")
    print(f"{100 * used / took:.1f} % of a core")


if __name__ == "__main__":
    main()
