"""merge-linear: what comes out, beyond the golden files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.interpret.samples import observe_ranges, with_ranges
from hecompile.interpret.tensor import run_tensor, trace_tensor
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.ir.verifier import verify
from hecompile.passbase import Context
from hecompile.passes.merge_linear import MergeLinear
from hecompile.passes.require_polynomial import RequirePolynomial
from tests.unit.interpreting import clear, finish, secret


def merge(program: Program, max_growth: float = 16.0) -> Program:
    merged = MergeLinear(max_growth=max_growth).run(program, Context())
    verify(merged)
    return merged


def random_program(seed: int) -> Program:
    """A random network of 2x6 tensors."""
    rng = np.random.default_rng(seed)
    b = Builder(name="random")
    values = [secret(b, "x", 2, 6), secret(b, "w", 2, 6)]
    for _ in range(int(rng.integers(3, 14))):
        x, y = (values[i] for i in rng.integers(0, len(values), 2))
        values.append(random_operation(b, x, y, rng))
    return finish(b, y=values[-1], z=values[int(rng.integers(2, len(values)))])


def random_operation(b: Builder, x: Value, y: Value, rng: np.random.Generator) -> Value:
    start = int(rng.integers(0, 4))
    cut = b.emit(movement.Slice(x=x, axis=1, start=start, stop=start + 3))
    dense = np.where(rng.random((6, 6)) < 0.3, rng.normal(size=(6, 6)), 0.0)
    flat = b.emit(movement.Reshape(x=x, dims=(12,)))
    run = b.emit(movement.Slice(x=flat, axis=0, start=start, stop=start + 6))
    choices = [
        tensor.Mul(x=x, y=y),
        tensor.Add(x=x, y=y),
        tensor.Sub(x=x, y=y),
        tensor.Neg(x=x),
        tensor.Mul(x=x, y=clear(b, rng.normal(size=(2, 1)))),
        tensor.Add(x=x, y=clear(b, rng.normal(size=6))),
        tensor.MatMul(x=x, y=clear(b, dense)),
        movement.Concat(xs=(cut, b.emit(movement.Slice(x=y, axis=1, start=2, stop=5))), axis=1),
        movement.Reshape(x=b.emit(movement.Transpose(x=x, permutation=(1, 0))), dims=(2, 6)),
        movement.Expand(x=b.emit(movement.Reshape(x=run, dims=(1, 6))), dims=(2, 6)),
    ]
    return b.emit(choices[int(rng.integers(0, len(choices)))])


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), growth=st.sampled_from([0.5, 2.0, 16.0]))
def test_random_programs_keep_their_meaning_and_become_polynomial(seed: int, growth: float) -> None:
    program = random_program(seed)
    merged = merge(program, growth)
    RequirePolynomial().run(merged, Context())
    rng = np.random.default_rng(seed)
    inputs = {label: 0.5 * rng.normal(size=(2, 2, 6)) for label in "xw"}
    old, new = run_tensor(program, inputs), run_tensor(merged, inputs)
    for label, expected in old.items():
        np.testing.assert_allclose(new[label], expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_ranges_still_hold_every_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = {label: 0.5 * rng.normal(size=(4, 2, 6)) for label in "xw"}
    program = random_program(seed)
    merged = merge(with_ranges(program, observe_ranges(program, inputs)))
    for op, array in trace_tensor(merged, inputs):
        if tensor_type(op.defined).secret:
            interval = tensor_type(op.defined).interval
            assert interval is not None
            slack = 1e-9 * (1.0 + interval.magnitude)
            assert interval.lower - slack <= array.min()
            assert array.max() <= interval.upper + slack


def test_merging_twice_changes_nothing() -> None:
    for seed in range(60):
        once = merge(random_program(seed))
        assert merge(once) == once


def test_a_view_of_a_value_that_is_computed_anyway_is_no_second_map() -> None:
    b = Builder(name="m")
    x = secret(b, "x", 1, 4)
    pre = b.emit(tensor.MatMul(x=x, y=clear(b, np.arange(32.0).reshape(4, 8))), "pre")
    half = b.emit(movement.Slice(x=pre, axis=1, start=4, stop=8), "half")
    merged = merge(
        finish(b, y=b.emit(tensor.Mul(x=pre, y=pre)), z=b.emit(tensor.Mul(x=half, y=half)))
    )
    assert len(merged.select(movement.Affine)) == 1
    assert len(merged.select(movement.Slice)) == 1


def test_an_inner_map_is_composed_into_each_linear_reader() -> None:
    b = Builder(name="m")
    x = secret(b, "x", 1, 4)
    inner = b.emit(tensor.MatMul(x=x, y=clear(b, np.eye(4) + 1.0)), "inner")
    left = b.emit(tensor.MatMul(x=inner, y=clear(b, np.ones((4, 2)))), "left")
    right = b.emit(tensor.Mul(x=inner, y=clear(b, 2.0)), "right")
    merged = merge(finish(b, left=left, right=right, square=b.emit(tensor.Mul(x=inner, y=inner))))
    affines = merged.select(movement.Affine)
    assert len(affines) == 3
    assert all(op.xs == (merged.select(tensor.Input)[0].result,) for op in affines)


def test_a_pruned_weight_cuts_the_operand_off() -> None:
    b = Builder(name="m")
    x, w = secret(b, "x", 2), secret(b, "w", 2)
    nothing = b.emit(tensor.Mul(x=w, y=clear(b, [0.0, 0.0])))
    total = b.emit(tensor.Add(x=b.emit(tensor.Mul(x=x, y=clear(b, [2.0, 3.0]))), y=nothing), "y")
    (affine,) = merge(finish(b, y=total)).select(movement.Affine)
    assert [v.name for v in affine.xs] == ["x"]


def test_a_clear_output_becomes_one_constant() -> None:
    b = Builder(name="m")
    secret(b, "x", 2)
    merged = merge(finish(b, y=b.emit(tensor.Add(x=clear(b, [1.0, 2.0]), y=clear(b, 1.0)))))
    (constant,) = merged.select(tensor.ConstantTensor)
    np.testing.assert_array_equal(merged.array(constant.value), [2.0, 3.0])


@pytest.mark.parametrize(("max_growth", "maps"), [(16.0, 2), (32.0, 1)])
def test_growth_decides_whether_maps_merge(max_growth: float, maps: int) -> None:
    b = Builder(name="m")
    x = secret(b, "x", 64)
    narrow = b.emit(tensor.MatMul(x=x, y=clear(b, np.ones((64, 1)))))
    wide = b.emit(tensor.MatMul(x=narrow, y=clear(b, np.ones((1, 64)))))
    merged = merge(finish(b, y=b.emit(tensor.Mul(x=wide, y=wide))), max_growth)
    # 4096 entries merged, 64 + 64 apart: 32 times as many.
    assert len(merged.select(movement.Affine)) == maps
