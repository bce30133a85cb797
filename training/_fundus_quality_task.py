"""The quality network: ImageNet's features as they are, and linear heads on two levels of them.

Training more of it on EyeQ's 1,800 labels was tried, the last block and the whole network: both judged unseen patients
worse. How sharp and how lit a photograph is shows in texture that any network for photographs knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from _fundus_augment import augment_raw, stretch_channels
from _fundus_backbone import EfficientNetLite0, half, load_imagenet
from _fundus_data import Photograph, cached
from _fundus_degrade import REASONS
from _fundus_export import torch_input
from _fundus_negatives import not_a_retina
from torch import nn
from tqdm import tqdm

from aidpost.inference._fundus_input import INPUT_VERSION, quality_input
from aidpost.kernels.fundus import decode

SIZE = 192
CACHE_SIZE = 208
LEVELS = {8: 80, 11: 112}  # blocks, channels: both at stride 16
REASON_NAMES = (*REASONS, "not_a_retina")
UNKNOWN = -1.0
RIDGE = 3e-3


class QualityNet(nn.Module):
    """3 logits (good, usable, reject) and one per reason, each the mean over a map."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0(max(LEVELS), 8)
        self.quality = nn.ModuleDict({str(level): nn.Conv2d(c, 3, 1) for level, c in LEVELS.items()})
        self.reasons = nn.ModuleDict({str(level): nn.Conv2d(c, len(REASON_NAMES), 1) for level, c in LEVELS.items()})

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """n x 3 x H x W to the n x 192 means of the levels' maps, computed in x's type."""
        x, means = self.backbone.stem(x), []
        for number, block in enumerate(self.backbone.blocks, 1):
            x = block(x)
            if number in LEVELS:
                means.append(x.mean((2, 3), dtype=torch.float32))
        return torch.cat(means, 1)

    def heads(self) -> dict[str, dict[int, nn.Conv2d]]:
        """The convolutions of each output by level, as `levels_to_tflite` takes them."""
        outputs = {"quality": self.quality, "reasons": self.reasons}
        return {name: {level: parts[str(level)] for level in LEVELS} for name, parts in outputs.items()}  # type: ignore[misc]

    def set_heads(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Take outputs x 192 weights and the biases, of quality and then of the reasons."""
        outputs = zip((self.quality, self.reasons), weight.split((3, len(REASON_NAMES))), strict=True)
        for (parts, rows), offset in zip(outputs, bias.split((3, len(REASON_NAMES))), strict=True):
            for number, (level, columns) in enumerate(zip(LEVELS, rows.split(tuple(LEVELS.values()), 1), strict=True)):
                parts[str(level)].weight.data = columns[:, :, None, None].clone()
                parts[str(level)].bias.data = offset.clone() if number == 0 else torch.zeros_like(offset)


@dataclass
class Samples:
    """Features of pictures with their soft quality, how much that counts, and their reasons (1, 0 or unknown)."""

    images: list[np.ndarray] = field(default_factory=list)
    quality: list[tuple[float, float, float]] = field(default_factory=list)
    weight: list[float] = field(default_factory=list)
    reasons: list[np.ndarray] = field(default_factory=list)

    def add(self, image: np.ndarray, quality: tuple[float, float, float], weight: float, reasons: np.ndarray) -> None:
        """Append one picture, uint8."""
        self.images.append((image.astype(np.int16) - 128).astype(np.int8))
        self.quality.append(quality)
        self.weight.append(weight)
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


def make_samples(
    photographs: Sequence[Photograph], plain: np.ndarray, larger: np.ndarray, drawn: int, rng: np.random.Generator
) -> Samples:
    """Every photograph as it is (`plain`) and changed a little (from `larger`), good ones spoiled, and `drawn` pictures
    of other things. What was made up counts less for quality: the labels decide there."""
    out = Samples()
    target = {0: (1.0, 0.0, 0.0), 1: (0.0, 1.0, 0.0), 2: (0.0, 0.0, 1.0), None: (0.75, 0.25, 0.0)}
    for p, crop, large in zip(photographs, tqdm(plain, desc="augment", mininterval=10), larger, strict=True):
        known = p.quality in (0, None)
        weight = 0.3 if p.quality is None else 1.0
        picture = _bytes(large)
        out.add(_bytes(crop), target[p.quality], weight, _reason(None, known))
        out.add(augment_raw(picture, rng, SIZE), target[p.quality], 0.5 * weight, _reason(None, known))
        if known:
            name = list(REASONS)[int(rng.integers(len(REASONS)))]
            hopeless = rng.random() < 0.7
            strength = rng.uniform(0.5, 1.0) if hopeless else rng.uniform(0.0, 0.2)
            bad = REASONS[name](augment_raw(picture, rng, SIZE), strength, rng)
            out.add(bad, target[2], 0.3 if hopeless else 0.0, _reason(name))
    for _ in tqdm(range(drawn), desc="draw", mininterval=10):
        picture = not_a_retina(rng, SIZE)
        picture = stretch_channels(picture) if rng.random() < 0.25 else picture
        out.add(picture, target[2], 0.5, _reason("not_a_retina"))
    return out


def all_features(model: QualityNet, images: Sequence[np.ndarray]) -> torch.Tensor:
    """n x 192 features of n int8 pictures."""
    parts = []
    with torch.no_grad():
        for start in tqdm(range(0, len(images), 32), desc="features", mininterval=10):
            parts.append(model.features(half(torch_input(np.stack(images[start : start + 32])))))
    return torch.cat(parts)


def fit_heads(model: QualityNet, features: torch.Tensor, samples: Samples) -> None:
    """Logistic regressions with a ridge, of quality and of every known reason, by L-BFGS."""
    mean, scale = features.mean(0), features.std(0) + 1e-6
    x = (features - mean) / scale
    quality, weight = torch.tensor(samples.quality), torch.tensor(samples.weight)
    reasons = torch.tensor(np.stack(samples.reasons)).float()
    known = reasons != UNKNOWN
    w = torch.zeros(3 + len(REASON_NAMES), x.shape[1], requires_grad=True)
    b = torch.zeros(3 + len(REASON_NAMES), requires_grad=True)
    optimiser = torch.optim.LBFGS([w, b], max_iter=150, line_search_fn="strong_wolfe")

    def cost() -> torch.Tensor:
        optimiser.zero_grad()
        logits = x @ w.T + b
        graded = F.cross_entropy(logits[:, :3], quality, reduction="none")
        why = F.binary_cross_entropy_with_logits(logits[:, 3:], reasons.clamp(min=0), reduction="none")
        loss = (graded * weight).sum() / weight.sum() + (why * known).sum() / known.sum() + RIDGE * w.square().sum()
        loss.backward()
        return loss

    optimiser.step(cost)
    with torch.no_grad():
        model.set_heads(w / scale, b - (w / scale) @ mean)


def new_model() -> QualityNet:
    """ImageNet's weights, heads still to be fitted."""
    model = QualityNet()
    load_imagenet(model.backbone)
    return model.eval()


def predict_twin(model: QualityNet, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of quality (n x 3) and of the reasons, all in float."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 16):
            parts.append(model.features(torch_input(images[start : start + 16])))
    features = torch.cat(parts)
    graded, why = (
        features @ torch.cat([m.weight.flatten(1) for m in layers.values()], 1).T
        + sum(m.bias for m in layers.values() if m.bias is not None)
        for layers in model.heads().values()
    )
    return graded.detach().numpy(), why.detach().numpy()
