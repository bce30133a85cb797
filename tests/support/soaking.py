"""Hours of streaming from a board behind a pseudo-terminal, in less time than that or at real pace: does the recording
say exactly what is missing, and does memory stay flat?

The board numbers its samples, and each sample's count is its number: so every one that arrives shows where it belongs.
Frames are lost, doubled and damaged on the way, and the board falls silent now and then, all by a seed. `scripts/soak`
plays two hours; the test suite a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import threading
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aidpost.errors import DeviceTimeoutError
from aidpost.firmware_bridge.assembler import EcgAssembler
from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.ports.serial import SerialSource
from aidpost.firmware_bridge.simulators.boards import BoardSimulator
from aidpost.firmware_bridge.sources import SourceSpec
from aidpost.records import Origin, Timestamp

BOARD = BOARDS["aidpost"]
PIECE_S = 30.0
AT = Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=True)


class Clock:
    """A clock that stands still."""

    def now(self) -> Timestamp:
        return AT


class Soaked(NamedTuple):
    """What a soak found; `memory_mb` is the PSS of this process and the port's worker after each piece."""

    samples: int
    missing: int
    pieces: int
    restarts: int
    memory_mb: list[float]

    @property
    def growth_mb(self) -> float:
        """From the first quarter to the last, without the piece in which everything is used for the first time."""
        warm = self.memory_mb[1:]
        quarter = max(1, len(warm) // 4)
        return float(np.median(warm[-quarter:]) - np.median(warm[:quarter]))


def pss_mb(*pids: int) -> float:
    """Proportional set size of processes, in MB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


def _damage(rng: random.Random, rate: float) -> tuple[Callable[[int, bytes], bytes], list[int]]:
    hit = [0]

    def damage(number: int, data: bytes) -> bytes:
        if rng.random() >= rate:
            return data
        hit[0] += 1
        kind = rng.randrange(3)
        if kind == 0:
            return b""
        if kind == 1:
            return data + data
        spoilt = bytearray(data)
        spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        return bytes(spoilt)

    return damage, hit


def check(recording_counts: np.ndarray, valid: np.ndarray) -> None:
    """Each valid sample must stand exactly as far from the first as its number says.

    Raises
    ------
    AssertionError
        One does not: a loss has been miscounted, or a damaged sample was taken for a good one.
    """
    where = np.flatnonzero(valid)
    numbers = recording_counts[where]
    wrong = np.flatnonzero(numbers - numbers[0] != where - where[0])
    assert not len(wrong), f"sample {where[wrong[0]]} has number {numbers[wrong[0]]}, the first was {numbers[0]}"


def soak(
    device_s: float, speed: float, seed: int, rate: float = 0.002, *, piece_s: float = PIECE_S, say: bool = False
) -> Soaked:
    """Stream `device_s` seconds of the board's time, `speed` times as fast, in recordings of `piece_s`.

    The memory it finds is that of this whole process: to judge it, let it be a process of its own.

    Raises
    ------
    AssertionError
        A recording does not say exactly what is missing.
    """
    rng = random.Random(seed)
    damage, hit = _damage(rng, rate)
    memory: list[float] = []
    samples = missing = pieces = 0
    with BoardSimulator("aidpost", count(), speed=speed, damage=damage) as board:
        source = SerialSource(SourceSpec("serial", board.port, (("device", "aidpost"),)), Clock())
        ended = threading.Event()
        hiccups = threading.Thread(target=_hiccups, args=(board, ended, random.Random(seed + 1), speed), daemon=True)
        hiccups.start()
        try:
            while samples < device_s * BOARD.fs_hz:
                # a new one also where the stream ended: a busy machine's port may be replaced, and that takes a while
                assembler = EcgAssembler(BOARD, source.spec, piece_s)
                with contextlib.suppress(DeviceTimeoutError):
                    for time_s, items in source.stream(BOARD):
                        # faster than it is, the board's time is not ours: numbers alone tell losses
                        assembler.add(items, time_s if speed == 1 else None)
                        if assembler.full:
                            break
                if not len(assembler):
                    continue
                recording = assembler.recording(at=AT, origin=Origin.LIVE, source="soak")
                check(recording.samples[0], np.isfinite(recording.millivolts(0)))
                pieces += 1
                samples += recording.samples.shape[1]
                missing += sum(stop - start for start, stop in recording.missing)
                worker = source._worker
                assert worker is not None
                memory.append(pss_mb(os.getpid(), worker.pid or 0))
                if say and pieces % 20 == 0:
                    print(f"{samples / BOARD.fs_hz / 60:.0f} min, {missing} missing, {memory[-1]:.1f} MB", flush=True)
            restarts = source.restarts
        finally:
            ended.set()
            source.close()
            hiccups.join()
    assert min(hit[0], missing) > 0, "nothing was damaged: this proves nothing"
    return Soaked(samples, missing, pieces, restarts, memory)


def _hiccups(board: BoardSimulator, ended: threading.Event, rng: random.Random, speed: float) -> None:
    """The board falls silent for a second of its time, once a minute or so."""
    while not ended.wait(rng.uniform(20, 90) / speed):
        board.pause()
        ended.wait(1 / speed)
        board.resume()


def main() -> None:
    """The command line of `scripts/soak`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--speed", type=float, default=40, help="1: real pace")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--piece", type=float, default=PIECE_S, help="seconds of one recording")
    arguments = parser.parse_args()
    began = time.monotonic()
    found = soak(arguments.minutes * 60, arguments.speed, arguments.seed, piece_s=arguments.piece, say=True)
    seconds = time.monotonic() - began
    # the worker has ended by now, and counts among the children; the simulated board is a thread of this process
    used = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(
        f"{found.samples / BOARD.fs_hz / 60:.0f} minutes of {BOARD.fs_hz:g} Hz in {seconds:.0f} s, "
        f"{100 * used / seconds:.1f} % of a core: "
        f"{found.samples} samples, of which {found.missing} missing and all marked, {found.restarts} restarts, "
        f"memory {found.memory_mb[0]:.1f} to {found.memory_mb[-1]:.1f} MB, growth {found.growth_mb:+.2f} MB"
    )
    assert found.growth_mb < 2, "memory grew"


if __name__ == "__main__":
    main()
