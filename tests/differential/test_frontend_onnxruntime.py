"""Imported operators mean what onnxruntime computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import reference

from hecompile.frontend import import_onnx
from tests.differential.onnx_cases import (
    AnyArray,
    build,
    check,
    compare,
    interpret,
    random,
    run_onnxruntime,
    samples,
)

NEWEST_HERE = 26  # the newest opset that this onnxruntime runs


@dataclass(frozen=True)
class Case:
    """A model that is one operator, or a few."""

    body: str
    inputs: str = "float[N,3,8] x"
    weights: Mapping[str, AnyArray] = field(default_factory=dict)
    opset: int = 17
    outputs: str = "float y"

    def __str__(self) -> str:
        return f"{self.body.replace('y = ', '')[:60]} @{self.opset}"


IMAGE = "float[N,4,9,7] x"
ROWS = "float[N,6] x"
I64 = np.int64


def ints(*values: int) -> AnyArray:
    return np.array(values, dtype=I64)


def number(value: float) -> AnyArray:
    return np.array(value, dtype=np.float32)


CONV1 = {"w": random(4, 3, 3), "b": random(4)}
CONV2 = {"w": random(6, 4, 3, 2), "b": random(6)}
GROUPED = {"w": random(8, 2, 3, 3)}
DEPTHWISE = {"w": random(3, 1, 5)}
WINDOWS = [
    Case("y = Conv<pads=[1,1]>(x, w, b)", weights=CONV1),
    Case("y = Conv<strides=[2], pads=[2,1], dilations=[2]>(x, w)", weights=CONV1),
    Case('y = Conv<auto_pad="SAME_UPPER", strides=[2]>(x, w)', weights=CONV1),
    Case('y = Conv<auto_pad="SAME_LOWER", kernel_shape=[3]>(x, w)', weights=CONV1),
    Case('y = Conv<auto_pad="VALID">(x, w)', weights=CONV1),
    Case("y = Conv<group=3>(x, w)", weights=DEPTHWISE),
    Case("y = Conv<strides=[2,1], pads=[1,0,0,1]>(x, w, b)", IMAGE, CONV2),
    Case("y = Conv<dilations=[2,3], pads=[1,2,1,2]>(x, w, b)", IMAGE, CONV2),
    Case('y = Conv<auto_pad="SAME_UPPER", strides=[3,2]>(x, w, b)', IMAGE, CONV2),
    Case('y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w, b)', IMAGE, CONV2),
    Case("y = Conv<group=2>(x, w)", IMAGE, GROUPED),
    Case("y = AveragePool<kernel_shape=[2], strides=[2]>(x)"),
    Case("y = AveragePool<kernel_shape=[3], strides=[2], pads=[1,1]>(x)"),
    Case("y = AveragePool<kernel_shape=[3], strides=[2], pads=[1,1], count_include_pad=1>(x)"),
    Case("y = AveragePool<kernel_shape=[3], strides=[2], ceil_mode=1>(x)"),
    Case("y = AveragePool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(x)", IMAGE),
    Case("y = AveragePool<kernel_shape=[2,2], strides=[2,2], ceil_mode=1>(x)", IMAGE),
    Case(
        "y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[1,1,1,1]>(x)", IMAGE
    ),
    Case("y = AveragePool<kernel_shape=[2,3], dilations=[2,2], strides=[1,2]>(x)", IMAGE, opset=19),
    Case('y = AveragePool<kernel_shape=[3,3], strides=[2,2], auto_pad="SAME_UPPER">(x)', IMAGE),
    Case("y = GlobalAveragePool(x)"),
    Case("y = GlobalAveragePool(x)", IMAGE),
]

NORM = {"s": random(3), "b": random(3), "m": random(3), "v": random(3) ** 2 + 0.1}
LINEAR = [
    Case("y = Gemm<transB=1>(x, w, b)", ROWS, {"w": random(5, 6), "b": random(5)}),
    Case("y = Gemm<alpha=0.5, beta=2.0>(x, w, b)", ROWS, {"w": random(6, 5), "b": random(1, 5)}),
    Case("y = Gemm<beta=0.0>(x, w, b)", ROWS, {"w": random(6, 5), "b": random(5)}),
    Case("y = Gemm<transA=1, transB=1>(x, w)", "float[6,2] x", {"w": random(5, 6)}),
    Case("y = Gemm<alpha=0.5, transA=1>(w, x)", "float[6,2] x", {"w": random(6, 3)}),
    Case("y = Gemm<alpha=0.25, transB=1>(x, z, x)", "float[4,4] x, float[4,4] z"),
    Case("y = MatMul(x, w)", weights={"w": random(8, 5)}),
    Case("y = MatMul(x, w)", weights={"w": random(3, 8, 5)}, inputs="float[N,3,2,8] x"),
    Case("y = MatMul(w, x)", weights={"w": random(5, 3)}),
    Case("y = MatMul(x, w)", weights={"w": random(8)}),
    Case("t = Transpose<perm=[0,2,1]>(x) y = MatMul(x, t)"),
    Case("y = BatchNormalization(x, s, b, m, v)", weights=NORM),
    Case("y = BatchNormalization<epsilon=0.01>(x, s, b, m, v)", "float[N,3,4,5] x", NORM, 13),
    Case("y = BatchNormalization(x, s, b, m, v)", "float[N,3] x", NORM, 15),
    Case("y = ReduceMean<axes=[-1], keepdims=0>(x)"),
    Case("y = ReduceMean<axes=[1,2]>(x)", opset=13),
    Case("y = ReduceMean(x, a)", weights={"a": ints(2, -2)}, opset=18),
    Case("y = ReduceMean<noop_with_empty_axes=1>(x)", opset=18),
    Case("y = ReduceSum<keepdims=0>(x, a)", weights={"a": ints(1)}, opset=13),
    Case("y = ReduceSum(x)", "float[2,3] x", opset=13),
]

ARITHMETIC = [
    Case("y = Add(x, c)", weights={"c": random(3, 1)}),
    Case("y = Sub(c, x)", weights={"c": random(1, 8)}),
    Case("a = Neg(x) b = Mul(x, a) y = Sub(b, x)"),
    Case("y = Div(x, c)", weights={"c": random(8) + 3}),
    Case("y = Mul(x, z)", "float[N,3] x, float[N,3] z"),
    Case("y = Sum(x, c, x)", weights={"c": random(8)}),
    Case("y = Mean(x, c)", weights={"c": random(3, 8)}),
    Case("y = Pow(x, c)", weights={"c": number(2)}),
    Case("y = Pow(x, c)", weights={"c": ints(3)}),
    Case("y = Pow(x, c)", weights={"c": number(1)}),
    Case("y = Where(c, x, z)", "float[N,4] x, float[N,4] z", {"c": np.array([True, False] * 2)}),
    *(Case(f"y = {op}(x)", opset=22) for op in ("Relu", "Sigmoid", "Tanh", "HardSwish", "Mish")),
    *(Case(f"y = {op}(x)") for op in ("Softplus", "Erf", "Identity", "LeakyRelu", "Elu", "Selu")),
    Case("y = LeakyRelu<alpha=0.2>(x)"),
    Case("y = Elu<alpha=0.7>(x)"),
    Case("y = Celu<alpha=2.0>(x)"),
    Case("y = HardSigmoid(x)"),
    Case("y = HardSigmoid<alpha=0.4, beta=0.3>(x)"),
    Case("y = Gelu(x)", opset=20),
    Case('y = Gelu<approximate="tanh">(x)', opset=20),
    Case("y = PRelu(x, c)", weights={"c": random(3, 1)}),
    Case("y = Clip(x, lo, hi)", weights={"lo": number(-0.5), "hi": number(1)}),
    Case("y = Clip(x, , hi)", weights={"hi": number(0.3)}),
    Case("y = Clip(x, lo, hi)", weights={"lo": number(0), "hi": number(3.4028234663852886e38)}),
    Case("y = Clip(x)"),
    Case("y = Max(x, c)", weights={"c": number(0.25)}),
    Case("y = Min(c, x)", weights={"c": number(0.25)}),
    Case("y = Cast<to=11>(x)", outputs="double y"),
    Case("z = Sigmoid(x) y = Mul(x, z)"),
    Case("y, mask = Dropout(x, r)", weights={"r": number(0.5)}),
]

MOVEMENT = [
    Case("y = Pad(x, p)", weights={"p": ints(0, 1, 2, 0, 0, 3)}),
    Case("y = Pad(x, p, c)", weights={"p": ints(0, 0, -2, 0, 1, 1), "c": number(1.5)}),
    Case("y = Pad(x, p, , a)", weights={"p": ints(2, 1), "a": ints(-1)}, opset=18),
    Case('y = Pad<mode="reflect">(x, p)', weights={"p": ints(0, 0, 2, 0, 0, 3)}),
    Case('y = Pad<mode="edge">(x, p)', weights={"p": ints(0, 1, 2, 0, 1, 0)}),
    Case('y = Pad<mode="wrap">(x, p)', weights={"p": ints(0, 0, 2, 0, 0, 2)}, opset=19),
    Case("y = Flatten(x)"),
    Case("y = Flatten<axis=-1>(x)", "float[1,3,8] x"),
    Case("y = Flatten<axis=0>(x)", "float[1,3,8] x"),
    Case("y = Reshape(x, s)", weights={"s": ints(0, -1, 4)}),
    Case("y = Reshape<allowzero=1>(x, s)", weights={"s": ints(-1, 24)}),
    Case("y = Transpose(x)", "float[1,3,8] x"),
    Case("y = Transpose<perm=[0,2,1]>(x)"),
    Case("y = Squeeze(x, a)", "float[N,1,8,1] x", {"a": ints(1, -1)}, 13),
    Case("y = Squeeze(x)", "float[1,1,8,1] x", opset=13),
    Case("y = Unsqueeze(x, a)", weights={"a": ints(-1, 1)}, opset=13),
    Case("y = Slice(x, s, e)", weights={"s": ints(0, 1), "e": ints(9, 3)}),
    Case(
        "y = Slice(x, s, e, a, t)",
        weights={"s": ints(-1, 7), "e": ints(-(2**63) + 1, 1), "a": ints(1, -1), "t": ints(-1, -2)},
    ),
    Case(
        "y = Slice(x, s, e, a, t)",
        weights={"s": ints(1), "e": ints(2**63 - 1), "a": ints(2), "t": ints(3)},
    ),
    Case("y = Gather<axis=1>(x, i)", weights={"i": ints(2, 0, -3)}),
    Case("y = Gather<axis=-1>(x, i)", weights={"i": np.array(-1)}),
    Case("y = Gather<axis=2>(x, i)", weights={"i": ints(7, 1, 1, 0).reshape(2, 2)}),
    Case("y, z = Split<axis=1>(x, s)", weights={"s": ints(1, 2)}, outputs="float y, float z"),
    Case("y, z = Split<axis=-1>(x)", outputs="float y, float z", opset=13),
    Case(
        "y, z, v = Split<axis=2, num_outputs=3>(x)", outputs="float y, float z, float v", opset=18
    ),
    Case("a, b, y = Split<axis=1>(x)"),
    Case("y = Concat<axis=-1>(x, x, c)", "float[1,3,8] x", {"c": random(1, 3, 2)}),
    Case("y = Expand(x, s)", "float[N,3,1] x", {"s": ints(2, 1, 1, 4)}),
    Case("y = Tile(x, r)", weights={"r": ints(1, 2, 3)}),
    Case(
        "s = Shape(x) i = Constant<value_int=0>() b = Gather(s, i) a = Constant<value_ints=[0]>() "
        "u = Unsqueeze(b, a) m = Constant<value_ints=[-1]>() d = Concat<axis=0>(u, m) "
        "y = Reshape(x, d)"
    ),
    Case("s = Shape<start=1>(x) z = ConstantOfShape(s) y = Add(x, z)"),
    Case("n = Size(x) f = Cast<to=1>(n) y = Div(x, f)", "float[1,3,8] x"),
    Case(
        "s = Shape(x) i = Constant<value_int=2>() n = Gather(s, i) o = Constant<value_int=0>() "
        "t = Constant<value_int=1>() r = Range(o, n, t) f = Cast<to=1>(r) y = Mul(x, f)"
    ),
]

TAILS = [
    Case("y = Softmax(x)"),
    Case("y = Softmax<axis=1>(x)", opset=13),
    Case("y = LogSoftmax<axis=1>(x)"),
    Case("y = ArgMax<axis=1>(x)", outputs="int64 y"),
    Case("p = Softmax(x) y = ArgMax<axis=-1, keepdims=0>(p)", outputs="int64 y, float p"),
    Case("a = ArgMax<axis=2>(x) i = Identity(a) y = Cast<to=6>(i)", outputs="int32 y"),
    Case("s = Sigmoid(x) y = Squeeze(s, a)", "float[N,1] x", {"a": ints(1)}),
    Case("s = Sigmoid(x) y = Transpose(s)", "float[1,5] x"),
    Case("p = Softmax(x) y = Gather<axis=2>(p, i)", weights={"i": np.array(1)}),
    Case(
        "p = Softmax(x) y = Slice(p, s, e, a)", weights={"s": ints(1), "e": ints(7), "a": ints(1)}
    ),
    Case("p = Softmax(x) n = Shape(x) y = Reshape(p, n)"),
    Case("z = Add(x, x) y = Softmax(z)", outputs="float y, float z"),
]


@pytest.mark.parametrize("case", [*WINDOWS, *LINEAR, *ARITHMETIC, *MOVEMENT, *TAILS], ids=str)
def test_operator(case: Case) -> None:
    check(build(case.body, case.inputs, case.outputs, case.weights, case.opset))


@pytest.mark.parametrize("opset", range(13, NEWEST_HERE + 1))
def test_every_opset_that_onnxruntime_runs(opset: int) -> None:
    body = """
      c = Conv<pads=[1,1]>(x, w, b)  r = Relu(c)  p = AveragePool<kernel_shape=[2], strides=[2]>(r)
      f = Flatten(p)  g = Gemm(f, d)  h, k = Split<axis=1>(g, s)  m = Mul(h, k)  y = Softmax(m)
    """
    weights = {**CONV1, "d": random(16, 6), "s": ints(3, 3)}
    check(build(body, weights=weights, opset=opset))


@pytest.mark.parametrize("opset", range(NEWEST_HERE + 1, onnx.defs.onnx_opset_version() + 1))
def test_newer_opsets_mean_what_the_reference_evaluator_computes(opset: int) -> None:
    body = "c = Conv<pads=[1,1]>(x, w, b) r = Swish<alpha=0.5>(c) y = ReduceMean<keepdims=0>(r, a)"
    model = build(body, weights={**CONV1, "a": ints(-1)}, opset=opset)
    model.ir_version = onnx.IR_VERSION
    program = import_onnx(model)
    inputs = samples(program)
    evaluator = reference.ReferenceEvaluator(model)
    runs: list[Any] = [evaluator.run(None, {"x": sample}) for sample in inputs["x"]]
    compare(interpret(program, inputs), {"y": np.stack([run[0] for run in runs])})


def lstm(directions: int, features: int = 4, hidden: int = 3) -> dict[str, AnyArray]:
    return {
        "w": random(directions, 4 * hidden, features, seed=1),
        "r": random(directions, 4 * hidden, hidden, seed=2),
        "b": random(directions, 8 * hidden, seed=3),
        "h": random(directions, 1, hidden, seed=4),
        "c": random(directions, 1, hidden, seed=5),
        "p": random(directions, 3 * hidden, seed=6),
        "lengths": np.array([5], dtype=np.int32),
    }


SEQUENCE = "float[5,1,4] x"


@pytest.mark.parametrize(
    ("node", "directions"),
    [
        ("LSTM<hidden_size=3>(x, w, r)", 1),
        ("LSTM<hidden_size=3>(x, w, r, b, lengths, h, c, p)", 1),
        ('LSTM<hidden_size=3, direction="reverse">(x, w, r, b)', 1),
        ('LSTM<hidden_size=3, direction="bidirectional">(x, w, r, b, , h, c)', 2),
        ("LSTM<hidden_size=3, clip=0.5>(x, w, r, b)", 1),
        ("LSTM<hidden_size=3, input_forget=1>(x, w, r, b)", 1),
        (
            'LSTM<hidden_size=3, activations=["HardSigmoid","LeakyRelu","Elu"], '
            "activation_alpha=[0.3,0.05,1.1], activation_beta=[0.4]>(x, w, r, b)",
            1,
        ),
    ],
)
def test_lstm(node: str, directions: int) -> None:
    model = build(
        f"y, h_n, c_n = {node}", SEQUENCE, "float y, float h_n, float c_n", lstm(directions)
    )
    check(model)


@pytest.mark.parametrize("outputs", ["y", "h_n", "c_n", "c_n, float y"])
def test_lstm_with_some_of_its_results(outputs: str) -> None:
    body = "y, h_n, c_n = LSTM<hidden_size=3>(x, w, r, b)"
    check(build(body, SEQUENCE, f"float {outputs}", lstm(1)))


def test_lstm_with_batch_first_equals_the_transposed_one() -> None:
    # onnxruntime has no batch-first LSTM: compare with explicit transpositions.
    outputs, weights = "float y, float h_n, float c_n", lstm(2)
    swapped = {**weights, "h": weights["h"].swapaxes(0, 1), "c": weights["c"].swapaxes(0, 1)}
    node = 'LSTM<hidden_size=3, direction="bidirectional"'
    first = build(
        f"y, h_n, c_n = {node}, layout=1>(x, w, r, b, , h, c)", "float[1,5,4] x", outputs, swapped
    )
    explicit = build(
        f"t = Transpose<perm=[1,0,2]>(x)  v, g, d = {node}>(t, w, r, b, , h, c) "
        "y = Transpose<perm=[2,0,1,3]>(v) h_n = Transpose<perm=[1,0,2]>(g) "
        "c_n = Transpose<perm=[1,0,2]>(d)",
        "float[1,5,4] x",
        outputs,
        weights,
    )
    program = import_onnx(first)
    inputs = samples(program)
    compare(interpret(program, inputs), run_onnxruntime(explicit, inputs))


def test_two_inputs_and_three_outputs() -> None:
    body = "a = Concat<axis=1>(x, z) y = Gemm(a, w) u = Tanh(y) v = Mul(u, z)"
    inputs = "float[N,3] x, float[N,2] z"
    check(build(body, inputs, "float y, float u, float v", {"w": random(5, 2)}))


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_other_precisions(kind: type[np.floating]) -> None:
    names = {np.float64: "double", np.float16: "float16"}
    weights = {"w": random(6, 5).astype(kind)}
    model = build("y = MatMul(x, w)", f"{names[kind]}[N,6] x", f"{names[kind]} y", weights)
    check(model, tolerance=1e-2 if kind is np.float16 else 1e-5)
