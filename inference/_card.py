"""`card.toml`, the part of a model's description that programs read; `CARD.md` beside it is for people."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from aidpost.errors import ModelIntegrityError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Task = Literal["ecg-rhythm", "ecg-beats", "fundus-quality", "fundus-dr"]
Fraction = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0)]


class _Table(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that this version does not know are ignored: cards carry figures for people too."""


class InputSpec(_Table, frozen=True):
    """`preprocessing` names the function that makes the input, `preprocessing_version` the version it was trained
    with."""

    preprocessing: str
    preprocessing_version: int | str
    shape: tuple[int, ...]


class OutputSpec(_Table, frozen=True):
    """What the output tensors mean.

    `kind` softmax: one logit a label. `kind` cumulative: ordered labels, logit k says "beyond label k" (one fewer than
    labels). `index` and `heatmap` are the output's number, or its name in the model's signature: of the logits, and of
    a class activation map where there is one. `reasons` is an output with one logit for each of `reason_labels`,
    `oedema` one with the logits of a risk of macular oedema of 1 or more, 2 or more (IDRiD's scale).
    """

    labels: tuple[str, ...]
    kind: Literal["softmax", "cumulative"] = "softmax"
    index: int | str = 0
    heatmap: int | str | None = None
    reasons: int | str | None = None
    reason_labels: tuple[str, ...] = ()
    oedema: int | str | None = None


class Calibration(_Table, frozen=True):
    """Logits are divided by `temperature` before they become probabilities (Guo et al. 2017)."""

    temperature: Positive = 1.0


class Abstain(_Table, frozen=True):
    """The model abstains where its highest probability, or its lead over the second, is lower than this."""

    min_probability: Fraction = 0.0
    min_margin: Fraction = 0.0


class Cameras(_Table, frozen=True):
    """Camera models whose photographs the accuracy on the card was measured on."""

    validated: tuple[str, ...] = ()


class PermittedUse(_Table, frozen=True):
    """Whether the training data's terms allow clinical use; `terms` says why not, or on what conditions."""

    clinical: bool
    terms: str = ""


class Golden(_Table, frozen=True):
    """How far a probability may lie from the one in `golden.npz` on any runtime."""

    tolerance: Fraction


class Embedding(_Table, frozen=True):
    """The output, by its name in the signature, of the values that the last layer reads, and the SHA-256 of
    `embedding.npz`: `mean` (channels,) and `basis` (channels, width), which make a head's features of it."""

    output: str
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class SharedHead(_Table, frozen=True):
    """The head that clinics taught together, `shared.head` beside the model: its SHA-256, and the rounds that made it,
    the first one first."""

    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    rounds: tuple[str, ...]


class Card(_Table, frozen=True):
    """A model's card."""

    name: str
    version: str
    task: Task
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    input: InputSpec
    output: OutputSpec
    permitted_use: PermittedUse
    golden: Golden
    calibration: Calibration = Calibration()
    thresholds: dict[str, Fraction] = {}
    abstain: Abstain = Abstain()
    cameras: Cameras = Cameras()
    embedding: Embedding | None = None
    head: SharedHead | None = None
    summary: str = ""

    @property
    def network(self) -> str:
        """What a shared head stands on: network and embedding, as a SHA-256; empty where the card names no
        embedding."""
        if self.embedding is None:
            return ""
        return hashlib.sha256(f"{self.sha256} {self.embedding.sha256}".encode()).hexdigest()

    @property
    def base(self) -> str:
        """What a head that is learned on a device stands on: the network, and the shared head where there is one."""
        if self.head is None:
            return self.network
        return hashlib.sha256(f"{self.network} {self.head.sha256}".encode()).hexdigest()

    @property
    def version_key(self) -> tuple[int, ...]:
        """The version as numbers, for ordering: "1.10.0" comes after "1.9.0"."""
        return tuple(int(part) for part in self.version.split("-")[0].split(".") if part.isdigit())


def read_card(folder: Path) -> Card:
    """The card of a model folder.

    Raises
    ------
    ModelIntegrityError
        There is none, it is not TOML, a key is missing or wrong, or it names another folder.
    """
    path = folder / "card.toml"
    try:
        with path.open("rb") as file:
            card = msgspec.convert(tomllib.load(file), Card)
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise card_error(path, str(error)) from error
    if card.name != folder.name:
        raise card_error(path, f"it is the card of {card.name!r}")
    return card


def card_error(path: Path, cause: str) -> ModelIntegrityError:
    """The error for a model folder that does not hold what it should."""
    return ModelIntegrityError(
        operation="loading a model",
        target=str(path),
        cause=cause,
        remedy="Reinstall Aidpost or the model update; `aidpost models verify` checks all of them.",
    )
