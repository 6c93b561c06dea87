"""Recurrent models through the whole compiler: the slot program means what onnxruntime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import hecompile
from hecompile.config import CompileOptions
from hecompile.ir.recurrent_ops import Recurrent
from tests.differential.onnx_cases import AnyArray, build, random, run_onnxruntime

DEEP = """
  t = Transpose<perm=[1,0,2]>(x)
  a = LSTM<hidden_size=2, direction="bidirectional">(t, w0, r0, b0)
  p = Transpose<perm=[0,2,1,3]>(a)  s = Constant<value_ints=[0,0,-1]>()  q = Reshape(p, s)
  v, h = LSTM<hidden_size=2, direction="bidirectional">(q, w1, r1, b1)
  y = Transpose<perm=[1,0,2]>(h)
"""
GRU = """
  t = Transpose<perm=[1,0,2]>(x)
  v = GRU<hidden_size=3, linear_before_reset={after}>(t, w0, r0, b0)
  q = Transpose<perm=[2,0,1,3]>(v)  y = Flatten(q)
"""
RNN = """
  t = Transpose<perm=[1,0,2]>(x)  i = Transpose<perm=[1,0,2]>(state)
  v, h = RNN<hidden_size=3, direction="reverse", activations=["Softplus"]>(t, w0, r0, b0, , i)
  y = Transpose<perm=[1,0,2]>(h)
"""
PEEPING = """
  t = Transpose<perm=[1,0,2]>(x)
  v, h = LSTM<hidden_size=2, clip=3.0, input_forget=1>(t, w0, r0, b0, , , , p0)
  y = Transpose<perm=[1,0,2]>(h)
"""


def weights(directions: int, *rows_inputs_units: tuple[int, int, int]) -> dict[str, AnyArray]:
    """Random weights of layers, each of gates * units rows."""
    found = {}
    for n, (rows, inputs, units) in enumerate(rows_inputs_units):
        found[f"w{n}"] = random(directions, rows, inputs, seed=3 * n) / 2
        found[f"r{n}"] = random(directions, rows, units, seed=3 * n + 1) / 2
        found[f"b{n}"] = random(directions, 2 * rows, seed=3 * n + 2) / 4
    return found


def compiled(model: onnx.ModelProto, **options: Any) -> tuple[hecompile.Compiled, float]:
    """A compiled model, and the largest distance of its simulation from onnxruntime."""
    generator = np.random.default_rng(5)
    declared = {i.name: i.type.tensor_type.shape.dim for i in model.graph.input}
    shapes = {name: [d.dim_value for d in dims][1:] for name, dims in declared.items()}

    def drawn(count: int) -> dict[str, AnyArray]:
        return {
            name: generator.uniform(-1, 1, (count, *shape)).astype(np.float32)
            for name, shape in shapes.items()
        }

    result = hecompile.compile(model, calibration=drawn(40), options=CompileOptions(**options))
    assert result.original.select(Recurrent)
    fresh = drawn(3)
    expected = run_onnxruntime(model, {name: array[:, None] for name, array in fresh.items()})
    found = result.simulate(fresh)
    return result, max(float(np.abs(found[n] - a).max()) for n, a in expected.items())


CASES: dict[str, tuple[str, str, dict[str, AnyArray]]] = {
    "two layers of LSTM in both directions": (
        DEEP,
        "float[N,4,2] x",
        weights(2, (8, 2, 2), (8, 4, 2)),
    ),
    "GRU": (GRU.format(after=0), "float[N,3,2] x", weights(1, (9, 2, 3))),
    "GRU as PyTorch has it": (GRU.format(after=1), "float[N,3,2] x", weights(1, (9, 2, 3))),
    "RNN in reverse from a secret state": (
        RNN,
        "float[N,4,2] x, float[N,1,3] state",
        weights(1, (3, 2, 3)),
    ),
    "LSTM with peepholes, clipping and coupled gates": (
        PEEPING,
        "float[N,2,2] x",
        weights(1, (8, 2, 2)) | {"p0": random(1, 6)},
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_simulation_is_within_the_predicted_bound(
    case: tuple[str, str, dict[str, AnyArray]],
) -> None:
    body, inputs, constants = case
    # One ring and low degrees, so that the search for parameters takes seconds.
    model = build(body, inputs, weights=constants)
    result, error = compiled(model, degree=3, ring=8192)
    assert error <= result.predicted_error < 0.3
    assert error > 1e-7
