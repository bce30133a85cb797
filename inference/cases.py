"""From a labelled recording to what a head learns of it: features and the model's own logits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from aidpost.errors import UnreadableInputError
from aidpost.inference.head import Cases, Floats, Labels
from aidpost.inference.model import Model
from aidpost.records import EcgRecording

__all__ = ["Example", "collect", "ecg_example", "label_number", "photo_example"]

Example = tuple[Floats, Floats]
"""Features (width,) and the model's own logits (logits,) of one recording."""


def photo_example(model: Model, encoded: bytes) -> Example:
    """A photograph's, through the preprocessing that grading uses. Raises UnreadableInputError as `decode` does."""
    from aidpost.inference._grading import model_input, model_side
    from aidpost.kernels.fundus import decode

    return _example(model, [model_input(model, decode(encoded, model_side(model))).pixels])


def ecg_example(model: Model, recording: EcgRecording, lead: str | None = None) -> Example:
    """An ECG's, of the lead that would be read; of several windows the mean.

    Raises
    ------
    UnreadableInputError
        No lead of it is usable, or it is too short.
    """
    from aidpost.inference._ecg_signal import choose_lead
    from aidpost.inference._rhythm import model_windows

    chosen = choose_lead(recording, lead)
    if not chosen.quality.usable:
        raise UnreadableInputError(
            operation="learning from a recording",
            target=str(recording.source or recording.id),
            cause=f"no lead is usable: {', '.join(chosen.quality.reasons) or 'too little signal'}",
            remedy="Leave it out; the model cannot be taught what it cannot read.",
        )
    return _example(model, model_windows(model, chosen.samples_mv, chosen.fs_hz))


def _example(model: Model, inputs: Iterable[Any]) -> Example:
    outputs = [model.run(one[np.newaxis]) for one in inputs]
    features = np.concatenate([model.features(one) for one in outputs]).mean(axis=0)
    return features, np.concatenate([model.own_logits(one) for one in outputs]).mean(axis=0)


def label_number(model: Model, label: str) -> int | None:
    """Which of the model's labels a grade means; None where it means none of them. A reader's "sinus", "af", "other"
    and "unreadable" are the rhythm model's N, A, O and ~."""
    name = {"sinus": "N", "af": "A", "other": "O", "unreadable": "~"}.get(label, label)
    labels = model.card.output.labels
    return labels.index(name) if name in labels else None


def collect(examples: Sequence[Example], labels: Sequence[int], patients: Sequence[object]) -> Cases:
    """Examples, their labels and whose they are, as cases; patients may be named by anything that can be compared."""
    numbers: dict[object, int] = {}
    whose: Labels = np.array([numbers.setdefault(one, len(numbers)) for one in patients], dtype=np.int64)
    if not examples:
        return Cases(np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(0, np.int64), whose)
    features, logits = (np.stack(part) for part in zip(*examples, strict=True))
    return Cases(features, logits, np.array(labels, dtype=np.int64), whose)
