"""What networks and trees that never saw a recording say of its rhythm: targets beside the readers' labels.

Readers of CinC 2017 disagreed about one recording in ten, and each recording has one label. For each fold in turn a
signal network and boosted trees on the hundred features are trained on the others; what they say of the fold tells how
sure its labels are, and a network that learns from both learns less of the labels' chance (Hinton et al., 2015). The
held-out fold teaches nobody before everything has been judged on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from ecg_data import INPUT_SCALE, Cache
from ecg_evaluate import Model, recording_probability, window_logits
from ecg_judge import as_floats

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_DISTURBED_WEIGHT = 0.5
_LEAST = 1e-4


def features_of(variants: Sequence[Cache]) -> Floats:
    """(variants, recordings, 100)."""
    return np.stack([one.features() for one in variants]).astype(np.float32) * np.float32(INPUT_SCALE)


def by_network(model: Model, cache: Cache, rows: Ints) -> Floats:
    """(rows, 4): probabilities of recordings as recorded."""
    return recording_probability(window_logits(model, [as_floats(cache, row) for row in rows]), 1.0).astype(np.float32)


def by_trees(table: Floats, label: Ints, fit: Ints, rows: Ints, weights: Sequence[float], members: int) -> Floats:
    """(rows, 4): probabilities by histogram gradient boosting on the recordings `fit`, the mean of some seeds."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    x, y = table[:, fit].reshape(-1, table.shape[2]), np.tile(label[fit], len(table))
    share = np.repeat([1.0] + [_DISTURBED_WEIGHT] * (len(table) - 1), fit.size)
    out = np.zeros((rows.size, len(weights)))
    for seed in range(members):
        trees = HistGradientBoostingClassifier(
            max_iter=250,
            learning_rate=0.05,
            max_leaf_nodes=15,
            l2_regularization=5.0,
            max_features=0.3,
            early_stopping=False,
            random_state=seed,
        )
        trees.fit(x, y, sample_weight=share * np.array(weights)[y])
        out[:, trees.classes_] += trees.predict_proba(table[0, rows]) / members
    return out.astype(np.float32)


def together(parts: Sequence[Floats]) -> Floats:
    """The parts' geometric mean, as probabilities."""
    mean = np.exp(np.mean([np.log(part + _LEAST) for part in parts], axis=0))
    return np.asarray(mean / mean.sum(axis=1, keepdims=True), np.float32)
