"""CinC 2017 as the rhythm network sees it: read, disturb as other recorders would, preprocess, keep on disk as int8.

The disturbances are made on the raw millivolts, before the preprocessing that the device also runs, so that what the
network learns from includes the beat finder's errors on noisy signals.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import signal as sps

from aidpost.inference._rhythm_input import FEATURE_ROWS, LIMIT, RHYTHM_INPUT_VERSION, rhythm_input

LABELS = "NAO~"
INPUT_SCALE = 2 * LIMIT / 255.0  # the scale of an int8 input that spans ±LIMIT
RATES_HZ = (100, 125, 128, 180, 200, 250, 257, 360, 400, 500, 512, 1000)

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Recordings:
    """Single-lead recordings, millivolts at 300 Hz; `label` indexes LABELS."""

    samples_mv: list[Array]
    label: npt.NDArray[np.int64]
    fold: npt.NDArray[np.int64]
    fs_hz: float = 300.0


@dataclass(frozen=True)
class Noise:
    """NSTDB muscle artefact and baseline wander in millivolts; training takes the first half hour."""

    ma: Array
    bw: Array
    fs_hz: float = 360.0


@dataclass(frozen=True)
class Cache:
    """One variant of all recordings, preprocessed: int8 counts of INPUT_SCALE, concatenated, cut at `offset`."""

    counts: npt.NDArray[np.int8]
    offset: npt.NDArray[np.int64]

    def whole(self, index: int) -> npt.NDArray[np.int8]:
        """(T + 20, 5) of one recording: channels and features."""
        return self.counts[self.offset[index] : self.offset[index + 1]]

    def channels(self, index: int) -> npt.NDArray[np.int8]:
        """(T, 5) of one recording."""
        return self.whole(index)[:-FEATURE_ROWS]

    def features(self) -> npt.NDArray[np.int8]:
        """(recordings, 100) of all recordings."""
        ends = self.offset[1:, np.newaxis] + np.arange(-FEATURE_ROWS, 0)
        return self.counts[ends].reshape(len(ends), -1)


def read_cinc(data: Path, limit: int | None = None) -> Recordings:
    """Read `ecg/cinc2017/cinc2017.npz`; `limit` takes that many recordings of each label only."""
    with np.load(data / "ecg/cinc2017/cinc2017.npz") as file:
        counts, offset, fold = file["signal_uv"], file["offset"], file["fold"].astype(np.int64)
        label = np.array([LABELS.index(one) for one in file["label"]])
    chosen = np.arange(label.size)
    if limit is not None:
        chosen = np.sort(np.concatenate([np.flatnonzero(label == one)[:limit] for one in range(len(LABELS))]))
    samples = [counts[offset[i] : offset[i + 1]] / 1000.0 for i in chosen]
    return Recordings(samples, label[chosen], fold[chosen])


def read_noise(data: Path, half: int) -> Noise:
    """Read `ecg/nstdb`, the first (0) or second (1) half hour of each record."""
    import wfdb

    def read(name: str) -> Array:
        lead = wfdb.rdrecord(str(data / "ecg/nstdb" / name)).p_signal[:, 0]
        part = np.array_split(lead, 2)[half]
        return np.asarray(part - np.median(part))

    return Noise(ma=read("ma"), bw=read("bw"))


def add_noise(samples: Array, fs_hz: float, noise: Array, noise_fs_hz: float, snr_db: float, start: float) -> Array:
    """Add a stretch of recorded noise at a signal-to-noise ratio of powers; `start` in 0-1 says where it is taken."""
    duration = samples.size / fs_hz
    count = int(duration * noise_fs_hz) + 2
    first = int(start * (noise.size - count))
    at_fs = np.interp(np.arange(samples.size) / fs_hz, np.arange(count) / noise_fs_hz, noise[first : first + count])
    at_fs -= at_fs.mean()
    gain = np.sqrt(robust_power(samples, fs_hz) / max(float(np.mean(at_fs**2)), 1e-12) / 10 ** (snr_db / 10))
    return samples + gain * at_fs


def robust_power(samples: Array, fs_hz: float) -> float:
    """Power of the ECG as NSTDB's authors take it, from the median QRS (here: second) peak to peak: (ptp²)/8."""
    second = int(fs_hz)
    pieces = samples[: samples.size // second * second].reshape(-1, second)
    return float(np.median(np.ptp(pieces, axis=1)) ** 2 / 8.0)


def disturb(samples: Array, fs_hz: float, noise: Noise, rng: np.random.Generator) -> tuple[Array, float]:
    """One recording as another recorder, electrode or patient's arm would have given it, and its new rate."""
    out = samples * rng.uniform(0.4, 2.5) * rng.choice((-1.0, 1.0))
    if rng.random() < 0.35:  # another lead's mixture of phases
        angle = rng.uniform(-0.6, 0.6)
        out = np.cos(angle) * out + np.sin(angle) * np.imag(sps.hilbert(out))
    if rng.random() < 0.35:
        out = add_noise(out, fs_hz, noise.ma, noise.fs_hz, rng.uniform(6, 24), rng.random())
    if rng.random() < 0.35:
        out = add_noise(out, fs_hz, noise.bw, noise.fs_hz, rng.uniform(-6, 18), rng.random())
    if rng.random() < 0.35:
        time = np.arange(out.size) / fs_hz
        mains = rng.choice((50.0, 60.0)) * rng.uniform(0.998, 1.002)
        swell = 1.0 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.05, 0.5) * time)
        out = out + np.ptp(out) * rng.uniform(0.005, 0.1) * swell * np.sin(2 * np.pi * mains * time + rng.uniform(0, 6))
    if rng.random() < 0.4:  # a recorder's own band
        band = (rng.uniform(0.05, 0.7), rng.uniform(30, 140))
        out = sps.sosfilt(sps.butter(1, band, "bandpass", fs=fs_hz, output="sos"), out)
    if rng.random() < 0.7:
        rate = int(rng.choice(RATES_HZ))
        divisor = int(np.gcd(rate, round(fs_hz)))
        out, fs_hz = sps.resample_poly(out, rate // divisor, round(fs_hz) // divisor), float(rate)
    return np.asarray(out), fs_hz


def build_cache(folder: Path, recordings: Recordings, noise: Noise, variant: int, seed: int) -> Cache:
    """Every recording preprocessed, undisturbed when `variant` is 0; made once and kept in `folder`."""
    path = folder / f"rhythm-v{RHYTHM_INPUT_VERSION}-n{len(recordings.samples_mv)}-seed{seed}-{variant}.npz"
    if not path.exists():
        pieces = list(_preprocess(recordings, noise, variant, seed))
        offset = np.concatenate(([0], np.cumsum([len(piece) for piece in pieces])))
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, counts=np.concatenate(pieces), offset=offset)
        part.replace(path)
    with np.load(path) as file:
        return Cache(file["counts"], file["offset"])


def to_counts(channels: npt.NDArray[np.float32]) -> npt.NDArray[np.int8]:
    """Quantise the network's input as the device does."""
    return np.clip(np.round(channels / INPUT_SCALE), -127, 127).astype(np.int8)


def _preprocess(recordings: Recordings, noise: Noise, variant: int, seed: int) -> Iterator[npt.NDArray[np.int8]]:
    for index, samples in enumerate(recordings.samples_mv):
        fs_hz, rng = recordings.fs_hz, np.random.default_rng((seed, variant, index))
        if variant:
            samples, fs_hz = disturb(samples, fs_hz, noise, rng)
        if index % 200 == 0:
            print(f"\rvariant {variant}: {index}/{len(recordings.samples_mv)}", end="", flush=True)
        whole = rhythm_input(samples, fs_hz)
        if variant and rng.random() < 0.3:  # features of a shorter recording, as the sampler cuts shorter windows
            length = int(rng.uniform(9.0, 30.0) * fs_hz)
            start = int(rng.uniform(0, max(samples.size - length, 1)))
            whole[-FEATURE_ROWS:] = rhythm_input(samples[start : start + length], fs_hz)[-FEATURE_ROWS:]
        yield to_counts(whole)
    print()
