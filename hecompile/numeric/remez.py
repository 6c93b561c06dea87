"""Best uniform polynomial approximation on a finite grid by Remez exchange."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import CompileError

Array = NDArray[np.float64]

MAX_ITERATIONS: Final = 200
"""Exchanges before the algorithm gives up."""

RELATIVE_TOLERANCE: Final = 1e-6
"""Largest accepted excess of the sup error over the levelled error, relative to the sup error."""

_ROUNDING: Final = 1e-12


def remez(nodes: Array, values: Array, degree: int) -> Array:
    """Return the Chebyshev coefficients of the minimax polynomial on a grid.

    Each step solves p(x_i) + (-1)^i E = f(x_i) on degree + 2 reference points and moves the
    reference to the alternating extrema of the error; where the error does not alternate often
    enough (|E| near zero), a single point is exchanged, as de la Vallee Poussin does, and |E|
    still grows. Source: Cheney, Introduction to Approximation Theory, 1966, chapter 3.

    It has converged when the sup error on the grid exceeds |E|, a lower bound of the best
    possible sup error, by no more than `RELATIVE_TOLERANCE` of itself (or by rounding error).

    Args:
        nodes: Ascending grid in [-1, 1], more than degree + 2 points.
        values: The function on the grid.
        degree: Degree of the polynomial, >= 0.

    Returns:
        degree + 1 coefficients in the Chebyshev basis of [-1, 1].

    Raises:
        CompileError: If `MAX_ITERATIONS` exchanges do not reach the convergence criterion.
    """
    vandermonde = np.polynomial.chebyshev.chebvander(nodes, degree)
    signs = (-1.0) ** np.arange(degree + 2)
    rounding = _ROUNDING * float(np.max(np.abs(values)))
    extrema = -np.cos(np.pi * np.arange(degree + 2) / (degree + 1))
    reference = np.searchsorted(nodes, extrema).clip(0, len(nodes) - 1)
    for _ in range(MAX_ITERATIONS):
        system = np.column_stack([vandermonde[reference], signs])
        solution = np.linalg.solve(system, values[reference])
        coefficients, levelled = solution[:-1], float(solution[-1])
        error = values - vandermonde @ coefficients
        sup = float(np.max(np.abs(error)))
        if sup - abs(levelled) <= RELATIVE_TOLERANCE * sup + rounding:
            return np.asarray(coefficients, dtype=np.float64)
        reference = _exchange(error, reference, levelled)
    raise CompileError(
        f"minimax fit of degree {degree} did not converge in {MAX_ITERATIONS} exchanges; use"
        f" method 'weighted' or 'chebyshev', or another degree."
    )


def _exchange(error: Array, reference: NDArray[np.intp], levelled: float) -> NDArray[np.intp]:
    """Return the next reference: all alternating extrema if there are enough, else one new."""
    peaks = _alternating_peaks(error)
    wanted = len(reference)
    if len(peaks) < wanted:
        return _exchange_one(error, reference, levelled)
    while len(peaks) > wanted:
        first, last = abs(error[peaks[0]]), abs(error[peaks[-1]])
        if len(peaks) == wanted + 1:
            peaks = peaks[1:] if first < last else peaks[:-1]
            continue
        # Two must go: a neighbouring pair keeps the alternation, as do both ends.
        magnitudes = np.abs(error[peaks])
        pairs = np.maximum(magnitudes[:-1], magnitudes[1:])
        weakest = int(np.argmin(pairs))
        if max(first, last) <= pairs[weakest]:
            peaks = peaks[1:-1]
        else:
            peaks = np.delete(peaks, [weakest, weakest + 1])
    return peaks


def _alternating_peaks(error: Array) -> NDArray[np.intp]:
    """Return the index of the largest |error| in each run of equal sign."""
    positive = error >= 0
    starts = np.concatenate([[0], np.flatnonzero(positive[1:] != positive[:-1]) + 1, [len(error)]])
    magnitudes = np.abs(error)
    return np.array(
        [low + int(np.argmax(magnitudes[low:high])) for low, high in pairwise(starts)],
        dtype=np.intp,
    )


def _exchange_one(error: Array, reference: NDArray[np.intp], levelled: float) -> NDArray[np.intp]:
    """Bring the point of largest |error| in for the neighbour that has the same sign."""
    entering = int(np.argmax(np.abs(error)))
    base = 1.0 if levelled >= 0 else -1.0
    signs = base * (-1.0) ** np.arange(len(reference))
    sign = 1.0 if error[entering] >= 0 else -1.0
    position = int(np.searchsorted(reference, entering))
    result = reference.copy()
    if 0 < position < len(reference):
        result[position if signs[position] == sign else position - 1] = entering
    elif position == 0:
        if signs[0] == sign:
            result[0] = entering
        else:
            result = np.concatenate([[entering], reference[:-1]])
    elif signs[-1] == sign:
        result[-1] = entering
    else:
        result = np.concatenate([reference[1:], [entering]])
    return result.astype(np.intp)
