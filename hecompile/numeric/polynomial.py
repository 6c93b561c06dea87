"""Real polynomials in the monomial basis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
        values = [float(value) for value in self.coefficients]
        if not values or not np.all(np.isfinite(values)):
            raise ValueError(f"coefficients of a polynomial must be finite numbers, got {values}")
        while len(values) > 1 and values[-1] == 0.0:
            values.pop()
        object.__setattr__(self, "coefficients", tuple(values))

    @property
    def degree(self) -> int:
        """The largest exponent (0 for constants, the zero polynomial included)."""
        return len(self.coefficients) - 1

    @property
    def depth(self) -> int:
        """Levels of an evaluation by a balanced tree: ceil(log2(degree + 1)), 0 for constants."""
        return self.degree.bit_length()

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evaluate elementwise by Horner's rule; the result has the shape of `x`."""
        points = np.asarray(x, dtype=np.float64)
        result = np.full_like(points, self.coefficients[-1])
        for coefficient in reversed(self.coefficients[:-1]):
            result = result * points + coefficient
        return result
