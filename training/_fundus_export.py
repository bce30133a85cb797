"""From a trained torch network to a full-int8 `.tflite`, and running that file.

The network is rebuilt with TensorFlow's own convolutions on folded weights, so what the file holds is plain CONV_2D,
DEPTHWISE_CONV_2D,
ADD and MEAN, and REVERSE where it looks at a mirror image. Both LiteRT and tflite-runtime 2.14 run all of them in int8.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from _fundus_backbone import ConvBn, EfficientNetLite0
from torch import nn

# The input tensor is the kernel's int8 image read as value / 128, whatever the calibration images hold.
INPUT_SCALE = 1.0 / 128.0


def _conv(tf: Any, x: Any, layer: ConvBn) -> Any:
    weight, bias = (t.detach().numpy() for t in layer.folded())
    if layer.groups == 1:
        x = tf.nn.conv2d(x, weight.transpose(2, 3, 1, 0), layer.stride, "SAME")
    else:
        x = tf.nn.depthwise_conv2d(x, weight.transpose(2, 3, 0, 1), [1, layer.stride, layer.stride, 1], "SAME")
    x = tf.nn.bias_add(x, bias)
    return tf.nn.relu6(x) if layer.activate else x


def _blocks(tf: Any, x: Any, net: EfficientNetLite0, start: int, stop: int | None = None) -> Any:
    for block in net.blocks[start:stop]:
        y = x if block.expand is None else _conv(tf, x, block.expand)
        y = _conv(tf, _conv(tf, y, block.depthwise), block.project)
        x = x + y if block.spec.has_skip else y
    return x


def _map(tf: Any, x: Any, layer: nn.Conv2d) -> Any:
    assert layer.bias is not None
    kernel = layer.weight.detach().numpy().transpose(2, 3, 1, 0)
    return tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "VALID"), layer.bias.detach().numpy())


def _convert(call: Callable[[Any, Any], dict[str, Any]], size: int, images: np.ndarray) -> bytes:
    """Int8 file of `call(tf, image)`, calibrated with n x size x size x 3 int8 images."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    class Module(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec([1, size, size, 3], tf.float32, name="image")])  # type: ignore[misc]
        def __call__(self, image: Any) -> dict[str, Any]:
            return call(tf, image)

    def representative() -> Iterable[list[np.ndarray]]:
        for image in images:
            x = image.astype(np.float32)[None] * INPUT_SCALE
            x[0, 0, 0, 0], x[0, 0, 1, 0] = (
                -1.0,
                127 * INPUT_SCALE,
            )  # the whole range of int8, so that the scale is 1/128
            yield [x]

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(Module(), folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
        return bytes(converter.convert())


def to_tflite(
    net: EfficientNetLite0,
    heads: dict[str, nn.Conv2d],
    size: int,
    images: np.ndarray,
    early_map: tuple[str, int, Sequence[nn.Conv2d]] | None = None,
) -> bytes:
    """Int8 file of `net` with one 1x1 convolution per head, each pooled to an output of that name.

    `images`: calibration images, n x size x size x 3 int8. `early_map`: an output's name, a number of blocks and the
    1x1 convolutions
    (ReLU6 between them) that make the map from those blocks' output.
    """

    def call(tf: Any, image: Any) -> dict[str, Any]:
        outputs = {}
        start, x = 0, _conv(tf, image, net.stem)
        if early_map is not None:
            name, start, layers = early_map
            x = full = _blocks(tf, x, net, 0, start)
            for i, layer in enumerate(layers):
                full = _map(tf, tf.nn.relu6(full) if i else full, layer)
            outputs[name] = full
        features = _conv(tf, _blocks(tf, x, net, start), net.head)
        for name, layer in heads.items():
            outputs[name] = tf.reduce_mean(_map(tf, features, layer), axis=[1, 2])
        return outputs

    return _convert(call, size, images)


class PooledHeads(Protocol):
    """What `pooled_tflite` makes of pooled features: brought to 0..6, a hidden layer, a head per output."""

    scale: torch.Tensor
    offset: torch.Tensor
    heads: nn.ModuleDict

    def first(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias of the hidden layer."""


def _pools(tf: Any, net: EfficientNetLite0, after: Sequence[int], image: Any) -> dict[str, Any]:
    """Mean and maximum over the map after so many blocks each, and over the last map: n x 1 x 1 x channels."""
    maps, start, x = {}, 0, _conv(tf, image, net.stem)
    for stop in after:
        maps[f"{stop:02d}"] = x = _blocks(tf, x, net, start, stop)
        start = stop
    maps["last"] = _conv(tf, _blocks(tf, x, net, start), net.head)
    pools = {}
    for name, x in maps.items():
        pools[f"mean_{name}"] = tf.reduce_mean(x, axis=[1, 2], keepdims=True)
        pools[f"top_{name}"] = tf.reduce_max(x, axis=[1, 2], keepdims=True)
    return pools


def pooled_tflite(net: EfficientNetLite0, after: Sequence[int], heads: PooledHeads, images: np.ndarray) -> bytes:
    """Int8 file of `net`'s pooled features and of `heads` on them, one output each, of an image and its mirror image
    the mean; calibrated with `images`."""

    def dense(tf: Any, x: Any, weight: torch.Tensor, bias: torch.Tensor) -> Any:
        kernel = weight.detach().numpy().T[None, None]  # as a convolution: its weights are quantised per channel
        return tf.nn.bias_add(tf.nn.conv2d(x, kernel, 1, "VALID"), bias.detach().numpy())

    def call(tf: Any, image: Any) -> dict[str, Any]:
        pools = _pools(tf, net, after, tf.concat([image, tf.reverse(image, [2])], axis=0))
        parts, at = [], 0
        for name in sorted(pools):
            width = pools[name].shape[-1]
            scale, offset = (t.numpy()[at : at + width] for t in (heads.scale, heads.offset))
            part = tf.nn.depthwise_conv2d(pools[name], scale[None, None, :, None], [1, 1, 1, 1], "VALID")
            parts.append(tf.nn.relu6(tf.nn.bias_add(part, offset)))
            at += width
        hidden = tf.nn.relu6(dense(tf, tf.concat(parts, axis=-1), *heads.first()))
        return {
            name: tf.reshape(tf.reduce_mean(dense(tf, hidden, head.weight, head.bias), axis=0), [1, -1])
            for name, head in heads.heads.items()
        }

    return _convert(call, images.shape[1], images)


class FrozenFront:
    """A network's pooled features, quantised: what is not trained runs ten times faster so, and the rest learns on
    int8's own output."""

    def __init__(self, content: bytes):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=1)
        self._interpreter.allocate_tensors()
        self._signature = self._interpreter.get_signature_runner()
        details = self._signature.get_output_details()
        self._quantization = {name: details[name]["quantization"] for name in sorted(details)}

    @staticmethod
    def convert(net: EfficientNetLite0, after: Sequence[int], images: np.ndarray) -> bytes:
        """The file to construct one from, calibrated with `images`."""
        return _convert(lambda tf, image: _pools(tf, net, after, image), images.shape[1], images)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """One int8 image to its features, float32."""
        answer = self._signature(image=image[None])
        parts = [
            (answer[name].ravel() - np.float32(zero)) * scale for name, (scale, zero) in self._quantization.items()
        ]
        return np.concatenate(parts).astype(np.float32)


def runner(model: bytes | Path, threads: int = 1) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function from one int8 image (size x size x 3) to the dequantised outputs by name, on LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    content = model.read_bytes() if isinstance(model, Path) else model
    interpreter = Interpreter(model_content=content, num_threads=threads)
    interpreter.allocate_tensors()
    entry = interpreter.get_input_details()[0]
    scale, zero = entry["quantization"]
    if abs(scale - INPUT_SCALE) > 1e-6 or zero != 0:
        raise RuntimeError(f"the input tensor's scale is {scale} and zero point {zero}, not 1/128 and 0")
    signature = interpreter.get_signature_runner()
    details = signature.get_output_details()

    def run(image: np.ndarray) -> dict[str, np.ndarray]:
        raw = signature(image=image[None])
        return {
            name: (value[0].astype(np.float32) - details[name]["quantization"][1]) * details[name]["quantization"][0]
            for name, value in raw.items()
        }

    return run


def torch_input(images: np.ndarray) -> torch.Tensor:
    """n x H x W x 3 int8 to n x 3 x H x W float."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() * INPUT_SCALE
