"""drop-unread: what a cut leaves out is not computed."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.interpret.tensor import run_tensor
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.program import Builder, Program
from hecompile.ir.verifier import verify
from hecompile.passbase import Context
from hecompile.passes.drop_unread import DropUnread
from tests.unit.interpreting import clear, finish, secret

STEPS = 5


def chain(kept: tuple[int, ...], seed: int) -> Program:
    """Steps that each read the one before, joined, of which some are cut out by weights."""
    rng = np.random.default_rng(seed)
    b = Builder(name="m")
    value, rows = secret(b, "x", 1, 2), []
    for _ in range(STEPS):
        linear = b.emit(tensor.MatMul(x=value, y=clear(b, rng.normal(size=(2, 2)))))
        value = b.emit(tensor.Activation(x=linear, functions=("tanh",)))
        rows.append(b.emit(tensor.Mul(x=value, y=value)))
    joined = b.emit(movement.Concat(xs=tuple(rows), axis=0))
    weights = np.zeros((1, STEPS))
    weights[0, list(kept)] = 1.0
    return finish(b, y=b.emit(tensor.MatMul(x=clear(b, weights), y=joined)))


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, STEPS - 1), min_size=1), st.integers(0, 2**32 - 1))
def test_only_what_reaches_an_output_is_left(kept: set[int], seed: int) -> None:
    program = chain(tuple(sorted(kept)), seed)
    after = DropUnread().run(program, Context())
    verify(after)
    assert len(after.select(tensor.Activation)) == max(kept) + 1
    assert len(after.select(tensor.Mul)) == len(kept)
    inputs = {"x": np.random.default_rng(seed).normal(size=(4, 1, 2))}
    np.testing.assert_allclose(run_tensor(after, inputs)["y"], run_tensor(program, inputs)["y"])


def test_what_is_all_read_stays_the_same_program() -> None:
    program = chain(tuple(range(STEPS)), 0)
    assert DropUnread().run(program, Context()) is program


def test_what_depends_on_nothing_else_becomes_clear() -> None:
    b = Builder(name="m")
    x = secret(b, "x", 1, 2)
    unread = b.emit(tensor.Activation(x=x, functions=("tanh",)))
    doubled = b.emit(tensor.Neg(x=unread))
    read = b.emit(tensor.Activation(x=x, functions=("sigmoid",)))
    both = b.emit(movement.Concat(xs=(doubled, read), axis=1))
    program = finish(b, y=b.emit(movement.Slice(x=both, axis=1, start=2, stop=4)))
    after = DropUnread().run(program, Context())
    verify(after)
    assert [op.functions for op in after.select(tensor.Activation)] == [("sigmoid",)]
    inputs = {"x": np.ones((1, 1, 2))}
    np.testing.assert_allclose(run_tensor(after, inputs)["y"], run_tensor(program, inputs)["y"])
