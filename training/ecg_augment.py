"""Cheap disturbances of the rhythm network's input, made on the fly on batches of (n, 5, 1, T) at 100 Hz."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from ecg_data import INPUT_SCALE, Cache
from torch import Tensor

from aidpost.inference._rhythm_input import LIMIT, WINDOW

WAVE, RR, INSIDE = 0, 1, 4
_SHORTEST = 900  # samples: 9 s, the shortest recording that the device takes


class Sampler:
    """Draws training windows: a random variant, a random 30 s stretch, sometimes a shorter one in a padded window."""

    def __init__(self, variants: list[Cache], rng: np.random.Generator) -> None:
        self.variants, self.rng = variants, rng

    def window(self, index: int) -> npt.NDArray[np.int8]:
        """(3000, 5) int8 of one recording."""
        rng = self.rng
        disturbed = len(self.variants) > 1 and rng.random() < 0.5
        cache = self.variants[rng.integers(1, len(self.variants)) if disturbed else 0]
        channels = cache.channels(index)
        length = WINDOW if rng.random() < 0.7 else int(rng.integers(_SHORTEST, WINDOW + 1))
        length = min(length, len(channels))
        start = rng.integers(0, len(channels) - length + 1)
        out = np.zeros((WINDOW, channels.shape[1]), np.int8)
        out[:length] = channels[start : start + length]
        return out

    def batch(self, indices: npt.NDArray[np.int64]) -> Tensor:
        """(n, 5, 1, 3000) float32 of several recordings, augmented."""
        counts = np.stack([self.window(index) for index in indices])
        x = torch.from_numpy(counts).float().mul_(INPUT_SCALE).transpose(1, 2).unsqueeze(2)
        return augment(x, torch.Generator().manual_seed(int(self.rng.integers(1 << 31))))


def augment(x: Tensor, g: torch.Generator) -> Tensor:
    """Change gain, polarity, noise, gaps, beat channels and speed of each window at random."""
    n, _, _, length = x.shape

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g)

    def sometimes(probability: float) -> Tensor:
        return uniform(n, 1, 1) < probability

    x = x.clone()
    inside = (x[:, INSIDE] > 0).float()
    gain = torch.where(sometimes(0.5), torch.exp((uniform(n, 1, 1) - 0.5) * 0.8), torch.ones(()))
    wave = torch.asinh(torch.sinh(x[:, WAVE]) * gain)  # the wave is companded: gain acts before that
    wave = torch.where(sometimes(0.1), -wave, wave)
    wave = wave + torch.randn(wave.shape, generator=g) * (0.2 * uniform(n, 1, 1) * sometimes(0.3))
    time = torch.arange(length).view(1, 1, -1)
    gap_start, gap_length = uniform(n, 1, 1) * length, uniform(n, 1, 1) * 300 * sometimes(0.3)
    wave = wave.masked_fill((time >= gap_start) & (time < gap_start + gap_length), 0.0)
    x[:, WAVE] = (wave * inside).clamp(-LIMIT, LIMIT)
    x[:, RR:INSIDE] *= uniform(n, INSIDE - RR, 1, 1) >= 0.08  # a beat channel goes missing
    return _change_speed(x, 1.0 + 0.2 * (uniform(n) - 0.5) * (uniform(n) < 0.5))


def _change_speed(x: Tensor, factor: Tensor) -> Tensor:
    """Play each window faster (factor > 1) or slower; the heart rate that channel `rr` tells follows."""
    n, channels, _, length = x.shape
    index = (torch.arange(length) * factor[:, None]).round().long()
    beyond = (index >= length)[:, None, None]
    gather = index.clamp(max=length - 1)[:, None, None].expand(n, channels, 1, length)
    out = torch.gather(x, 3, gather).masked_fill(beyond, 0.0)
    rr = out[:, RR]
    out[:, RR] = torch.where(rr != 0, (rr - 2 * torch.log2(factor)[:, None, None]).clamp(-LIMIT, LIMIT), rr)
    return out
