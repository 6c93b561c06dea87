"""Slots of integer polynomials and back, with so many bits that masks cost no precision.

Key holder and evaluator compute the same function, one of m + r, the other of r. It is linear but
for rounding errors of small parts of an integer, so that their difference is the function of m. Its
cosines have 33 bits: what they lack of the true ones is an error of 2**-33 of m, as both sides use
the same. None of them is so near the middle of two such numbers that another machine's cosines
could round to the other one; all else is exact, or rounded as IEEE 754 says. This module uses numpy
only, so that generated programs can hold a copy of it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hecompile.runtime.wide import (
    Double,
    Factor,
    Reals,
    Wide,
    factor_of,
    nearest,
    product,
    total,
)

PROTOCOL = 1
"""Number of this arithmetic: both sides must have the same, or masks leave noise of their size."""

_SIGN = np.array([-1.0, 1.0])
_DIGIT = 12
_FINE = 33
"""Products of digits of 12 bits, signed, and cosines of 34, 256 of them, add up exactly in 53.

Of 34 bits, one cosine of a period of 256 is midway: machines would round it up or down.
"""
_LEAST = -10
"""Numbers are taken to so many bits after the point."""
_SINGLE = 64
"""Up to this period one matrix is quicker than two."""


class Fourier:
    """The canonical embedding of polynomials with 2P real coefficients, in P slots.

    Slot j is the real part of the value at w**(3**j), w a primitive 4P-th root of unity, as in
    SEAL. Of conjugate roots one has an exponent of 4t + 1; values there are a discrete Fourier
    transform of P numbers (c[k] + i c[k + P]) w**k. That is done in two steps, of about sqrt(P)
    numbers each (W. M. Gentleman and G. Sande, Fast Fourier transforms for fun and profit, 1966),
    which are products of matrices: exact ones, as numbers are cut into digits.
    """

    def __init__(self, period: int) -> None:
        """Prepare for P slots, a power of two."""
        self.period = period
        self._first = period if period <= _SINGLE else 1 << period.bit_length() // 2
        self._second = period // self._first
        rows, columns = np.arange(self._first), np.arange(self._second)
        root = self._cosines((4 * rows[:, None] + 1) * rows * self._second)
        self._matrices = [np.block([[root[0], -root[1]], [root[1], root[0]]])]
        if self._second == 1:
            self._matrices = [self._matrices[0][:period]]
        else:
            last = self._cosines(4 * columns[:, None] * columns * self._first)
            self._matrices.append(np.concatenate([last[0], -last[1]], axis=1))
        between = (4 * rows[:, None] + 1) * columns
        parts = self._cosines(between)[:, None, None]
        self._between = factor_of(parts), factor_of(parts * -_SIGN.reshape(2, 1, 1, 1, 1))
        place = np.empty(4 * period, dtype=np.int64)
        exponents = 4 * np.arange(period) + 1
        # Conjugate roots have values with the same real part.
        place[exponents] = place[-exponents] = np.arange(period)
        powers = [pow(3, j, 4 * period) for j in range(period)]
        self._places: NDArray[np.int64] = place[powers]

    def _cosines(self, exponents: NDArray[np.int64]) -> Reals:
        """Cosines and sines with few bits, shape (2, ...)."""
        turns = np.pi * (exponents % (4 * self.period)) / (2 * self.period)
        found: Reals = np.rint(np.stack([np.cos(turns), np.sin(turns)]) * 2.0**_FINE) * 2.0**-_FINE
        return found

    def slots(self, coefficients: Double) -> Double:
        """Slots, shape (count, P), of polynomials, shape (count, 2P)."""
        count, first, second = len(coefficients.high), self._first, self._second
        x = _moved(coefficients, (count, 2 * first, second), (1, 0, 2))
        x = _exact_product(self._matrices[0], x, count * second)
        if second == 1:
            found = _moved(x, (first, count), (1, 0))
        else:
            x = _moved(x, (2, first, count, second), (0, 2, 1, 3))
            x = _moved(_turned(x, self._between[0]), x.high.shape, (0, 3, 1, 2))
            x = _exact_product(self._matrices[1], x, count * first)
            found = _moved(x, (second, count, first), (1, 0, 2))
        flat = (count, self.period)
        return Double(
            found.high.reshape(flat)[:, self._places], found.low.reshape(flat)[:, self._places]
        )

    def coefficients(self, slots: Double) -> Double:
        """Polynomials with real slots, shape (count, 2P), from shape (count, P)."""
        (count, period), first, second = slots.high.shape, self._first, self._second
        high, low = np.zeros((2, count, period))
        high[:, self._places], low[:, self._places] = slots.high, slots.low
        x = Double(high / period, low / period)
        if second == 1:
            x = _moved(x, (count, period), (1, 0))
        else:
            x = _moved(x, (count, second, first), (1, 0, 2))
            x = _exact_product(self._matrices[1].T, x, count * first)
            x = _moved(x, (2, second, count, first), (0, 2, 3, 1))
            x = _moved(_turned(x, self._between[1]), x.high.shape, (0, 2, 1, 3))
        x = _exact_product(self._matrices[0].T, x, count * second)
        x = _moved(x, (2 * first, count, second), (1, 0, 2))
        return Double(x.high.reshape(count, -1), x.low.reshape(count, -1))


def _moved(x: Double, shape: tuple[int, ...], axes: tuple[int, ...]) -> Double:
    return Double(x.high.reshape(shape).transpose(axes), x.low.reshape(shape).transpose(axes))


def _exact_product(matrix: Reals, x: Double, columns: int) -> Double:
    """A matrix of numbers with few bits, times one of `columns` columns, rows first."""
    high, low = x.high.reshape(-1, columns), x.low.reshape(-1, columns)
    place = int(np.frexp(np.abs(high).max())[1]) - _DIGIT + 1
    digits: list[Reals] = []
    places: list[int] = []
    while not places or places[-1] > _LEAST:
        digits.append(np.rint(high * 2.0**-place))
        places.append(place)
        rest = high - digits[-1] * 2.0**place
        high = rest + low
        part = high - rest
        low = (rest - (high - part)) + (low - part)
        place -= _DIGIT
    found = matrix @ np.concatenate(digits, axis=1)
    found = found.reshape(len(matrix), len(digits), columns) * np.exp2(places)[:, None]
    high, low = found[:, 0], np.zeros(found[:, 0].shape)
    for n in range(1, len(places)):
        before, high = high, high + found[:, n]
        part = high - before
        low += (before - (high - part)) + (found[:, n] - part)
    both = high + low
    return Double(both, low - (both - high))


def _turned(x: Double, parts: Factor) -> Double:
    """Products of complex numbers (real parts first) with cosines and sines."""
    found = product(Double(x.high[None], x.low[None]), parts)
    sign = _SIGN.reshape(2, *(1,) * (x.high.ndim - 1))
    crossed = Double(found.high[1, ::-1] * sign, found.low[1, ::-1] * sign)
    return total(Double(found.high[0], found.low[0]), crossed)


def separated(polynomial: Double, periods: Sequence[int]) -> list[Double]:
    """The real and the imaginary value in a polynomial, see `hecompile.ir.parcels`.

    Args:
        polynomial: Coefficients of the shape (2P,), P the longer period.
        periods: Those of the one or two values.

    Returns:
        For each value the coefficients at its period, with imaginary slots besides its own.
    """
    found, size = [], len(polynomial.high)
    for number, period in enumerate(periods):
        high, low = polynomial.high, polynomial.low
        if number:
            high, low = (np.concatenate([x[size // 2 :], -x[: size // 2]]) for x in (high, low))
        every = slice(None, None, size // (2 * period))
        found.append(Double(high[every], low[every]))
    return found


@functools.cache
def fourier(period: int) -> Fourier:
    """The embedding in `period` slots, made once."""
    return Fourier(period)


@dataclass(frozen=True, eq=False)
class Taken:
    """What the slots of a polynomial are.

    Attributes:
        source: The polynomial whose slot each slot takes, -1 for zero, shape (P,).
        place: That slot, 0 where there is none.
        ratios: The result's scale divided by that of each polynomial.
    """

    source: NDArray[np.int64]
    place: NDArray[np.int64]
    ratios: tuple[float, ...]


class Pool:
    """Slots of several polynomials, from which others are put together."""

    def __init__(self, polynomials: Sequence[Double]) -> None:
        """Take polynomials, of shape (2P,) each, P may differ."""
        slots: list[Double] = [Double(np.zeros(1), np.zeros(1))] * (1 + len(polynomials))
        sizes = [len(x.high) for x in polynomials]
        for size in dict.fromkeys(sizes):
            chosen = [n for n, found in enumerate(sizes) if found == size]
            stacked = Double(
                np.stack([polynomials[n].high for n in chosen]),
                np.stack([polynomials[n].low for n in chosen]),
            )
            found = fourier(size // 2).slots(stacked)
            for n, high, low in zip(chosen, found.high, found.low, strict=True):
                slots[n + 1] = Double(high, low)
        # The first slot is zero, for places that take nothing.
        self._starts = np.cumsum([0, *(len(x.high) for x in slots)])[:-1]
        self._high = np.concatenate([x.high for x in slots])
        self._low = np.concatenate([x.low for x in slots])

    def gather(self, wanted: Sequence[Taken]) -> list[Wide]:
        """Put polynomials together, and round their coefficients, of shape (2P,) each."""
        results: list[Wide | None] = [None] * len(wanted)
        periods = [len(one.source) for one in wanted]
        for period in dict.fromkeys(periods):
            chosen = [n for n, found in enumerate(periods) if found == period]
            source = np.stack([wanted[n].source for n in chosen])
            index = self._starts[source + 1] + np.stack([wanted[n].place for n in chosen])
            ratios = np.array([(0.0, *wanted[n].ratios) for n in chosen])
            factors = np.take_along_axis(ratios, source + 1, axis=1)
            slots = product(Double(self._high[index], self._low[index]), factor_of(factors))
            found = nearest(fourier(period).coefficients(slots))
            for n, high, low in zip(chosen, found.high, found.low, strict=True):
                results[n] = Wide(high, low)
        return [one for one in results if one is not None]
