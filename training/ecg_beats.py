"""Recordings with their marked beats, for learning and judging R-peaks, and the matching that both count by.

Both leads of MIT-BIH; the first also with its QRS complexes shrunk against the P and T waves, and with NSTDB noise at
6 dB; both also played faster or slower, with other noise, and with ventricular beats of other records pasted in. All
leads of LUDB. What lies in flutter or fibrillation is left out, as AAMI EC57 has it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import wfdb

DATA = Path(os.environ.get("AIDPOST_DATA", "../shared/data")) / "ecg"
BEATS = set("NLRBAaJSVrFejnE/fQ?")
FOLDS = 3


@dataclass
class Lead:
    """One lead with its beats; what lies in `ignored` spans is neither learned nor counted."""

    record: str
    variant: str
    x: np.ndarray
    fs: float
    beats: np.ndarray
    ignored: list[tuple[int, int]]
    fold: int

    def counts(self, sample: np.ndarray) -> np.ndarray:
        inside = np.zeros(sample.shape, dtype=bool)
        for start, end in self.ignored:
            inside |= (sample >= start) & (sample <= end)
        return ~inside


def beats_of(path: Path, extension: str) -> tuple[np.ndarray, list[tuple[int, int]]]:
    marks = wfdb.rdann(str(path), extension)
    symbols, samples = np.array(marks.symbol), np.array(marks.sample)
    beats = samples[[s in BEATS for s in symbols]]
    return beats, list(zip(samples[symbols == "["], samples[symbols == "]"], strict=True))


def noisy(x: np.ndarray, beats: np.ndarray, fs: float, snr_db: float, seed: int) -> np.ndarray:
    """Muscle and baseline noise at an SNR defined as NSTDB's `nst` does: QRS range squared over 8, by noise power."""
    kinds = (("ma",), ("bw",), ("ma", "bw"))[seed % 3]
    noise = np.zeros_like(x)
    for kind in kinds:
        whole = wfdb.rdrecord(str(DATA / "nstdb" / kind)).p_signal[:, seed % 2]
        noise += np.resize(np.roll(whole, -7919 * seed), x.shape)
    half = int(0.05 * fs)
    size = np.median([np.ptp(x[max(0, b - half) : b + half]) for b in beats[::5]])
    power = np.mean([np.var(part) for part in np.array_split(noise, len(noise) // int(fs))])
    return x + noise * np.sqrt(size**2 / 8 / power / 10 ** (snr_db / 10))


def shrunk(x: np.ndarray, beats: np.ndarray, fs: float, factor: float) -> np.ndarray:
    """Every QRS complex pulled towards the chord under it."""
    half, y = int(0.06 * fs), x.copy()
    gain = 1 - (1 - factor) * np.hanning(2 * half + 1)
    for beat in beats:
        start, end = beat - half, beat + half + 1
        if start >= 0 and end <= len(x):
            chord = np.linspace(x[start], x[end - 1], end - start)
            y[start:end] = chord + (x[start:end] - chord) * gain
    return y


def ectopics(path: Path, per_lead: int = 80) -> list[tuple[np.ndarray, float]]:
    """Ventricular and fusion beats of both leads (200 ms before to 500 ms after, both ends at 0), with their size."""
    record, marks = wfdb.rdrecord(str(path)), wfdb.rdann(str(path), "atr")
    places = np.array(marks.sample)[np.isin(marks.symbol, ["V", "E", "F"])]
    random, out = np.random.default_rng(1), []
    for x in record.p_signal.T:
        for place in random.permutation(places)[:per_lead]:
            start, end = place - int(0.2 * record.fs), place + int(0.5 * record.fs)
            if start >= 0 and end <= len(x):
                piece = x[start:end] - np.linspace(x[start : start + 5].mean(), x[end - 5 : end].mean(), end - start)
                size = np.ptp(piece[int(0.12 * record.fs) : int(0.28 * record.fs)])
                if size > 0.2:
                    out.append((piece, size))
    return out


def with_ectopics(
    lead: Lead, bank: list[tuple[np.ndarray, float]], random: np.random.Generator, share: float = 0.12
) -> Lead:
    """After some beats, 0.28 to 0.65 s later, one of `bank` in place of what was there, at any size and polarity."""
    y, beats, half = lead.x.copy(), lead.beats, int(0.06 * lead.fs)
    size = np.median([np.ptp(lead.x[max(0, b - half) : b + half]) for b in beats[::5]])
    marked = set(beats.tolist())
    for beat in beats[2:-2][random.random(len(beats) - 4) < share]:
        piece, own = bank[random.integers(len(bank))]
        count = int(len(piece) * np.exp(random.normal(0, 0.15)))
        gain = size / own * np.exp(random.uniform(np.log(0.35), np.log(1.6))) * random.choice([-1, 1])
        piece = gain * np.interp(np.linspace(0, len(piece) - 1, count), np.arange(len(piece)), piece)
        place = beat + int(random.uniform(0.28, 0.65) * lead.fs)
        start = place - int(0.2 / 0.7 * count)
        end = start + count
        if start < 0 or end >= len(y):
            continue
        fade = np.minimum(1, np.minimum(np.arange(count), np.arange(count)[::-1]) / half)
        y[start:end] = y[start:end] * (1 - fade) + fade * (np.linspace(y[start], y[end], count) + piece)
        marked -= set(range(max(start, beat) + half // 2, end - half // 2))
        marked |= {int(beat), place}
    return replace(lead, variant="ectopic", x=y, beats=np.array(sorted(marked)))


def mitdb_leads() -> Iterator[Lead]:
    paths = sorted(p.with_suffix("") for p in (DATA / "mitdb").glob("*.hea"))
    # a record gets ectopic beats of its own fold only: no fold hears of another's
    banks = [[e for path in paths[fold::FOLDS] for e in ectopics(path)] for fold in range(FOLDS)]
    for number, path in enumerate(paths):
        record = wfdb.rdrecord(str(path))
        beats, ignored = beats_of(path, "atr")
        fs, (first, second) = record.fs, np.ascontiguousarray(record.p_signal.T)
        factor = (0.25, 0.4, 0.55)
        variants = {
            "first": first,
            "second": second,
            "shrunk": shrunk(first, beats, fs, factor[number % 3]),
            "noise": noisy(first, beats, fs, 6, number),
        }
        leads = {name: Lead(path.name, name, x, fs, beats, ignored, number % FOLDS) for name, x in variants.items()}
        yield from leads.values()
        for which, name in enumerate(("first", "second")):
            random = np.random.default_rng([number, which])
            # a lead that says it has another rate is one played faster or slower
            yield replace(leads[name], variant="stretched", fs=fs * np.exp(random.uniform(-0.22, 0.22)))
            yield with_ectopics(leads[name], banks[number % FOLDS], random)
            x = noisy(variants[name], beats, fs, random.uniform(6, 24), int(random.integers(1000)))
            yield replace(leads[name], variant="noisier", x=x, fs=fs * np.exp(random.uniform(-0.15, 0.15)))


def ludb_leads() -> Iterator[Lead]:
    for number, path in enumerate(sorted(p.with_suffix("") for p in (DATA / "ludb").glob("*.hea"))):
        record = wfdb.rdrecord(str(path))
        for lead, x in zip(record.sig_name, record.p_signal.T, strict=True):
            beats, _ = beats_of(path, lead)
            if len(beats) > 1:
                # the first and last complexes of the ten seconds are not marked
                margin = int(0.15 * record.fs)
                ends = [(-1, int(beats[0]) - margin), (int(beats[-1]) + margin, len(x))]
                yield Lead(path.name, "ludb", np.ascontiguousarray(x), record.fs, beats, ends, number % FOLDS)


def matched(samples: np.ndarray, beats: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """One-to-one matching in time order, each beat to its nearest -> masks over samples and over beats."""
    hit, found = np.zeros(len(samples), bool), np.zeros(len(beats), bool)
    i = j = 0
    while i < len(samples) and j < len(beats):
        gap = abs(samples[i] - beats[j])
        if gap > tolerance:
            i, j = (i + 1, j) if samples[i] < beats[j] else (i, j + 1)
        elif i + 1 < len(samples) and abs(samples[i + 1] - beats[j]) < gap:
            i += 1
        elif j + 1 < len(beats) and abs(samples[i] - beats[j + 1]) < gap:
            j += 1
        else:
            hit[i] = found[j] = True
            i, j = i + 1, j + 1
    return hit, found
