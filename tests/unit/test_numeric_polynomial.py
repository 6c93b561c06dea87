import numpy as np
import pytest

from hecompile.numeric.polynomial import Polynomial


def test_value_by_horner():
    x = np.linspace(-2, 2, 12).reshape(3, 4)
    np.testing.assert_allclose(Polynomial((1.0, -2.0, 0.5))(x), 1 - 2 * x + 0.5 * x**2)


@pytest.mark.parametrize(
    ("degree", "depth"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (7, 3), (8, 4), (15, 4), (16, 5)]
)
def test_depth(degree, depth):
    polynomial = Polynomial((1.0,) * (degree + 1))
    assert polynomial.degree == degree
    assert polynomial.depth == depth


def test_trailing_zeros_do_not_count():
    assert Polynomial((1.0, 2.0, 0.0, 0.0)) == Polynomial((1, 2))
    assert Polynomial((0.0, 0.0)).coefficients == (0.0,)
    assert Polynomial((0.0, 0.0)).depth == 0


def test_a_constant_keeps_the_shape():
    np.testing.assert_array_equal(Polynomial((3.0,))(np.zeros((2, 2))), np.full((2, 2), 3.0))


@pytest.mark.parametrize("coefficients", [(), (float("nan"),), (1.0, float("inf"))])
def test_bad_coefficients_are_refused(coefficients):
    with pytest.raises(ValueError, match="finite"):
        Polynomial(coefficients)
