"""Small ONNX models from text, and the comparison of their import with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper, parser

from hecompile.frontend import import_onnx
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Input, Output
from hecompile.runtime.postprocess import post_process

AnyArray = npt.NDArray[Any]
SAMPLES = 3
TOLERANCE = 1e-5


def random(*shape: int, seed: int = 7) -> AnyArray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def build(
    body: str,
    inputs: str = "float[N,3,8] x",
    outputs: str = "float y",
    weights: Mapping[str, AnyArray] | None = None,
    opset: int = 17,
    domains: str = "",
) -> onnx.ModelProto:
    """Parse ONNX's text syntax; outputs get no shape, weights become initializers."""
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}{domains}]>\n'
        f"case ({inputs}) => ({outputs}) {{ {body} }}"
    )
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    for name, array in (weights or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def samples(program: Program, seed: int = 11) -> dict[str, AnyArray]:
    """Random inputs in float32, (SAMPLES, *shape) by label."""
    random_numbers = np.random.default_rng(seed)
    return {
        op.label: random_numbers.standard_normal((SAMPLES, *op.dims)).astype(np.float32)
        for op in program.select(Input)
    }


def interpret(program: Program, inputs: Mapping[str, AnyArray]) -> dict[str, AnyArray]:
    """What the client would see: outputs of the interpreter, after the client's steps."""
    raw = run_tensor(program, inputs)
    return {op.label: post_process(op.post, raw[op.label]) for op in program.select(Output)}


def run_onnxruntime(
    model: onnx.ModelProto | bytes | str, inputs: Mapping[str, AnyArray]
) -> dict[str, AnyArray]:
    """Run a model sample by sample, and stack the results."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else model
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    types = {i.name: i.type for i in session.get_inputs()}
    kinds = {"tensor(float16)": np.float16, "tensor(double)": np.float64}
    runs = [
        session.run(
            None,
            {n: a[sample].astype(kinds.get(types[n], np.float32)) for n, a in inputs.items()},
        )
        for sample in range(SAMPLES)
    ]
    return {name: np.stack([run[i] for run in runs]) for i, name in enumerate(names)}


def check(
    model: onnx.ModelProto | bytes,
    input_shapes: Mapping[str, tuple[int, ...]] | None = None,
    tolerance: float = TOLERANCE,
) -> Program:
    """Import, interpret, and compare with onnxruntime; the program, for further questions."""
    program = import_onnx(model, input_shapes=input_shapes)
    inputs = samples(program)
    compare(interpret(program, inputs), run_onnxruntime(model, inputs), tolerance)
    return program


def compare(
    found: Mapping[str, AnyArray], expected: Mapping[str, AnyArray], tolerance: float = TOLERANCE
) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape, name
        assert (found[name].dtype.kind == "i") == (array.dtype.kind == "i"), name
        scale = np.maximum(1.0, np.abs(array))
        assert (np.abs(found[name] - array) / scale).max() <= tolerance, name
