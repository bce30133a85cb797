"""The tensor that a model's last layer reads, named as a further output of the finished `.tflite`."""

from __future__ import annotations

from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

NAME = "embedding"
_LAST = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.FULLY_CONNECTED)
_PASSED = (schema.BuiltinOperator.MEAN, schema.BuiltinOperator.ADD, schema.BuiltinOperator.RESHAPE)


def expose(content: bytes, logits: int | str = 0) -> bytes:
    """The same model with one more output, last, named "embedding" in its signature (made where it has none).

    `logits` is the output whose last layer is meant, by number or by name in the signature. Between that layer and the
    output may stand a mean over space, a change of shape, and sums with other layers' answers, of which the first is
    taken. A file that has the output already comes back as it is.

    Raises ValueError where there is no such layer.
    """
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph = model.subgraphs[0]
    signature = signature_of(model, graph)
    if any(one.name == NAME.encode() for one in signature.outputs):
        return content
    return with_output(model, NAME, _last_input(model, graph, _tensor_of(logits, graph, signature)))


def with_output(model: Any, name: str, tensor: int) -> bytes:
    """The file of `model` with one more output, last: a tensor that it has, by `name` in its signature."""
    graph = model.subgraphs[0]
    signature = signature_of(model, graph)
    graph.outputs = [*(int(one) for one in graph.outputs), tensor]
    signature.outputs.append(_entry(name, tensor))
    return packed(model)


def packed(model: Any) -> bytes:
    """The file of a model."""
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _entry(name: str, tensor: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), tensor
    return entry


def signature_of(model: Any, graph: Any) -> Any:
    """The model's signature, made where it has none."""
    if model.signatureDefs:
        return model.signatureDefs[0]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
    signature.inputs = [_entry(f"input_{i}", int(one)) for i, one in enumerate(graph.inputs)]
    signature.outputs = [_entry(f"output_{i}", int(one)) for i, one in enumerate(graph.outputs)]
    model.signatureDefs = [signature]
    return signature


def _tensor_of(output: int | str, graph: Any, signature: Any) -> int:
    if isinstance(output, int):
        return int(graph.outputs[output])
    for one in signature.outputs:
        if one.name == output.encode():
            return int(one.tensorIndex)
    raise ValueError(f"the model has no output {output!r}")


def _last_input(model: Any, graph: Any, tensor: int) -> int:
    makers = {int(out): op for op in graph.operators for out in op.outputs}
    while tensor in makers:
        op = makers[tensor]
        code = model.operatorCodes[op.opcodeIndex]
        kind = max(code.builtinCode, code.deprecatedBuiltinCode)
        if kind in _LAST:
            return int(op.inputs[0])
        if kind not in _PASSED:
            break
        tensor = int(op.inputs[0])
    raise ValueError("no dense layer or convolution stands before the logits")
