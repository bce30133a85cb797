"""Makes kernels/rpeaks_trees.npz, the forests by which the R-peak detector judges its candidates.

Learned on the recordings in AIDPOST_DATA: both leads of MIT-BIH, the first also with its QRS complexes shrunk
against the P and T waves and with NSTDB noise; all leads of LUDB. Flutter and fibrillation are left out. First it
reports what the method gives on records that the forests have not seen (three folds by record), then it fits on all.
Needs scikit-learn (comes with neurokit2). Run from the repository's top: python benchmarks/qrs_trees.py [--write]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import wfdb
from sklearn.ensemble import HistGradientBoostingClassifier

from aidpost.kernels._rpeaks import Core, Forest

DATA = Path(os.environ.get("AIDPOST_DATA", "../shared/data")) / "ecg"
TARGET = Path("kernels/rpeaks_trees.npz")
BEATS = set("NLRBAaJSVrFejnE/fQ?")
FOLDS, SCALE = 3, 65536.0
DOUBT = 6 * SCALE
ALONE, BOTH = 13, 29
# the part of a variant's candidates that is learned from; MIT-BIH's first lead and LUDB count whole
KEPT = {"first": 1.0, "second": 0.2, "shrunk": 0.2, "noise": 0.25, "ludb": 1.0}
WEIGHT = {"first": 1.0, "second": 0.15, "shrunk": 0.15, "noise": 0.3, "ludb": 0.4}

Trees = tuple[np.ndarray, np.ndarray, np.ndarray, int]
NO_TREES: Trees = (np.zeros((0, 7), np.int32), np.zeros((0, 7)), np.zeros((0, 8), np.int64), -1)


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


def mitdb_leads() -> Iterator[Lead]:
    for number, path in enumerate(sorted(p.with_suffix("") for p in (DATA / "mitdb").glob("*.hea"))):
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
        for variant, x in variants.items():
            yield Lead(path.name, variant, x, fs, beats, ignored, number % FOLDS)


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


def run(lead: Lead, one: Trees, two: Trees, doubt: float, features: int) -> tuple[np.ndarray, np.ndarray]:
    """The detector on one lead -> its peaks, and its candidates (sample, score, features...)."""
    trace = np.empty((len(lead.x) * 13 // int(lead.fs) + 100 if features else 0, features + 2))
    core = Core(lead.fs, Forest(*one), Forest(*two), int(doubt), trace)
    core.feed(np.ascontiguousarray(lead.x))
    core.finish()
    peaks = np.empty(core.waiting(), dtype=np.int64)
    core.take(peaks, np.empty((core.waiting_spans(), 2), dtype=np.int64))
    table = trace[: core.traced].copy()
    table[:, :1] = np.round(table[:, :1] * lead.fs / 125)
    return peaks, table


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


def learn(leads: list[Lead], tables: list[np.ndarray], rounds: int) -> Trees:
    rows, truth, weight = [], [], []
    random = np.random.default_rng(1)
    for lead, table in zip(leads, tables, strict=True):
        hit, _ = matched(table[:, 0], lead.beats, 0.15 * lead.fs)
        keep = lead.counts(table[:, 0]) & (random.random(len(table)) < KEPT[lead.variant])
        rows.append(table[keep, 2:])
        truth.append(hit[keep])
        weight.append(np.full(keep.sum(), WEIGHT[lead.variant] / KEPT[lead.variant]))
    model = HistGradientBoostingClassifier(
        max_iter=rounds, max_depth=3, max_leaf_nodes=8, learning_rate=0.15, min_samples_leaf=60, l2_regularization=5.0,
        early_stopping=False, max_bins=100,
    )  # fmt: skip
    return as_trees(model.fit(np.vstack(rows), np.concatenate(truth), sample_weight=np.concatenate(weight)))


def as_trees(model: HistGradientBoostingClassifier) -> Trees:
    count = len(model._predictors)
    feature, threshold = np.zeros((count, 7), np.int32), np.full((count, 7), np.inf)
    value = np.zeros((count, 8), np.int64)

    def copy(tree: int, nodes: np.ndarray, at: int, to: int, depth: int) -> None:
        node = nodes[at]
        if node["is_leaf"]:
            first = last = to
            for _ in range(3 - depth):
                first, last = 2 * first + 1, 2 * last + 2
            value[tree, first - 7 : last - 6] = round(float(node["value"]) * SCALE)
        else:
            feature[tree, to], threshold[tree, to] = node["feature_idx"], node["num_threshold"]
            copy(tree, nodes, node["left"], 2 * to + 1, depth + 1)
            copy(tree, nodes, node["right"], 2 * to + 2, depth + 1)

    for tree, (predictor,) in enumerate(model._predictors):
        copy(tree, predictor.nodes, 0, 0, 0)
    return feature, threshold, value, round(float(model._baseline_prediction.ravel()[0]) * SCALE)


def report(leads: list[Lead], forests: list[tuple[Trees, Trees]], doubt: float) -> None:
    total: dict[str, np.ndarray] = {}
    for lead in leads:
        if lead.variant in ("second", "shrunk"):
            continue
        peaks, _ = run(lead, *forests[lead.fold], doubt, 0)
        hit, found = matched(peaks, lead.beats, 0.15 * lead.fs)
        wrong, missed = (~hit & lead.counts(peaks)).sum(), (~found & lead.counts(lead.beats)).sum()
        right = (found & lead.counts(lead.beats)).sum()
        total[lead.variant] = total.get(lead.variant, 0) + np.array([right, wrong, missed])
        if lead.variant == "first" and wrong + missed > 3:
            print(f"  {lead.record}: {wrong} false, {missed} missed")
    for variant, (right, wrong, missed) in total.items():
        f1 = 200 * right / (2 * right + wrong + missed)
        print(f"{variant:14s} {right:7d} {wrong:6d} false {missed:6d} missed  F1 {f1:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help=f"fit on everything and write {TARGET}")
    write = parser.parse_args().write
    leads = [*mitdb_leads(), *ludb_leads()]
    alone = [run(lead, NO_TREES, NO_TREES, 0, ALONE)[1] for lead in leads]

    def outside(fold: int, tables: list[np.ndarray], rounds: int) -> Trees:
        chosen = [i for i, lead in enumerate(leads) if lead.fold != fold]
        return learn([leads[i] for i in chosen], [tables[i] for i in chosen], rounds)

    ones = [outside(fold, alone, 60) for fold in range(FOLDS)]
    print("first judgement only, unseen records", flush=True)
    report(leads, [(one, NO_TREES) for one in ones], 0)
    both = [run(lead, ones[lead.fold], NO_TREES, DOUBT, BOTH)[1] for lead in leads]
    twos = [outside(fold, both, 60) for fold in range(FOLDS)]
    print("both judgements, unseen records", flush=True)
    report(leads, list(zip(ones, twos, strict=True)), DOUBT)
    if write:
        forests = zip("12", (learn(leads, alone, 60), learn(leads, both, 60)), strict=True)
        names = ("feature", "threshold", "value", "bias")
        arrays = {name + k: part for k, forest in forests for name, part in zip(names, forest, strict=True)}
        np.savez_compressed(TARGET, doubt=int(DOUBT), **arrays)


if __name__ == "__main__":
    main()
