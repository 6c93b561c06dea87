"""Slots of integer polynomials and back, with so many bits that masks cost no precision.

Key holder and evaluator compute the same function, one of m + r, the other of r. It is linear but
for rounding errors of 2**-100 of the mask, so that their difference is the function of m. Its
cosines are doubles: what they lack of the true ones is an error of 2**-50 of m, as both sides use
the same. This module uses numpy only, so that generated programs can hold a copy of it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hecompile.runtime.wide import Double, Factor, Wide, factor_of, nearest, product, total

_SIGN = np.array([-1.0, 1.0])


class Fourier:
    """The canonical embedding of polynomials with 2P real coefficients, in P slots.

    Slot j is the real part of the value at w**(3**j), w a primitive 4P-th root of unity, as in
    SEAL. Values at w**e for all e = 1 modulo 4 come from X**P - w**P, which is split in two by
    square roots of w**P, and so on.
    """

    def __init__(self, period: int) -> None:
        """Prepare for P slots, a power of two."""
        self.period = period
        self._stages: list[Factor] = []
        self._backward: list[Factor] = []
        exponents = np.array([period])
        while len(exponents) < period:
            halves = exponents // 2
            turns = 2.0 * np.pi * halves / (4 * period)
            parts = np.stack([np.cos(turns), np.sin(turns)])[:, None, None, :, None]
            self._stages.append(factor_of(parts))
            self._backward.append(factor_of(parts * -_SIGN.reshape(2, 1, 1, 1, 1)))
            exponents = np.stack([halves, halves + 2 * period], axis=1).ravel()
        place = np.empty(4 * period, dtype=np.int64)
        # Conjugate roots have values with the same real part.
        place[exponents] = place[-exponents] = np.arange(period)
        powers = [pow(3, j, 4 * period) for j in range(period)]
        self._places: NDArray[np.int64] = place[powers]

    def slots(self, coefficients: Double) -> Double:
        """Slots, shape (count, P), of polynomials, shape (count, 2P)."""
        count = len(coefficients.high)
        folded = (count, 2, self.period)
        x = Double(
            coefficients.high.reshape(folded).swapaxes(0, 1),
            coefficients.low.reshape(folded).swapaxes(0, 1),
        )
        for parts in self._stages:
            pairs = (2, count, parts.value.shape[3], 2, -1)
            high, low = x.high.reshape(pairs), x.low.reshape(pairs)
            even = Double(high[:, :, :, 0], low[:, :, :, 0])
            odd = _turned(Double(high[:, :, :, 1], low[:, :, :, 1]), parts)
            x = _joined(even, odd)
        return Double(
            x.high.reshape(folded[1], count, -1)[0][:, self._places],
            x.low.reshape(folded[1], count, -1)[0][:, self._places],
        )

    def coefficients(self, slots: Double) -> Double:
        """Polynomials with real slots, shape (count, 2P), from shape (count, P)."""
        count, period = slots.high.shape
        high, low = np.zeros((2, 2, count, period))
        high[0][:, self._places], low[0][:, self._places] = slots.high, slots.low
        x = Double(high / period, low / period)
        for parts in reversed(self._backward):
            pairs = (2, count, parts.value.shape[3], 2, -1)
            high, low = x.high.reshape(pairs), x.low.reshape(pairs)
            both = _joined(
                Double(high[:, :, :, 0], low[:, :, :, 0]), Double(high[:, :, :, 1], low[:, :, :, 1])
            )
            odd = _turned(Double(both.high[:, :, :, 1], both.low[:, :, :, 1]), parts)
            x = both
            x.high[:, :, :, 1], x.low[:, :, :, 1] = odd.high, odd.low
        flat = (2, count, period)
        return Double(
            np.concatenate(list(x.high.reshape(flat)), axis=1),
            np.concatenate(list(x.low.reshape(flat)), axis=1),
        )


def _turned(x: Double, parts: Factor) -> Double:
    """Products of complex numbers (real parts first) with cosines and sines."""
    found = product(Double(x.high[None], x.low[None]), parts)
    sign = _SIGN.reshape(2, *(1,) * (x.high.ndim - 1))
    crossed = Double(found.high[1, ::-1] * sign, found.low[1, ::-1] * sign)
    return total(Double(found.high[0], found.low[0]), crossed)


def _joined(even: Double, odd: Double) -> Double:
    """Their sum and difference, side by side."""
    sign = -_SIGN.reshape(2, 1)
    both = Double(odd.high[:, :, :, None] * sign, odd.low[:, :, :, None] * sign)
    return total(Double(even.high[:, :, :, None], even.low[:, :, :, None]), both)


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
