"""How fast each serial board's decoder is: samples a second, and how many times its device's own rate.

Run: python benchmarks/decoders.py [SECONDS OF SIGNAL]. One core; the target is 100 times the device's rate. Reading a
30-minute, two-lead WFDB record is timed beside the wfdb package, if one is given with AIDPOST_DATA.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from aidpost.firmware_bridge.boards import BOARDS
from aidpost.firmware_bridge.formats.wfdb import read_wfdb
from aidpost.firmware_bridge.simulators.boards import ENCODERS, frames

CHUNK = 512


def decode_seconds(board: str, seconds: float) -> tuple[int, float]:
    """Frames decoded, and the processor time that it took."""
    count = round(seconds * BOARDS[board].fs_hz)
    data = b"".join(frames(board, [n % 1000 for n in range(count)]))
    decoder = BOARDS[board].decoder()
    began, blocks = time.process_time(), 0
    for start in range(0, len(data), CHUNK):
        blocks += len(decoder.feed(data[start : start + CHUNK]))
    return blocks, time.process_time() - began


def best_of(repeats: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 120
    print(f"{'board':<12} {'device Hz':>10} {'decoded Hz':>12} {'times':>8}")
    for board in ENCODERS:
        blocks, took = decode_seconds(board, seconds)
        rate = blocks / took
        print(f"{board:<12} {BOARDS[board].fs_hz:>10.0f} {rate:>12.0f} {rate / BOARDS[board].fs_hz:>8.0f}")
    record = Path(os.environ.get("AIDPOST_DATA", "../shared/data")) / "ecg" / "mitdb" / "101"
    if record.with_suffix(".hea").is_file():
        import wfdb

        ours = best_of(5, lambda: read_wfdb(record))
        theirs = best_of(5, lambda: wfdb.rdrecord(str(record), physical=False))
        print(f"\n30 min x 2 leads of WFDB format 212: {ours * 1e3:.1f} ms, wfdb package {theirs * 1e3:.1f} ms", end="")
        print(
            f" (ratio {theirs / ours:.1f}); peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB"
        )


if __name__ == "__main__":
    main()
