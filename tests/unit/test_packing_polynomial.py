"""Evaluation of polynomials on ciphertexts: the value, the depth and the number of products."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev, polynomial

from hecompile.errors import PassError
from hecompile.interpret.slots import run_slots
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.graph import multiplicative_depth
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.verifier import verify
from hecompile.packing.polynomial import evaluate_polynomial

SLOTS = 8
POINTS = np.random.default_rng(0).uniform(-1, 1, (50, SLOTS))
VALUES = {"chebyshev": chebyshev.chebval, "monomial": polynomial.polyval}


def evaluated(coefficients: Array, basis: str) -> tuple[Program, Value]:
    build = Builder(name="p")
    op = he.Input(label="x", dims=(SLOTS,), period=SLOTS, first=0, count=SLOTS, stride=1)
    y = evaluate_polynomial(build, build.emit(op, "x"), coefficients, basis)
    build.keep(he.Output(xs=(y,), label="y", dims=(SLOTS,), post=()))
    program = build.finish()
    verify(program)
    return program, y


def count(program: Program, kind: type[Operation]) -> int:
    return len(program.select(kind))


@pytest.mark.parametrize("basis", VALUES)
@pytest.mark.parametrize("degree", [*range(1, 18), 31, 33, 63, 100, 127, 255])
@pytest.mark.parametrize("columns", [1, SLOTS])
def test_value_and_depth(basis: str, degree: int, columns: int) -> None:
    falling = 1.0 / np.arange(1, degree + 2)[:, None]
    coefficients = np.random.default_rng(degree).normal(size=(degree + 1, columns)) * falling
    program, y = evaluated(coefficients, basis)
    expected = VALUES[basis](POINTS, np.broadcast_to(coefficients, (degree + 1, SLOTS)), False)
    found = run_slots(program, {"x": POINTS})[y.name]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert multiplicative_depth(program) == degree.bit_length()


@pytest.mark.parametrize(("degree", "products"), [(3, 2), (7, 5), (15, 8), (31, 13), (127, 27)])
@pytest.mark.parametrize("basis", VALUES)
def test_products_of_ciphertexts_grow_like_the_root_of_the_degree(
    basis: str, degree: int, products: int
) -> None:
    coefficients = np.random.default_rng(1).normal(size=(degree + 1, 1))
    assert count(evaluated(coefficients, basis)[0], he.Mul) == products


def test_a_symmetric_polynomial_costs_less() -> None:
    coefficients = np.random.default_rng(2).normal(size=(64, 1))
    whole = count(evaluated(coefficients, "chebyshev")[0], he.Mul)
    coefficients[::2] = 0.0
    assert count(evaluated(coefficients, "chebyshev")[0], he.Mul) <= whole


def test_a_power_alone_takes_no_plaintext() -> None:
    program, _ = evaluated(np.array([[0.0], [0.0], [1.0]]), "monomial")
    assert (count(program, he.Mul), count(program, he.MulPlain)) == (1, 0)
    assert multiplicative_depth(program) == 1


def test_a_constant_is_refused() -> None:
    with pytest.raises(PassError, match="constant"):
        evaluated(np.array([[1.0], [0.0]]), "chebyshev")
