"""Helpers of the interpreter tests: small programs, and what onnxruntime answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hecompile.interpret.tensor import run_tensor
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import ConstantTensor, Input, Output

Array = NDArray[np.float64]


def secret(builder: Builder, label: str, *dims: int) -> Value:
    """Append an input."""
    return builder.emit(Input(label=label, dims=dims), label)


def clear(builder: Builder, array: Any) -> Value:
    """Append a constant tensor."""
    values = np.asarray(array, dtype=np.float64)
    return builder.emit(ConstantTensor(value=builder.constant(values), dims=values.shape))


def finish(builder: Builder, **outputs: Value) -> Program:
    """Close a program with outputs by label."""
    for label, value in outputs.items():
        builder.keep(Output(x=value, label=label))
    return builder.finish()


def run_one(program: Program, **inputs: Array) -> Array:
    """The output `y` of a program."""
    return run_tensor(program, inputs)["y"]


def onnx_answer(
    kind: str,
    attributes: dict[str, Any],
    operands: list[NDArray[Any] | None],
    outputs: int = 1,
    opset: int = 22,
) -> list[NDArray[Any]]:
    """What onnxruntime gives for one node with float32 operands (None for an absent one)."""
    onnx = pytest.importorskip("onnx", reason="onnx builds the node to compare with")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is the reference")
    names = ["" if x is None else f"x{i}" for i, x in enumerate(operands)]
    results = [f"y{i}" for i in range(outputs)]
    node = onnx.helper.make_node(kind, names, results, **attributes)
    inputs = [
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, x.shape)
        for n, x in zip(names, operands, strict=True)
        if x is not None
    ]
    declared = [
        onnx.helper.make_tensor_value_info(r, onnx.TensorProto.FLOAT, None) for r in results
    ]
    graph = onnx.helper.make_graph([node], "g", inputs, declared)
    imports = [onnx.helper.make_opsetid("", opset)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = {n: x.astype(np.float32) for n, x in zip(names, operands, strict=True) if x is not None}
    answers: list[NDArray[Any]] = session.run(None, feed)
    return answers
