"""join-maps: random programs keep their meaning, gates apart become gates side by side."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.interpret.tensor import run_tensor
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.verifier import verify
from hecompile.packing.depth import Levels
from hecompile.passbase import Context
from hecompile.passes.join_maps import JoinMaps
from hecompile.pipeline import parse_pipeline
from tests.unit.interpreting import clear, finish, secret

MERGE = parse_pipeline("merge-linear,cse,dce")
CHECK = parse_pipeline("cse,dce,require-polynomial")


def activated(b: Builder, x: Value, rng: np.random.Generator) -> Value:
    degree = int(rng.integers(2, 6))
    basis = str(rng.choice(["monomial", "chebyshev"]))
    table = b.constant(0.3 * rng.normal(size=(degree + 1, 1)))
    named = rng.random() < 0.8
    return b.emit(
        tensor.Polynomial(
            x=x,
            coefficients=table,
            degree=degree,
            functions=("tanh",) * named,
            lower=(-1.0,) * named,
            upper=(1.0,) * named,
            basis=basis,
        )
    )


def gates_apart(seed: int) -> Program:
    """Layers of small maps of a few operands, their activations multiplied."""
    rng = np.random.default_rng(seed)
    b = Builder(name="m")
    values = [secret(b, "x", 1, 3), secret(b, "h", 1, 3)]
    for _ in range(int(rng.integers(2, 5))):
        gates = []
        for _ in range(int(rng.integers(2, 4))):
            chosen = rng.choice(len(values), size=int(rng.integers(1, 3)), replace=False)
            total: Value | None = None
            for i in chosen:
                weights = clear(b, 0.4 * rng.normal(size=(3, 3)))
                term = b.emit(tensor.MatMul(x=values[i], y=weights))
                total = term if total is None else b.emit(tensor.Add(x=total, y=term))
            assert total is not None
            gates.append(activated(b, total, rng) if rng.random() < 0.8 else total)
        values.append(b.emit(tensor.Mul(x=gates[0], y=gates[1])))
        values.extend(gates[2:])
    return finish(b, y=values[-1], z=values[-2])


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1))
def test_random_programs_keep_their_meaning_and_depth(seed: int) -> None:
    before = MERGE.run(gates_apart(seed), Context())
    after = CHECK.run(JoinMaps().run(before, Context()), Context())
    verify(after)
    inputs = {label: np.random.default_rng(seed).normal(size=(4, 1, 3)) for label in "xh"}
    old, new = run_tensor(before, inputs), run_tensor(after, inputs)
    for label, expected in old.items():
        np.testing.assert_allclose(new[label], expected, rtol=1e-9, atol=1e-9)
    assert len(after.select(movement.Affine)) <= len(before.select(movement.Affine))
    assert len(after.select(tensor.Polynomial)) <= len(before.select(tensor.Polynomial))
    assert max(Levels(after).used().values()) == max(Levels(before).used().values())


def four_gates(most: int) -> Program:
    b = Builder(name="m")
    x = secret(b, "x", 1, 3)
    rng = np.random.default_rng(0)
    gates = []
    for degree in (3, 3, 2, 7):
        pre = b.emit(tensor.MatMul(x=x, y=clear(b, rng.normal(size=(3, 4)))))
        table = b.constant(rng.normal(size=(degree + 1, 1)))
        gates.append(b.emit(tensor.Polynomial(x=pre, coefficients=table, degree=degree)))
    one, other = (b.emit(tensor.Mul(x=gates[i], y=gates[i + 1])) for i in (0, 2))
    program = finish(b, y=b.emit(tensor.Mul(x=one, y=other)))
    return CHECK.run(JoinMaps(most=most).run(MERGE.run(program, Context()), Context()), Context())


def test_polynomials_of_equally_many_levels_become_one() -> None:
    program = four_gates(2048)
    (affine,) = program.select(movement.Affine)
    assert affine.dims == (1, 16)
    joined = {op.degree: op.sections for op in program.select(tensor.Polynomial)}
    assert joined == {3: (4, 4, 4), 7: ()}


def test_large_results_stay_apart() -> None:
    program = four_gates(15)
    assert len(program.select(movement.Affine)) == 4
    assert len(program.select(tensor.Polynomial)) == 4
