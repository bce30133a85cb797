"""Make kernels/rpeaks_trees.npz, forest and network by which the R-peak detector judges its candidates, in one go:

    OMP_NUM_THREADS=1 python training/ecg_rpeaks.py --write

It reads AIDPOST_DATA (default ../shared/data). First it prints what the method gives on records that neither judgement
has seen (three folds, by record): that is the figure to quote and to choose by. Then, with --write, it fits on all
records and writes; without, nothing is written. Needs the `train` and `bench` extras (PyTorch; scikit-learn comes with
neurokit2). One thread, since sums in another order make other trees.

The network learns from scores that the forest gives to records it has not seen, as it will have to judge by such. For a
fold's figure, those come from forests that have not seen that fold either, so that nothing of it is heard of.
"""

from __future__ import annotations

import argparse
import sys
from itertools import combinations
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from ecg_beats import FOLDS, Lead, ludb_leads, matched, mitdb_leads
from ecg_rpeaks_net import Layers, fit, no_layers
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from aidpost.kernels._rpeaks import Core, Forest, Network

TARGET = Path("kernels/rpeaks_trees.npz")
SCALE = 65536.0
DOUBT = 5 * SCALE
LEARNED = (
    7 * SCALE
)  # the network learns also of candidates that are a little less doubtful than those it is asked about
ALONE, SEEN = 13, 121
# the part of a variant's candidates that the forest learns from; MIT-BIH's first lead and LUDB count whole
KEPT = {
    "first": 1.0,
    "second": 0.2,
    "shrunk": 0.2,
    "noise": 0.25,
    "stretched": 0.3,
    "ectopic": 0.3,
    "noisier": 0.2,
    "ludb": 1.0,
}
WEIGHT = {
    "first": 1.0,
    "second": 0.3,
    "shrunk": 0.15,
    "noise": 0.3,
    "stretched": 0.3,
    "ectopic": 0.3,
    "noisier": 0.2,
    "ludb": 0.6,
}
# and how much they count to the network
DRAWN = {
    "first": 1.0,
    "second": 0.5,
    "shrunk": 0.1,
    "noise": 0.2,
    "stretched": 0.4,
    "ectopic": 0.5,
    "noisier": 0.2,
    "ludb": 1.0,
}

Trees = tuple[np.ndarray, np.ndarray, np.ndarray, int]
NO_TREES: Trees = (np.zeros((0, 7), np.int32), np.zeros((0, 7)), np.zeros((0, 8), np.int64), -1)


def run(lead: Lead, trees: Trees, layers: Layers, doubt: float, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The detector on one lead -> its peaks, and its candidates (sample, score, what the judgement is shown...)."""
    trace = np.empty((len(lead.x) * 13 // int(lead.fs) + 100 if columns else 0, columns + 2))
    core = Core(lead.fs, Forest(*trees), Network(*layers), int(doubt), trace)
    core.feed(np.ascontiguousarray(lead.x))
    core.finish()
    peaks = np.empty(core.waiting(), dtype=np.int64)
    core.take(peaks, np.empty((core.waiting_spans(), 2), dtype=np.int64))
    table = trace[: core.traced].copy()
    table[:, :1] = np.round(table[:, :1] * lead.fs / 125)
    return peaks, table


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


def learn_doubtful(leads: list[Lead], forests: list[Trees]) -> Layers:
    """The network for candidates that `forests`, one a lead, are not sure of."""
    seen, truth, weight = [], [], []
    for lead, trees in zip(leads, forests, strict=True):
        _, table = run(lead, trees, no_layers(), LEARNED, SEEN)
        hit, _ = matched(table[:, 0], lead.beats, 0.15 * lead.fs)
        keep, doubt = lead.counts(table[:, 0]), np.abs(table[:, 1]) / SCALE
        seen.append(table[keep, 2:].astype(np.int16))
        truth.append(hit[keep])
        weight.append(DRAWN[lead.variant] * np.where(doubt > 6, 0.1, np.where(doubt > 4.5, 0.4, 1.0))[keep])
    return fit(np.vstack(seen), np.concatenate(truth), np.concatenate(weight))


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


def report(leads: list[Lead], judges: list[tuple[Trees, Layers]], doubt: float) -> None:
    total: dict[str, np.ndarray] = {}
    for lead in leads:
        if lead.variant not in ("first", "noise", "ludb"):
            continue
        peaks, _ = run(lead, *judges[lead.fold], doubt, 0)
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
    alone = [run(lead, NO_TREES, no_layers(), 0, ALONE)[1] for lead in leads]

    def forest(*without: int) -> Trees:
        chosen = [i for i, lead in enumerate(leads) if lead.fold not in without]
        return learn([leads[i] for i in chosen], [alone[i] for i in chosen], 60)

    def network(without: int | None, forests: dict[int, Trees]) -> Layers:
        chosen = [lead for lead in leads if lead.fold != without]
        return learn_doubtful(chosen, [forests[lead.fold] for lead in chosen])

    folds = range(FOLDS)
    ones = {fold: forest(fold) for fold in folds}
    print(f"first judgement only, unseen records ({FOLDS} folds)", flush=True)
    report(leads, [(ones[fold], no_layers()) for fold in folds], 0)
    pairs = {pair: forest(*pair) for pair in combinations(folds, 2)}
    twos = [
        network(fold, {other: pairs[min(fold, other), max(fold, other)] for other in folds if other != fold})
        for fold in folds
    ]
    print(f"both judgements, unseen records ({FOLDS} folds)", flush=True)
    report(leads, [(ones[fold], twos[fold]) for fold in folds], DOUBT)
    if write:
        names = ("feature", "threshold", "value", "bias")
        arrays = dict(zip(names, forest(), strict=True))
        for layer, (weights, biases) in enumerate(zip(*network(None, ones), strict=True)):
            arrays |= {f"weights{layer}": weights, f"biases{layer}": biases}
        np.savez_compressed(TARGET, doubt=int(DOUBT), **arrays)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with threadpool_limits(1):
        main()
