"""The adapter over LiteRT and tflite-runtime."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aidpost.errors import ModelError, NotPossibleError
from aidpost.inference import runtime
from aidpost.inference.runtime import Interpreter, Tensor, available_runtimes

PROBE = Path(runtime.__file__).with_name("probe.tflite").read_bytes()
# probe.tflite multiplies four values by this (make_probe.py made it)
WEIGHTS = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], dtype=np.float32) / 8


def test_some_runtime_works_here_and_says_its_version() -> None:
    runtimes = available_runtimes()
    assert runtimes
    name, version = runtimes[0].split(" ")
    assert name in runtime.RUNTIMES
    assert version[0].isdigit()


def test_every_runtime_here_runs_int8_within_a_step_or_two() -> None:
    x = np.array([[0.1, -0.2, 0.3, 0.4]], dtype=np.float32)
    for name in available_runtimes():
        interpreter = Interpreter(PROBE, target="probe", runtime=name)
        (y,) = interpreter.run(x)
        np.testing.assert_allclose(y, x @ WEIGHTS, atol=2 * interpreter.outputs[0].scale)
        assert interpreter.runtime == name


def test_counts_go_in_as_they_are() -> None:
    interpreter = Interpreter(PROBE, target="probe")
    x = np.array([[0.1, -0.2, 0.3, 0.4]], dtype=np.float32)
    counts = interpreter.input.quantise(x)
    assert counts.dtype == np.int8
    np.testing.assert_array_equal(interpreter.run(counts)[0], interpreter.run(x)[0])


def test_quantising_rounds_and_saturates() -> None:
    tensor = Tensor(0, (4,), np.dtype(np.int8), scale=0.5, zero_point=-3)
    counts = tensor.quantise([0.0, 0.26, 1000.0, -1000.0])
    assert counts.tolist() == [-3, -2, 127, -128]
    assert tensor.dequantise(counts).tolist() == [0.0, 0.5, 65.0, -62.5]


def test_outputs_by_number_only_within_range() -> None:
    interpreter = Interpreter(PROBE, target="probe")
    assert interpreter.output_number(0) == 0
    for missing in (1, -1, "nothing"):
        with pytest.raises(ModelError, match="no output"):
            interpreter.output_number(missing)


def test_what_is_not_a_model_is_refused() -> None:
    with pytest.raises(ModelError, match="rhythm on") as caught:
        Interpreter(b"not a flatbuffer", target="rhythm")
    assert caught.value.remedy


def test_an_input_of_another_shape_is_refused() -> None:
    with pytest.raises(ModelError, match="running a model"):
        Interpreter(PROBE, target="probe").run(np.zeros((1, 5), dtype=np.float32))


def test_an_unknown_runtime_is_named_with_the_remedy() -> None:
    with pytest.raises(NotPossibleError, match="onnxruntime") as caught:
        Interpreter(PROBE, target="probe", runtime="onnxruntime")
    assert "pip install" in caught.value.remedy


def test_importing_loads_no_runtime_and_loading_one_prints_nothing() -> None:
    script = (
        "import sys; from aidpost.inference import runtime;"
        "assert 'ai_edge_litert' not in sys.modules and 'tflite_runtime' not in sys.modules;"
        "assert runtime.available_runtimes()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
