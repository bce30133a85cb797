"""How much of the waveform codec's ratio comes from having seen the recordings: tables and start weights are fitted to
one half of them and measured on the other, both ways, beside those that ship and FLAC level 8 on the same recordings.

The codec is built twice in a temporary folder, each time with what one half gives. Recordings alternate between the
halves; none is in both. Run from the repository's top: python benchmarks/waveform_crossfit.py [--every 5]
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from waveform_codec import flac, recordings
from waveform_tables import counted, geometric, quantise, written

TOP = Path(__file__).resolve().parent.parent
CHILD = """
import pickle, sys
from aidpost.kernels import codec
halves = pickle.load(open(sys.argv[1], "rb"))
print(*(sum(len(codec.encode(x)) for x in items) for items in halves))
"""


def leads_of(items: list[np.ndarray]) -> list[np.ndarray]:
    """Leads that the predictor sees: the limb leads that follow from two others it does not."""
    return [lead[:60000] for x in items for i, lead in enumerate(x) if len(x) < 12 or i not in (2, 3, 4, 5)]


def start_weights(leads: list[np.ndarray]) -> str:
    """The mean of what the predictor comes to in its first 1024 samples, from nothing."""
    from aidpost.kernels import _codec

    found = []
    for lead in leads:
        weight = np.zeros(8, np.int8)
        for _ in range(2):
            _, _, final = _codec.contexts(np.ascontiguousarray(lead[:1024], np.int32), weight, 7, 0)
            weight = np.frombuffer(final, np.int8)
        found.append(weight)
    return ", ".join(str(round(v)) for v in np.mean(found, axis=0))


def built_with(items: list[np.ndarray], folder: Path) -> None:
    """A copy of the package in `folder` whose codec was fitted to `items` alone."""
    leads = leads_of(items)
    shutil.copytree(TOP / "aidpost", folder / "aidpost", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (folder / "setup.py").write_text((TOP / "setup.py").read_text().replace('glob("*.pyx")', 'glob("_codec.pyx")'))
    kernels = folder / "aidpost/kernels"
    (kernels / "_codec_tables.h").write_text(written(quantise(geometric() / 10 + counted(leads))))
    loops = (kernels / "_codec.pyx").read_text()
    # a lead beside a reference starts from nothing: what it comes to is in no trace
    loops, changed = re.subn(r"ALONE = \[.*\]", f"ALONE = [{start_weights(leads)}]", loops)
    loops, also = re.subn(r"BESIDE = \[.*\]", "BESIDE = [0, 0, 0, 0, 0, 0, 0, 0]", loops)
    assert changed == also == 1
    (kernels / "_codec.pyx").write_text(loops)
    subprocess.run([sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=5, help="take every n-th recording (default: 5)")
    sets = recordings(Path(os.environ.get("AIDPOST_DATA", "../shared/data")), parser.parse_args().every)
    halves = [{name: items[half::2] for name, items in sets.items()} for half in (0, 1)]
    raw, peer, ours, other = (dict.fromkeys(sets, 0) for _ in range(4))
    for half in (0, 1):
        fitted, measured = halves[half], halves[1 - half]
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            built_with([x for items in fitted.values() for x in items], folder)
            (folder / "items").write_bytes(pickle.dumps(list(measured.values())))
            for total, path in ((other, folder), (ours, TOP)):
                run = subprocess.run(
                    [sys.executable, "-c", CHILD, str(folder / "items")],
                    env={**os.environ, "PYTHONPATH": str(path)}, cwd=path, check=True, capture_output=True, text=True,
                )  # fmt: skip
                for name, size in zip(sets, run.stdout.split(), strict=True):
                    total[name] += int(size)
        for name, items in measured.items():
            raw[name] += sum(x.nbytes for x in items)
            peer[name] += sum(len(part) for x in items for part in flac(x))
    print("| set | as it ships | fitted to the other half | FLAC -8 | other half / FLAC |\n|---|---|---|---|---|")
    for name in sets:
        cells = (f"{total[name] / raw[name]:.4f}" for total in (ours, other, peer))
        print(f"| {name} | {' | '.join(cells)} | {other[name] / peer[name]:.3f} |")


if __name__ == "__main__":
    main()
