"""Whole pipelines as library calls, beside what a Python user would reach for, on the same input in the same run.

    python benchmarks/pipelines.py [--data ../shared/data] [--runs 5] [--accuracy]

Prints a table of CPU milliseconds (one thread) with the ratio to each peer; `--accuracy` adds the delineation of LUDB:
F1 within 150 ms and the error of each fiducial, ours and NeuroKit2's. Without the data folder the inputs are simulated.
A peer that is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
import uuid
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aidpost.errors import InferenceTimeoutError
from aidpost.firmware_bridge.simulators.ecg import simulate_ecg
from aidpost.firmware_bridge.simulators.fundus import encode_fundus, render_fundus
from aidpost.inference import ecg, fundus
from aidpost.inference._delineation import delineate
from aidpost.inference.bench import bench
from aidpost.inference.model import Models
from aidpost.inference.worker import InferenceWorker
from aidpost.kernels import rpeaks
from aidpost.records import Device, EcgRecording, FundusPhoto, Origin, Timestamp

AT = Timestamp(wall_ms=0, monotonic_ms=0, boot=0, synced=False)
DEVICE = Device(name="benchmark")


def cpu_ms(call: Callable[[], object], runs: int) -> float:
    """Median CPU milliseconds, after one uncounted run."""
    call()
    times = []
    for _ in range(runs):
        start = time.process_time()
        call()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def recording(millivolts: np.ndarray, fs_hz: float) -> EcgRecording:
    """One lead in steps of 1 microvolt."""
    return EcgRecording(
        id=uuid.uuid4(),
        samples=np.rint(np.atleast_2d(millivolts) * 1000).astype(np.int32),
        fs_hz=fs_hz,
        leads=("I",),
        lsb_mv=(0.001,),
        baseline=(0,),
        at=AT,
        origin=Origin.SIMULATED,
        device=DEVICE,
    )


def photograph(data: Path) -> tuple[str, bytes]:
    """A photograph of 4288 x 2848 where the data are there, else a rendered one."""
    real = sorted((data / "fundus" / "fullres").glob("*.jpg"))
    if real:
        return "fundus, 4288 x 2848 JPEG", real[0].read_bytes()
    return "fundus, simulated 1024 x 1024 JPEG", encode_fundus(render_fundus(grade=2, size=1024))


def ecg_rows(models: Models, runs: int) -> list[tuple[str, float, str, float | None]]:
    """(what, ours, the peer, the peer's) for an ECG of 30 s and one of 30 min."""
    rows = []
    for seconds, peer in ((30, True), (1800, False)):
        signal_mv = simulate_ecg("sinus", seconds=seconds, fs_hz=300.0, seed=1).millivolts[0]
        given = recording(signal_mv, 300.0)
        ours = cpu_ms(lambda given=given: ecg.analyze(given, models), runs)
        name, theirs = "", None
        if peer:
            name, theirs = neurokit_process(signal_mv, 300, runs)
        rows.append((f"ecg, {seconds} s at 300 Hz, one lead", ours, name, theirs))
    return rows


def neurokit_process(signal_mv: np.ndarray, fs_hz: int, runs: int) -> tuple[str, float | None]:
    """NeuroKit2's cleaning, R-peaks and delineation: no rhythm, no findings."""
    try:
        import neurokit2
    except ImportError:
        return "neurokit2 is not installed", None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spent = cpu_ms(lambda: neurokit2.ecg_process(signal_mv, sampling_rate=fs_hz), runs)
    return "neurokit2.ecg_process", spent


def fundus_rows(models: Models, data: Path, runs: int) -> list[tuple[str, float, str, float | None]]:
    """The same for a photograph; the peer decodes, crops and does Graham's normalisation at 512 px, without a model."""
    import cv2

    name, encoded = photograph(data)
    photo = FundusPhoto(
        id=uuid.uuid4(), encoded=encoded, media_type="image/jpeg", eye=None, at=AT, origin=Origin.FILE, camera=DEVICE
    )

    def opencv() -> object:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        x, y, w, h = cv2.boundingRect((grey > 15).astype(np.uint8))
        small = cv2.resize(image[y : y + h, x : x + w], (512, 512), interpolation=cv2.INTER_AREA)
        return cv2.addWeighted(small, 4, cv2.GaussianBlur(small, (0, 0), 17), -4, 128)

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    ours = cpu_ms(lambda: fundus.analyze(photo, models, force=True), runs)
    theirs = cpu_ms(opencv, runs)
    cv2.setNumThreads(threads)
    return [(name, ours, "OpenCV: decode and Graham's normalisation only", theirs)]


def worker_rows(runs: int) -> list[tuple[str, float]]:
    """Wall seconds: until the process is ready, and from a hang's deadline until the next answer."""
    given = recording(simulate_ecg("sinus", seconds=10, fs_hz=300.0, seed=1).millivolts[0], 300.0)
    starts, recoveries = [], []
    for _ in range(runs):
        start = time.perf_counter()
        with InferenceWorker(deadline_s=1.0) as worker:
            starts.append(time.perf_counter() - start)
            worker.ecg(given)
            if worker.pid is None:
                raise RuntimeError("the worker is not running")
            os.kill(worker.pid, signal.SIGSTOP)
            start = time.perf_counter()
            try:
                worker.ecg(given)
            except InferenceTimeoutError:
                worker.start()
            recoveries.append(time.perf_counter() - start - 1.0)
    return [("worker ready", statistics.median(starts)), ("a hung worker replaced", statistics.median(recoveries))]


Waves = dict[str, list[np.ndarray]]
"""Wave -> onsets, peaks and ends in seconds, NaN where there is none."""


def ours_on(signal_mv: np.ndarray, peaks_s: np.ndarray) -> Waves:
    """Our fiducials."""
    found = delineate(signal_mv, 500.0, peaks_s)
    return {"p": list(found.p.T), "N": list(found.qrs.T), "t": list(found.t.T)}


def neurokit_on(signal_mv: np.ndarray, peaks_s: np.ndarray) -> Waves:
    """NeuroKit2's wavelet delineation around the same R-peaks."""
    import neurokit2

    peaks = np.rint(peaks_s * 500).astype(int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = neurokit2.ecg_clean(signal_mv, sampling_rate=500)
        _, waves = neurokit2.ecg_delineate(clean, peaks, sampling_rate=500, method="dwt")

    def table(wave: str, middle: list[float]) -> list[np.ndarray]:
        # its columns are not always of one length
        columns = (waves[f"ECG_{wave}_Onsets"], middle, waves[f"ECG_{wave}_Offsets"])
        return [np.array(column, dtype=float) / 500.0 for column in columns]

    return {
        "p": table("P", waves["ECG_P_Peaks"]),
        "N": table("R", list(peaks.astype(float))),
        "t": table("T", waves["ECG_T_Peaks"]),
    }


def delineation_table(
    data: Path, method: Callable[[np.ndarray, np.ndarray], Waves]
) -> dict[tuple[str, int], list[float]]:
    """(wave, column) -> [F1, mean error, its standard deviation in ms] over lead II of LUDB."""
    import wfdb

    counts: dict[tuple[str, int], list[int]] = defaultdict(lambda: [0, 0, 0])
    errors: dict[tuple[str, int], list[float]] = defaultdict(list)
    for path in sorted((data / "ecg/ludb").glob("*.hea")):
        record = wfdb.rdrecord(str(path.with_suffix("")))
        notes = wfdb.rdann(str(path.with_suffix("")), "ii")
        marks = [
            (notes.symbol[i + 1], notes.sample[i : i + 3] / 500.0)
            for i in range(len(notes.symbol) - 2)
            if notes.symbol[i] == "(" and notes.symbol[i + 2] == ")"
        ]
        signal_mv = record.p_signal[:, record.sig_name.index("ii")]
        peaks_s = rpeaks.detect(signal_mv, 500.0).sample / 500.0
        count_matches(marks, method(signal_mv, peaks_s), counts, errors)
    return {
        key: [2 * n[0] / (n[1] + n[2]), float(np.mean(errors[key])), float(np.std(errors[key]))]
        for key, n in counts.items()
    }


def count_matches(
    marks: list[tuple[str, np.ndarray]],
    found: Waves,
    counts: dict[tuple[str, int], list[int]],
    errors: dict[tuple[str, int], list[float]],
) -> None:
    """Add one lead's hits, references and findings, one-to-one within 150 ms, inside the annotated stretch."""
    first, last = min(mark[0] for _, mark in marks) - 0.02, max(mark[2] for _, mark in marks) + 0.02
    for wave, table in found.items():
        for column in range(3):
            left = [at for at in table[column] if first <= at <= last]
            total = len(left)
            reference = [mark[column] for kind, mark in marks if kind == wave]
            hits = 0
            for one in reference:
                near = min(left, key=lambda at, one=one: abs(at - one), default=None)
                if near is not None and abs(near - one) <= 0.150:
                    left.remove(near)
                    errors[wave, column].append(1000 * (near - one))
                    hits += 1
            for i, n in enumerate((hits, len(reference), total)):
                counts[wave, column][i] += n


def print_accuracy(data: Path) -> None:
    """The delineation of LUDB, ours (P waves looked for in every rhythm) beside NeuroKit2's."""
    ours, theirs = delineation_table(data, ours_on), delineation_table(data, neurokit_on)
    names = {"p": "P", "N": "QRS", "t": "T"}
    print("\n| LUDB, lead II | ours F1 | error ms | neurokit2 dwt F1 | error ms |\n|---|---|---|---|---|")
    for key in sorted(ours, key=lambda key: ("pNt".index(key[0]), key[1])):
        label = f"{names[key[0]]} {('onset', 'peak', 'end')[key[1]]}"
        cells = [f"{row[0]:.3f} | {row[1]:+.0f} ± {row[2]:.0f}" for row in (ours[key], theirs[key])]
        print(f"| {label} | {cells[0]} | {cells[1]} |")


def main() -> None:
    """Parse the command line, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("AIDPOST_DATA", "../shared/data")))
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--accuracy", action="store_true")
    arguments = parser.parse_args()
    models = Models()
    print("| pipeline | ours, CPU ms | peer, CPU ms | peer / ours | peer |\n|---|---|---|---|---|")
    for name, ours, peer, theirs in [
        *ecg_rows(models, arguments.runs),
        *fundus_rows(models, arguments.data, arguments.runs),
    ]:
        other = "- | - |" if theirs is None else f"{theirs:.1f} | {theirs / ours:.1f} |"
        print(f"| {name} | {ours:.1f} | {other} {peer} |")
    print("\n| process | wall s |\n|---|---|")
    for name, seconds in worker_rows(min(arguments.runs, 3)):
        print(f"| {name} | {seconds:.2f} |")
    print("\n| model | runtime | load ms | median ms | 95 % ms | memory MB |\n|---|---|---|---|---|---|")
    for row in bench():
        memory = "-" if row.memory_mb is None else f"{row.memory_mb:.1f}"
        figures = f"{row.load_ms:.1f} | {row.median_ms:.2f} | {row.p95_ms:.2f} | {memory}"
        print(f"| {row.name} {row.version} | {row.runtime} | {figures} |")
    if arguments.accuracy:
        print_accuracy(arguments.data)


if __name__ == "__main__":
    main()
