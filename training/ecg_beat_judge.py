"""The figures of the beat model's card: each patient judged by a network that has not seen them."""

from __future__ import annotations

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

from aidpost.inference._beats import classes_of, without_early_beats
from aidpost.inference._beats_input import LIMIT
from aidpost.inference._rhythm import read_rhythm
from aidpost.inference.model import SHIPPED, load_model
from aidpost.kernels import rpeaks
from aidpost.kernels.resample import resample

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
SCALE = np.float32(2 * LIMIT / 255.0)


def logits_of(model: BeatNet | Path, table: Table, rows: Ints) -> Floats:
    """Logits (rows, 4) of a network, or of an int8 file on LiteRT."""
    if isinstance(model, Path):
        runner = Int8Model(model)
        return np.concatenate([runner.one(table.counts[row][np.newaxis]) for row in rows])
    with torch.no_grad():
        parts = np.array_split(rows, max(rows.size // 2048, 1))
        return np.concatenate([model(torch.from_numpy(table.floats(part))).numpy() for part in parts])


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
    """For each class but N the probability at which its F1 is best."""
    grid = np.arange(0.10, 0.91, 0.05)
    best = dict.fromkeys(CLASSES[1:], 0.5)
    for _ in range(2):
        for k, name in ((2, "V"), (1, "S"), (3, "F")):
            tried = (
                grid[grid >= 0.3] if name == "F" else grid
            )  # one normal beat called F costs more than one F is worth
            scores = [score(label, classes_of(probability, best | {name: t}), k)[2] for t in tried]
            best[name] = round(float(tried[int(np.argmax(scores))]), 2)
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
    float_logits: Floats,
    int8_logits: Floats,
    temperature: float,
    work: Path,
    noise: Noise,
    tiny: bool,
) -> dict[str, Any]:
    """What the card quotes; the first lead of each record, as the device would choose, unless it says so."""
    first = np.isin(table.source, [k for k, half in enumerate(halves) if half.lead == 0])
    named = first & (table.label >= 0)
    fibrillating = np.concatenate([in_fibrillation(half) for half in halves])
    probability = {"int8": softmax(int8_logits, temperature), "float": softmax(float_logits, temperature)}
    judged_as = {name: without_early_beats(one, fibrillating) for name, one in probability.items()}
    limits = thresholds(judged_as["int8"][named], table.label[named])
    called = {name: classes_of(one, limits) for name, one in judged_as.items()}

    def of(where: npt.NDArray[np.bool_], name: str = "int8") -> dict[str, tuple[float, float, float]]:
        missed = table.missed[np.unique(table.source[where])].sum(axis=0)
        return figures(table.label[where], called[name][where], missed)

    parts = [
        (table.label[own], called["int8"][own], table.missed[k])
        for k, half in enumerate(halves)
        if half.lead == 0
        for own in [table.source == k]
    ]
    made, label = called["int8"][first], table.label[first]
    return {
        "records": len(parts),
        "beats": int(named.sum()),
        "temperature": temperature,
        "thresholds": limits,
        "int8": of(first),
        "float": of(first, "float"),
        "second_lead": of(~first),
        "interval": bootstrap(parts),
        "confusion": np.array(
            [[np.sum((label == t) & (made == p)) for p in range(4)] for t in range(-2, 4) if t != -1]
        ),
        "missed": sum(part[2] for part in parts),
        "calibration_error": calibration_error(probability["int8"][named], table.label[named]),
        "record": {
            half.record: of(table.source == k)
            | {"count": np.bincount(table.label[(table.source == k) & (table.label >= 0)], minlength=4)}
            for k, half in enumerate(halves)
            if half.lead == 0
        },
        "conditions": under_conditions(halves, work, temperature, limits, noise, minutes=1 if tiny else 5),
    }


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
                    answers.append((label, classes_of(softmax(logits, temperature), limits), missed))
        joined = [np.concatenate([one[i] for one in answers]) for i in (0, 1)]
        out[name] = figures(joined[0], joined[1], sum(one[2] for one in answers))
        print(f"  {name:22s} " + "  ".join(f"{k} {v[0]:.3f}/{v[1]:.3f}" for k, v in out[name].items()), flush=True)
    return out
