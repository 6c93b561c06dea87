from typing import Any

import numpy as np
import pytest

from hecompile.numeric.polynomial import ChebyshevSeries, Polynomial, chebyshev_series


def test_value_by_horner() -> None:
    x = np.linspace(-2, 2, 12).reshape(3, 4)
    np.testing.assert_allclose(Polynomial((1.0, -2.0, 0.5))(x), 1 - 2 * x + 0.5 * x**2)


@pytest.mark.parametrize(
    ("degree", "depth"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 5)]
)
def test_depth(degree: Any, depth: Any) -> None:
    polynomial = Polynomial((1.0,) * (degree + 1))
    assert polynomial.degree == degree
    assert polynomial.depth == depth


def test_trailing_zeros_do_not_count() -> None:
    assert Polynomial((1.0, 2.0, 0.0, 0.0)) == Polynomial((1, 2))
    assert Polynomial((0.0, 0.0)).coefficients == (0.0,)
    assert Polynomial((0.0, 0.0)).depth == 0


def test_a_constant_keeps_the_shape() -> None:
    np.testing.assert_array_equal(Polynomial((3.0,))(np.zeros((2, 2))), np.full((2, 2), 3.0))


@pytest.mark.parametrize("coefficients", [(), (float("nan"),), (1.0, float("inf"))])
def test_bad_coefficients_are_refused(coefficients: Any) -> None:
    with pytest.raises(ValueError, match="finite"):
        Polynomial(coefficients)


def test_a_series_is_the_same_polynomial_in_powers() -> None:
    series = ChebyshevSeries((0.5, -1.0, 2.0, 0.25), (-1.0, 4.0))
    x = np.linspace(-1, 4, 21)
    unit = (2 * x - 3) / 5
    expected = 0.5 - unit + 2 * (2 * unit**2 - 1) + 0.25 * (4 * unit**3 - 3 * unit)
    np.testing.assert_allclose(series(x), expected, atol=1e-14)
    np.testing.assert_allclose(series.to_monomials()(x), expected, atol=1e-13)
    assert series.unit_map == pytest.approx((0.4, -0.6))
    assert series.to_monomials().degree == series.degree == 3


def test_a_constant_series_needs_no_domain() -> None:
    series = ChebyshevSeries((3.0, 0.0), (2.0, 2.0))
    assert series.unit_map == (0.0, 0.0)
    assert series.to_monomials() == Polynomial((3.0,))
    np.testing.assert_array_equal(series(np.zeros((2, 2))), np.full((2, 2), 3.0))


@pytest.mark.parametrize("domain", [(1.0, 1.0), (2.0, 1.0)])
def test_a_domain_that_admits_no_map_is_refused(domain: Any) -> None:
    with pytest.raises(ValueError, match="no domain"):
        ChebyshevSeries((0.0, 1.0), domain)


def test_what_is_rounding_error_becomes_zero() -> None:
    series = chebyshev_series(np.array([1e-16, 1.0, -1e-17, 0.5, 1e-18]), (-2.0, 2.0))
    assert series.coefficients == (0.0, 1.0, 0.0, 0.5)
    assert series.to_monomials().coefficients[::2] == (0.0, 0.0)
