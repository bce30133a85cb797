"""Cuts the power after every step of a traced workload, and looks whether the store kept its word.

    python tests/faults/power_cut.py [--seeds 20] [--all]

prints a table of cuts and violations. The tests use the same functions on a few seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from replay import VARIANTS, Disk, Operation, cuts, read_trace  # noqa: E402

from aidpost.errors import AidpostError  # noqa: E402
from aidpost.records import Patient, decode  # noqa: E402
from aidpost.sync import keys  # noqa: E402
from aidpost.sync.clock import SystemClock  # noqa: E402
from aidpost.sync.envelope import RecordClass  # noqa: E402
from aidpost.sync.store import Item, Store  # noqa: E402


class Violation(NamedTuple):
    """A broken promise: after which operation, what survived, what was wrong."""

    cut: int
    variant: str
    what: str


def build_shim(folder: Path) -> Path:
    """Compile the tracer."""
    shim = folder / "shim.so"
    compiler = shutil.which("gcc") or "cc"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", shim, HERE / "shim.c", "-ldl"], check=True
    )
    return shim


def traced(
    shim: Path, folder: Path, *arguments: object, workload: str = "workload.py", **environment: str
) -> list[Operation]:
    """Run a workload in a process of its own and give what it did."""
    root = folder / f"traced-{uuid.uuid4().hex}"
    root.mkdir()
    trace = folder / f"{root.name}.trace"
    preload = {"LD_PRELOAD": str(shim), "AIDPOST_TRACE_DIR": str(root), "AIDPOST_TRACE": str(trace)}
    subprocess.run(
        [sys.executable, str(HERE / workload), str(root), *map(str, arguments)],
        env={**os.environ, **preload, **environment},
        check=True,
    )
    return read_trace(trace)


def check_image(image: Path, acknowledged: Iterable[bytes]) -> str | None:
    """What is wrong with a folder after a cut; None where every promise is kept."""
    told = [json.loads(line) for lines in acknowledged for line in lines.splitlines()]
    accepted = [one for one in told if "seq" in one]
    state = image / "state"
    state.mkdir(exist_ok=True)
    try:
        key = keys.from_file(state / "device.key", create=not told)
        if told and key.secret.hex() != told[0]["key"]:
            return "the device key is another one"
        with Store.open(state, key, clock=SystemClock(), name="unit-1") as store:
            return _kept(store, accepted)
    except (AidpostError, ValueError) as error:
        return f"the store does not open: {error}"


def _kept(store: Store, accepted: list[dict[str, object]]) -> str | None:
    for one in accepted:
        found = store.envelopes("report", [int(str(one["seq"]))])
        if not found:
            return f"record {one['seq']} is gone"
        if str(decode(Patient, found[0].body).id) != one["patient"]:
            return f"record {one['seq']} is another one"
        if one["blob"] is not None:
            try:
                store.read_blob(str(one["blob"]))
            except AidpostError as error:
                return f"the photograph of record {one['seq']} is gone: {error.cause}"
    fresh = Patient(id=uuid.uuid4())
    key = store.append(Item(RecordClass.REPORT, fresh, fresh.id))
    if key.seq in {one["seq"] for one in accepted}:
        return f"sequence {key.seq} was used again"
    return None


def violations(
    trace: list[Operation],
    folder: Path,
    *,
    skip: Callable[[Operation], bool] = lambda _: False,
    variants: Iterable[str] = VARIANTS,
    every: bool = False,
    stop_at_first: bool = False,
    check: Callable[[Path, Iterable[bytes]], str | None] = check_image,
) -> tuple[int, list[Violation]]:
    """How many images were looked at, and what was wrong with them."""
    disk, found, looked, done = Disk(skip), [], 0, 0
    moments = range(len(trace) + 1) if every else sorted(set(cuts(trace)))
    for cut in moments:
        for one in trace[done:cut]:
            disk.do(one)
        done = cut
        for variant in variants:
            image = folder / "image"
            image.mkdir()
            disk.image(image, variant, seed=cut)
            wrong = check(image, disk.acknowledged)
            shutil.rmtree(image)
            looked += 1
            if wrong is not None:
                found.append(Violation(cut, variant, wrong))
                if stop_at_first:
                    return looked, found
    return looked, found


def main() -> int:
    """Print the table; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--all", action="store_true", help="cut after every operation")
    arguments = parser.parse_args()
    total = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shim = build_shim(folder)
        print(f"{'seed':>5} {'operations':>11} {'accepted':>9} {'power cuts':>11} {'broken promises':>16}")
        for seed in range(arguments.seeds):
            trace = traced(shim, folder, seed)
            looked, found = violations(trace, folder, every=arguments.all)
            accepted = sum(one.path == "acknowledged" and b'"seq"' in one.data for one in trace)
            print(f"{seed:5} {len(trace):11} {accepted:9} {looked:11} {len(found):16}")
            for one in found[:5]:
                print(f"      after operation {one.cut} ({one.variant}): {one.what}")
            total += len(found)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
