"""The quality network: the first blocks of the backbone as they are, a short tail trained on their cached output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _fundus_augment import augment_raw, stretch_channels
from _fundus_backbone import EfficientNetLite0, load_imagenet
from _fundus_data import Photograph, cached
from _fundus_degrade import REASONS
from _fundus_export import FrozenFront, torch_input
from _fundus_negatives import not_a_retina
from torch import nn
from tqdm import tqdm

from aidpost.inference._fundus_input import INPUT_VERSION, quality_input
from aidpost.kernels.fundus import decode

SIZE = 192
CACHE_SIZE = 208
FROZEN_BLOCKS = 11  # to stride 16, 112 channels
BLOCKS = 12
REASON_NAMES = (*REASONS, "not_a_retina")
UNKNOWN = -1.0


class QualityNet(nn.Module):
    """3 logits (good, usable, reject) and one per reason, each the mean over the last map."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(BLOCKS, 512)
        self.quality = nn.Conv2d(self.backbone.channels, 3, 1)
        self.reasons = nn.Conv2d(self.backbone.channels, len(REASON_NAMES), 1)

    def early(self, x: torch.Tensor) -> torch.Tensor:
        """The frozen part."""
        x = self.backbone.stem(x)
        for block in self.backbone.blocks[:FROZEN_BLOCKS]:
            x = block(x)
        return x

    def tail(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The trained part, from what `early` gives to the logits of quality and of the reasons."""
        for block in self.backbone.blocks[FROZEN_BLOCKS:]:
            x = block(x)
        x = self.backbone.head(x).mean((2, 3))
        if self.training:
            x = F.dropout(x, 0.3)
        return tuple(x @ head.weight.flatten(1).T + head.bias for head in (self.quality, self.reasons))  # type: ignore[return-value]


@dataclass
class Samples:
    """Pictures (int8) with their soft quality and their reasons (1, 0 or unknown)."""

    images: list[np.ndarray] = field(default_factory=list)
    quality: list[tuple[float, float, float]] = field(default_factory=list)
    reasons: list[np.ndarray] = field(default_factory=list)

    def add(self, image: np.ndarray, quality: tuple[float, float, float], reasons: np.ndarray) -> None:
        """Append one picture, uint8."""
        self.images.append((image.astype(np.int16) - 128).astype(np.int8))
        self.quality.append(quality)
        self.reasons.append(reasons)


def load_crops(folder: Path, photographs: Sequence[Photograph], size: int) -> np.ndarray:
    """n x size x size x 3 int8, raw colours, exactly as the device would compute them."""

    def make(file: str) -> np.ndarray:
        photo = decode((folder / file).read_bytes(), size)
        return quality_input(photo.rgb, photo.field, size).pixels

    return cached("quality", [p.file for p in photographs], size, make, INPUT_VERSION)


def _bytes(pixels: np.ndarray) -> np.ndarray:
    return (pixels.astype(np.int16) + 128).astype(np.uint8)


def _reason(name: str | None, known: bool = True) -> np.ndarray:
    out = np.zeros(len(REASON_NAMES)) if known else np.full(len(REASON_NAMES), UNKNOWN)
    out[-1] = 0
    if name is not None:
        out[REASON_NAMES.index(name)] = 1
    return out


def degraded(image: np.ndarray, name: str, hopeless: bool, rng: np.random.Generator) -> np.ndarray:
    """A good photograph made bad for one reason, either just so or hopelessly."""
    return REASONS[name](image, rng.uniform(0.5, 1.0) if hopeless else rng.uniform(0.0, 0.2), rng)


def make_samples(
    photographs: Sequence[Photograph], crops: np.ndarray, copies: int, drawn: int, rng: np.random.Generator
) -> Samples:
    """Every labelled photograph `copies` times (raw colours thrice as often), degraded good ones, and `drawn` pictures
    of other things."""
    out = Samples()
    soft = {0: (0.94, 0.06, 0.0), 1: (0.06, 0.88, 0.06), 2: (0.0, 0.06, 0.94), None: (0.75, 0.25, 0.0)}
    for p, crop in zip(photographs, tqdm(crops, desc="augment", mininterval=10), strict=True):
        raw = p.dataset != "EyePACS-256-stretched"
        picture = _bytes(crop)
        known = p.quality in (0, None)
        for _ in range(1 if p.quality is None else copies * (2 if raw else 1)):
            out.add(augment_raw(picture, rng, SIZE), soft[p.quality], _reason(None, known))
        if not known or rng.random() > (1.0 if raw else 0.6):
            continue
        for hopeless, quality in ((True, (0.0, 0.03, 0.97)), (False, (0.15, 0.65, 0.2))):
            name = list(REASONS)[int(rng.integers(len(REASONS)))]
            out.add(degraded(augment_raw(picture, rng, SIZE), name, hopeless, rng), quality, _reason(name))
    for _ in tqdm(range(drawn), desc="draw", mininterval=10):
        picture = not_a_retina(rng, SIZE)
        out.add(stretch_channels(picture) if rng.random() < 0.25 else picture, (0.0, 0.0, 1.0), _reason("not_a_retina"))
    return out


def initial_model(images: np.ndarray) -> QualityNet:
    """ImageNet weights, batch normalisation's statistics from `images`."""
    model = QualityNet()
    load_imagenet(model.backbone)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for start in range(0, len(images), 16):
            model.backbone(torch_input(images[start : start + 16]))
    for norm in norms:
        norm.momentum = 0.02
    return model.eval()


def front_features(front: FrozenFront, images: Sequence[np.ndarray]) -> np.ndarray:
    """What the frozen front makes of the pictures, n x h x w x channels int8."""
    return np.concatenate(
        [
            front.raw(images[start : start + 64])
            for start in tqdm(range(0, len(images), 64), desc="features", mininterval=10)
        ]
    )


def fit_tail(
    model: QualityNet, front: FrozenFront, features: np.ndarray, samples: Samples, epochs: int, seed: int
) -> None:
    """Train the tail: cross-entropy on soft labels, and every known reason."""
    quality, reasons = torch.tensor(samples.quality).float(), torch.tensor(np.stack(samples.reasons)).float()
    torch.manual_seed(seed)
    trained = [*model.backbone.blocks[FROZEN_BLOCKS:].parameters(), *model.backbone.head.parameters()]
    heads = [*model.quality.parameters(), *model.reasons.parameters()]
    optimiser = torch.optim.AdamW([{"params": trained, "lr": 1e-3}, {"params": heads, "lr": 2e-3}], weight_decay=0.05)
    steps = -(-len(features) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, [1e-3, 2e-3], epochs * steps, pct_start=0.15)
    for epoch in range(epochs):
        bar = tqdm(torch.randperm(len(features)).split(64), desc=f"tail {epoch + 1}/{epochs}", mininterval=10)
        for rows in bar:
            model.eval()
            for module in (model.backbone.blocks[FROZEN_BLOCKS:], model.backbone.head):
                module.train()
            model.training = True
            graded, why = model.tail(front.real(features[rows.numpy()]))
            known = reasons[rows] != UNKNOWN
            loss = F.cross_entropy(graded, quality[rows])
            loss = loss + F.binary_cross_entropy_with_logits(why[known], reasons[rows][known])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    model.eval()


def predict_twin(model: QualityNet, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of quality (n x 3) and of the reasons, all in float."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 16):
            parts.append([t.numpy() for t in model.eval().tail(model.early(torch_input(images[start : start + 16])))])
    graded, why = (np.concatenate(column) for column in zip(*parts, strict=True))
    return graded, why
