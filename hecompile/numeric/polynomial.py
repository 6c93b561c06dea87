"""Real polynomials in the monomial basis and in the Chebyshev basis of an interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Polynomial:
    """A polynomial sum of coefficients[k] * x**k.

    Attributes:
        coefficients: Coefficients in ascending order of the exponent. Trailing zeros are removed,
            so that equal polynomials compare equal; the zero polynomial is (0.0,).

    Raises:
        ValueError: If a coefficient is not finite or there is none.
    """

    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        """Bring the coefficients into canonical form."""
        object.__setattr__(self, "coefficients", _canonical(self.coefficients))

    @property
    def degree(self) -> int:
        """The largest exponent (0 for constants, the zero polynomial included)."""
        return len(self.coefficients) - 1

    @property
    def depth(self) -> int:
        """Levels of an evaluation by a balanced tree: ceil(log2(degree + 1)), 0 for constants."""
        return self.degree.bit_length()

    def __call__(self, x: Array) -> Array:
        """Evaluate elementwise by Horner's rule; the result has the shape of `x`."""
        points = np.asarray(x, dtype=np.float64)
        result = np.full_like(points, self.coefficients[-1])
        for coefficient in reversed(self.coefficients[:-1]):
            result = result * points + coefficient
        return result


@dataclass(frozen=True)
class ChebyshevSeries:
    """A polynomial sum of coefficients[k] * T_k(u), where u is x mapped from `domain` to [-1, 1].

    Attributes:
        coefficients: Coefficients in ascending order of the degree, canonical as in `Polynomial`.
        domain: The interval (low, high), low <= high; a single value admits constants only.

    Raises:
        ValueError: If a coefficient is not finite, there is none, or the domain admits no map.
    """

    coefficients: tuple[float, ...]
    domain: tuple[float, float]

    def __post_init__(self) -> None:
        """Bring the coefficients into canonical form and check the domain."""
        object.__setattr__(self, "coefficients", _canonical(self.coefficients))
        low, high = self.domain
        if low > high or (low == high and self.degree):
            raise ValueError(f"({low:g}, {high:g}) is no domain of a polynomial that varies")

    @property
    def degree(self) -> int:
        """The largest degree of a term (0 for constants, zero included)."""
        return len(self.coefficients) - 1

    @property
    def unit_map(self) -> tuple[float, float]:
        """Factor and shift of the map u = factor * x + shift; zeros where the value is constant."""
        low, high = self.domain
        if not self.degree:
            return 0.0, 0.0
        return 2.0 / (high - low), -(high + low) / (high - low)

    def __call__(self, x: Array) -> Array:
        """Evaluate elementwise by Clenshaw's recurrence; the result has the shape of `x`."""
        factor, shift = self.unit_map
        points = np.asarray(x, dtype=np.float64)
        return np.asarray(chebyshev.chebval(factor * points + shift, self.coefficients))

    def to_monomials(self) -> Polynomial:
        """The same polynomial in powers of x.

        The conversion loses digits as the degree grows and as the domain lies far from zero.
        Coefficients whose whole contribution on the domain is below rounding error become zeros.
        """
        factor, shift = self.unit_map
        composed: Array = np.zeros(1)
        for coefficient in chebyshev.cheb2poly(self.coefficients)[::-1]:
            scaled = np.polynomial.polynomial.polymul(composed, [shift, factor])
            composed = np.asarray(np.polynomial.polynomial.polyadd(scaled, [coefficient]))
        powers = np.arange(len(composed), dtype=np.float64)
        reach = max(abs(end) for end in self.domain)
        return Polynomial(_without_rounding(composed, np.abs(composed) * reach**powers))


def chebyshev_series(coefficients: Array, domain: tuple[float, float]) -> ChebyshevSeries:
    """A series from computed coefficients; those below rounding error become zeros."""
    return ChebyshevSeries(_without_rounding(coefficients, np.abs(coefficients)), domain)


_NEGLIGIBLE = 1e-14


def _without_rounding(coefficients: Array, contribution: Array) -> tuple[float, ...]:
    """Coefficients, exact zeros where the contribution to the value is rounding error."""
    threshold = _NEGLIGIBLE * len(coefficients) * float(np.max(contribution))
    return tuple(float(value) for value in np.where(contribution <= threshold, 0.0, coefficients))


def _canonical(coefficients: tuple[float, ...]) -> tuple[float, ...]:
    values = [float(value) for value in coefficients]
    if not values or not np.all(np.isfinite(values)):
        raise ValueError(f"coefficients of a polynomial must be finite numbers, got {values}")
    while len(values) > 1 and values[-1] == 0.0:
        values.pop()
    return tuple(values)
