"""Polynomials in place of functions that a homomorphic scheme cannot evaluate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.polynomial import chebyshev
from numpy.typing import NDArray

from hecompile.errors import InputError
from hecompile.numeric.polynomial import ChebyshevSeries, chebyshev_series
from hecompile.numeric.remez import remez

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

METHODS: Final[tuple[str, ...]] = ("weighted", "chebyshev", "minimax")
"""Names of the fitting methods."""

MAX_DEGREE: Final = 255
"""Largest degree."""

# The samples' density alone leaves the ends of the domain free. On Gaussian samples, tanh of degree
# 3 and 7 is off at an end by 0.70 and 0.27 over an even floor of 0.1, by 0.36 and 0.10 over the
# arcsine measure, which is dense at the ends; the rms error on unseen samples grows by 7 %. An even
# floor of 0.5 is off by 0.41 and 0.15 there for 25 % more. An arcsine floor of 0.2 takes another
# quarter off the ends, but where samples fill a sixth of the domain it loses to interpolation.
ARCSINE_FLOOR: Final = 0.1
"""Share of the weight that "weighted" spreads over the domain by Chebyshev's arcsine measure."""

_BINS: Final = 64
_FIT_POINTS: Final = 1024
_MINIMAX_POINTS: Final = 4097
_POINTS_PER_TERM: Final = 16
_CHECK_POINTS: Final = 16385
_FLAT: Final = 1e-9


@dataclass(frozen=True)
class Fit:
    """A polynomial that stands for a function on a domain, with its measured error.

    Attributes:
        polynomial: The approximation, in the Chebyshev basis of the domain.
        method: One of `METHODS`.
        max_error: Largest |function - polynomial| over a dense grid of the domain.
        rms_error: Root mean square of the error over the samples, or over the grid without any.
    """

    polynomial: ChebyshevSeries
    method: str
    max_error: float
    rms_error: float

    @property
    def domain(self) -> tuple[float, float]:
        """The interval (low, high) that the polynomial was fitted on."""
        return self.polynomial.domain


def widen(domain: tuple[float, float], margin: float) -> tuple[float, float]:
    """Return the domain with both ends moved outwards by `margin` times its width.

    A domain of a single value counts as wide as that value's magnitude, or 1 for the value 0.

    Raises:
        InputError: If the domain is not an interval or the margin is negative.
    """
    low, high = _checked_domain(domain)
    if not (math.isfinite(margin) and margin >= 0):
        raise InputError(f"a domain cannot be widened by {margin}; the margin must be 0 or more.")
    width = high - low or abs(low) or 1.0
    return low - margin * width, high + margin * width


def fit(
    function: Function,
    domain: tuple[float, float],
    degree: int,
    method: str = "weighted",
    samples: NDArray[np.floating] | None = None,
) -> Fit:
    """Approximate `function` on `domain` by a polynomial of at most `degree`.

    Methods:
        weighted: Least squares on a grid, each point weighted by the density of the samples (a
            histogram, mixed with a floor of `ARCSINE_FLOOR`), uniform without samples.
        chebyshev: Interpolation at the Chebyshev nodes of the domain.
        minimax: Smallest sup error, by Remez exchange.

    All are solved in the Chebyshev basis of the domain, where they are well conditioned.
    Coefficients below rounding error, such as the even ones of an odd function, become exact
    zeros. A domain of a single value gives a constant.

    Args:
        function: Elementwise function on float64 arrays.
        domain: Interval (low, high), low <= high.
        degree: Largest degree, 0 to `MAX_DEGREE`.
        method: One of `METHODS`.
        samples: Observed inputs of the function, any shape, all within the domain.

    Raises:
        InputError: If an argument is out of range, a sample is not finite or lies outside the
            domain, or the function is not finite on the domain.
        CompileError: If the Remez exchange does not converge.
    """
    low, high = _checked_domain(domain)
    if method not in METHODS:
        raise InputError(
            f"fitting method '{method}' is not known; choose one of {', '.join(METHODS)}."
        )
    if not 0 <= degree <= MAX_DEGREE:
        raise InputError(f"degree {degree} cannot be fitted; choose one from 0 to {MAX_DEGREE}.")
    observed = None if samples is None else _checked_samples(samples, low, high)
    grid = _check_grid(low, high)
    exact = _evaluate(function, grid)
    if high - low <= _FLAT * max(abs(low), abs(high)):
        solution = _evaluate(function, np.array([low + (high - low) / 2]))
    else:
        solution = _solve(function, low, high, degree, method, observed)
    polynomial = chebyshev_series(solution, (low, high))
    error = np.abs(exact - polynomial(grid))
    residual = error if observed is None else _evaluate(function, observed) - polynomial(observed)
    return Fit(
        polynomial=polynomial,
        method=method,
        max_error=float(np.max(error)),
        rms_error=float(np.sqrt(np.mean(residual**2))),
    )


def _solve(
    function: Function, low: float, high: float, degree: int, method: str, samples: Array | None
) -> Array:
    """Return Chebyshev coefficients over the domain mapped to [-1, 1]."""
    if method == "chebyshev":
        nodes = chebyshev.chebpts1(degree + 1)
        values = _evaluate(function, _from_unit(nodes, low, high))
        solution = np.linalg.solve(chebyshev.chebvander(nodes, degree), values)
        return np.asarray(solution, dtype=np.float64)
    if method == "minimax":
        nodes = _extrema(_MINIMAX_POINTS)
        return remez(nodes, _evaluate(function, _from_unit(nodes, low, high)), degree)
    nodes = chebyshev.chebpts1(max(_FIT_POINTS, _POINTS_PER_TERM * (degree + 1)))
    points = _from_unit(nodes, low, high)
    weights = _weights(nodes, points, low, high, samples)
    basis = chebyshev.chebvander(nodes, degree)
    # The condition of these nodes' normal equations is that of the weights alone, some hundreds; a
    # step of refinement makes up for it (Björck 1987). A QR factorization takes ten times as long.
    gram = basis.T @ (basis * weights[:, None])
    solution, values = np.zeros(degree + 1), _evaluate(function, points)
    for _ in range(2):
        residual = weights * (values - basis @ solution)
        solution += np.linalg.solve(gram, basis.T @ residual)
    return solution


def _weights(nodes: Array, points: Array, low: float, high: float, samples: Array | None) -> Array:
    """Return the weight of each Chebyshev node: the samples' density over the floor."""
    # Evenly weighted Chebyshev nodes stand for the arcsine measure, this factor for an even one.
    even = np.pi / 2 * np.sqrt(1.0 - nodes**2)
    if samples is None:
        return np.asarray(even)
    counts, edges = np.histogram(samples, bins=_BINS, range=(low, high))
    share = counts / len(samples) * _BINS
    bins = np.searchsorted(edges, points, side="right").clip(1, _BINS) - 1
    weights: Array = ARCSINE_FLOOR + (1.0 - ARCSINE_FLOOR) * share[bins] * even
    return weights


def _extrema(count: int) -> Array:
    return np.asarray(-np.cos(np.pi * np.arange(count) / (count - 1)))


def _from_unit(unit: Array, low: float, high: float) -> Array:
    return np.asarray((low + high) / 2 + (high - low) / 2 * unit, dtype=np.float64)


def _check_grid(low: float, high: float) -> Array:
    """Return the points on which the error is measured, with the ends and 0, a usual kink."""
    grid = _from_unit(_extrema(_CHECK_POINTS), low, high).clip(low, high)
    return np.append(grid, 0.0) if low < 0.0 < high else grid


def _evaluate(function: Function, points: Array) -> Array:
    values = np.asarray(function(points), dtype=np.float64)
    if not np.all(np.isfinite(values)):
        worst = float(points[~np.isfinite(values)][0])
        raise InputError(
            f"the function to fit is not finite at {worst:g}; choose a domain on which it is."
        )
    return values


def _checked_domain(domain: tuple[float, float]) -> tuple[float, float]:
    low, high = float(domain[0]), float(domain[1])
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise InputError(
            f"({low:g}, {high:g}) is not a domain; give two finite ends in ascending order."
        )
    return low, high


def _checked_samples(samples: NDArray[np.floating], low: float, high: float) -> Array:
    flat = np.asarray(samples, dtype=np.float64).reshape(-1)
    if flat.size == 0:
        raise InputError("there are no samples to weight the fit with; give at least one.")
    if not np.all(np.isfinite(flat)):
        raise InputError("a sample to weight the fit with is not finite; remove NaN and infinity.")
    least, most = float(np.min(flat)), float(np.max(flat))
    if least < low or most > high:
        raise InputError(
            f"samples from {least:g} to {most:g} leave the domain ({low:g}, {high:g}); widen the"
            f" domain to hold them."
        )
    return flat
