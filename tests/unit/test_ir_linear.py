"""Linear forms against the tensor interpreter: M @ x + b is what the operation computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hecompile.interpret.tensor import run_tensor
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import SparseMap
from hecompile.ir.linear import Reader, linear_form
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from tests.unit.interpreting import clear, finish, secret

Array = NDArray[np.float64]
Make = Callable[[Builder, Value], Operation]
RNG = np.random.default_rng(0)


def weights(*shape: int) -> Array:
    return RNG.standard_normal(shape)


def conv(shape: tuple[int, ...], **changes: Any) -> Make:
    rank = len(shape) - 2
    settings: dict[str, Any] = {"strides": (1,) * rank, "pads": (0,) * 2 * rank}
    settings |= {"dilations": (1,) * rank} | changes
    bias = settings.pop("bias", True)

    def make(b: Builder, x: Value) -> Operation:
        known = clear(b, weights(shape[0])) if bias else None
        return tensor.Conv(x=x, weight=clear(b, weights(*shape)), bias=known, **settings)

    return make


def pool(**settings: Any) -> Make:
    rank = len(settings["kernel"])
    filled = {"strides": (1,) * rank, "pads": (0,) * 2 * rank, "dilations": (1,) * rank} | settings
    return lambda b, x: tensor.AveragePool(x=x, **filled)


def affine(b: Builder, x: Value) -> Operation:
    dense = SparseMap.from_dense(weights(2, 6))
    return movement.Affine(
        xs=(x, x),
        maps=(
            b.constant(dense.to_array()),
            b.constant(SparseMap.from_dense(np.eye(2, 6)).to_array()),
        ),
        bias=b.constant(weights(2)),
        dims=(2, 1),
    )


def batch_norm(b: Builder, x: Value) -> Operation:
    scale, bias, mean = (clear(b, weights(3)) for _ in range(3))
    variance = clear(b, np.abs(weights(3)) + 0.1)
    return tensor.BatchNorm(x=x, scale=scale, bias=bias, mean=mean, variance=variance)


def line(sections: tuple[int, ...], columns: int, rows: int = 2) -> Make:
    def make(b: Builder, x: Value) -> Operation:
        table = b.constant(weights(rows, columns))
        return tensor.Polynomial(x=x, coefficients=table, degree=rows - 1, sections=sections)

    return make


CASES: dict[str, tuple[tuple[int, ...], Make]] = {
    "add": ((2, 3), lambda b, x: tensor.Add(x=x, y=clear(b, weights(3)))),
    "add broadcast": ((3,), lambda b, x: tensor.Add(x=clear(b, weights(2, 3)), y=x)),
    "add to itself": ((2, 1), lambda b, x: tensor.Add(x=x, y=x)),
    "sub": ((2, 3), lambda b, x: tensor.Sub(x=clear(b, weights(2, 1)), y=x)),
    "neg": ((2, 3), lambda b, x: tensor.Neg(x=x)),
    "mul": ((2, 3), lambda b, x: tensor.Mul(x=clear(b, weights(4, 2, 1)), y=x)),
    "mul scalar": ((2, 3), lambda b, x: tensor.Mul(x=x, y=clear(b, 2.0))),
    "matmul": ((2, 3), lambda b, x: tensor.MatMul(x=x, y=clear(b, weights(3, 4)))),
    "matmul left": ((3, 2), lambda b, x: tensor.MatMul(x=clear(b, weights(4, 3)), y=x)),
    "matmul stack": ((5, 2, 3), lambda b, x: tensor.MatMul(x=x, y=clear(b, weights(3, 4)))),
    "matmul stacks": ((2, 3), lambda b, x: tensor.MatMul(x=x, y=clear(b, weights(5, 3, 4)))),
    "matmul vector": ((3,), lambda b, x: tensor.MatMul(x=x, y=clear(b, weights(2, 3, 4)))),
    "matmul by vector": ((2, 4, 3), lambda b, x: tensor.MatMul(x=x, y=clear(b, weights(3)))),
    "vector by matmul": ((2, 3, 4), lambda b, x: tensor.MatMul(x=clear(b, weights(3)), y=x)),
    "dot": ((3,), lambda b, x: tensor.MatMul(x=x, y=clear(b, weights(3)))),
    "conv 1-d": ((1, 2, 7), conv((3, 2, 3), pads=(1, 2), strides=(2,))),
    "conv 2-d": ((2, 2, 5, 6), conv((4, 2, 3, 2), pads=(1, 0, 2, 1), dilations=(1, 2))),
    "conv groups": ((1, 4, 5), conv((6, 2, 2), groups=2, bias=False)),
    "pool": ((1, 2, 7), pool(kernel=(3,), strides=(2,), pads=(1, 1))),
    "pool ceil": ((1, 1, 6, 7), pool(kernel=(3, 2), strides=(2, 3), ceil=True)),
    "pool counts pads": (
        (1, 2, 6, 5),
        pool(kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), ceil=True, count_include_pad=True),
    ),
    "pool dilated": ((1, 1, 8), pool(kernel=(2,), dilations=(3,), pads=(2, 0))),
    "batch_norm": ((2, 3, 2), batch_norm),
    "batch_norm of rows": ((2, 3), batch_norm),
    "reduce_sum": ((2, 3, 4), lambda b, x: tensor.ReduceSum(x=x, axes=(0, 2), keepdims=False)),
    "reduce_mean": ((2, 3, 4), lambda b, x: tensor.ReduceMean(x=x, axes=(1,))),
    "pad": ((2, 3), lambda b, x: movement.Pad(x=x, pads=(1, 0, 0, 2), fill=1.5)),
    "reshape": ((2, 3), lambda b, x: movement.Reshape(x=x, dims=(3, 1, 2))),
    "transpose": ((2, 3, 4), lambda b, x: movement.Transpose(x=x, permutation=(2, 0, 1))),
    "slice": ((2, 7), lambda b, x: movement.Slice(x=x, axis=1, start=1, stop=6, step=2)),
    "gather": (
        (4, 2),
        lambda b, x: movement.Gather(x=x, axis=0, indices=(3, 0, 3, 1), dims=(2, 2)),
    ),
    "concat": (
        (2, 2),
        lambda b, x: movement.Concat(xs=(x, clear(b, weights(2, 1)), x), axis=1),
    ),
    "expand": ((3, 1), lambda b, x: movement.Expand(x=x, dims=(2, 1, 4))),
    "affine": ((2, 3), affine),
    "line": ((2, 5), line((2, 3), 2)),
    "line for all sections": ((2, 5), line((2, 3), 1)),
    "line without sections": ((2, 5), line((), 1)),
    "constant polynomial": ((2, 5), line((), 1, rows=1)),
    "line of a scalar": ((), line((), 1)),
}


def form_of(op: Operation, program: Program) -> Any:
    def constant(value: Value) -> Array | None:
        source = program.definitions[value.name]
        if isinstance(source, tensor.ConstantTensor):
            return program.array(source.value)
        return None

    return linear_form(op, Reader(program, constant))


def build(shape: tuple[int, ...], make: Make) -> tuple[Program, Operation]:
    b = Builder(name="m")
    x = secret(b, "x", *shape)
    program = finish(b, y=b.emit(make(b, x), "y"))
    return program, program.definitions["y"]


@pytest.mark.parametrize("name", CASES)
def test_form_is_what_the_operation_computes(name: str) -> None:
    shape, make = CASES[name]
    program, op = build(shape, make)
    x = RNG.standard_normal((3, *shape))
    expected = run_tensor(program, {"x": x})["y"].reshape(3, -1)
    form = form_of(op, program)
    for sample, row in zip(x, expected, strict=True):
        total = form.bias.copy()
        for value, matrix in form.terms:
            assert value.name == "x"
            total += matrix.apply(sample.ravel())
        np.testing.assert_allclose(total, row, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda b, x: tensor.Mul(x=x, y=x),
        lambda b, x: tensor.MatMul(x=x, y=x),
        lambda b, x: tensor.Power(x=x, exponent=2),
        lambda b, x: tensor.Activation(x=x, functions=("relu",)),
        line((), 1, rows=3),
    ],
)
def test_what_is_not_linear_has_no_form(make: Make) -> None:
    program, op = build((2, 2), make)
    assert form_of(op, program) is None


def test_weights_that_are_exactly_zero_leave_no_entry() -> None:
    weight = np.zeros((1, 1, 3))
    weight[0, 0, 1] = 2.0

    def make(b: Builder, x: Value) -> Operation:
        return tensor.Conv(x=x, weight=clear(b, weight), strides=(1,), pads=(1, 1), dilations=(1,))

    program, op = build((1, 1, 5), make)
    (_, matrix) = form_of(op, program).terms[0]
    np.testing.assert_array_equal(matrix.dense(), 2.0 * np.eye(5))
