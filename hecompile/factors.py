"""Real factors of polynomials: linear ones and shifted squares, all with leading coefficient 1."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from hecompile.ir.constants import Array
from hecompile.ir.types import Interval

Roots = NDArray[np.complex128]


@dataclass(frozen=True)
class Square:
    """The factor `(x + shift)**2 + rest`."""

    shift: float
    rest: float


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
        """How much noise of a factor counts in the product, both taken relative to their largest.

        It is large where factors are large in different places and their product is small.
        """
        points = np.linspace(over.lower, over.upper, 257)
        factors = [(points + square.shift) ** 2 + square.rest for square in self.squares]
        if self.root is not None:
            factors.append(points + self.root)
        product = max(float(np.abs(np.prod(factors, axis=0)).max()), 1e-300)
        others = (
            np.prod([f for j, f in enumerate(factors) if j != i], axis=0)
            for i in range(len(factors))
        )
        return max(
            float(np.abs(rest).max() * np.abs(one).max()) / product
            for one, rest in zip(factors, others, strict=True)
        )


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
    powers: Array = coefficients
    if basis == "chebyshev":
        powers = np.asarray(chebyshev.cheb2poly(coefficients), dtype=np.float64)
    if len(powers) < 3 or not powers[-1]:
        return None
    found = [
        Factors(float(powers[-1]), root, squares)
        for root, squares in _pairings(_roots(powers, over), len(powers) - 1)
    ]
    exact = [one for one in found if _is_product(one, powers, over)]
    return min(exact, key=lambda one: one.growth(over), default=None)


def _roots(powers: Array, over: Interval) -> Roots:
    """Complex roots; what is rounding beside the interval's size is zero."""
    roots = np.roots(powers[::-1]).astype(np.complex128)
    least = 1e-13 * over.magnitude
    real = np.where(np.abs(roots.real) < least, 0.0, roots.real)
    return np.asarray(real + 1j * np.where(np.abs(roots.imag) < least, 0.0, roots.imag))


def _pairings(roots: Roots, degree: int) -> Iterator[tuple[float | None, tuple[Square, ...]]]:
    """Ways to split roots into at most one real root and pairs."""
    real = np.sort(roots.real[np.abs(roots.imag) <= 1e-12 * np.abs(roots)])
    upper = roots[roots.imag > 1e-12 * np.abs(roots)]
    if len(real) + 2 * len(upper) != degree:
        return
    complex_ = [Square(float(-z.real), float(z.imag**2)) for z in upper]
    for i in range(len(real)) if degree % 2 else (None,):
        rest = real if i is None else np.delete(real, i)
        squares = [
            Square(_middle(low, high), float(-(((high - low) / 2) ** 2)))
            for low, high in zip(rest[0::2], rest[1::2], strict=True)
        ]
        yield None if i is None else float(-real[i]), (*complex_, *squares)


def _middle(low: float, high: float) -> float:
    """What centres two roots on zero; nothing if they are, but for rounding."""
    shift = float(-(low + high) / 2)
    return 0.0 if abs(shift) < 1e-13 * (high - low) else shift


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
