"""The figures of the rhythm model's card: F1, intervals, calibration, abstention, subgroups and noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from ecg_data import LABELS, Array, Noise, Recordings, add_noise
from scipy import signal as sps

from aidpost.inference._rhythm_input import rhythm_input, rhythm_windows

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Model = Callable[[Floats], Floats]  # (n, 3020, 5) -> (n, 4) logits
Change = Callable[[Array, float, int], tuple[Array, float]]  # samples, rate, index -> samples, rate


def softmax(logits: npt.NDArray[Any], temperature: float = 1.0) -> Array:
    """Probabilities over the last axis."""
    z = np.asarray(logits, np.float64) / temperature
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def f1_scores(truth: Ints, predicted: Ints) -> Array:
    """F1 of N, A, O, ~ as the challenge counts it."""
    return np.array(
        [
            2 * np.sum((truth == one) & (predicted == one)) / max(np.sum(truth == one) + np.sum(predicted == one), 1)
            for one in range(len(LABELS))
        ]
    )


def headline(truth: Ints, predicted: Ints) -> float:
    """Mean F1 of N, A and O, the challenge's score."""
    return float(f1_scores(truth, predicted)[:3].mean())


def bootstrap(truth: Ints, predicted: Ints, rounds: int = 2000, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % percentile intervals over recordings: mean and each class's F1."""
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(rounds):
        pick = rng.integers(0, truth.size, truth.size)
        draws.append(f1_scores(truth[pick], predicted[pick]))
    table = np.array(draws)
    columns = {"mean": table[:, :3].mean(axis=1)} | {name: table[:, i] for i, name in enumerate(LABELS)}
    return {
        name: (float(low), float(high)) for name, c in columns.items() for low, high in [np.percentile(c, (2.5, 97.5))]
    }


def window_logits(model: Model, pieces: Iterable[Floats]) -> list[Floats]:
    """Logits of each recording's windows, from its (T + 20, 5) input."""
    return [model(rhythm_windows(piece)) for piece in pieces]


def recording_probability(logits: list[Floats], temperature: float) -> Array:
    """(recordings, 4): the mean over a recording's windows of their calibrated probabilities."""
    return np.stack([softmax(one, temperature).mean(axis=0) for one in logits])


def fit_temperature(logits: list[Floats], truth: Ints) -> float:
    """Temperature of least negative log-likelihood, on a grid of 1 % steps."""
    grid = np.exp(np.arange(np.log(0.3), np.log(4.0), 0.01))
    rows = np.arange(truth.size)
    losses = [-np.log(recording_probability(logits, one)[rows, truth] + 1e-9).mean() for one in grid]
    return float(grid[int(np.argmin(losses))])


def calibration_error(probability: Array, truth: Ints, bins: int = 15) -> float:
    """Expected calibration error of the top probability, equal-width bins (Guo et al., 2017)."""
    top, right = probability.max(axis=1), probability.argmax(axis=1) == truth
    which = np.minimum((top * bins).astype(int), bins - 1)
    gaps = [
        abs(top[which == b].mean() - right[which == b].mean()) * np.mean(which == b)
        for b in range(bins)
        if (which == b).any()
    ]
    return float(sum(gaps))


def abstention(probability: Array, truth: Ints, coverage: float) -> dict[str, float]:
    """The threshold on the top probability that keeps at least `coverage` of the recordings, and what it buys."""
    top, predicted = probability.max(axis=1), probability.argmax(axis=1)
    threshold = float(np.floor(np.quantile(top, 1 - coverage) * 100) / 100)
    kept = top >= threshold
    return {
        "threshold": threshold,
        "coverage": float(kept.mean()),
        "error_all": float(np.mean(predicted != truth)),
        "error_kept": float(np.mean(predicted[kept] != truth[kept])),
        "error_abstained": float(np.mean(predicted[~kept] != truth[~kept])) if (~kept).any() else float("nan"),
        "f1_kept": headline(truth[kept], predicted[kept]),
    }


def conditions(noise: Noise) -> dict[str, Change]:
    """What the device may meet: each changes a raw recording before preprocessing."""

    def same(x: Array, fs: float, _: int) -> tuple[Array, float]:
        return x, fs

    def at_rate(rate: int) -> Change:
        def change(x: Array, fs: float, _: int) -> tuple[Array, float]:
            divisor = int(np.gcd(rate, round(fs)))
            return np.asarray(sps.resample_poly(x, rate // divisor, round(fs) // divisor)), float(rate)

        return change

    def with_noise(kind: str, snr_db: float) -> Change:
        def change(x: Array, fs: float, index: int) -> tuple[Array, float]:
            start = float(np.random.default_rng((7, index)).random())
            return add_noise(x, fs, getattr(noise, kind), noise.fs_hz, snr_db, start), fs

        return change

    def with_mains(hz: float) -> Change:
        def change(x: Array, fs: float, _: int) -> tuple[Array, float]:
            return x + 0.2 * np.sin(2 * np.pi * hz * np.arange(x.size) / fs), fs

        return change

    table: dict[str, Change] = {"as recorded, 300 Hz": same, "inverted": lambda x, fs, _: (-x, fs)}
    table |= {"first 10 s only": lambda x, fs, _: (x[: int(10 * fs)], fs)}
    table |= {f"{rate} Hz": at_rate(rate) for rate in (100, 125, 250, 500, 1000)}
    table |= {f"{hz} Hz mains, 0.2 mV": with_mains(hz) for hz in (50, 60)}
    table |= {f"muscle noise, {snr} dB": with_noise("ma", snr) for snr in (24, 18, 12, 6, 0, -6)}
    table |= {f"baseline wander, {snr} dB": with_noise("bw", snr) for snr in (24, 12, 0, -6)}
    return table


def under_conditions(
    model: Model, recordings: Recordings, chosen: Ints, noise: Noise, temperature: float
) -> dict[str, Array]:
    """F1 of N, A, O, ~ over the chosen recordings under each condition."""
    out = {}
    for name, change in conditions(noise).items():
        predicted = []
        for index in chosen:
            samples, fs_hz = change(recordings.samples_mv[index], recordings.fs_hz, int(index))
            logits = window_logits(model, [rhythm_input(samples, fs_hz)])
            predicted.append(recording_probability(logits, temperature)[0].argmax())
        out[name] = f1_scores(recordings.label[chosen], np.array(predicted))
        print(f"  {name:28s} mean F1 {out[name][:3].mean():.3f}   N A O ~ {np.round(out[name], 3)}", flush=True)
    return out
