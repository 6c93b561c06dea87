"""Real factors of polynomials: linear ones and shifted squares, all with leading coefficient 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev

from hecompile.ir.constants import Array
from hecompile.ir.types import Interval


@dataclass(frozen=True)
class Square:
    """The factor `(x + shift)**2 + rest`."""

    shift: float
    rest: float

    def largest(self, over: Interval) -> float:
        """Largest absolute value over an interval."""
        ends = [(end + self.shift) ** 2 for end in (over.lower, over.upper)]
        inside = over.lower < -self.shift < over.upper
        least = 0.0 if inside else min(ends)
        return max(abs(least + self.rest), abs(max(ends) + self.rest))


@dataclass(frozen=True)
class Factors:
    """`leading * (x + root) * product of squares`, without the linear factor if root is None.

    Attributes:
        leading: the polynomial's leading coefficient.
        root: what the linear factor adds.
        squares: the quadratic factors.
    """

    leading: float
    root: float | None
    squares: tuple[Square, ...]

    def growth(self, over: Interval) -> float:
        """Product of the factors' largest values over the largest value of their product.

        Where factors are large in different places and cancel, their noise outweighs the result.
        """
        points = np.linspace(over.lower, over.upper, 257)
        product = np.ones_like(points)
        bound = 1.0
        if self.root is not None:
            product *= points + self.root
            bound *= float(np.abs(points + self.root).max())
        for square in self.squares:
            product *= (points + square.shift) ** 2 + square.rest
            bound *= square.largest(over)
        return bound / max(float(np.abs(product).max()), 1e-300)


def factorize(coefficients: Array, basis: str, over: Interval) -> Factors | None:
    """Write a polynomial as a product of real factors with the least growth over an interval.

    A polynomial of odd degree has a real root; the other roots come in pairs, complex conjugates
    or neighbours on the real line.

    Args:
        coefficients: (degree + 1,), ascending, the last one not zero.
        basis: "monomial" or "chebyshev".
        over: what the operand's values stay in.

    Returns:
        The factors; None for degrees below 2, and where rounding would spoil them.
    """
    powers = chebyshev.cheb2poly(coefficients) if basis == "chebyshev" else coefficients
    if len(powers) < 3 or not powers[-1]:
        return None
    found = [
        Factors(float(powers[-1]), root, squares)
        for root, squares in _pairings(np.roots(powers[::-1]), len(powers) - 1)
    ]
    exact = [one for one in found if _is_product(one, powers, over)]
    return min(exact, key=lambda one: one.growth(over), default=None)


def _pairings(roots: np.ndarray, degree: int) -> Iterator[tuple[float | None, tuple[Square, ...]]]:
    """Ways to split roots into at most one real root and pairs."""
    real = np.sort(roots.real[np.abs(roots.imag) <= 1e-12 * np.abs(roots)])
    upper = roots[roots.imag > 1e-12 * np.abs(roots)]
    if len(real) + 2 * len(upper) != degree:
        return
    complex_ = [Square(float(-z.real), float(z.imag**2)) for z in upper]
    for i in range(len(real)) if degree % 2 else (None,):
        rest = real if i is None else np.delete(real, i)
        squares = [
            Square(float(-(low + high) / 2), float(-(((high - low) / 2) ** 2)))
            for low, high in zip(rest[0::2], rest[1::2], strict=True)
        ]
        yield None if i is None else float(-real[i]), (*complex_, *squares)


def _is_product(factors: Factors, powers: Array, over: Interval) -> bool:
    """Whether the factors multiply to the polynomial up to rounding."""
    points = np.linspace(over.lower, over.upper, 65)
    product = np.full_like(points, factors.leading)
    if factors.root is not None:
        product *= points + factors.root
    for square in factors.squares:
        product *= (points + square.shift) ** 2 + square.rest
    expected = np.polynomial.polynomial.polyval(points, powers)
    scale = max(float(np.abs(expected).max()), 1e-300)
    return bool(np.abs(product - expected).max() <= 1e-11 * scale)
