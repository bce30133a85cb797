"""The ensemble on recordings it has not seen: float beside int8, calibrated, with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ecg_data import INPUT_SCALE, Cache
from ecg_evaluate import (
    Model,
    abstention,
    bootstrap,
    calibration_error,
    f1_scores,
    fit_temperature,
    headline,
    recording_probability,
    window_logits,
)
from ecg_export import Int8Model
from ecg_rhythm_net import Ensemble

from aidpost.inference._rhythm_input import FEATURE_ROWS, LIMIT, rhythm_windows

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def as_function(net: torch.nn.Module) -> Model:
    """A PyTorch network as (n, 3020, 5) -> (n, 4)."""

    def call(windows: Floats) -> Floats:
        with torch.no_grad():
            x = torch.from_numpy(windows).transpose(1, 2).unsqueeze(2)
            return np.asarray(net(x.contiguous(memory_format=torch.channels_last)).numpy())

    return call


def representative_windows(cache: Cache, rows: Ints, count: int = 400, seed: int = 0) -> Floats:
    """Windows to calibrate the quantiser on, the first of them spanning the input's whole range."""
    chosen = np.random.default_rng(seed).choice(rows, min(count, rows.size), replace=False)
    windows = [rhythm_windows(as_floats(cache, row))[0] for row in chosen]
    windows[0][:2, 0] = (-LIMIT, LIMIT)
    return np.stack(windows)


def as_floats(cache: Cache, row: int) -> Floats:
    """(T + 20, 5) of one recording, as the device computes it (to int8)."""
    return cache.whole(row).astype(np.float32) * np.float32(INPUT_SCALE)


def judge(
    held: Ensemble, released: Ensemble, files: tuple[Path, Path], cache: Cache, label: Ints, rows: Ints
) -> dict[str, Any]:
    """What the card quotes: the validated ensemble on held-out rows, and the released file beside its twin."""
    truth, pieces = label[rows], [as_floats(cache, row) for row in rows]

    def logits(net: Ensemble) -> list[Floats]:
        return window_logits(as_function(net), pieces)

    parts = {"signal": Ensemble(held.signal, [], 0.0), "features": Ensemble(held.signal, held.features, 1.0)}
    int8 = window_logits(Int8Model(files[0]), pieces)
    temperature = fit_temperature(int8, truth)
    probability = {
        name: recording_probability(one, temperature) for name, one in (("int8", int8), ("float", logits(held)))
    }
    predicted = {name: one.argmax(axis=1) for name, one in probability.items()}
    some = pieces[:400]
    twins = [
        recording_probability(window_logits(one, some), temperature).argmax(axis=1)
        for one in (as_function(released), Int8Model(files[1]))
    ]
    return {
        "recordings": int(rows.size),
        "temperature": temperature,
        "part_f1": {
            name: headline(truth, recording_probability(logits(net.eval()), 1.0).argmax(axis=1))
            for name, net in parts.items()
        },
        "f1": {name: f1_scores(truth, one) for name, one in predicted.items()},
        "interval": bootstrap(truth, predicted["int8"]),
        "confusion": np.array([[np.sum((truth == t) & (predicted["int8"] == p)) for p in range(4)] for t in range(4)]),
        "calibration_error": calibration_error(probability["int8"], truth),
        "abstention": abstention(probability["int8"], truth, coverage=0.97),
        "length": by_length([(len(piece) - FEATURE_ROWS) / 100 for piece in pieces], truth, predicted["int8"]),
        "released_agreement": float(np.mean(twins[0] == twins[1])),
    }


def by_length(seconds: list[float], truth: Ints, predicted: Ints) -> dict[str, tuple[int, float]]:
    """Recordings and mean F1 by length of recording."""
    bins = {"9-20 s": (0, 20), "20-40 s": (20, 40), "40-61 s": (40, 99)}
    out = {}
    for name, (low, high) in bins.items():
        chosen = (np.array(seconds) >= low) & (np.array(seconds) < high)
        out[name] = (int(chosen.sum()), headline(truth[chosen], predicted[chosen]))
    return out
