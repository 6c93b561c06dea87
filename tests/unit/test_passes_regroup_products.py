"""regroup-products: levels saved, meaning kept, factors near 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hecompile.interpret.samples import observe_ranges, with_ranges
from hecompile.interpret.tensor import run_tensor, trace_tensor
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.ir.verifier import verify
from hecompile.packing.depth import Levels
from hecompile.passbase import Context
from hecompile.passes.regroup_products import RegroupProducts
from hecompile.pipeline import parse_pipeline
from tests.unit.interpreting import clear, finish, secret

UNITS, STEPS = 3, 3
SIGMOID = np.array([0.5, 0.24, 0.0, -0.016])
TANH = np.array([0.0, 1.0, 0.01, -0.28])
TANH_5 = np.array([0.0, 1.0, 0.0, -0.33, 0.0, 0.11])
TANH_7 = np.array([0.0, 1.0, 0.0, -0.333, 0.0, 0.128, 0.0, -0.037])
FINISH = parse_pipeline("merge-linear,cse,dce,join-maps,cse,dce")


def polynomial(b: Builder, x: Value, *columns: Array) -> Value:
    table = np.stack(columns, axis=1)
    width = tensor_type(x).shape[-1] // len(columns)
    op = tensor.Polynomial(
        x=x,
        coefficients=b.constant(table),
        degree=len(table) - 1,
        sections=(width,) * len(columns) if len(columns) > 1 else (),
    )
    return b.emit(op)


def section(b: Builder, x: Value, place: int) -> Value:
    return b.emit(movement.Slice(x=x, axis=1, start=place * UNITS, stop=(place + 1) * UNITS))


def lstm(shown: Array, seed: int = 0, scale: float = 0.4) -> Program:
    """Steps of an LSTM whose activations are polynomials already."""
    b, rng = Builder(name="m"), np.random.default_rng(seed)
    cell: Value | None = None
    w = clear(b, scale * rng.normal(size=(2, 4 * UNITS)))
    r = clear(b, scale * rng.normal(size=(UNITS, 4 * UNITS)))
    hidden: Value | None = None
    for t in range(STEPS):
        pre = b.emit(tensor.MatMul(x=secret(b, f"x{t}", 1, 2), y=w))
        if hidden is not None:
            pre = b.emit(tensor.Add(x=pre, y=b.emit(tensor.MatMul(x=hidden, y=r))))
        gates = polynomial(b, pre, SIGMOID, SIGMOID, SIGMOID, np.array([0.0, 1.0, 0.0, -0.28]))
        i, o, f, g = (section(b, gates, n) for n in range(4))
        entered = b.emit(tensor.Mul(x=i, y=g))
        if cell is None:
            cell = entered
        else:
            cell = b.emit(tensor.Add(x=b.emit(tensor.Mul(x=f, y=cell)), y=entered))
        hidden = b.emit(tensor.Mul(x=o, y=polynomial(b, cell, shown)))
    assert hidden is not None
    return finish(b, y=b.emit(tensor.MatMul(x=hidden, y=clear(b, rng.normal(size=(UNITS, 2))))))


def samples(program: Program, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {op.label: rng.normal(size=(40, *op.dims)) for op in program.select(tensor.Input)}


def ready(program: Program) -> Program:
    """Merged, with ranges."""
    return FINISH.run(with_ranges(program, observe_ranges(program, samples(program))), Context())


def regrouped(program: Program, growth: float = 16.0) -> tuple[Program, Program]:
    before = ready(program)
    after = RegroupProducts(growth=growth).run(before, Context())
    after = parse_pipeline("cse,dce,require-polynomial").run(after, Context())
    verify(after)
    return before, after


def depth(program: Program) -> int:
    return max(Levels(program).used().values())


def products(program: Program) -> int:
    return len(program.select(tensor.Mul))


@pytest.mark.parametrize(
    ("shown", "levels", "count"),
    [(TANH, (22, 19), (8, 14)), (TANH_5, (25, 22), (8, 20)), (TANH_7, (25, 22), (8, 26))],
    ids=["cubic", "quintic", "seventh degree"],
)
def test_an_lstm_saves_a_level_a_step(
    shown: Array, levels: tuple[int, int], count: tuple[int, int]
) -> None:
    before, after = regrouped(lstm(shown))
    assert (depth(before), depth(after)) == levels
    assert (products(before), products(after)) == count
    old, new = (run_tensor(p, samples(before, 1))["y"] for p in (before, after))
    np.testing.assert_allclose(new, old, rtol=1e-10, atol=1e-12)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0.05, 0.4))
def test_meaning_and_ranges_are_kept(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    shown = rng.uniform(-1, 1, size=int(rng.integers(2, 8)))
    program = lstm(shown, seed, scale)
    before, after = regrouped(program)
    assert depth(after) <= depth(before)
    inputs = samples(program)
    np.testing.assert_allclose(
        run_tensor(after, inputs)["y"], run_tensor(before, inputs)["y"], rtol=1e-8, atol=1e-9
    )
    for op, array in trace_tensor(after, inputs):
        interval = tensor_type(op.defined).interval
        assert interval is not None
        slack = 1e-6 * (1e-3 + interval.magnitude)
        assert interval.lower - slack <= array.min()
        assert array.max() <= interval.upper + slack


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), growth=st.sampled_from([2.0, 16.0]))
def test_no_value_shrinks_or_grows_beyond_the_limit(seed: int, growth: float) -> None:
    rng = np.random.default_rng(seed)
    program = lstm(rng.uniform(-1, 1, size=4), seed)
    with np.errstate(all="ignore"):
        # Random cubics of cubics may explode; calibration refuses those.
        assume(np.isfinite(run_tensor(program, samples(program))["y"]).all())
    before, after = regrouped(program, growth)
    for op in after:
        if op.result is None or not tensor_type(op.result).secret:
            continue
        now = tensor_type(op.result).interval
        assert now is not None
        old = before.definitions.get(op.result.name)
        was = tensor_type(old.defined).interval if old is not None else None
        if was is None or was.magnitude < 1e-9:
            continue
        sections = isinstance(op, tensor.Polynomial) and len(op.sections) > 1
        if not sections:
            assert now.magnitude >= was.magnitude / growth * (1 - 1e-9)
            assert now.magnitude <= max(growth, was.magnitude) * (1 + 1e-9)


def test_leading_coefficients_vanish_without_products() -> None:
    _, after = regrouped(lstm(TANH))
    for op in after.select(tensor.Mul):
        assert tensor_type(op.x).secret
        assert tensor_type(op.y).secret
    shifts = [op for op in after.select(tensor.Polynomial) if op.degree == 1]
    assert shifts
    assert all((after.array(op.coefficients)[1] == 1.0).all() for op in shifts)


def test_equal_steps_are_scaled_near_one() -> None:
    _, after = regrouped(lstm(TANH))
    for op, array in trace_tensor(after, samples(after)):
        assert np.abs(array).max() < 16.0, op


def test_a_late_factor_is_left() -> None:
    """With an output gate that waits for the cell, another grouping is no shallower."""
    b = Builder(name="m")
    x = secret(b, "x", 1, UNITS)
    late = polynomial(b, b.emit(tensor.Mul(x=x, y=x)), SIGMOID)
    y = b.emit(tensor.Mul(x=late, y=polynomial(b, x, TANH)))
    program = finish(b, y=b.emit(tensor.MatMul(x=y, y=clear(b, np.eye(UNITS) + 1))))
    before, after = regrouped(program)
    assert depth(after) == depth(before)
    assert products(after) == products(before)
