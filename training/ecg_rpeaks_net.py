"""The R-peak detector's second judgement: the network of kernels/_rpeaks_net.h, fitted and rounded to integers."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

SLOPES, RATIOS, GROUNDS = 97, 21, 24  # three of the 24 are nothing: they make rows whole vectors
STEPS, BATCH, RATE = 3000, 512, 4e-3
Layers = tuple[list[np.ndarray], list[np.ndarray]]


def no_layers() -> Layers:
    """A network that knows nothing, for tracing what it would be shown."""
    shapes = [(8, 8), (16, 40), (16, 80), (24, 208 + GROUNDS), (1, 24)]
    return [np.zeros(shape, np.int16) for shape in shapes], [np.zeros(shape[0], np.int32) for shape in shapes]


class Net(nn.Module):
    """Slopes (n, 97) and ratios (n, 21), both as the detector squashes them to [-1, 1] -> log odds (n,)."""

    def __init__(self) -> None:
        super().__init__()
        widths, taps = (1, 8, 16, 16), (7, 5, 5)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(a, b, k, 2, k // 2) for a, b, k in zip(widths[:-1], widths[1:], taps, strict=True)
        )
        self.drop = nn.Dropout(0.2)
        self.hidden = nn.Linear(13 * 16 + RATIOS, 24)
        self.last = nn.Linear(24, 1)

    def forward(self, slopes: torch.Tensor, ratios: torch.Tensor) -> torch.Tensor:
        x = slopes.unsqueeze(1)
        for convolution in self.convolutions:
            x = convolution(x).clamp(0, 4)
        # place by place, as the kernel has it
        x = self.drop(torch.cat([x.transpose(1, 2).flatten(1), ratios], 1))
        return self.last(self.hidden(x).clamp(0, 4)).squeeze(1)


def fit(seen: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> Layers:
    """From rows of (n, 121) integers, as the detector traces them, drawn by their weight."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), RATE, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    drawn = np.cumsum(weight / weight.sum())
    for _ in range(STEPS):
        rows = np.minimum(np.searchsorted(drawn, random.random(BATCH)), len(truth) - 1)
        x = torch.from_numpy(seen[rows].astype(np.float32) / 1024)
        slopes, ratios = _varied(x[:, :SLOPES], int(random.integers(-1, 2))), x[:, SLOPES : SLOPES + RATIOS]
        ratios = (ratios + 0.03 * torch.randn(ratios.shape)) * (torch.rand(BATCH, 1) > 0.3)
        ratios = ratios * (torch.rand(ratios.shape) > 0.05)
        wanted = 0.98 * torch.from_numpy(truth[rows].astype(np.float32)) + 0.01
        loss = nn.functional.binary_cross_entropy_with_logits(net(slopes, ratios), wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return rounded(net.eval())


def _varied(squashed: torch.Tensor, shift: int) -> torch.Tensor:
    """Slopes in other sizes, either polarity, and a little earlier or later."""
    x = squashed / (1.0005 - squashed.abs()) * 0.5
    x = x * torch.exp(0.15 * torch.randn(len(x), 1)) * torch.sign(torch.rand(len(x), 1) - 0.5)
    return torch.roll(x / (x.abs() + 0.5), shift, 1)


def rounded(net: Net) -> Layers:
    """Weights in Q12 and biases in Q22, in the order of the kernel's rows: place, then channel."""
    weights, biases = [], []
    for convolution in net.convolutions:
        rows = convolution.weight.detach().numpy().transpose(0, 2, 1)
        rows = rows.reshape(len(rows), -1)
        weights.append(np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))))
        biases.append(convolution.bias)
    for linear in (net.hidden, net.last):
        rows = linear.weight.detach().numpy()
        weights.append(np.pad(rows, ((0, 0), (0, -rows.shape[1] % 8))))
        biases.append(linear.bias)
    return (
        [np.ascontiguousarray(np.round(4096 * w).astype(np.int16)) for w in weights],
        [np.round(4194304 * b.detach().numpy()).astype(np.int32) for b in biases],
    )
