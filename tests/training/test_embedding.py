"""Embeddings of finished models: a further output, nothing else changed, and what makes features of it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "training"))

from _embedding import NAME, expose  # noqa: E402
from embedding import half_whitening  # noqa: E402

from aidpost.inference.model import SHIPPED  # noqa: E402
from aidpost.inference.runtime import Interpreter  # noqa: E402


def test_an_embedding_is_given_once_and_no_other_output_changes() -> None:
    """fundus-quality has none yet: its last layer is found, and every answer stays as it was."""
    old = (SHIPPED / "fundus-quality" / "model.tflite").read_bytes()
    new = expose(old, 0)
    assert expose(new, 0) == new
    assert expose(old, 0) == new
    before, after = Interpreter(old, target="old"), Interpreter(new, target="new")
    counts = np.random.default_rng(0).integers(-128, 128, before.input.shape).astype(np.int8)
    answers = after.run(counts)
    for one, other in zip(before.run(counts), answers, strict=False):
        assert np.array_equal(one, other)
    assert len(after.outputs) == len(before.outputs) + 1
    assert answers[after.output_number(NAME)].any()


@pytest.mark.parametrize("name", ["fundus-dr", "fundus-dr-open"])
def test_the_grade_is_the_last_layers_weights_times_the_embedding(name: str) -> None:
    content = (SHIPPED / name / "model.tflite").read_bytes()
    interpreter, graph = Interpreter(content, target=name), schema.ModelT.InitFromPackedBuf(content, 0)
    kernel = next(op for op in reversed(graph.subgraphs[0].operators) if graph.subgraphs[0].outputs[0] in op.outputs)
    layer = next(op for op in graph.subgraphs[0].operators if kernel.inputs[0] in op.outputs)

    def real(number: int, kind: str) -> np.ndarray:
        tensor = graph.subgraphs[0].tensors[number]
        counts = np.frombuffer(bytes(graph.buffers[tensor.buffer].data), kind).reshape(tensor.shape[0], -1)
        return counts * np.array(tensor.quantization.scale)[:, None]

    outputs = interpreter.run(
        (100 * np.sin(np.linspace(0, 900, int(np.prod(interpreter.input.shape)))))
        .reshape(interpreter.input.shape)
        .astype(np.int8)
    )
    embedding = outputs[interpreter.output_number(NAME)].mean(axis=(0, 1, 2))
    expected = real(layer.inputs[1], "i1") @ embedding + real(layer.inputs[2], "<i4")[:, 0]
    # what the file says has been rounded to int8 twice more, of the map and of its mean
    assert outputs[interpreter.output_number("dr")][0] == pytest.approx(expected, abs=0.15)


def test_features_are_uncorrelated_of_length_one_and_the_same_each_time() -> None:
    rng = np.random.default_rng(2)
    embeddings = rng.normal(size=(300, 12)) @ np.diag(np.linspace(5, 0.1, 12)) @ rng.normal(size=(12, 40)) + 3
    mean, basis = half_whitening(embeddings, 8)
    features = (embeddings - mean) @ basis.astype(np.float64)
    assert (features**2).sum(axis=1).mean() == pytest.approx(1.0, rel=0.02)
    spread = np.cov(features.T)
    assert np.abs(spread - np.diag(np.diag(spread))).max() < 1e-3
    again = half_whitening(embeddings.copy(), 8)
    assert np.array_equal(again[0], mean)
    assert np.array_equal(again[1], basis)


def test_fewer_recordings_than_features_leave_the_rest_zero() -> None:
    _, basis = half_whitening(np.random.default_rng(0).normal(size=(4, 20)), 8)
    assert np.isfinite(basis).all()
    assert (np.abs(basis).max(axis=0) > 0).sum() == 3


def test_an_output_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="no output 'grade'"):
        expose((SHIPPED / "fundus-quality" / "model.tflite").read_bytes(), "grade")
