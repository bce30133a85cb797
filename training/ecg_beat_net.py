"""The beat network in PyTorch (for training), and in TensorFlow for int8 (`to_int8`).

Two networks whose logits are averaged: one looks at the ninety-six numbers only, and is hard to fool by a wave that no
patient in training had; one looks at the three waves with them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from ecg_export import _apply, _dense, _last, write_int8
from ecg_rhythm_net import Conv, Residual
from torch import Tensor, nn

from aidpost.inference._beats_input import CHANNELS, FEATURES, ROWS, WINDOW

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
Floats = npt.NDArray[np.float32]
CLASSES = 4


class Numbers(nn.Module):
    """(n, 96) -> (n, 4) logits, in three layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Linear(FEATURES, width), nn.BatchNorm1d(width)
        self.second, self.second_norm = nn.Linear(width, width // 2), nn.BatchNorm1d(width // 2)
        self.dropout, self.head = nn.Dropout(0.25), nn.Linear(width // 2, CLASSES)

    def forward(self, numbers: Tensor) -> Tensor:
        hidden = self.dropout(F.relu(self.first_norm(self.first(numbers))))
        return self.head(self.dropout(F.relu(self.second_norm(self.second(hidden)))))


class Waves(nn.Module):
    """(n, 3, 1, 112) and (n, 96) -> (n, 4) logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.wave = nn.Sequential(
            Conv(len(CHANNELS), width, 7, 2),
            Conv(width, width, 5, 2),
            Residual(width, 3),
            Conv(width, width, 5, 2),
        )
        self.first, self.first_norm = nn.Linear(FEATURES, width), nn.BatchNorm1d(width)
        self.second, self.second_norm = nn.Linear(3 * width, 2 * width), nn.BatchNorm1d(2 * width)
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(2 * width, CLASSES)

    def forward(self, wave: Tensor, numbers: Tensor) -> Tensor:
        seen = self.wave(wave)
        hidden = F.relu(self.first_norm(self.first(numbers)))
        joined = self.dropout(torch.cat((seen.mean(dim=(2, 3)), seen.amax(dim=(2, 3)), hidden), dim=1))
        return self.head(self.dropout(F.relu(self.second_norm(self.second(joined)))))


class BeatNet(nn.Module):
    """(n, 144, 3) -> (n, 4) logits of N, S, V, F, the mean of both networks'."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.width, self.numbers, self.waves = width, Numbers(3 * width), Waves(width)

    def both(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits of each."""
        numbers = x[:, WINDOW:].flatten(1)
        return self.numbers(numbers), self.waves(x[:, :WINDOW].transpose(1, 2).unsqueeze(2), numbers)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.both(x)
        return (first + second) / 2

    def shift(self, logits: npt.NDArray[np.float64]) -> None:
        """Add a constant to each class's logit."""
        with torch.no_grad():
            for head in (self.numbers.head, self.waves.head):
                head.bias += torch.from_numpy(logits).float()


def _forward(net: BeatNet, x: Any) -> Any:
    import tensorflow as tf

    numbers = tf.reshape(x[:, WINDOW:], (-1, FEATURES))
    one, two = net.numbers, net.waves
    hidden = _dense(_dense(numbers, one.first, one.first_norm), one.second, one.second_norm)
    seen = _apply(tf.expand_dims(x[:, :WINDOW], 1), two.wave)
    parts = [tf.reduce_mean(seen, axis=(1, 2)), tf.reduce_max(seen, axis=(1, 2))]
    parts.append(_dense(numbers, two.first, two.first_norm))
    joined = _dense(tf.concat(parts, axis=-1), two.second, two.second_norm)
    return _last([hidden], [one.head], 0.5) + _last([joined], [two.head], 0.5)


def to_int8(net: BeatNet, representative: Floats, path: Path) -> None:
    """Write the network as int8 (weights per channel, activations, input, output), calibrated on (n, 144, 3)."""
    import tensorflow as tf

    net.eval()
    spec = tf.TensorSpec((1, ROWS, len(CHANNELS)), tf.float32, name="beat")
    function = tf.function(lambda x: _forward(net, x), input_signature=[spec])
    write_int8(function, representative, path)
