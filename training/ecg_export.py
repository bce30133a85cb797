"""From the trained PyTorch networks to one full int8 .tflite: batch norms folded, rebuilt in TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ecg_rhythm_net import Conv, Ensemble, Residual, RhythmNet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

Floats = npt.NDArray[np.float32]


def folded(layer: Conv) -> tuple[Floats, Floats]:
    """A convolution's kernel in TensorFlow's order (1, k, in, out) and its bias, with the batch norm folded in."""
    norm = layer.norm
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
    shift = norm.bias.detach().numpy() - norm.running_mean.numpy() * gain
    kernel = layer.conv.weight.detach().numpy() * gain[:, None, None, None]
    return np.ascontiguousarray(kernel.transpose(2, 3, 1, 0)), shift.astype(np.float32)


def _conv(x: Any, layer: Conv) -> Any:
    import tensorflow as tf

    kernel, bias = folded(layer)
    out = tf.nn.conv2d(x, kernel, (1, layer.stride), "SAME", dilations=(1, layer.dilation)) + bias
    return tf.nn.relu(out) if layer.relu else out


def _apply(x: Any, module: Any) -> Any:
    import tensorflow as tf

    if isinstance(module, Conv):
        return _conv(x, module)
    if isinstance(module, Residual):
        return tf.nn.relu(x + _conv(_conv(x, module.first), module.second))
    for child in module:
        x = _apply(x, child)
    return x


def _pooled(x: Any, net: RhythmNet) -> list[Any]:
    import tensorflow as tf

    joined = _conv(tf.concat((_apply(x, net.wave), _apply(x, net.beats)), axis=-1), net.join)
    top = tf.nn.max_pool2d(_apply(joined, net.local), (1, 2), (1, 2), "SAME")
    top = _apply(top, net.wide)
    return [tf.reduce_mean(top, axis=(1, 2)), tf.reduce_max(top, axis=(1, 2))]


def _dense(x: Any, layer: Any, norm: Any) -> Any:
    import tensorflow as tf

    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().numpy()
    bias = norm.bias.detach().numpy() + (layer.bias.detach().numpy() - norm.running_mean.numpy()) * gain
    return tf.nn.relu(tf.matmul(x, (layer.weight.detach().numpy() * gain[:, None]).T) + bias)


def _last(hidden: list[Any], heads: list[Any], weight: float) -> Any:
    """The mean of several last layers times `weight`, as one layer."""
    import tensorflow as tf

    kernel = np.concatenate([head.weight.detach().numpy() for head in heads], axis=1) * (weight / len(heads))
    bias = np.mean([head.bias.detach().numpy() for head in heads], axis=0) * weight
    return tf.matmul(tf.concat(hidden, axis=-1), kernel.T) + bias


def tensorflow_forward(ensemble: Ensemble, x: Any) -> Any:
    """The forward pass in TensorFlow: (n, T + rows, C) -> (n, classes) logits."""
    import tensorflow as tf

    window = tf.expand_dims(x[:, : -ensemble.rows], 1)
    pooled = [part for member in ensemble.signal for part in _pooled(window, member)]
    out = _last(pooled, [member.head for member in ensemble.signal], 1.0 - ensemble.weight)
    if not ensemble.features:
        return out
    table = tf.reshape(x[:, -ensemble.rows :], (-1, ensemble.rows * x.shape[-1]))
    hidden = [
        _dense(_dense(table, net.first, net.first_norm), net.second, net.second_norm) for net in ensemble.features
    ]
    return out + _last(hidden, [net.head for net in ensemble.features], ensemble.weight)


def write_int8(function: Any, representative: Floats, path: Path) -> None:
    """Write a `tf.function` of one input as int8, calibrated on its representative inputs (n, ...)."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([one[np.newaxis]] for one in representative)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(converter.convert())


def to_int8(net: Ensemble, representative: Floats, path: Path) -> None:
    """Write the ensemble as int8 (weights per channel, activations, input, output), calibrated on (n, T, C) inputs."""
    import tensorflow as tf

    net.eval()
    shape = (1, *representative.shape[1:])
    function = tf.function(
        lambda x: tensorflow_forward(net, x), input_signature=[tf.TensorSpec(shape, tf.float32, name="ecg")]
    )
    write_int8(function, representative, path)


class Int8Model:
    """An int8 .tflite on LiteRT, one thread: (n, T, C) float32 -> (n, classes) logits."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(path), num_threads=1)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]

    def __call__(self, windows: Floats) -> Floats:
        scale, zero = self.input["quantization"]
        counts = np.clip(np.round(windows / scale) + zero, -128, 127).astype(np.int8)
        return np.concatenate([self.one(count[np.newaxis]) for count in counts])

    def one(self, counts: npt.NDArray[np.int8]) -> Floats:
        """Logits of one window that is already int8."""
        self.interpreter.set_tensor(self.input["index"], counts)
        self.interpreter.invoke()
        scale, zero = self.output["quantization"]
        return (self.interpreter.get_tensor(self.output["index"]).astype(np.float32) - np.float32(zero)) * np.float32(
            scale
        )
