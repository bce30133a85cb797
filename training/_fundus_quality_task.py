"""The quality network and how it is trained: photographs with EyeQ's labels, good ones spoiled, drawn pictures of
other things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _fundus_augment import augment_raw, stretch_channels
from _fundus_backbone import EfficientNetLite0, half, load_imagenet
from _fundus_data import Photograph, cached
from _fundus_degrade import REASONS
from _fundus_export import torch_input
from _fundus_metrics import auc
from _fundus_negatives import not_a_retina
from torch import nn

from aidpost.inference._fundus_input import INPUT_VERSION, quality_input
from aidpost.kernels.fundus import decode

SIZE = 192
CACHE_SIZE = 208
FROZEN_BLOCKS = 2
BLOCKS = 11  # to stride 16, 112 channels: sharpness is texture, what comes after knows objects
FEATURES = 512
REASON_NAMES = (*REASONS, "not_a_retina")
UNKNOWN = -1.0
REJECT = 2
# Of what is drawn: labelled photographs, IDRiD's, good ones spoiled; the rest is no retina.
LABELLED, UNLABELLED, SPOILED = 0.62, 0.08, 0.18
# How EyeQ's readers might have labelled it on another day: good, usable, reject.
SOFT = {0: (0.94, 0.06, 0.0), 1: (0.08, 0.84, 0.08), 2: (0.0, 0.06, 0.94), None: (0.75, 0.25, 0.0)}
HOPELESS, SLIGHT, NO_RETINA = (0.0, 0.03, 0.97), (0.15, 0.65, 0.2), (0.0, 0.0, 1.0)


class QualityNet(nn.Module):
    """3 logits (good, usable, reject) and one per reason, each the mean over the last map."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(BLOCKS, FEATURES)
        self.quality = nn.Conv2d(FEATURES, 3, 1)
        self.reasons = nn.Conv2d(FEATURES, len(REASON_NAMES), 1)
        for head in (self.quality, self.reasons):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    def train(self, mode: bool = True) -> QualityNet:
        """Batch normalisation keeps ImageNet's statistics, but for the new head."""
        super().train(mode)
        for module in self.backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """n x 3 x H x W to n x 3 and n x reasons float logits, computed in x's type."""
        with torch.set_grad_enabled(False if self.training else torch.is_grad_enabled()):
            x = self.backbone.stem(x)
            for block in self.backbone.blocks[:FROZEN_BLOCKS]:
                x = block(x)
        for block in self.backbone.blocks[FROZEN_BLOCKS:]:
            x = block(x, 0.95)
        x = self.backbone.head(x).mean((2, 3), dtype=torch.float32)
        if self.training:
            x = F.dropout(x, 0.3)
        return tuple(x @ head.weight.flatten(1).T + head.bias for head in (self.quality, self.reasons))  # type: ignore[return-value]


def load_crops(folder: Path, photographs: Sequence[Photograph], size: int) -> np.ndarray:
    """n x size x size x 3 int8, raw colours, exactly as the device would compute them."""

    def make(file: str) -> np.ndarray:
        photo = decode((folder / file).read_bytes(), size)
        return quality_input(photo.rgb, photo.field, size).pixels

    return cached("quality", [p.file for p in photographs], size, make, INPUT_VERSION)


def _reason(name: str | None, known: bool = True) -> np.ndarray:
    """1, 0 or unknown for each reason; that it is a retina is always known."""
    out = np.zeros(len(REASON_NAMES)) if known else np.full(len(REASON_NAMES), UNKNOWN)
    out[-1] = 0
    if name is not None:
        out[REASON_NAMES.index(name)] = 1
    return out


@dataclass
class QualityTask:
    """See `_fundus_loop.Task`. `photographs`: those with EyeQ's labels and IDRiD's, of both sides of the split."""

    folder: Path
    photographs: Sequence[Photograph]

    def __post_init__(self) -> None:
        torch.set_flush_denormal(True)
        torch.set_num_threads(1)
        self.kept = [p for p in self.photographs if not p.held_out]
        self.crops = load_crops(self.folder, self.kept, CACHE_SIZE)
        self.held = [p for p in self.photographs if p.held_out and p.quality is not None]
        self.held_images = load_crops(self.folder, self.held, SIZE)
        raw = np.array([1.0 if p.dataset == "EyePACS-256-stretched" else 2.0 for p in self.kept])
        self.labelled = self._chances(raw, [p.quality is not None for p in self.kept])
        self.unlabelled = self._chances(raw, [p.quality is None for p in self.kept])
        self.good = self._chances(raw, [p.quality in (0, None) for p in self.kept])

    @staticmethod
    def _chances(weight: np.ndarray, use: Sequence[bool]) -> np.ndarray:
        weight = weight * np.array(use)
        return weight / max(weight.sum(), 1e-9)

    def model(self) -> QualityNet:
        """ImageNet weights, a new head whose batch normalisation does nothing yet."""
        torch.manual_seed(0)
        model = QualityNet()
        load_imagenet(model.backbone)
        return model

    def _photograph(self, rng: np.random.Generator, chances: np.ndarray) -> tuple[Photograph, np.ndarray]:
        i = int(rng.choice(len(chances), p=chances))
        return self.kept[i], augment_raw((self.crops[i].astype(np.int16) + 128).astype(np.uint8), rng, SIZE)

    def sample(self, rng: np.random.Generator) -> tuple[np.ndarray, tuple[float, ...], np.ndarray]:
        """One picture (uint8), its soft quality and its reasons."""
        kind = rng.random()
        if kind < LABELLED + UNLABELLED:
            p, picture = self._photograph(rng, self.labelled if kind < LABELLED else self.unlabelled)
            return picture, SOFT[p.quality], _reason(None, p.quality in (0, None))
        if kind < LABELLED + UNLABELLED + SPOILED:
            _, picture = self._photograph(rng, self.good)
            name = list(REASONS)[int(rng.integers(len(REASONS)))]
            hopeless = rng.random() < 0.6
            strength = rng.uniform(0.5, 1.0) if hopeless else rng.uniform(0.0, 0.2)
            return REASONS[name](picture, strength, rng), HOPELESS if hopeless else SLIGHT, _reason(name)
        picture = not_a_retina(rng, SIZE)
        picture = stretch_channels(picture) if rng.random() < 0.25 else picture
        return picture, NO_RETINA, _reason("not_a_retina")

    def batch(self, rng: np.random.Generator, n: int, size: int, done: float) -> tuple[torch.Tensor, ...]:
        """n pictures, their qualities and reasons."""
        images, quality, reasons = zip(*(self.sample(rng) for _ in range(n)), strict=True)
        x = half(torch_input((np.stack(images).astype(np.int16) - 128).astype(np.int8)))
        return x, torch.tensor(quality).float(), torch.tensor(np.stack(reasons)).float()

    def loss(self, model: Any, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Cross-entropy on soft labels, and every known reason."""
        x, quality, reasons = batch
        graded, why = model(x)
        known = reasons != UNKNOWN
        return F.cross_entropy(graded, quality) + F.binary_cross_entropy_with_logits(why[known], reasons[known])

    def groups(self, model: Any) -> list[dict[str, Any]]:
        """Heads learn faster than the backbone."""
        backbone = [p for block in model.backbone.blocks[FROZEN_BLOCKS:] for p in block.parameters()]
        heads = [p for m in (model.backbone.head, model.quality, model.reasons) for p in m.parameters()]
        return [{"params": backbone, "lr": 4e-4}, {"params": heads, "lr": 2e-3}]

    def validate(self, model: Any) -> dict[str, float]:
        """Figures of the held-out photographs with labels."""
        parts = []
        with torch.no_grad():
            for start in range(0, len(self.held), 16):
                parts.append(model(half(torch_input(self.held_images[start : start + 16])))[0].softmax(1).numpy())
        probability, truth = np.concatenate(parts), np.array([p.quality for p in self.held])
        return {
            "accuracy": round(float((probability.argmax(1) == truth).mean()), 4),
            "reject AUC": round(auc(truth == REJECT, probability[:, REJECT]), 4),
        }


def predict_twin(model: QualityNet, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of quality (n x 3) and of the reasons, all in float."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 16):
            parts.append([t.numpy() for t in model.eval()(torch_input(images[start : start + 16]))])
    graded, why = (np.concatenate(column) for column in zip(*parts, strict=True))
    return graded, why
