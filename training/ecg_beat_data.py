"""What the beat network learns from, as the device sees it: MIT-BIH, whole and in pieces, and CinC 2017.

MIT-BIH DS1 has beat labels but ectopic beats of some ten patients. So the recordings of CinC 2017 that are labelled
normal or AF lend their thousands of patients, rebuilt with ectopic beats of both kinds (`ecg_beat_made.py`). What is
not touched counts as normal where it looks like the rest of its recording.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import wfdb
from ecg_beat_made import FS_HZ, V_AFTER_S, V_BEFORE_S, rebuilt
from ecg_beats import matched
from ecg_data import LABELS as RHYTHMS
from ecg_data import Array, Noise, disturb

from aidpost.inference._beats_input import BEATS_INPUT_VERSION, FEWEST_BEATS, LIMIT, ROWS, WINDOW, beats_input
from aidpost.kernels import rpeaks
from aidpost.kernels.filters import highpass, lowpass, sosfiltfilt
from aidpost.kernels.resample import resample

CLASSES = "NSVF"
AAMI = {symbol: k for k, symbols in enumerate(("NLRej", "AaJS", "VE", "F")) for symbol in symbols}
PACED = {"102", "104", "107", "217"}
IGNORED = -1  # a beat of class Q, in ventricular flutter, or of a doubtful class
EXTRA = -2  # a detection that is no beat
# five groups of patients, ectopy of both kinds in each
GROUPS = (
    ("101", "108", "119", "122", "209"),
    ("109", "112", "208", "220"),
    ("106", "115", "124", "223"),
    ("118", "203", "215", "230"),
    ("114", "116", "201", "205", "207"),
)
INPUT_SCALE = 2 * LIMIT / 255.0
_TOLERANCE_S = 0.15

Ints = npt.NDArray[np.int64]
Counts = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Half:
    """One lead of a MIT-BIH record: millivolts at 360 Hz, its marked beats and their classes."""

    record: str
    lead: int
    samples_mv: Array
    beats: Ints
    label: Ints
    flutter: tuple[tuple[int, int], ...]
    name: str = ""
    fs_hz: float = 360.0

    @property
    def group(self) -> int:
        return next(k for k, group in enumerate(GROUPS) if self.record in group)

    def flutter_s(self, start: float) -> list[tuple[float, float]]:
        """Its flutter, in seconds from `start`."""
        return [(a / self.fs_hz - start, b / self.fs_hz - start) for a, b in self.flutter]


@dataclass(frozen=True)
class Table:
    """Beats as the network sees them. `group` is that of GROUPS, -1 where no patient of MIT-BIH is in them; `source`
    numbers the recording; `missed` counts, by source, the marked beats of each class that were not detected."""

    counts: Counts
    label: Ints
    group: Ints
    source: Ints
    missed: Ints

    def floats(self, rows: Ints) -> npt.NDArray[np.float32]:
        return self.counts[rows].astype(np.float32) * np.float32(INPUT_SCALE)


def read_mitdb(data: Path, limit: int | None = None) -> list[Half]:
    """Both leads of the DS1 records; `limit` takes that many minutes of each."""
    out = []
    for path in sorted(p.with_suffix("") for p in (data / "ecg/mitdb").glob("*.hea")):
        if path.name in PACED:
            continue
        record, marks = wfdb.rdrecord(str(path)), wfdb.rdann(str(path), "atr")
        symbols, samples = np.array(marks.symbol), np.array(marks.sample)
        is_beat = np.array([one in AAMI or one in "Q/f?" for one in symbols])
        label = np.array([AAMI.get(one, IGNORED) for one in symbols])[is_beat]
        flutter = tuple(zip(samples[symbols == "["].tolist(), samples[symbols == "]"].tolist(), strict=True))
        stop = record.sig_len if limit is None else min(record.sig_len, limit * 60 * 360)
        beats, label = samples[is_beat], label[samples[is_beat] < stop]
        for lead, x in enumerate(record.p_signal.T):
            signal = np.ascontiguousarray(x[:stop])
            out.append(Half(path.name, lead, signal, beats[beats < stop], label, flutter, record.sig_name[lead]))
    return out


def seen(
    samples_mv: Array,
    fs_hz: float,
    beats_s: Array,
    label: Ints,
    ignored_s: Sequence[tuple[float, float]] = (),
    peaks: Ints | None = None,
) -> tuple[Counts, Ints, Ints]:
    """What the device sees: its own detections as (n, 144, 3) counts, their labels, and how many of each it missed.

    What lies in `ignored_s` is neither. `peaks` are those of another lead, where that is the one that is read.
    """
    peaks = rpeaks.detect(samples_mv, fs_hz).sample if peaks is None else peaks
    if peaks.size < FEWEST_BEATS:
        return np.zeros((0, ROWS, 3), np.int8), np.zeros(0, np.int64), np.zeros(4, np.int64)
    counts = to_counts(beats_input(samples_mv, fs_hz, peaks))
    hit, found = matched(peaks, beats_s * fs_hz, _TOLERANCE_S * fs_hz)
    out, label = np.full(peaks.size, EXTRA), label.copy()
    out[hit] = label[found]
    for start, stop in ignored_s:
        out[(peaks >= start * fs_hz) & (peaks <= stop * fs_hz)] = IGNORED
        label[(beats_s >= start) & (beats_s <= stop)] = IGNORED
    return counts, out, np.bincount(label[~found][label[~found] >= 0], minlength=4)


def to_counts(values: npt.NDArray[np.float32]) -> Counts:
    """Quantise the network's input as the device does."""
    return np.clip(np.round(values / INPUT_SCALE), -127, 127).astype(np.int8)


def whole(half: Half) -> tuple[Counts, Ints, Ints]:
    """A whole lead of half an hour."""
    return seen(half.samples_mv, half.fs_hz, half.beats / half.fs_hz, half.label, half.flutter_s(0.0))


def beside(first: Half, second: Half) -> tuple[Counts, Ints, Ints]:
    """A second lead at the detections of the first."""
    peaks = rpeaks.detect(first.samples_mv, first.fs_hz).sample
    ignored = second.flutter_s(0.0)
    return seen(second.samples_mv, second.fs_hz, second.beats / second.fs_hz, second.label, ignored, peaks)


def pieces(half: Half, noise: Noise, rng: np.random.Generator) -> Iterator[tuple[Counts, Ints, Ints]]:
    """A lead in disturbed pieces of 20 to 120 s, as a device records."""
    start, duration = 0.0, half.samples_mv.size / half.fs_hz
    while start + 20.0 <= duration:
        stop = min(start + rng.uniform(20.0, 120.0), duration)
        part = half.samples_mv[round(start * half.fs_hz) : round(stop * half.fs_hz)]
        inside = (half.beats >= start * half.fs_hz) & (half.beats < stop * half.fs_hz)
        samples, fs_hz = disturb(part, half.fs_hz, noise, rng)
        beats_s = half.beats[inside] / half.fs_hz - start
        yield seen(samples, fs_hz, beats_s, half.label[inside], half.flutter_s(start))
        start = stop


# ---- ectopic beats put into other people's recordings


def ventricular_shapes(halves: list[Half]) -> list[tuple[int, Array]]:
    """(group, wave) of ventricular beats of DS1 at 300 Hz, in units of their lead's median QRS, at most 40 a lead."""
    out = []
    for half in halves:
        wave, at = _cleaned(half.samples_mv, half.fs_hz), np.rint(half.beats * (FS_HZ / half.fs_hz)).astype(int)
        size = np.median([np.ptp(wave[max(p - 20, 0) : p + 20]) for p in at[half.label == 0][::10]])
        chosen = np.flatnonzero(half.label == 2)
        for i in chosen[:: max(chosen.size // 40, 1)]:
            piece = wave[at[i] - round(V_BEFORE_S * FS_HZ) : at[i] + round(V_AFTER_S * FS_HZ)]
            alone = i + 1 >= at.size or at[i + 1] - at[i] > 0.55 * FS_HZ
            if piece.size == round(V_BEFORE_S * FS_HZ) + round(V_AFTER_S * FS_HZ) and alone:
                out.append((half.group, piece / size))
    return out


def _cleaned(samples_mv: Array, fs_hz: float) -> Array:
    wave = sosfiltfilt(highpass(0.5, FS_HZ), resample(samples_mv - np.median(samples_mv), fs_hz, FS_HZ))
    return sosfiltfilt(lowpass(60.0, FS_HZ), wave)


def lent(
    samples_mv: Array, fs_hz: float, rhythm: int, shapes: list[Array], noise: Noise, rng: np.random.Generator
) -> tuple[Counts, Ints]:
    """Beats of a CinC recording, normal (label N) or in fibrillation (A), with ectopic ones put into most."""
    wave, fibrillating = _cleaned(samples_mv, fs_hz), RHYTHMS[rhythm] == "A"
    made = rebuilt(wave, shapes, fibrillating, rng.uniform(20.0, 110.0), rng) if rng.random() < 0.85 else None
    if made is None:
        at = rpeaks.detect(wave, FS_HZ).sample
        made = wave, at / FS_HZ, np.zeros(at.size, np.int64)
    samples, at_s, label = made
    fs_hz = FS_HZ
    if rng.random() < 0.5:
        samples, fs_hz = disturb(samples, fs_hz, noise, rng)
    counts, label, _ = seen(samples, fs_hz, at_s, label)
    # a beat that was left alone but is unlike the rest may be a real ectopic one
    odd = counts[:, WINDOW:].reshape(len(counts), -1)[:, 20] * INPUT_SCALE > 0.8
    label = np.where((label == 0) & odd, IGNORED, label)
    return counts, label


def build_table(folder: Path, name: str, parts: Iterator[tuple[Counts, Ints, int, Ints]]) -> Table:
    """Join (counts, labels, group, missed) of each recording; made once and kept in `folder`."""
    path = folder / f"beats-v{BEATS_INPUT_VERSION}-{name}.npz"
    if not path.exists():
        counts, label, group, missed = [], [], [], []
        for number, (one, marks, patient, lost) in enumerate(parts):
            counts.append(one)
            label.append(marks)
            group.append(patient)
            missed.append(lost)
            if number % 50 == 0:
                print(f"\r{name}: {number} recordings", end="", flush=True)
        print(flush=True)
        size = [len(one) for one in label]
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part.npz")
        np.savez(
            part,
            counts=np.concatenate(counts),
            label=np.concatenate(label),
            group=np.repeat(group, size),
            source=np.repeat(np.arange(len(size)), size),
            missed=np.array(missed),
        )
        part.replace(path)
    with np.load(path) as file:
        return Table(*(file[key] for key in ("counts", "label", "group", "source", "missed")))
