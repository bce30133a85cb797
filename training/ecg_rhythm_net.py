"""The rhythm network, in PyTorch for training; `ecg_export.py` rebuilds it in TensorFlow for int8.

A residual 1-D convolution net over 30 s at 100 Hz, written as 2-D convolutions of height one (which is how the runtimes
execute it) with TensorFlow's SAME padding. A second, shallow path looks at the beat channels at once with a kernel of
half a second, and joins the waveform path where a step is 240 ms. Mean and maximum over time feed the last layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Widths of the network's stages."""

    stem: int = 20
    early: int = 28
    middle: int = 40
    late: int = 64
    beats: int = 24
    top: int = 72
    hidden: int = 128
    features: int = 100
    channels: int = 5
    classes: int = 4


TINY = Shape(stem=4, early=4, middle=8, late=8, beats=4, top=8, hidden=8)


class Conv(nn.Module):
    """Convolution over time with SAME padding, batch normalisation and, unless `relu` is False, ReLU."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1, relu: bool = True
    ) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation, self.relu = kernel, stride, dilation, relu
        self.conv = nn.Conv2d(inputs, outputs, (1, kernel), (1, stride), dilation=(1, dilation), bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = self.norm(self.conv(F.pad(x, self.padding(x.shape[-1]))))
        return F.relu(out) if self.relu else out

    def padding(self, length: int) -> tuple[int, int]:
        """Left and right padding, as TensorFlow's SAME has it."""
        steps = -(-length // self.stride)
        total = max((steps - 1) * self.stride + (self.kernel - 1) * self.dilation + 1 - length, 0)
        return total // 2, total - total // 2


class Residual(nn.Module):
    """Two convolutions around which the input is carried."""

    def __init__(self, width: int, kernel: int = 5, dilation: int = 1) -> None:
        super().__init__()
        self.first = Conv(width, width, kernel, dilation=dilation)
        self.second = Conv(width, width, kernel, dilation=dilation, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class RhythmNet(nn.Module):
    """(n, 5, 1, 3000) -> (n, 4) logits of N, A, O, ~."""

    def __init__(self, shape: Shape, dropout: float = 0.3) -> None:
        super().__init__()
        s = shape
        self.shape = shape
        self.wave = nn.Sequential(
            Conv(s.channels, s.stem, 9, 2),
            Conv(s.stem, s.early, 5, 2),
            Residual(s.early),
            Conv(s.early, s.middle, 5, 2),
            Residual(s.middle),
            Conv(s.middle, s.late, 5, 3),
        )
        self.beats = nn.Sequential(Conv(s.channels, s.beats, 48, 24), Conv(s.beats, s.beats, 5))
        self.join = Conv(s.late + s.beats, s.top, 1)
        self.local = Residual(s.top)
        self.down = nn.MaxPool2d((1, 2), (1, 2), ceil_mode=True)
        self.wide = Residual(s.top, dilation=3)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * s.top, s.classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.pooled(x)))

    def pooled(self, x: Tensor) -> Tensor:
        """Mean and maximum over time of the last stage, (n, 2·top)."""
        joined = self.join(torch.cat((self.wave(x), self.beats(x)), dim=1))
        top = self.wide(self.down(self.local(joined)))
        return torch.cat((top.mean(dim=(2, 3)), top.amax(dim=(2, 3))), dim=1)


class FeatureNet(nn.Module):
    """(n, 100) features of the whole recording -> (n, 4) logits, in three layers."""

    def __init__(self, shape: Shape, dropout: float = 0.3) -> None:
        super().__init__()
        self.first = nn.Linear(shape.features, shape.hidden)
        self.first_norm = nn.BatchNorm1d(shape.hidden)
        self.second = nn.Linear(shape.hidden, shape.hidden // 2)
        self.second_norm = nn.BatchNorm1d(shape.hidden // 2)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(shape.hidden // 2, shape.classes)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.dropout(F.relu(self.first_norm(self.first(x))))
        return self.head(self.dropout(F.relu(self.second_norm(self.second(hidden)))))


class Ensemble(nn.Module):
    """(n, 5, 1, 3020) -> (n, 4): the mean of the signal networks' logits and that of the feature networks', weighted.

    The rows below the signal are the features; `weight` is that of the feature networks.
    """

    def __init__(self, signal: Sequence[RhythmNet], features: Sequence[FeatureNet], weight: float) -> None:
        super().__init__()
        self.signal, self.features = nn.ModuleList(signal), nn.ModuleList(features)
        self.weight, self.rows = weight, signal[0].shape.features // signal[0].shape.channels

    def forward(self, x: Tensor) -> Tensor:
        window, table = x[..., : -self.rows], x[:, :, 0, -self.rows :].transpose(1, 2).flatten(1)
        out = torch.zeros(())
        if self.weight < 1.0:
            out = torch.stack([member(window) for member in self.signal]).mean(dim=0) * (1.0 - self.weight)
        if not self.features:
            return out
        return out + torch.stack([member(table) for member in self.features]).mean(dim=0) * self.weight


class Average:
    """Exponential moving average of a network's weights and statistics."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay, self.step = decay, 0
        self.state = {name: value.detach().clone() for name, value in net.state_dict().items()}

    def update(self, net: nn.Module) -> None:
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for name, value in net.state_dict().items():
                if value.dtype.is_floating_point:
                    self.state[name].lerp_(value, 1 - decay)
                else:
                    self.state[name].copy_(value)


def parameter_count(net: nn.Module) -> int:
    """Trainable parameters."""
    return sum(p.numel() for p in net.parameters())


def macs(net: nn.Module, length: int, channels: int) -> int:
    """Multiply-accumulates of one forward pass, counted by hooks on the convolutions."""
    total: list[int] = []

    def count(layer: nn.Module, _: Sequence[Tensor], out: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        total.append(out.shape[-1] * layer.weight.numel())

    hooks = [m.register_forward_hook(count) for m in net.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        net.eval()(torch.zeros(1, channels, 1, length))
    for hook in hooks:
        hook.remove()
    return sum(total)
