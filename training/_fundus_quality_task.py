"""The quality network: the backbone as it is, and a small network trained on the features that it pools."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from _fundus_augment import augment_raw, stretch_channels
from _fundus_backbone import EfficientNetLite0, load_imagenet
from _fundus_data import Photograph, cached, signed, unsigned
from _fundus_degrade import REASONS
from _fundus_export import FrozenFront, torch_input
from _fundus_negatives import as_shown, not_a_retina, packaged_photographs, read_photograph, windows
from torch import nn
from tqdm import tqdm

from aidpost.inference._fundus_input import INPUT_VERSION, quality_input
from aidpost.kernels.fundus import decode, field_of_view

SIZE = 256
CACHE_SIZE = 272
POOLED_AFTER = (5, 8, 11, 15)  # blocks: 40, 80, 112 and 192 channels at strides 8, 16, 16 and 32; then the last map
HIDDEN = 128
MEMBERS = 3
REASON_NAMES = (*REASONS, "not_a_retina")
UNKNOWN = -1.0
SHARES = (0.17, 0.17, 0.17, 0.17, 0.32)  # of REASONS: artefacts are of more kinds than the others
MIDDLE = 3.0
RATE = 2e-3
BATCH = 128


class Heads(nn.Module):
    """Pooled features, brought to 0..6 (three deviations to either side), to 3 logits of quality and one per reason.

    The hidden layer takes them around `MIDDLE`.
    """

    def __init__(self, features: int, hidden: int = HIDDEN):
        super().__init__()
        self.register_buffer("scale", torch.ones(features))
        self.register_buffer("offset", torch.zeros(features))
        self.hidden = nn.Linear(features, hidden)
        self.heads = nn.ModuleDict({"quality": nn.Linear(hidden, 3), "reasons": nn.Linear(hidden, len(REASON_NAMES))})

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """n x features to n x 3 and n x 6."""
        x = F.hardtanh(x * self.scale + self.offset, 0.0, 6.0) - MIDDLE
        x = F.hardtanh(self.hidden(F.dropout(x, 0.2, self.training)), 0.0, 6.0)
        x = F.dropout(x, 0.3, self.training)
        return self.heads["quality"](x), self.heads["reasons"](x)

    def first(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the hidden layer on 0..6."""
        return self.hidden.weight, self.hidden.bias - MIDDLE * self.hidden.weight.sum(1)


def mean_of(members: Sequence[Heads]) -> Heads:
    """One network that gives the mean of its members' logits: their hidden layers side by side."""
    whole = Heads(len(members[0].scale), sum(m.hidden.out_features for m in members))
    whole.scale.copy_(members[0].scale)
    whole.offset.copy_(members[0].offset)
    with torch.no_grad():
        whole.hidden.weight.copy_(torch.cat([m.hidden.weight for m in members]))
        whole.hidden.bias.copy_(torch.cat([m.hidden.bias for m in members]))
        for name, head in whole.heads.items():
            head.weight.copy_(torch.cat([m.heads[name].weight for m in members], 1) / len(members))
            head.bias.copy_(torch.stack([m.heads[name].bias for m in members]).mean(0))
    return whole.eval()


@dataclass
class QualityNet:
    """The frozen backbone and what was trained on it, which look at a picture and at its mirror image."""

    backbone: EfficientNetLite0
    heads: Heads

    def __call__(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """n x 3 x H x W to logits, n x 3 of quality and n x 6 of the reasons."""
        return self.of_both(self.pooled(x), self.pooled(x.flip(3)))

    def of_both(self, features: torch.Tensor, mirrored: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same from the features of both, n x features each."""
        first, second = self.heads(features), self.heads(mirrored)
        return (first[0] + second[0]) / 2, (first[1] + second[1]) / 2

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """n x 3 x H x W to n x features, in the order of `FrozenFront`: the means, then the maxima."""
        maps = [x := self.backbone.stem(x)]
        for i, block in enumerate(self.backbone.blocks, 1):
            x = block(x)
            if i in POOLED_AFTER:
                maps.append(x)
        maps = [*maps[1:], self.backbone.head(x)]
        return torch.cat([m.mean((2, 3)) for m in maps] + [m.amax((2, 3)) for m in maps], 1)


@dataclass
class Samples:
    """Features of pictures with their soft quality, their reasons (1, 0 or unknown) and the patient of the
    photograph they were made from; `plain`: the label of what is the photograph itself, whose mirror image follows, or
    -1."""

    front: FrozenFront
    features: list[np.ndarray] = field(default_factory=list)
    quality: list[tuple[float, float, float]] = field(default_factory=list)
    reasons: list[np.ndarray] = field(default_factory=list)
    patient: list[str] = field(default_factory=list)
    plain: list[int] = field(default_factory=list)

    def add(
        self,
        image: np.ndarray,
        quality: tuple[float, float, float],
        reasons: np.ndarray,
        patient: str = "",
        plain: int = -1,
    ) -> None:
        """Append one picture, uint8."""
        self.features.append(self.front(signed(image)).astype(np.float16))
        self.quality.append(quality)
        self.reasons.append(reasons)
        self.patient.append(patient)
        self.plain.append(plain)


def load_crops(folder: Path, photographs: Sequence[Photograph], size: int) -> np.ndarray:
    """n x size x size x 3 int8, raw colours, exactly as the device would compute them."""

    def make(file: str) -> np.ndarray:
        photo = decode((folder / file).read_bytes(), size)
        return quality_input(photo.rgb, photo.field, size).pixels

    return cached("quality", [p.file for p in photographs], size, make, INPUT_VERSION)


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
    front: FrozenFront,
    photographs: Sequence[Photograph],
    exact: np.ndarray,
    crops: np.ndarray,
    copies: int,
    drawn: int,
    seed: int,
) -> Samples:
    """Every photograph as it is and, labelled, mirrored (raw colours three times) and `copies` times changed (raw
    colours once more), degraded good ones, and `drawn` pictures of other things.

    `exact`: at `SIZE`, as the device has them, from files decoded at a reduced scale; `crops`: larger, at `CACHE_SIZE`.
    """
    out, rng = Samples(front), np.random.default_rng(seed)
    soft = {0: (0.94, 0.06, 0.0), 1: (0.06, 0.88, 0.06), 2: (0.0, 0.06, 0.94), None: (0.75, 0.25, 0.0)}
    for p, whole, crop in zip(photographs, exact, tqdm(crops, desc="photographs", mininterval=10), strict=True):
        raw = p.dataset != "EyePACS-256-stretched"
        picture = unsigned(crop)
        good = p.quality in (0, None)
        label = (soft[p.quality], _reason(None, good), p.patient)
        out.add(unsigned(whole), *label, -1 if p.quality is None else p.quality)
        for axes in [] if p.quality is None else ((1,), (0,), (0, 1)) if raw else ((1,),):
            out.add(unsigned(np.ascontiguousarray(np.flip(whole, axes))), *label)
        for _ in range(0 if p.quality is None else copies + raw):
            out.add(augment_raw(picture, rng, SIZE), *label)
        if not good or rng.random() > (1.0 if raw else 0.7):
            continue
        hopeless, mild = (0.0, 0.03, 0.97), (0.15, 0.65, 0.2)
        for quality in (hopeless, hopeless, mild):
            name = list(REASONS)[int(rng.choice(len(REASONS), p=SHARES))]
            spoiled = degraded(augment_raw(picture, rng, SIZE), name, quality is hopeless, rng)
            out.add(spoiled, quality, _reason(name), p.patient)
    for _ in tqdm(range(drawn), desc="drawn pictures", mininterval=10):
        out.add(drawn_picture(rng), (0.0, 0.0, 1.0), _reason("not_a_retina"))
    for file in tqdm(packaged_photographs() if drawn else [], desc="other photographs", mininterval=10):
        for picture in photographed(read_photograph(file), drawn // 40, rng):
            out.add(picture, (0.0, 0.0, 1.0), _reason("not_a_retina"))
    return out


def photographed(picture: np.ndarray, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """A photograph of something else and windows of it: as the device would show them to the model, stretched or not,
    and as a drawn picture is shown."""
    out = []
    for i, window in enumerate(windows(picture, rng, count)):
        if i % 3 == 2:
            out.append(as_shown(cv2.resize(window, (SIZE, SIZE), interpolation=cv2.INTER_AREA), rng))
            continue
        circle = field_of_view(window)
        out.append(unsigned(quality_input(stretch_channels(window) if i % 3 else window, circle, SIZE).pixels))
    return out


def drawn_picture(rng: np.random.Generator) -> np.ndarray:
    """What is not a retina, a quarter of it stretched as archives do."""
    picture = not_a_retina(rng, SIZE)
    return stretch_channels(picture) if rng.random() < 0.25 else picture


def calibration_images(crops: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Photographs as they are, then a tenth as many spoiled ones and drawn pictures each: the reasons' logits reach
    their highest there. `crops`: at `CACHE_SIZE`."""
    rng = np.random.default_rng(seed)
    chosen = [unsigned(crops[i]) for i in rng.choice(len(crops), min(count, len(crops)), replace=False)]
    whole = [cv2.resize(c, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for c in chosen]
    few = max(count // 10, len(REASONS))
    names = list(REASONS)
    spoiled = [degraded(whole[i % len(whole)], names[i % len(names)], True, rng) for i in range(few)]
    return np.stack([signed(image) for image in [*whole, *spoiled, *(drawn_picture(rng) for _ in range(few))]])


def imagenet() -> EfficientNetLite0:
    """The backbone as published."""
    net = EfficientNetLite0()
    load_imagenet(net)
    return net.eval()


def fit_heads(samples: Samples, rows: np.ndarray, epochs: int, seed: int) -> Heads:
    """Train one member on some rows: cross-entropy on soft labels, and every known reason."""
    quality, reasons = (
        torch.tensor(samples.quality)[rows].float(),
        torch.tensor(np.stack(samples.reasons))[rows].float(),
    )
    x = torch.from_numpy(np.stack(samples.features)[rows]).float()
    torch.manual_seed(seed)
    model = Heads(x.shape[1])
    deviation = x.std(0)
    model.scale.copy_(1 / deviation.clamp(min=0.2 * float(deviation.median())))
    model.offset.copy_(MIDDLE - x.mean(0) * model.scale)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    steps = -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, epochs * steps, pct_start=0.15)
    model.train()
    for epoch in range(epochs):
        bar = tqdm(torch.randperm(len(x)).split(BATCH), desc=f"heads {epoch + 1}/{epochs}", mininterval=10)
        for some in bar:
            graded, why = model(x[some])
            known = reasons[some] != UNKNOWN
            loss = F.cross_entropy(graded, quality[some])
            loss = loss + F.binary_cross_entropy_with_logits(why[known], reasons[some][known])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
    return model.eval()


def cross_validate(samples: Samples, epochs: int, folds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the photographs and their mirror images, of the two the mean, each by a member that saw nothing of its
    patient, and their labels."""
    plain = np.array(samples.plain)
    fold = np.array([zlib.crc32(f"fold {p or i}".encode()) % folds for i, p in enumerate(samples.patient)])
    logits = np.zeros((len(plain), 3))
    for one in range(folds):
        rows = np.flatnonzero((fold == one) & (plain >= 0))
        if not len(rows):
            continue
        model = fit_heads(samples, np.flatnonzero(fold != one), epochs, seed)
        for view in (rows, rows + 1):
            with torch.no_grad():
                x = torch.from_numpy(np.stack([samples.features[i] for i in view])).float()
                logits[rows] += model(x)[0].numpy() / 2
    return logits[plain >= 0], plain[plain >= 0]


def predict_twin(model: QualityNet, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of quality (n x 3) and of the reasons, all in float."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(images), 16):
            parts.append([t.numpy() for t in model(torch_input(images[start : start + 16]))])
    graded, why = (np.concatenate(column) for column in zip(*parts, strict=True))
    return graded, why
