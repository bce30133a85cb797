"""Simulated single-lead ECGs, no patient's, for the golden file: they are raw, so preprocessing is proven too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

# (offset from the R-peak in s, width in s, height in mV)
_P, _Q, _R, _S, _T = (
    (-0.17, 0.022, 0.12),
    (-0.028, 0.009, -0.10),
    (0.0, 0.010, 1.05),
    (0.028, 0.010, -0.22),
    (0.26, 0.05, 0.28),
)
_WIDE = ((-0.01, 0.035, 1.5), (0.08, 0.045, -0.5), (0.30, 0.07, -0.45))


def simulate(rhythm: str, fs_hz: float, duration_s: float, seed: int) -> npt.NDArray[np.float32]:
    """Millivolts, (n,) float32, of "sinus", "af", "bigeminy" or "noise": Gaussian beats, wander, mains and hiss."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(fs_hz * duration_s)) / fs_hz
    wave = 0.02 * rng.standard_normal(time.size) + 0.15 * np.sin(2 * np.pi * 0.23 * time)
    wave += 0.02 * np.sin(2 * np.pi * 50.0 * time)
    if rhythm == "noise":
        return _as_recorded(wave + np.cumsum(rng.standard_normal(time.size)) * 0.05 + rng.standard_normal(time.size))
    if rhythm == "af":
        wave += 0.05 * np.sin(2 * np.pi * 6.1 * time + 2 * np.sin(2 * np.pi * 0.4 * time))
    for at, ectopic in _beats(rhythm, duration_s, rng):
        shape = _WIDE if ectopic else (_Q, _R, _S, _T) if rhythm == "af" else (_P, _Q, _R, _S, _T)
        for offset, width, height in shape:
            wave += height * np.exp(-0.5 * ((time - at - offset) / width) ** 2)
    return _as_recorded(wave)


def _as_recorded(wave: Array) -> npt.NDArray[np.float32]:
    """In steps of 5 µV, as a recorder would give it."""
    return (np.round(wave * 200.0) / 200.0).astype(np.float32)


def _beats(rhythm: str, duration_s: float, rng: np.random.Generator) -> list[tuple[float, bool]]:
    at, out, number = 0.4, [], 0
    while at < duration_s:
        ectopic = rhythm == "bigeminy" and number % 2 == 1
        out.append((at, ectopic))
        number += 1
        if rhythm == "af":
            at += float(np.clip(rng.gamma(14.0, 0.65 / 14.0), 0.3, 1.5))
        elif rhythm == "bigeminy":
            at += 0.55 if not ectopic else 1.05
        else:
            at += 0.85 + 0.02 * np.sin(2 * np.pi * 0.25 * at) + 0.008 * rng.standard_normal()
    return out


RECORDINGS = (
    ("sinus", 300.0, 30.0),
    ("af", 250.0, 30.0),
    ("bigeminy", 360.0, 12.0),
    ("noise", 500.0, 30.0),
    ("af", 128.0, 60.0),
)


def write_golden(path: Path, expected: list[npt.NDArray[np.float64]]) -> None:
    """Write `golden.npz` with each recording of RECORDINGS and the probabilities expected for it."""
    arrays: dict[str, npt.NDArray[np.generic]] = {}
    for i, ((_, fs_hz, _), signal, probability) in enumerate(zip(RECORDINGS, signals(), expected, strict=True)):
        arrays |= {f"signal_{i}": signal, f"fs_hz_{i}": np.float64(fs_hz), f"expected_{i}": probability}
    np.savez_compressed(path, **arrays)


def signals() -> list[npt.NDArray[np.float32]]:
    """The recordings of RECORDINGS."""
    return [simulate(rhythm, fs_hz, duration_s, i) for i, (rhythm, fs_hz, duration_s) in enumerate(RECORDINGS)]


def signals_with_rate() -> list[tuple[npt.NDArray[np.float32], float]]:
    """The recordings of RECORDINGS, each with its rate in Hz."""
    return [(signal, fs_hz) for (_, fs_hz, _), signal in zip(RECORDINGS, signals(), strict=True)]
