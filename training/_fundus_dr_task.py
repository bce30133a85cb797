"""The grading network and how it is trained: cumulative logits, two hospitals sampled evenly by grade."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import _fundus_data
import numpy as np
import torch
import torch.nn.functional as F
from _fundus_augment import augment_normalised
from _fundus_backbone import EfficientNetLite0, half, load_imagenet
from _fundus_data import Photograph, cached, signed, unsigned
from _fundus_export import torch_input
from _fundus_metrics import auc, quadratic_kappa, sigmoid
from torch import nn

from aidpost.inference._fundus_input import INPUT_VERSION, dr_input
from aidpost.kernels.fundus import decode

SIZE = 320
# To stride 4, 24 channels: the costly largest maps stay as ImageNet left them (but for batch normalisation's
# statistics).
FROZEN_BLOCKS = 3
LOCATED_BLOCKS = 11  # to stride 16, 112 channels
CONFUSION = 4.0  # slope of the softened labels: readers take a grade for its neighbour, seldom for another
DROP_PATH = 0.1
UNREADABLE = 2  # EyeQ's "reject": whatever grade such a photograph bears teaches little


class DrNet(nn.Module):
    """Backbone, then per cell of the last map 4 logits (grade >= 1 .. 4) and 2 (oedema risk >= 1, 2); the picture's
    are their means."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = EfficientNetLite0()
        self.dr = nn.Conv2d(self.backbone.channels, 4, 1)
        self.dme = nn.Conv2d(self.backbone.channels, 2, 1)
        for head in (self.dr, self.dme):
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    def train(self, mode: bool = True) -> DrNet:
        """Batch normalisation keeps its statistics, which `adapt` took from fundus photographs."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def tail(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """From the frozen blocks' output to n x 4 and n x 2 logits."""
        blocks = self.backbone.blocks
        for i in range(FROZEN_BLOCKS, len(blocks)):
            x = blocks[i](x, 1.0 - DROP_PATH * i / len(blocks))
        features = self.backbone.head(x).mean((2, 3), dtype=torch.float32)
        if self.training:
            features = F.dropout(features, 0.25)
        return tuple(features @ head.weight.flatten(1).T + head.bias for head in (self.dr, self.dme))  # type: ignore[return-value]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """n x 3 x H x W to n x 4 and n x 2 float logits, computed in x's type: in float32 the twin that int8 is held
        against."""
        with torch.set_grad_enabled(False if self.training else torch.is_grad_enabled()):
            x = self.backbone.stem(x)
            for block in self.backbone.blocks[:FROZEN_BLOCKS]:
                x = block(x)
        return self.tail(x)


class Locator(nn.Module):
    """Where it is: a map of 4 logits at stride 16, learnt when the network is finished (`lesion_map.py`).

    The last map at stride 32 sees so much from every cell that its activation says little about the place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Conv2d(112, 128, 1)
        self.out = nn.Conv2d(128, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the first `LOCATED_BLOCKS` blocks give, n x 112 x h x w, to n x 4 x h x w."""
        return self.out(F.hardtanh(self.hidden(x), 0.0, 6.0))


def softened(level: torch.Tensor, thresholds: int) -> torch.Tensor:
    """n levels to n x `thresholds` chances that another reader would have said more than 0, 1, ..."""
    return torch.sigmoid(CONFUSION * (level[:, None] - torch.arange(thresholds) - 0.5))


def adapt(model: DrNet, images: np.ndarray) -> None:
    """Batch normalisation's statistics from fundus photographs in place of ImageNet's."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    with torch.no_grad():
        for start in range(0, len(images), 16):
            model.backbone(torch_input(images[start : start + 16]))
    model.eval()


def load_photographs(folder: Path, photographs: Sequence[Photograph], size: int = SIZE) -> np.ndarray:
    """n x size x size x 3 int8, exactly as the device would compute them."""

    def make(file: str) -> np.ndarray:
        photo = decode((folder / file).read_bytes(), size)
        if photo.field is None:
            return np.zeros((size, size, 3), np.int8)
        return dr_input(photo.rgb, photo.field, size).pixels

    return cached("dr", [p.file for p in photographs], size, make, INPUT_VERSION)


def predict_twin(model: DrNet, images: np.ndarray, batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Logits of grade (n x 4) and oedema (n x 2), all in float."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), batch):
            parts.append([t.numpy() for t in model(torch_input(np.asarray(images[start : start + batch])))])
    grade, oedema = (np.concatenate(column) for column in zip(*parts, strict=True))
    return grade, oedema


def figures(photographs: Sequence[Photograph], logits: np.ndarray) -> dict[str, float]:
    """Kappa (each threshold at one half) and referable AUC of each hospital."""
    grade = np.array([p.grade for p in photographs])
    called = (np.minimum.accumulate(sigmoid(logits), 1) > 0.5).sum(1)
    out = {}
    for hospital in ("IDRiD", "EyePACS"):
        rows = np.array([p.hospital == hospital for p in photographs])
        out[f"{hospital} kappa"] = round(quadratic_kappa(grade[rows], called[rows]), 4)
        out[f"{hospital} AUC"] = round(auc(grade[rows] >= 2, logits[rows, 1]), 4)
    return out


@dataclass
class DrTask:
    """Photographs drawn by hospital, then grade; see `_fundus_loop.Task`. `work` keeps the initial weights."""

    folder: Path
    photographs: Sequence[Photograph]
    share: dict[str, float]
    work: Path

    def __post_init__(self) -> None:
        _fundus_data.WORK = self.work.parent  # a worker's own import of it has the default
        torch.set_flush_denormal(True)
        torch.set_num_threads(1)  # see _fundus_loop: threads that wait for each other lose more than they gain
        self.images = load_photographs(self.folder, self.photographs)
        self.kept = np.array(
            [
                i
                for i, p in enumerate(self.photographs)
                if not p.held_out and p.hospital in self.share and p.quality != UNREADABLE
            ]
        )
        held = [p for p in self.photographs if p.held_out]
        self.held_images = load_photographs(self.folder, held, SIZE)
        # every IDRiD photograph, but of EyePACS a third: this is only to watch
        self.watched = [i for i, p in enumerate(held) if i % 3 == 0 or p.hospital == "IDRiD"]
        self.held = [held[i] for i in self.watched]
        self.weights = self._weights()
        self._prepare()

    def _prepare(self) -> None:
        """ImageNet weights with adapted statistics, made once."""
        if (self.work / "initial.pt").is_file():
            return
        self.work.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(0)
        model = DrNet()
        load_imagenet(model.backbone)
        images = self.calibration(min(160, len(self.kept)))
        adapt(model, images)
        torch.save(model.state_dict(), self.work / "initial.pt")

    def calibration(self, count: int) -> np.ndarray:
        """Training photographs of all hospitals and grades, half of them augmented."""
        rng = np.random.default_rng(5)
        rows = rng.choice(len(self.weights), count, p=self.weights)
        pictures = []
        for n, i in enumerate(rows):
            picture = unsigned(self.images[i])
            if n % 2:
                picture, _ = augment_normalised(picture, rng, SIZE)
            pictures.append(signed(picture))
        return np.stack(pictures)

    def _weights(self) -> np.ndarray:
        """Chance of each training photograph: hospitals by `share`, grades by the root of their number."""
        weights = np.zeros(len(self.photographs))
        for hospital, share in self.share.items():
            rows = [i for i in self.kept if self.photographs[i].hospital == hospital]
            grades = np.array([self.photographs[i].grade for i in rows])
            each = 1 / np.sqrt(np.bincount(grades, minlength=5).clip(1))[grades] if rows else np.zeros(0)
            weights[rows] = share * each / max(each.sum(), 1e-9)
        return weights / weights.sum()

    def model(self) -> DrNet:
        """As `_prepare` left it."""
        model = DrNet()
        model.load_state_dict(torch.load(self.work / "initial.pt", weights_only=True))
        return model

    def batch(self, rng: np.random.Generator, n: int, size: int, done: float) -> tuple[torch.Tensor, ...]:
        """n augmented photographs, with grade and oedema risk (-1: unknown)."""
        p = 0.25 if done < 3 / 11 else 0.1  # faults of the optics hide small lesions: fewer of them towards the end
        rows = rng.choice(len(self.weights), n, p=self.weights)
        pictures = np.stack([augment_normalised(unsigned(self.images[i]), rng, size, p)[0] for i in rows])
        chosen = [self.photographs[i] for i in rows]
        oedema = [-1 if p.dme is None else p.dme for p in chosen]
        x = half(torch_input(signed(pictures)))
        return x, torch.tensor([p.grade for p in chosen]), torch.tensor(oedema)

    def loss(self, model: Any, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Binary cross-entropy of every threshold, labels softened; oedema where it is known."""
        x, grade, oedema = batch
        dr, dme = model(x)
        total = F.binary_cross_entropy_with_logits(dr, softened(grade, 4))
        known = oedema >= 0
        if known.any():
            total = total + 0.2 * F.binary_cross_entropy_with_logits(dme[known], softened(oedema[known], 2))
        return total

    def groups(self, model: Any) -> list[dict[str, Any]]:
        """Heads learn faster than the backbone, the backbone's end faster than its beginning."""
        blocks = model.backbone.blocks[FROZEN_BLOCKS:]
        middle = len(blocks) // 2

        def parameters(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
            return [p for m in modules for p in m.parameters()]

        return [
            {"params": parameters(blocks[:middle]), "lr": 3e-4},
            {"params": parameters([*blocks[middle:], model.backbone.head]), "lr": 5e-4},
            {"params": parameters([model.dr, model.dme]), "lr": 2e-3},
        ]

    def validate(self, model: Any) -> dict[str, float]:
        """Figures of the held-out photographs."""
        parts = []
        with torch.no_grad():
            for start in range(0, len(self.watched), 16):
                rows = self.watched[start : start + 16]
                parts.append(model(half(torch_input(self.held_images[rows])))[0].numpy())
        return figures(self.held, np.concatenate(parts))
