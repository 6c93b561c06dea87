"""Encrypted weights in programs: what the pass leaves, what the evaluator's form says."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.errors import PassError, ProgramError
from hecompile.interpret.slots import run_program_slots
from hecompile.ir import he_ops as he
from hecompile.ir.parser import parse
from hecompile.ir.printer import print_program
from hecompile.ir.program import Builder, Program
from hecompile.ir.public import has_weights, public_form, weight_arrays
from hecompile.ir.verifier import verify
from hecompile.passbase import Context
from hecompile.passes.encrypt_weights import MOST_WEIGHTS, EncryptWeights
from hecompile.runtime.spec import program_id

WEIGHTS = np.array([[0.75, -1.25, 0.0, 3.5], [0.125, 0.625, -0.375, 0.0]])
BIAS = np.array([0.1875, 0.0, 0.0, -0.4375])


def dense(weights: np.ndarray = WEIGHTS, bias: np.ndarray = BIAS) -> Program:
    """y = (sum of rotations of x times weights, plus bias) squared."""
    build = Builder(name="dense")
    period = weights.shape[1]
    x = build.emit(he.Input(label="x", dims=(1, 4), period=4, first=0, count=4), "x")
    xs = [x, *(build.emit(he.Rotate(x=x, steps=1 + i % 3)) for i in range(len(weights) - 1))]
    symbol = build.constant(weights, "w")
    total = build.emit(he.SumMulPlain(xs=tuple(xs), weights=symbol, period=period))
    encode = he.Encode(value=build.constant(bias, "b"), period=len(bias))
    total = build.emit(he.AddPlain(x=total, p=build.emit(encode)))
    square = build.emit(he.Mul(x=total, y=total))
    layout = build.annotate(square, layout=he.cipher_type(x).layout)
    build.keep(he.Output(xs=(layout,), label="y", dims=(1, 4)))
    return build.finish()


def encrypted(program: Program) -> Program:
    found = EncryptWeights().run(program, Context())
    verify(found)
    return found


def test_no_plaintext_product_or_sum_is_left() -> None:
    program = encrypted(dense())
    names = {op.name for op in program}
    assert not names & {"he.sum_mul_plain", "he.mul_plain", "he.add_plain", "he.encode"}
    assert [tuple(a) for a in weight_arrays(program).values()] == [*map(tuple, WEIGHTS), (*BIAS,)]
    x = {"x": np.random.default_rng(0).normal(size=(5, 1, 4))}
    expected = run_program_slots(dense(), x)["y"]
    np.testing.assert_allclose(run_program_slots(program, x)["y"], expected, atol=1e-12)


def test_single_numbers_stay_single_numbers() -> None:
    program = encrypted(dense(np.repeat([[0.5], [0.7]], 4, axis=1), np.full(4, 0.3)))
    assert [op.period for op in program.select(he.Weight)] == [1, 1, 1]


def test_a_row_of_one_number_among_others_is_not_told_apart() -> None:
    program = encrypted(dense(np.array([[0.5] * 4, [0.7, 0.7, 0.7, 0.8]])))
    assert [op.period for op in program.select(he.Weight)] == [4, 4, 4]


def test_weights_longer_than_all_operands_keep_their_period() -> None:
    build = Builder(name="wide")
    x = build.emit(he.Input(label="x", dims=(1, 1), period=1, first=0, count=1), "x")
    symbol = build.constant(np.full((1, 4), 0.5))
    y = build.emit(he.SumMulPlain(xs=(x,), weights=symbol, period=4))
    y = build.emit(he.Rotate(x=y, steps=2))
    build.keep(he.Output(xs=(y,), label="y", dims=(1, 1)))
    assert [op.period for op in encrypted(build.finish()).select(he.Weight)] == [4]


def test_too_many_weights_are_refused_with_their_number() -> None:
    rows = np.tile(WEIGHTS, (MOST_WEIGHTS // 2 + 1, 1))
    with pytest.raises(PassError, match=f"needs {len(rows) + 1} encrypted weights"):
        EncryptWeights().run(dense(rows), Context())


def test_the_public_form_holds_no_constant_and_no_digest_of_one() -> None:
    program = encrypted(dense())
    public = public_form(program)
    verify(public)
    assert not public.constants
    text = print_program(public)
    assert "sha256" not in text
    assert "@" not in text
    assert not any(repr(float(w)) in text for w in (*WEIGHTS.flat, *BIAS) if w)
    assert parse(text, {}) == public
    assert public_form(public) == public


def test_the_public_form_leaves_out_bounds_but_for_masked_values() -> None:
    build = Builder(name="bounds")
    x = build.emit(he.Input(label="x", dims=(1, 2), period=2, first=0, count=2), "x")
    weight = he.Weight(source="w", period=2, value=build.constant(np.array([0.5, 7.0])))
    weight_value = build.annotate(build.emit(weight), bound=8.8)
    product = build.emit(he.Relinearize(x=build.emit(he.Mul(x=x, y=weight_value))))
    product = build.annotate(product, bound=17.0)
    fresh = build.annotate(build.emit(he.Refresh(xs=(product,))), bound=17.0)
    total = build.annotate(build.emit(he.Add(x=fresh, y=fresh)), bound=34.0)
    build.keep(he.Output(xs=(total,), label="y", dims=(1, 2)))
    public = public_form(build.finish())
    bounds = {op.name: he.cipher_type(op.defined).bound for op in public if op.result}
    assert bounds["he.weight"] is None
    assert bounds["he.add"] is None
    assert (bounds["he.relinearize"], bounds["he.refresh"]) == (17.0, 17.0)


def test_owner_and_evaluator_identify_the_program_alike() -> None:
    program = encrypted(dense())
    assert program_id(program) == program_id(public_form(program))
    assert program_id(program) == program_id(encrypted(dense(WEIGHTS * 1.5)))
    assert program_id(program) != program_id(dense())


def test_programs_without_weights_are_public_as_they_are() -> None:
    program = dense()
    assert not has_weights(program)
    assert public_form(program) is program


def test_the_public_form_cannot_be_interpreted() -> None:
    public = public_form(encrypted(dense()))
    with pytest.raises(ProgramError, match="only the model's owner"):
        run_program_slots(public, {"x": np.ones((1, 1, 4))})
    with pytest.raises(ProgramError, match="only the model's owner"):
        weight_arrays(public)
