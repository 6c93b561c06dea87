"""Levels that the planner counts are those that the packer emits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.program import Builder, Program
from hecompile.ir.verifier import verify
from hecompile.levels import program_depth
from hecompile.packing.depth import Levels
from hecompile.packing.splitting import split_polynomials
from hecompile.passbase import Context
from hecompile.passes.insert_refresh import InsertRefresh
from hecompile.passes.lower_to_slots import LowerToSlots
from tests.differential.meaning import assert_same_meaning

SECTIONS = ((), (4,), (2, 2), (3,), (1, 2), (1, 1, 1), (5,), (2, 3))
BASES = ("monomial", "chebyshev")


def polynomial(coefficients: np.ndarray, basis: str, sections: tuple[int, ...]) -> Program:
    build = Builder(name="polynomial")
    x = build.emit(tensor.Input(label="x", dims=(1, sum(sections) or 4)), "x")
    parts = coefficients.shape[1]
    op = tensor.Polynomial(
        x=x,
        coefficients=build.constant(coefficients, "coefficients"),
        degree=len(coefficients) - 1,
        functions=("tanh",) * parts,
        lower=(-1.0,) * parts,
        upper=(1.0,) * parts,
        sections=sections if parts > 1 else (),
        basis=basis,
    )
    build.keep(tensor.Output(x=build.emit(op), label="y"))
    return build.finish()


@settings(deadline=None, derandomize=True, max_examples=120)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 15),
    st.sampled_from(BASES),
    st.sampled_from(SECTIONS),
    st.sampled_from(["any", "monic", "shift", "odd"]),
    st.sampled_from([0.0, 0.4]),
)
def test_levels_of_a_polynomial_are_those_that_are_emitted(
    seed: int, degree: int, basis: str, sections: tuple[int, ...], form: str, zeros: float
) -> None:
    random = np.random.default_rng(seed)
    table = random.uniform(-1, 1, (degree + 1, max(len(sections), 1)))
    table[1:-1] *= random.random((max(degree - 1, 0), 1)) >= zeros
    if form in ("monic", "shift"):
        table[-1] = 1.0
    if form == "shift":
        table[1:-1] = 0.0
    if form == "odd":
        table[(degree + 1) % 2 :: 2] = 0.0
    program = polynomial(table, basis, sections)
    packed = LowerToSlots(slots=8).run(program, Context())
    assert Levels(program).total() == program_depth(packed)
    assert Levels(program).total() <= degree.bit_length()
    assert_same_meaning(program, packed, 1e-8, "lower-to-slots")


@pytest.mark.parametrize("basis", BASES)
def test_a_shift_takes_no_level_whatever_its_sections(basis: str) -> None:
    program = polynomial(np.array([[0.5, -0.5], [1.0, 1.0]]), basis, (1, 2))
    assert Levels(program).total() == 0


def test_levels_begin_anew_at_a_refresh() -> None:
    build = Builder(name="levels")
    x = build.emit(tensor.Input(label="x", dims=(1, 2)), "x")
    square = build.emit(tensor.Mul(x=x, y=x))
    fresh = build.emit(move.Refresh(x=square))
    moved = build.emit(move.Slice(x=fresh, axis=1, start=0, stop=1))
    build.keep(tensor.Output(x=build.emit(tensor.Mul(x=moved, y=moved)), label="y"))
    used = Levels(build.finish()).used()
    assert list(used.values()) == [0, 1, 0, 0, 1]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 31),
    st.sampled_from(BASES),
    st.sampled_from(SECTIONS),
    st.sampled_from([0.0, 0.6]),
    st.integers(1, 4),
)
def test_polynomials_are_split_into_shallower_ones(
    seed: int, degree: int, basis: str, sections: tuple[int, ...], zeros: float, levels: int
) -> None:
    random = np.random.default_rng(seed)
    table = random.uniform(-1, 1, (degree + 1, max(len(sections), 1)))
    table[1:-1] *= random.random((degree - 1, 1)) >= zeros
    program = polynomial(table, basis, sections)
    split = split_polynomials(program, levels)
    verify(split)
    own = Levels(split)
    assert max(map(own.of, split)) <= levels
    assert own.total() <= degree.bit_length()
    assert_same_meaning(program, split, 1e-8, "split_polynomials")
    if Levels(program).total() <= levels:
        assert split == program
    cut = InsertRefresh(levels=levels).run(program, Context())
    assert_same_meaning(program, cut, 1e-8, "insert-refresh")
    packed = LowerToSlots(slots=8).run(cut, Context())
    assert program_depth(packed) <= levels
