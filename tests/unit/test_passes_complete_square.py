"""Squares are completed where that saves a level, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import Interval
from hecompile.packing.price import remaining_levels
from hecompile.passbase import Context
from hecompile.passes.approximate import Approximate
from hecompile.passes.complete_square import CompleteSquare
from hecompile.pipeline import parse_pipeline
from tests.differential.meaning import assert_same_meaning

FINISH = "merge-linear,cse,dce,require-polynomial"


class Writer:
    """A chain of operations on two features."""

    def __init__(self) -> None:
        self.build = Builder(name="square")
        self.random = np.random.default_rng(0)

    def input(self) -> Value:
        return self._known(self.build.emit(tensor.Input(label="x", dims=(1, 2)), "x"))

    def dense(self, x: Value) -> Value:
        weight = self.build.constant(self.random.normal(size=(2, 2)), "w")
        op = tensor.ConstantTensor(value=weight, dims=(2, 2))
        return self._known(self.build.emit(tensor.MatMul(x=x, y=self.build.emit(op))))

    def quadratic(self, x: Value, coefficients: Array, basis: str = "monomial") -> Value:
        columns = coefficients.shape[1]
        op = tensor.Polynomial(
            x=x,
            coefficients=self.build.constant(coefficients, "p"),
            degree=2,
            functions=("relu",) * columns,
            lower=(-1.0,) * columns,
            upper=(1.0,) * columns,
            sections=(1, 1) if columns == 2 else (),
            basis=basis,
        )
        return self._known(self.build.emit(op))

    def emit(self, op: tensor.TensorOperation) -> Value:
        return self._known(self.build.emit(op))

    def finish(self, y: Value) -> Program:
        self.build.keep(tensor.Output(x=y, label="y"))
        return self.build.finish()

    def _known(self, value: Value) -> Value:
        return self.build.annotate(value, interval=Interval(-1.0, 1.0))


def between_maps(coefficients: Array, basis: str = "monomial") -> Program:
    write = Writer()
    hidden = write.quadratic(write.dense(write.input()), coefficients, basis)
    return write.finish(write.dense(hidden))


def depth(program: Program) -> int:
    finished = parse_pipeline(FINISH).run(program, Context())
    return max(remaining_levels(finished).values())


def column(*numbers: float) -> Array:
    return np.array(numbers)[:, None]


@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 2))
def test_a_square_means_the_same_and_saves_a_level(basis: str, seed: int, columns: int) -> None:
    coefficients = np.random.default_rng(seed).uniform(0.5, 1.0, (3, columns))
    before = between_maps(coefficients, basis)
    after = CompleteSquare().run(before, Context())
    assert not after.select(tensor.Polynomial)
    assert_same_meaning(before, after, 1e-9, "complete-square")
    assert depth(after) == depth(before) - 1


def test_relu_of_degree_2_is_completed() -> None:
    write = Writer()
    hidden = write.emit(tensor.Activation(x=write.dense(write.input()), functions=("relu",)))
    program = write.finish(write.dense(hidden))
    context = Context({"x": np.random.default_rng(1).normal(size=(64, 1, 2))})
    fitted = Approximate(degree=2).run(program, context)
    assert fitted.select(tensor.Polynomial)
    squared = CompleteSquare().run(fitted, Context())
    assert not squared.select(tensor.Polynomial)
    assert depth(squared) == 3


@pytest.mark.parametrize(
    "coefficients",
    [
        column(0.1, 0.5, 0.0),
        np.array([[0.1, 0.1], [0.5, 0.5], [1.0, 0.0]]),
        column(0.1, 0.5, 0.01),
    ],
    ids=["leading zero", "leading zero of a segment", "large shift"],
)
def test_what_is_no_tame_square_stays(coefficients: Array) -> None:
    program = between_maps(coefficients)
    assert CompleteSquare().run(program, Context()) == program


def test_growth_bounds_the_shift() -> None:
    """The shift is 3 times the range, so that the square is 16 times the largest x**2."""
    program = between_maps(column(0.0, 6.0, 1.0))
    assert not CompleteSquare(growth=16.01).run(program, Context()).select(tensor.Polynomial)
    assert CompleteSquare(growth=15.99).run(program, Context()) == program


def test_ranges_must_be_known() -> None:
    program = between_maps(column(0.1, 0.5, 0.5))
    (op,) = program.select(tensor.Polynomial)
    blind = replace(tensor.tensor_type(op.x), interval=None)
    renamed = {op.x.name: Value(op.x.name, blind)}
    operations = []
    for one in program:
        changed = one.with_operands(renamed)
        if one.result == op.x:
            changed = changed.with_result(renamed[op.x.name])
        operations.append(changed)
    program = program.replace(operations=tuple(operations))
    assert CompleteSquare().run(program, Context()) == program


def _from_input(write: Writer, x: Value) -> Value:
    return write.dense(write.quadratic(x, column(0.1, 0.5, 0.5)))


def _from_product(write: Writer, x: Value) -> Value:
    return write.dense(write.quadratic(write.emit(tensor.Mul(x=x, y=x)), column(0.1, 0.5, 0.5)))


def _to_output(write: Writer, x: Value) -> Value:
    y = write.quadratic(write.dense(x), column(0.1, 0.5, 0.5))
    return write.emit(move.Reshape(x=y, dims=(2, 1)))


def _to_product(write: Writer, x: Value) -> Value:
    y = write.quadratic(write.dense(x), column(0.1, 0.5, 0.5))
    return write.dense(write.emit(tensor.Mul(x=y, y=write.emit(tensor.Neg(x=y)))))


@pytest.mark.parametrize("chain", [_from_input, _from_product, _to_output, _to_product])
def test_without_maps_on_both_sides_nothing_is_gained(chain: object) -> None:
    write = Writer()
    program = write.finish(chain(write, write.input()))  # type: ignore[operator]
    assert CompleteSquare().run(program, Context()) == program


def test_a_residual_joins_the_map_that_follows() -> None:
    write = Writer()
    x = write.dense(write.input())
    y = write.emit(tensor.Add(x=write.quadratic(x, column(0.1, 0.5, 0.5)), y=x))
    program = write.finish(write.dense(y))
    after = CompleteSquare().run(program, Context())
    assert depth(after) == depth(program) - 1
    assert_same_meaning(program, after, 1e-9, "complete-square")
