"""One interpreter over LiteRT (`ai-edge-litert`) and, where it has no wheel, tflite-runtime.

Both run the same int8 files and differ by a few least significant bits, so outputs are compared with a tolerance
and each model proves itself with its golden recordings when it is loaded (`aidpost.inference.model`).
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aidpost.errors import ModelError, NotPossibleError

__all__ = ["RUNTIMES", "Interpreter", "Tensor", "available_runtimes"]

RUNTIMES = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
"""Distribution name -> module, in order of preference."""

# tflite-runtime 2.14 imports under NumPy 2 and dies only when an interpreter is made, so a probe makes one
_PROBE = Path(__file__).with_name("probe.tflite")
_NATIVE_ERRORS = (ImportError, AttributeError, SystemError, RuntimeError, ValueError, TypeError, OSError)

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Tensor:
    """An input or output: real value = (count - zero_point) * scale; scale is 0 where the model uses floats."""

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int

    def quantise(self, values: npt.ArrayLike) -> npt.NDArray[Any]:
        """Real values as this tensor's counts, rounded to nearest and saturated."""
        real = np.asarray(values, dtype=np.float32)
        if self.scale == 0.0:
            return real.astype(self.dtype)
        limits = np.iinfo(self.dtype)
        counts: npt.NDArray[Any] = np.clip(np.rint(real / self.scale) + self.zero_point, limits.min, limits.max)
        return counts.astype(self.dtype)

    def dequantise(self, counts: npt.NDArray[Any]) -> Floats:
        """This tensor's counts as real values, float32."""
        if self.scale == 0.0:
            return counts.astype(np.float32)
        real: Floats = (counts.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return real


class Interpreter:
    """A model loaded from the bytes of a .tflite file, on one thread.

    Parameters
    ----------
    content
        The file's bytes.
    target
        What to call it in an error: the model's name.
    runtime
        A key of `RUNTIMES`; None takes the first that works here.

    Raises
    ------
    NotPossibleError
        No runtime is installed, or not the one asked for.
    ModelError
        The bytes are not a model that this runtime can run.
    """

    def __init__(self, content: bytes, *, target: str, runtime: str | None = None) -> None:
        name = _choose(runtime)
        self.runtime, self._target = f"{name} {_version(name)}", target
        try:
            self._native = _construct(name, content)
            self.input = _tensor(self._native.get_input_details()[0])
            self.outputs = tuple(_tensor(one) for one in self._native.get_output_details())
            self._names = _signature_outputs(self._native)
        except _NATIVE_ERRORS as error:
            raise self._error("loading a model", error) from error

    def run(self, values: npt.NDArray[Any]) -> tuple[Floats, ...]:
        """One pass: an array of the input's shape, float32 (quantised here) or the input's own counts.

        Returns every output as real values, float32, in the model's order.

        Raises
        ------
        ModelError
            The shape is another one, or the runtime failed.
        """
        counts = values if values.dtype == self.input.dtype else self.input.quantise(values)
        try:
            self._native.set_tensor(self.input.index, np.ascontiguousarray(counts.reshape(self.input.shape)))
            self._native.invoke()
            return tuple(one.dequantise(self._native.get_tensor(one.index)) for one in self.outputs)
        except _NATIVE_ERRORS as error:
            raise self._error("running a model", error) from error

    def output_number(self, output: int | str) -> int:
        """Which of `outputs` a number or a name in the model's signature means.

        Raises
        ------
        ModelError
            There is no such output.
        """
        indices = [tensor.index for tensor in self.outputs]
        if isinstance(output, str) and self._names.get(output) in indices:
            return indices.index(self._names[output])
        if isinstance(output, int) and 0 <= output < len(indices):
            return output
        raise self._error("running a model", LookupError(f"it has no output {output!r}"))

    def _error(self, operation: str, error: Exception) -> ModelError:
        cause = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        remedy = "Reinstall the model, or run `aidpost models verify`."
        return ModelError(operation=operation, target=f"{self._target} on {self.runtime}", cause=cause, remedy=remedy)


def available_runtimes() -> tuple[str, ...]:
    """The runtimes that run a small model here, "ai-edge-litert 2.3.0" first where it is installed."""
    return tuple(f"{name} {_version(name)}" for name in RUNTIMES if _problem(name) is None)


def delegate(runtime: str) -> str:
    """What computes a runtime's int8 models here: "XNNPACK", or empty for its plain kernels, which are many times
    slower. By the runtime's own word: what a delegate has taken over stands as DELEGATE among the operations.

    Parameters
    ----------
    runtime
        As `available_runtimes` names it.
    """
    native = _construct(runtime.split(" ")[0], _PROBE.read_bytes())
    operations: list[dict[str, Any]] = getattr(native, "_get_ops_details", list)()
    return "XNNPACK" if any(one["op_name"] == "DELEGATE" for one in operations) else ""


def _choose(runtime: str | None) -> str:
    wanted = tuple(RUNTIMES) if runtime is None else (runtime.split(" ")[0],)
    problems = {}
    for name in wanted:
        problem = _problem(name) if name in RUNTIMES else f"it is none of {', '.join(RUNTIMES)}"
        if problem is None:
            return name
        problems[name] = problem
    raise NotPossibleError(
        operation="starting the model runtime",
        target=", ".join(wanted),
        cause="; ".join(f"{name}: {problem}" for name, problem in problems.items()),
        remedy='Install it: pip install ai-edge-litert (on 32-bit Raspberry Pi OS: pip install "aidpost[tflite]").',
    )


@functools.cache
def _problem(name: str) -> str | None:
    """Why a runtime does not work here; None where a small model ran."""
    try:
        native = _construct(name, _PROBE.read_bytes())
        native.invoke()
    except _NATIVE_ERRORS as error:
        return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return None


def _construct(name: str, content: bytes) -> Any:
    module = importlib.import_module(RUNTIMES[name])
    with _without_native_chatter():
        native = module.Interpreter(model_content=content, num_threads=1)
        native.allocate_tensors()
    return native


@functools.cache
def _version(name: str) -> str:
    return importlib.metadata.version(name)


def _tensor(details: dict[str, Any]) -> Tensor:
    scale, zero_point = details["quantization"]
    shape = tuple(int(size) for size in details["shape"])
    return Tensor(int(details["index"]), shape, np.dtype(details["dtype"]), float(scale), int(zero_point))


def _signature_outputs(native: Any) -> dict[str, int]:
    """Output name -> tensor index, from the model's one signature where it has one."""
    if not native.get_signature_list():
        return {}
    details = native.get_signature_runner().get_output_details()
    return {name: int(one["index"]) for name, one in details.items()}


@contextlib.contextmanager
def _without_native_chatter() -> Iterator[None]:
    """Keep the runtime's "INFO: Created ... delegate" off the standard error, which it writes to past Python and has no
    switch for; everything else that was written is passed on."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        real = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(real, 2)
            os.close(real)
            caught.seek(0)
            rest = b"".join(line for line in caught if not line.startswith(b"INFO:"))
            if rest:
                os.write(2, rest)
