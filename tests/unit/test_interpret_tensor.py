"""The tensor interpreter: each operation against numpy on one sample at a time, and its checks."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hecompile.errors import InputError, ProgramError
from hecompile.interpret.kernels import KERNELS
from hecompile.interpret.tensor import run_tensor, trace_tensor
from hecompile.ir import movement_ops as mo
from hecompile.ir import tensor_ops as to
from hecompile.ir.constants import SparseMap
from hecompile.ir.operation import OPERATIONS, Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import TensorType
from tests.unit.interpreting import clear, finish, run_one, secret

Array = NDArray[np.float64]
RANDOM = np.random.default_rng(0)

UNARY: dict[str, tuple[tuple[int, ...], Callable[[Value], Operation], Callable[[Array], Any]]] = {
    "neg": ((2, 3), lambda x: to.Neg(x=x), lambda a: -a),
    "power": ((2, 3), lambda x: to.Power(x=x, exponent=3), lambda a: a**3),
    "relu": ((4,), lambda x: to.Activation(x=x, functions=("relu",)), lambda a: np.maximum(a, 0)),
    "sections": (
        (2, 5),
        lambda x: to.Activation(x=x, functions=("tanh", "relu"), sections=(2, 3)),
        lambda a: np.hstack([np.tanh(a[:, :2]), np.maximum(a[:, 2:], 0)]),
    ),
    "scalar activation": (
        (),
        lambda x: to.Activation(x=x, functions=("tanh",)),
        np.tanh,
    ),
    "sum": ((2, 3, 4), lambda x: to.ReduceSum(x=x, axes=(1,)), lambda a: a.sum(1, keepdims=True)),
    "mean": (
        (2, 3, 4),
        lambda x: to.ReduceMean(x=x, axes=(0, 2), keepdims=False),
        lambda a: a.mean((0, 2)),
    ),
    "pad": (
        (2, 3),
        lambda x: mo.Pad(x=x, pads=(0, 1, 2, 0), fill=7.0),
        lambda a: np.pad(a, ((0, 2), (1, 0)), constant_values=7.0),
    ),
    "reshape": ((2, 6), lambda x: mo.Reshape(x=x, dims=(3, 4)), lambda a: a.reshape(3, 4)),
    "transpose": (
        (2, 3, 4),
        lambda x: mo.Transpose(x=x, permutation=(2, 0, 1)),
        lambda a: a.transpose(2, 0, 1),
    ),
    "slice": (
        (3, 8),
        lambda x: mo.Slice(x=x, axis=1, start=1, stop=8, step=3),
        lambda a: a[:, 1:8:3],
    ),
    "gather": (
        (3, 4),
        lambda x: mo.Gather(x=x, axis=1, indices=(3, 0, 0, 2), dims=(2, 2)),
        lambda a: np.take(a, [[3, 0], [0, 2]], axis=1),
    ),
    "gather one": (
        (3, 4),
        lambda x: mo.Gather(x=x, axis=0, indices=(2,), dims=()),
        lambda a: a[2],
    ),
    "expand": (
        (3, 1),
        lambda x: mo.Expand(x=x, dims=(2, 1, 4)),
        lambda a: np.broadcast_to(a, (2, 3, 4)),
    ),
}


@pytest.mark.parametrize(("shape", "build", "numpy"), UNARY.values(), ids=UNARY.keys())
def test_unary_as_numpy(
    shape: tuple[int, ...], build: Callable[[Value], Operation], numpy: Callable[[Array], Array]
) -> None:
    builder = Builder(name="m")
    x = RANDOM.normal(size=(3, *shape))
    y = builder.emit(build(secret(builder, "x", *shape)))
    got = run_one(finish(builder, y=y), x=x)
    assert isinstance(y.type, TensorType)
    assert got.shape == (3, *y.type.shape)
    np.testing.assert_allclose(got, np.stack([numpy(s) for s in x]), atol=1e-14)


@pytest.mark.parametrize("kind", [to.Add, to.Sub, to.Mul])
@pytest.mark.parametrize(
    ("left", "right"), [((2, 3), (2, 3)), ((2, 3), (3,)), ((3,), (2, 1)), ((), (2, 2)), ((), ())]
)
def test_broadcast_never_meets_the_samples(
    kind: type[to.Binary], left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    numpy = {to.Add: np.add, to.Sub: np.subtract, to.Mul: np.multiply}[kind]
    x, y = RANDOM.normal(size=(3, *left)), RANDOM.normal(size=(3, *right))
    builder = Builder(name="m")
    op = kind(x=secret(builder, "a", *left), y=secret(builder, "b", *right))
    got = run_one(finish(builder, y=builder.emit(op)), a=x, b=y)
    np.testing.assert_array_equal(got, np.stack([numpy(a, b) for a, b in zip(x, y, strict=True)]))


@pytest.mark.parametrize("right_is_clear", [True, False])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((3,), (3, 2)),
        ((3,), (4, 3, 2)),
        ((2, 3), (3,)),
        ((2, 3), (3, 4)),
        ((2, 3), (5, 3, 4)),
        ((4, 2, 3), (3,)),
        ((5, 2, 3), (3, 4)),
        ((5, 1, 2, 3), (4, 3, 2)),
    ],
)
def test_matmul_as_numpy(
    left: tuple[int, ...], right: tuple[int, ...], right_is_clear: bool
) -> None:
    x, y = RANDOM.normal(size=(3, *left)), RANDOM.normal(size=(3, *right))
    builder = Builder(name="m")
    a = secret(builder, "a", *left)
    b = clear(builder, y[0]) if right_is_clear else secret(builder, "b", *right)
    got = run_one(finish(builder, y=builder.emit(to.MatMul(x=a, y=b))), a=x, b=y)
    expected = [np.matmul(x[i], y[0 if right_is_clear else i]) for i in range(3)]
    np.testing.assert_allclose(got, np.stack(expected), atol=1e-14)


def test_batch_norm() -> None:
    x = RANDOM.normal(size=(3, 2, 4, 5))
    scale, bias, mean = RANDOM.normal(size=(3, 4))
    variance = RANDOM.uniform(0.5, 2.0, size=4)
    builder = Builder(name="m")
    data = secret(builder, "x", 2, 4, 5)
    s, o, m, v = (clear(builder, a) for a in (scale, bias, mean, variance))
    op = to.BatchNorm(x=data, scale=s, bias=o, mean=m, variance=v, epsilon=0.1)
    got = run_one(finish(builder, y=builder.emit(op)), x=x)
    column = (slice(None), None)
    expected = scale[column] * (x - mean[column]) / np.sqrt(variance[column] + 0.1) + bias[column]
    np.testing.assert_allclose(got, expected, atol=1e-14)


@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@pytest.mark.parametrize("columns", [1, 2])
def test_polynomial_by_sections(columns: int, basis: str) -> None:
    table = RANDOM.normal(size=(4, columns))
    builder = Builder(name="m")
    x = secret(builder, "x", 2, 5)
    op = to.Polynomial(
        x=x,
        coefficients=builder.constant(table),
        degree=3,
        sections=(2, 3) if columns > 1 else (),
        basis=basis,
    )
    points = RANDOM.normal(size=(3, 2, 5))
    got = run_one(finish(builder, y=builder.emit(op)), x=points)
    owner = [0, 0, columns - 1, columns - 1, columns - 1]
    bases = {
        "monomial": [points**k for k in range(4)],
        "chebyshev": [points**0, points, 2 * points**2 - 1, 4 * points**3 - 3 * points],
    }
    expected = sum(table[k, owner] * b for k, b in enumerate(bases[basis]))
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_chebyshev_polynomials_of_high_degree_keep_their_digits() -> None:
    degree = 60
    builder = Builder(name="m")
    x = secret(builder, "x", 101)
    table = builder.constant(np.eye(degree + 1)[:, -1:])
    op = to.Polynomial(x=x, coefficients=table, degree=degree, basis="chebyshev")
    points = np.linspace(-1.0, 1.0, 101)
    got = run_one(finish(builder, y=builder.emit(op)), x=points[None])
    np.testing.assert_allclose(got[0], np.cos(degree * np.arccos(points)), atol=1e-11)


def test_polynomial_of_a_scalar_and_of_degree_zero() -> None:
    builder = Builder(name="m")
    x = secret(builder, "x")
    square = builder.constant(np.array([[1.0], [0.0], [2.0]]))
    y = builder.emit(to.Polynomial(x=x, coefficients=square, degree=2))
    flat = builder.constant(np.array([[5.0]]))
    z = builder.emit(to.Polynomial(x=y, coefficients=flat, degree=0))
    got = run_tensor(finish(builder, y=y, z=z), {"x": np.array([2.0, 3.0])})
    np.testing.assert_array_equal(got["y"], [9.0, 19.0])
    np.testing.assert_array_equal(got["z"], [5.0, 5.0])


@pytest.mark.parametrize(("outputs", "entries"), [(6, 20), (6, 0), (3000, 7)])
def test_affine_sums_its_maps(outputs: int, entries: int) -> None:
    random = np.random.default_rng(5)
    widths = {"a": (2, 3), "b": (2000,) if outputs > 100 else (4,)}
    builder = Builder(name="m")
    xs = tuple(secret(builder, label, *dims) for label, dims in widths.items())
    bias, maps, matrices = random.normal(size=outputs), [], []
    for dims in widths.values():
        inputs = math.prod(dims)
        sparse = SparseMap(
            random.integers(0, outputs, entries),
            random.integers(0, inputs, entries),
            random.normal(size=entries),
        )
        dense = np.zeros((outputs, inputs))
        for row, column, value in zip(sparse.rows, sparse.columns, sparse.values, strict=True):
            dense[row, column] += value
        np.testing.assert_allclose(sparse.dense(outputs, inputs), dense)
        matrices.append(dense)
        maps.append(builder.constant(sparse.to_array(), "map"))
    op = mo.Affine(xs=xs, maps=tuple(maps), bias=builder.constant(bias), dims=(1, outputs))
    program = finish(builder, y=builder.emit(op))
    inputs_ = {label: random.normal(size=(3, *dims)) for label, dims in widths.items()}
    expected = bias + sum(
        inputs_[label].reshape(3, -1) @ m.T for label, m in zip(widths, matrices, strict=True)
    )
    np.testing.assert_allclose(run_tensor(program, inputs_)["y"][:, 0], expected, atol=1e-12)


def test_concat_of_secret_and_clear() -> None:
    builder = Builder(name="m")
    parts = (secret(builder, "x", 1, 2), clear(builder, [[5.0]]))
    program = finish(builder, y=builder.emit(mo.Concat(xs=parts, axis=1)))
    got = run_one(program, x=np.array([[[1.0, 2.0]], [[3.0, 4.0]]]))
    np.testing.assert_array_equal(got, [[[1.0, 2.0, 5.0]], [[3.0, 4.0, 5.0]]])


def test_clear_values_are_computed_once_but_returned_for_every_sample() -> None:
    builder = Builder(name="m")
    secret(builder, "x", 2)
    doubled = builder.emit(to.Add(x=clear(builder, [1.0, 2.0]), y=clear(builder, [1.0, 2.0])))
    program = finish(builder, y=doubled)
    x = np.zeros((4, 2))
    shapes = {op.defined.name: a.shape for op, a in trace_tensor(program, {"x": x})}
    assert shapes[doubled.name] == (1, 2)
    np.testing.assert_array_equal(run_one(program, x=x), [[2.0, 4.0]] * 4)


def _chain(length: int) -> Program:
    builder = Builder(name="m")
    value = secret(builder, "x", 2)
    for i in range(length):
        value = builder.emit(to.Neg(x=value), f"n{i}")
    return finish(builder, y=value)


def test_keep_returns_values_by_name() -> None:
    got = run_tensor(_chain(3), {"x": np.ones((1, 2))}, keep=["n0", "n1"])
    assert {k: v[0, 0] for k, v in got.items()} == {"n0": -1.0, "n1": 1.0}
    with pytest.raises(ProgramError, match="no value %n7"):
        run_tensor(_chain(3), {"x": np.ones((1, 2))}, keep=["n7"])


def test_trace_forgets_values_after_their_last_use() -> None:
    born: list[weakref.ref[Array]] = []
    most = 0
    for _, array in trace_tensor(_chain(20), {"x": np.ones((1, 2))}):
        born.append(weakref.ref(array))
        del array
        most = max(most, sum(ref() is not None for ref in born))
    assert len(born) == 21
    assert most <= 4


def test_results_do_not_alias_the_inputs() -> None:
    builder = Builder(name="m")
    program = finish(builder, y=secret(builder, "x", 2))
    x = np.ones((1, 2))
    run_one(program, x=x)[:] = 5.0
    np.testing.assert_array_equal(x, 1.0)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"z": np.ones((1, 2))}, "input 'x' is missing; the arrays given are: z"),
        ({}, "input 'x' is missing; the arrays given are: none"),
        ({"x": np.ones((1, 3))}, r"shape \(1, 3\), where \(samples, 2\) is needed"),
        ({"x": np.ones(2)}, r"shape \(2,\)"),
        ({"x": np.ones((0, 2))}, "one sample or more"),
        ({"x": np.array([[1.0, np.nan]])}, r"holds nan in sample 0 at \[1\]"),
        ({"x": np.array([[1.0, 1.0], [np.inf, 1.0]])}, r"holds inf in sample 1 at \[0\]"),
        ({"x": np.array([["a", "b"]])}, "holds <U1, where real numbers are needed"),
        ({"x": np.ones((1, 2), dtype=complex)}, "holds complex128"),
    ],
)
def test_bad_inputs_are_refused(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_tensor(_chain(1), inputs)
    with pytest.raises(InputError, match=message):
        trace_tensor(_chain(1), inputs)


def test_inputs_of_different_length_are_refused() -> None:
    builder = Builder(name="m")
    op = to.Add(x=secret(builder, "a", 2), y=secret(builder, "b", 2))
    program = finish(builder, y=builder.emit(op))
    with pytest.raises(InputError, match="'a' has 1, 'b' has 2"):
        run_tensor(program, {"a": np.ones((1, 2)), "b": np.ones((2, 2))})


def test_every_tensor_operation_has_a_kernel() -> None:
    computing = {op for op in OPERATIONS.values() if op.name.startswith("tensor.")}
    assert computing - {to.Input, to.Output} == set(KERNELS)
