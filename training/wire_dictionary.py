"""Trains the dictionary with which messages are compressed: sync/wire.zdict, from simulated exams.

    python training/wire_dictionary.py STATE_DIR...

Each STATE_DIR is a device's state folder after `aidpost exam` with `sim:` sources, its key in a file. What is not
simulated is refused, so that no patient's data go in. Prints bytes with and without it, on an exam that it was not
trained on.
"""

from __future__ import annotations

import sys
from pathlib import Path

import zstandard

from aidpost.records import ExamReport, Origin, decode
from aidpost.sync import keys
from aidpost.sync.clock import SystemClock
from aidpost.sync.store import Store

OUT = Path(__file__).parents[1] / "sync" / "wire.zdict"
SIZE = 16 * 1024


def bodies(folder: Path) -> list[bytes]:
    """The records of a device, as they stand in its envelopes; every report among them simulated."""
    with Store.open(folder, keys.from_file(folder / "device.key"), clock=SystemClock()) as store:
        found = []
        for cls, seq, kind in store.read("SELECT cls, seq, kind FROM record ORDER BY cls, seq"):
            (envelope,) = store.envelopes(cls, [seq])
            if kind == "ExamReport" and decode(ExamReport, envelope.body).origin is not Origin.SIMULATED:
                raise SystemExit(f"{folder}: {cls}/{seq} is not simulated")
            found.append(envelope.body)
        return found


def main() -> None:
    """Train on all exams but the last, measure on that."""
    exams = [body for folder in sys.argv[1:] for body in bodies(Path(folder))]
    reports = [body for body in exams if len(body) > 2000]
    kept, tried = [body for body in exams if body is not reports[-1]], reports[-1]
    # in pieces, so that the trainer sees what single readings have in common too
    samples = [body[i : i + 400] for body in kept for i in range(0, len(body), 400)]
    trained = zstandard.train_dictionary(SIZE, samples, level=19)
    OUT.write_bytes(trained.as_bytes())
    plain = len(zstandard.ZstdCompressor(level=6).compress(tried))
    with_it = len(zstandard.ZstdCompressor(level=6, dict_data=trained).compress(tried))
    print(f"{len(kept)} records, dictionary {len(trained.as_bytes())} B; an exam: {len(tried)} B,")
    print(f"zstd {plain} B, zstd with dictionary {with_it} B")


if __name__ == "__main__":
    main()
