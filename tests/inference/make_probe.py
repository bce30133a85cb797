"""How `inference/probe.tflite` was made: TensorFlow 2.21, an int8 product of four values and a fixed 4 x 2 matrix.

python tests/inference/make_probe.py inference/probe.tflite
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WEIGHTS = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], dtype=np.float32) / 8


def main(path: Path) -> None:
    """Write the model."""
    import tensorflow as tf

    class Product(tf.Module):  # type: ignore[misc]
        @tf.function(input_signature=[tf.TensorSpec((1, 4), tf.float32)])  # type: ignore[misc]
        def __call__(self, x: Any) -> Any:
            return tf.matmul(x, tf.constant(WEIGHTS))

    def representative() -> Iterator[list[np.ndarray]]:
        rng = np.random.default_rng(0)
        for _ in range(100):
            yield [rng.uniform(-1, 1, (1, 4)).astype(np.float32)]

    product = Product()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([product.__call__.get_concrete_function()], product)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
