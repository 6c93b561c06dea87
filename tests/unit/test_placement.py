"""Where sums of scalar products are relinearized: before or after, by what costs less."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.chains import chain
from hecompile.ir import he_ops as he
from hecompile.ir.program import Builder, Program
from hecompile.passbase import Context
from hecompile.passes.insert_management import InsertManagement
from hecompile.pipeline import parse_pipeline

PERIOD = 4096


def dense_of_squares(features: int, sums: int, scalar: bool) -> Program:
    """Squares of `features` ciphertexts, and dense sums of all of them."""
    draw = np.random.default_rng(0)
    build = Builder(name="dense", batch=PERIOD)
    squares = []
    for i in range(features):
        place = {"period": PERIOD, "first": i, "count": 1, "stride": PERIOD}
        x = build.emit(he.Input(label="x", dims=(1, features), **place))  # type: ignore[arg-type]
        squares.append(build.emit(he.Mul(x=x, y=x)))
    period = 1 if scalar else PERIOD
    outputs = []
    for _ in range(sums):
        weights = build.constant(draw.normal(size=(features, period)))
        op = he.SumMulPlain(xs=tuple(squares), weights=weights, period=period)
        outputs.append(build.emit(op))
    build.keep(he.Output(xs=tuple(outputs), label="y", dims=(1, sums)))
    # One prime stands for both levels, so that nothing is rescaled between square and sum.
    return build.finish(parameters=chain(8192, 25, (1, 2), 2, 0))


def relinearized(program: Program) -> set[type]:
    """What is relinearized, by the kind of operation that made it."""
    managed = InsertManagement().run(program, Context())
    found = managed.select(he.Relinearize)
    return {type(managed.definitions[op.x.name]) for op in found}


@pytest.mark.parametrize(("features", "sums"), [(32, 16), (60, 40)])
def test_sums_in_a_matrix_are_relinearized_where_they_are_fewer(features: int, sums: int) -> None:
    program = dense_of_squares(features, sums, scalar=True)
    assert relinearized(program) == {he.SumMulPlain}
    managed = InsertManagement().run(program, Context())
    assert len(managed.select(he.Relinearize)) == sums


def test_squares_are_relinearized_where_these_are_fewer() -> None:
    assert relinearized(dense_of_squares(8, 16, scalar=True)) == {he.Mul}


def test_products_one_by_one_cost_more_than_the_squares() -> None:
    assert relinearized(dense_of_squares(32, 16, scalar=False)) == {he.Mul}


def test_sums_that_share_operands_stay_what_they_were() -> None:
    program = dense_of_squares(6, 4, scalar=True)
    managed = InsertManagement().run(program, Context())
    assert parse_pipeline("cse,dce").run(managed, Context()) == managed
    pairs = zip(program.select(he.SumMulPlain), managed.select(he.SumMulPlain), strict=True)
    assert all(one.weights == other.weights for one, other in pairs)
