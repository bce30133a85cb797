"""Models: a folder each, loaded only when it has proven itself.

A folder `<name>/` holds `model.tflite`, `card.toml` (`aidpost.inference._card`), `CARD.md` for people and `golden.npz`.
The golden inputs are raw simulated recordings, so that the check at load goes through the preprocessing as well: a
model whose hash, card or golden answers do not match on this processor and runtime is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aidpost.errors import AidpostError, ModelError, ModelIntegrityError, ModelRefusedError
from aidpost.inference._card import Card, Task, card_error, read_card
from aidpost.inference.head import Basis, Head, read_basis, read_head
from aidpost.inference.runtime import Interpreter, available_runtimes
from aidpost.records import ModelRef

__all__ = ["SHARED", "SHIPPED", "Model", "Models", "Verification", "head_here", "list_models", "load_model", "verify"]

SHIPPED = Path(__file__).with_name("models")
"""The models that come with this version."""

SHARED = "shared.head"
"""The file of a model's folder that holds the head which clinics taught together."""

Floats = npt.NDArray[np.float32]
Probabilities = npt.NDArray[np.float64]


class Model:
    """A loaded model: its card, its reference for results, and `run`. `load_model` makes one."""

    def __init__(
        self,
        card: Card,
        interpreter: Interpreter,
        basis: Basis | None = None,
        shared: Head | None = None,
        local: Head | None = None,
    ) -> None:
        self.card, self.interpreter, self.basis, self.shared = card, interpreter, basis, shared
        # one that was learned here began where the shared one is, and takes its place
        self.head = local or shared
        version = card.version if local is None else f"{card.version}+head.{local.version}"
        self.ref = ModelRef(name=card.name, version=version, sha256=card.sha256, runtime=interpreter.runtime)
        self._logits = interpreter.output_number(card.output.index)
        self._heatmap = self._optional(card.output.heatmap)
        self._reasons = self._optional(card.output.reasons)
        self._oedema = self._optional(card.output.oedema)
        self._embedding = None if card.embedding is None else interpreter.output_number(card.embedding.output)

    def _optional(self, output: int | str | None) -> int | None:
        return None if output is None else self.interpreter.output_number(output)

    def run(self, values: npt.NDArray[Any]) -> tuple[Floats, ...]:
        """All outputs for one input of the card's shape; see `Interpreter.run`."""
        return self.interpreter.run(values)

    def logits(self, outputs: tuple[Floats, ...]) -> Probabilities:
        """The logits for the outputs of `run`, (rows, labels) or (rows, labels - 1) where they are cumulative: the
        network's own, and what a head adds to them."""
        own = self.own_logits(outputs)
        return own if self.head is None else self.head.logits(own, self.features(outputs))

    def own_logits(self, outputs: tuple[Floats, ...]) -> Probabilities:
        """The logits among the outputs of `run` whatever head there is."""
        logits = outputs[self._logits].astype(np.float64)
        return logits.reshape(-1, logits.shape[-1])

    def features(self, outputs: tuple[Floats, ...]) -> Probabilities:
        """What a head sees of the outputs of `run`, (1, width): the mean embedding, centred and half whitened.

        Raises
        ------
        ModelError
            The model's card names no embedding.
        """
        if self._embedding is None or self.basis is None:
            raise ModelError(
                operation="reading a model's features",
                target=self.card.name,
                cause="its card names no embedding",
                remedy="Update the model: newer ones have one.",
            )
        embedding = outputs[self._embedding].astype(np.float64)
        return self.basis.features(embedding.reshape(-1, embedding.shape[-1]).mean(axis=0, keepdims=True))

    @property
    def head_shape(self) -> tuple[int, int]:
        """Rows and columns of a head's weights. Raises ModelError as `features` does."""
        # counts need no float copies of a whole photograph
        logits = self.own_logits(self.run(np.zeros(self.card.input.shape, self.interpreter.input.dtype))).shape[1]
        if self.basis is None:
            self.features(())
        assert self.basis is not None
        return logits, self.basis.width + 1

    def activation(self, outputs: tuple[Floats, ...]) -> Floats | None:
        """The class activation map among the outputs of `run`, (rows, columns, classes), or None where there is
        none."""
        return None if self._heatmap is None else outputs[self._heatmap][0]

    def reasons(self, outputs: tuple[Floats, ...]) -> dict[str, float]:
        """Reason -> probability from the reasons among the outputs of `run`; empty where the model gives none."""
        if self._reasons is None:
            return {}
        odds = np.exp(-outputs[self._reasons].astype(np.float64).ravel())
        return {name: float(p) for name, p in zip(self.card.output.reason_labels, 1.0 / (1.0 + odds), strict=True)}

    def oedema(self, outputs: tuple[Floats, ...]) -> float | None:
        """Calibrated probability of hard exudates within a disc diameter of the macula's centre (IDRiD's risk 2), the
        photographic sign of macular oedema; None where the model does not give it or its card sets no threshold."""
        if self._oedema is None or "oedema" not in self.card.thresholds:
            return None
        return float(1.0 / (1.0 + np.exp(-outputs[self._oedema].astype(np.float64).ravel()[-1])))

    def probabilities(self, logits: npt.NDArray[np.float64]) -> Probabilities:
        """Calibrated probabilities, one a label along the last axis."""
        scaled = logits / self.card.calibration.temperature
        if self.card.output.kind == "cumulative":
            return _from_cumulative(scaled)
        powers = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        out: Probabilities = powers / powers.sum(axis=-1, keepdims=True)
        return out

    def abstains(self, probability: Probabilities) -> bool:
        """Whether these probabilities (labels,) are too even for an answer, by the card's rule."""
        second, first = np.sort(probability)[-2:]
        rule = self.card.abstain
        return bool(first < rule.min_probability or first - second < rule.min_margin)


def _from_cumulative(logits: npt.NDArray[np.float64]) -> Probabilities:
    """P(label > k) for each k -> P(label). A later step is never likelier than an earlier one."""
    beyond = np.minimum.accumulate(1.0 / (1.0 + np.exp(-logits)), axis=-1)
    ones = np.ones_like(beyond[..., :1])
    steps = np.concatenate((ones, beyond, np.zeros_like(ones)), axis=-1)
    out: Probabilities = steps[..., :-1] - steps[..., 1:]
    return out


def load_model(folder: Path, *, runtime: str | None = None, check: bool = True, head: Head | None = None) -> Model:
    """The model in `folder`, its hash and golden recordings checked.

    Parameters
    ----------
    runtime
        A key of `runtime.RUNTIMES`, or None for the first that works.
    check
        False leaves out the golden recordings: for measuring them, never for use.
    head
        What was learned here for this very file; the golden recordings are checked without it, since they are the
        file's. The shared head of the card belongs to the file.

    Raises
    ------
    ModelIntegrityError
        Hash, card or golden recordings do not match, or the head is of another file.
    ModelError
        The runtime cannot run it.
    NotPossibleError
        There is no runtime.
    """
    card = read_card(folder)
    path = folder / "model.tflite"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise card_error(path, str(error)) from error
    if hashlib.sha256(content).hexdigest() != card.sha256:
        raise card_error(path, "its SHA-256 is not the one on its card")
    basis = None if card.embedding is None else read_basis(folder / "embedding.npz", card.embedding.sha256)
    shared = None if card.head is None else _shared_head(folder, card)
    model = Model(card, Interpreter(content, target=card.name, runtime=runtime), basis, shared)
    if model.interpreter.input.shape != card.input.shape:
        raise card_error(path, f"its input is {model.interpreter.input.shape}, the card says {card.input.shape}")
    if shared is not None and shared.weights.shape != model.head_shape:
        raise card_error(folder / SHARED, "it is of another file")
    if check:
        _require_golden(folder, model, golden_difference(folder, model))
    if head is None:
        return model
    if head.base != card.base or head.weights.shape != model.head_shape:
        raise card_error(path, f"the head {head.version} is of another file")
    return Model(card, model.interpreter, basis, shared, head)


def _shared_head(folder: Path, card: Card) -> Head:
    """The head that clinics taught together, of a card that names one."""
    assert card.head is not None
    path = folder / SHARED
    try:
        content = path.read_bytes()
    except OSError as error:
        raise card_error(path, str(error)) from error
    head = Head.from_bytes(content, str(path))
    if hashlib.sha256(content).hexdigest() != card.head.sha256 or head.base != card.network:
        raise card_error(path, "it is not the one on the card, or of another network")
    return head


def _require_golden(folder: Path, model: Model, difference: float) -> None:
    tolerance = model.card.golden.tolerance
    if not difference <= tolerance:
        cause = f"a golden recording came out {difference:.3f} off on {model.ref.runtime}, over {tolerance}"
        raise card_error(folder / "golden.npz", cause)


def golden_difference(folder: Path, model: Model) -> float:
    """How far the model's probabilities for its golden recordings lie from the expected ones, at most."""
    from aidpost.inference._golden import largest_difference  # here, for each task's preprocessing loads only with it

    return largest_difference(folder / "golden.npz", model)


@dataclass
class Models:
    """The models of this device, each loaded when it is first needed.

    Parameters
    ----------
    roots
        Folders of model folders. Of one name, the highest version is taken.
    profile
        The site's profile; "clinical" refuses a model whose training data forbids clinical use.
    accepted
        Names of models whose terms the site has accepted in its configuration.
    chosen
        Task -> name, where the site wants another model than the one named like the task.
    runtime
        A key of `runtime.RUNTIMES`, or None for the first that works.
    heads
        Folder of heads that were learned here, `<name>.head`; one that is damaged, or of another version of the model,
        is not used, and results then do not name it.
    """

    roots: tuple[Path, ...] = (SHIPPED,)
    profile: str = "research"
    accepted: Collection[str] = ()
    chosen: Mapping[str, str] = field(default_factory=dict)
    runtime: str | None = None
    heads: Path | None = None
    _loaded: dict[str, Model] = field(default_factory=dict, repr=False)

    def find(self, task: Task) -> Model | None:
        """The model for a task, or None where no folder has one. Raises as `load_model` and `permitted` do."""
        if task not in self._loaded:
            folder = self.folder(task)
            if folder is None:
                return None
            self._loaded[task] = load_model(folder, runtime=self.runtime, head=_head(self.heads, read_card(folder)))
        return self._loaded[task]

    def card(self, task: Task) -> Card | None:
        """The card of the model for a task, which is not loaded; None where there is none.

        Raises
        ------
        ModelRefusedError
            There are some, but their terms exclude this site.
        ModelIntegrityError
            A card cannot be read.
        """
        folder = self.folder(task)
        return None if folder is None else read_card(folder)

    def get(self, task: Task) -> Model:
        """The model for a task.

        Raises
        ------
        ModelError
            There is none, or it cannot be loaded.
        ModelRefusedError
            There are some, but their terms exclude this site.
        """
        model = self.find(task)
        if model is None:
            raise ModelError(
                operation="loading a model",
                target=task,
                cause=f"no folder of it under {', '.join(str(root) for root in self.roots)}",
                remedy="Reinstall Aidpost; `aidpost models list` shows what is there.",
            )
        return model

    def folder(self, task: Task) -> Path | None:
        """The folder of the model for a task; None where there is none. Raises as `card`."""
        cards = {folder: card for folder, card in _cards(self.roots, task) if card.task == task}
        if task in self.chosen:
            cards = {folder: card for folder, card in cards.items() if card.name == self.chosen[task]}
        # the one named like the task first; of equal names the newest
        order = sorted(cards, key=lambda folder: cards[folder].version_key, reverse=True)
        order.sort(key=lambda folder: (cards[folder].name != task, cards[folder].name))
        refusal: ModelRefusedError | None = None
        for folder in order:
            refused = self._refusal(cards[folder])
            if refused is None:
                return folder
            refusal = refusal or refused
        if refusal is not None:
            raise refusal
        return None

    def _refusal(self, card: Card) -> ModelRefusedError | None:
        if self.profile != "clinical" or card.permitted_use.clinical or card.name in self.accepted:
            return None
        return ModelRefusedError(
            operation="loading a model",
            target=card.name,
            cause=f"not for the clinical profile: {card.permitted_use.terms}",
            remedy="Choose another model, or accept its terms in writing (inference.accepted_models).",
        )


def _head(folder: Path | None, card: Card) -> Head | None:
    if folder is None:
        return None
    try:
        head = read_head(folder, card.name)
    except ModelIntegrityError:
        return None
    return head if head is not None and head.base == card.base else None


def head_here(folder: Path, card: Card) -> str | None:
    """What `Models` makes of the head in that folder: its version, why it is not used, or None where there is none."""
    try:
        head = read_head(folder, card.name)
    except ModelIntegrityError as error:
        return f"not used: {error.cause}"
    if head is None:
        return None
    return head.version if head.base == card.base else "not used: it is of another version of the model"


def _cards(roots: Iterable[Path], prefix: str) -> list[tuple[Path, Card]]:
    folders = [folder for root in roots if root.is_dir() for folder in sorted(root.iterdir())]
    return [
        (folder, read_card(folder))
        for folder in folders
        if folder.name.startswith(prefix) and (folder / "card.toml").is_file()
    ]


def list_models(roots: Iterable[Path] = (SHIPPED,)) -> list[tuple[Path, Card]]:
    """Every model folder with its card. Raises ModelIntegrityError for a card that cannot be read."""
    return _cards(roots, "")


@dataclass(frozen=True)
class Verification:
    """One model on one runtime. `difference` is None where it could not be measured; `error` is None where it is
    fine."""

    name: str
    version: str
    runtime: str
    difference: float | None
    tolerance: float | None
    error: AidpostError | None

    @property
    def ok(self) -> bool:
        """Whether the model may be used on this runtime."""
        return self.error is None


def verify(roots: Iterable[Path] = (SHIPPED,)) -> list[Verification]:
    """Check hash, card and golden recordings of every model on every runtime that works here; it never stops at one."""
    folders = [folder for root in roots if root.is_dir() for folder in sorted(root.iterdir()) if folder.is_dir()]
    return [_verify(folder, runtime) for folder in folders for runtime in available_runtimes()]


def _verify(folder: Path, runtime: str) -> Verification:
    name, version, difference, tolerance = folder.name, "", None, None
    try:
        model = load_model(folder, runtime=runtime, check=False)
        version, tolerance = model.card.version, model.card.golden.tolerance
        difference = golden_difference(folder, model)
        _require_golden(folder, model, difference)
    except AidpostError as error:
        return Verification(name, version, runtime, difference, tolerance, error)
    return Verification(name, version, runtime, difference, tolerance, None)
