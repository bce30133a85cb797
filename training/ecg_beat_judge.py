"""The figures of the beat model's card: each patient judged by a network that has not seen them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ecg_beat_data import CLASSES, GROUPS, IGNORED, Half, Table, seen
from ecg_beat_net import BeatNet
from ecg_data import Array, Noise, add_noise
from ecg_evaluate import calibration_error, softmax
from ecg_export import Int8Model

from aidpost.inference._beats import agreed, classes_of, doubting_early_beats, joined
from aidpost.inference._beats_input import LIMIT, WINDOW
from aidpost.inference._rhythm import read_rhythm
from aidpost.inference.model import SHIPPED, load_model
from aidpost.kernels import ecg_quality, rpeaks
from aidpost.kernels.resample import resample

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
SCALE = np.float32(2 * LIMIT / 255.0)
SENSITIVITY = 0.80  # asked of S


def logits_of(model: BeatNet | Path, table: Table, rows: Ints) -> Floats:
    """Logits (rows, 4) of a network, or of an int8 file on LiteRT."""
    if isinstance(model, Path):
        runner = Int8Model(model)
        return np.concatenate([runner.one(table.counts[row][np.newaxis]) for row in rows])
    with torch.no_grad():
        parts = np.array_split(rows, max(rows.size // 2048, 1))
        return np.concatenate([model(torch.from_numpy(table.floats(part))).numpy() for part in parts])


@dataclass(frozen=True)
class Reading:
    """Logits as the device has them, the beats of one shape agreed: `each` of every lead alone (table's rows, 4), and
    `both` of the first leads' rows, the second lead heard where it is usable."""

    each: Array
    both: Array


def read(halves: list[Half], table: Table, second: Table, own: Floats, beside: Floats) -> Reading:
    """From the network's logits of `table` and of `second`: a record's second lead at the first one's beats."""
    each, other = _agreed(table, own), _agreed(second, beside)
    heard = np.concatenate([_usable(a, b) for a, b in pairwise(halves) if (a.lead, b.lead) == (0, 1)])
    return Reading(each, joined(each[of_first_leads(halves, table)], other, heard))


def of_first_leads(halves: list[Half], table: Table) -> npt.NDArray[np.bool_]:
    """Which rows of a table of all leads are of first leads."""
    return np.isin(table.source, [k for k, half in enumerate(halves) if half.lead == 0])


def _agreed(table: Table, logits: Floats) -> Array:
    starts = np.flatnonzero(np.diff(table.source)) + 1
    parts = np.split(np.arange(table.source.size), starts)
    return np.concatenate([agreed(logits[rows], table.floats(rows)) for rows in parts])


def _usable(first: Half, second: Half) -> npt.NDArray[np.bool_]:
    """At which of the first lead's detections the second lead passes the quality gate."""
    seconds = ecg_quality.assess(second.samples_mv, second.fs_hz)
    peaks = rpeaks.detect(first.samples_mv, first.fs_hz).sample
    return seconds.usable[np.minimum((peaks / first.fs_hz).astype(np.int64), seconds.usable.size - 1)]


def calibrate(logits: Floats, label: Ints) -> tuple[float, Array]:
    """Temperature and shift of each class's logit, of least negative log-likelihood at these beats' frequencies."""
    scale, shift = torch.zeros(1, requires_grad=True), torch.zeros(4, requires_grad=True)
    x, y = torch.from_numpy(logits), torch.from_numpy(label)
    optimizer = torch.optim.LBFGS([scale, shift], max_iter=60)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        out = torch.nn.functional.cross_entropy(x * scale.exp() + shift, y) + 1e-4 * shift.square().sum()
        out.backward()
        return out

    optimizer.step(loss)
    temperature = float(torch.exp(-scale.detach())[0])
    return temperature, (shift.detach().numpy() - shift.detach().numpy()[0]) * temperature


def thresholds(probability: Array, label: Ints) -> dict[str, float]:
    """For V and F the probability at which F1 is best; for S the highest at which eight in ten are found."""
    grid = {"V": np.arange(0.10, 0.91, 0.05), "S": np.arange(0.10, 0.91, 0.02)}
    grid["F"] = grid["V"][grid["V"] >= 0.3]  # one normal beat called F costs more than one F is worth
    best = dict.fromkeys(CLASSES[1:], 0.5)
    for _ in range(2):
        for k, name in ((2, "V"), (1, "S"), (3, "F")):
            scores = [score(label, classes_of(probability, best | {name: t}), k) for t in grid[name]]
            found = [i for i, one in enumerate(scores) if one[0] >= SENSITIVITY]
            last = max(found, default=0) if name == "S" else int(np.argmax([one[2] for one in scores]))
            best[name] = round(float(grid[name][last]), 2)
    return best


def score(label: Ints, called: Ints, k: int, missed: int = 0) -> tuple[float, float, float]:
    """Sensitivity, precision and F1 of a class; false calls on every other class count, extra detections too."""
    right = int(np.sum((label == k) & (called == k)))
    due = int(np.sum(label == k)) + missed
    made = int(np.sum((called == k) & (label != IGNORED)))
    return right / max(due, 1), right / max(made, 1), 2 * right / max(due + made, 1)


def figures(label: Ints, called: Ints, missed: Ints) -> dict[str, tuple[float, float, float]]:
    """`score` of each class."""
    return {name: score(label, called, k, int(missed[k])) for k, name in enumerate(CLASSES)}


def bootstrap(
    parts: list[tuple[Ints, Ints, Ints]], rounds: int = 500, seed: int = 0
) -> dict[str, list[tuple[float, float]]]:
    """95 % intervals of sensitivity and precision over patients: (label, called, missed) of each."""
    rng = np.random.default_rng(seed)
    # right, due, made of each class and patient
    counts = np.array(
        [
            [
                (np.sum((y == k) & (z == k)), np.sum(y == k) + m[k], np.sum((z == k) & (y != IGNORED)))
                for k in range(len(CLASSES))
            ]
            for y, z, m in parts
        ]
    )
    pick = rng.integers(0, len(parts), (rounds, len(parts)))
    total = counts[pick].sum(axis=1)
    rates = total[:, :, :1] / np.maximum(total[:, :, 1:], 1)
    low, high = np.percentile(rates, (2.5, 97.5), axis=0)
    return {name: [(float(low[k, j]), float(high[k, j])) for j in (0, 1)] for k, name in enumerate(CLASSES)}


def judge(
    halves: list[Half],
    table: Table,
    readings: dict[str, Reading],
    temperature: float,
    work: Path,
    noise: Noise,
    tiny: bool,
) -> dict[str, Any]:
    """What the card quotes. `readings` are those of "int8" and "float"; the first lead of each record is read."""
    first = of_first_leads(halves, table)
    label, source = table.label[first], table.source[first]
    named = label >= 0
    fibrillating = np.concatenate([in_fibrillation(half) for half in halves])

    def probability(logits: Array, where: npt.NDArray[np.bool_]) -> Array:
        return doubting_early_beats(softmax(logits, temperature), where)

    both = {name: probability(one.both, fibrillating[first]) for name, one in readings.items()}
    each = probability(readings["int8"].each, fibrillating)
    # one set of thresholds for recorders of one lead and of two
    limits = thresholds(
        np.concatenate((both["int8"][named], each[first][named])), np.concatenate((label[named], label[named]))
    )
    called = classes_of(both["int8"], limits)

    def of(made: Ints, truth: Ints, sources: Ints) -> dict[str, tuple[float, float, float]]:
        return figures(truth, made, table.missed[np.unique(sources)].sum(axis=0))

    leads = [k for k, half in enumerate(halves) if half.lead == 0]
    parts = [(label[own], called[own], table.missed[k]) for k in leads for own in [source == k]]
    alone = classes_of(each, limits)
    return {
        "records": len(parts),
        "beats": int(named.sum()),
        "temperature": temperature,
        "thresholds": limits,
        "int8": of(called, label, source),
        "float": of(classes_of(both["float"], limits), label, source),
        "one_lead": of(alone[first], label, source),
        "second_lead": of(alone[~first], table.label[~first], table.source[~first]),
        "interval": bootstrap(parts),
        "confusion": np.array(
            [[np.sum((label == t) & (called == p)) for p in range(4)] for t in range(-2, 4) if t != -1]
        ),
        "missed": sum(part[2] for part in parts),
        "calibration_error": calibration_error(both["int8"][named], label[named]),
        "certainty": certainty(both["int8"][named], called[named] == label[named]),
        "rate": by_rate(table, first, label, called),
        "record": {
            halves[k].record: figures(y, z, lost) | {"count": np.bincount(y[y >= 0], minlength=4)}
            for k, (y, z, lost) in zip(leads, parts, strict=True)
        },
        "conditions": under_conditions(halves, work, temperature, limits, noise, minutes=1 if tiny else 5),
    }


def certainty(probability: Array, right: npt.NDArray[np.bool_]) -> dict[str, tuple[float, float]]:
    """What the answers would be if those under a probability were withheld: share that is left, and errors in it."""
    highest = probability.max(axis=1)
    kept = {f"{limit:.2f}": highest >= limit for limit in (0.0, 0.6, 0.8, 0.9, 0.95)}
    return {name: (float(of.mean()), float(1.0 - right[of].mean()) if of.any() else 0.0) for name, of in kept.items()}


def by_rate(
    table: Table, first: npt.NDArray[np.bool_], label: Ints, called: Ints
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Figures by the heart rate around each beat; beats that were not detected have none."""
    octaves = (
        table.counts[first, WINDOW:].reshape(label.size, -1)[:, 10] * SCALE / 2.0
    )  # of the interval, against 0.8 s
    rate = 60.0 / (0.8 * 2.0**octaves)
    groups = {"under 60": rate < 60, "60 to 100": (rate >= 60) & (rate <= 100), "over 100": rate > 100}
    return {name: figures(label[of], called[of], np.zeros(4, np.int64)) for name, of in groups.items()}


def in_fibrillation(half: Half) -> npt.NDArray[np.bool_]:
    """Which of a lead's detections lie where the rhythm model that ships reads atrial fibrillation."""
    model = load_model(SHIPPED / "ecg-rhythm")
    peaks = rpeaks.detect(half.samples_mv, half.fs_hz).sample
    reading = read_rhythm(model, half.samples_mv, np.ones(half.samples_mv.size, dtype=bool), half.fs_hz)
    if reading is None:
        return np.zeros(peaks.size, dtype=bool)
    return reading.within(model.card.output.labels.index("A"), peaks / half.fs_hz)


def under_conditions(
    halves: list[Half], work: Path, temperature: float, limits: dict[str, float], noise: Noise, minutes: int
) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Figures over the first minutes of each first lead, changed before the device's own detector and preprocessing."""
    runners = [Int8Model(work / f"without{group}.tflite") for group in range(len(GROUPS))]
    table: dict[str, Any] = {"as recorded, 360 Hz": lambda x, fs: (x, fs), "inverted": lambda x, fs: (-x, fs)}
    table |= {
        f"{rate} Hz": lambda x, fs, rate=rate: (resample(x, fs, float(rate)), float(rate)) for rate in (100, 1000)
    }
    table["in pieces of 30 s"] = None
    table |= {
        f"muscle noise, {snr} dB": lambda x, fs, snr=snr: (add_noise(x, fs, noise.ma, noise.fs_hz, snr, 0.3), fs)
        for snr in (24, 18, 12, 6, 0, -6)
    }
    out = {}
    for name, change in table.items():
        answers = []
        for half in (one for one in halves if one.lead == 0):
            stop = round(minutes * 60 * half.fs_hz)
            size = round(30 * half.fs_hz) if change is None else stop
            for start in range(0, stop, size):
                inside = (half.beats >= start) & (half.beats < start + size)
                x, fs = half.samples_mv[start : start + size], half.fs_hz
                if change is not None:
                    x, fs = change(x, fs)
                begin, beats_s = start / half.fs_hz, (half.beats[inside] - start) / half.fs_hz
                counts, label, missed = seen(x, fs, beats_s, half.label[inside], half.flutter_s(begin))
                if counts.size:
                    logits = np.concatenate([runners[half.group].one(one[np.newaxis]) for one in counts])
                    logits = agreed(logits, counts.astype(np.float32) * SCALE)
                    answers.append((label, classes_of(softmax(logits, temperature), limits), missed))
        joined = [np.concatenate([one[i] for one in answers]) for i in (0, 1)]
        out[name] = figures(joined[0], joined[1], sum(one[2] for one in answers))
        print(f"  {name:22s} " + "  ".join(f"{k} {v[0]:.3f}/{v[1]:.3f}" for k, v in out[name].items()), flush=True)
    return out
