"""Real factors multiply to their polynomial."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev, polynomial

from hecompile.factors import Factors, Square, factorize
from hecompile.ir.constants import Array
from hecompile.ir.types import Interval

OVER = Interval(-1.5, 1.0)


def multiplied(factors: Factors, points: Array) -> Array:
    product = np.full_like(points, factors.leading)
    if factors.root is not None:
        product *= points + factors.root
    for square in factors.squares:
        product *= (points + square.shift) ** 2 + square.rest
    return product


@pytest.mark.parametrize("basis", ["monomial", "chebyshev"])
@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), degree=st.integers(2, 7))
def test_factors_multiply_to_the_polynomial(basis: str, seed: int, degree: int) -> None:
    coefficients = np.random.default_rng(seed).normal(size=degree + 1)
    factors = factorize(coefficients, basis, OVER)
    assert factors is not None
    assert 2 * len(factors.squares) + (factors.root is not None) == degree
    points = np.linspace(OVER.lower, OVER.upper, 50)
    values = chebyshev.chebval if basis == "chebyshev" else polynomial.polyval
    expected = values(points, coefficients)
    np.testing.assert_allclose(multiplied(factors, points), expected, rtol=1e-9, atol=1e-9)
    assert factors.growth(OVER) >= 1.0 - 1e-12


def test_an_odd_cubic_keeps_its_zero() -> None:
    factors = factorize(np.array([0.0, 1.0, 0.0, -0.25]), "monomial", OVER)
    assert factors == Factors(-0.25, 0.0, (Square(0.0, -4.0),))


@pytest.mark.parametrize(
    "coefficients", [[1.0, 2.0], [1.0, 2.0, 0.0], [1.0, 1.0, 0.0, 1e-200]], ids=str
)
def test_what_has_no_factors_is_left(coefficients: list[float]) -> None:
    assert factorize(np.array(coefficients), "monomial", OVER) is None


def test_factors_that_are_large_in_different_places_grow() -> None:
    tame = factorize(np.array([0.0, 1.0, 0.0, -0.3]), "monomial", OVER)
    wild = Factors(1.0, None, (Square(-1.0, 0.0), Square(1.5, 0.0)))
    assert tame is not None
    assert tame.growth(OVER) < 2.5
    assert wild.growth(OVER) > 10.0
