"""Variances of slots, what operations add to them, and how slot vectors of noise combine.

Sums and products keep single precision: what is of noise needs few digits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from hecompile.ir.constants import Array

NOTHING: Final = np.zeros((1, 1))
"""The variance of what has no noise, in all slots."""


@dataclass(frozen=True)
class Rounding:
    """Rounding errors of encoded vectors: independent slots, the same in every repetition.

    Attributes:
        variance: of one slot's rounding.
        width: slots after which it repeats.
        factors: what it is multiplied by, one array for each vector; none means 1.
        squares: sum of the factors' squares; (1, 1) if there are none.
    """

    variance: float
    width: int
    factors: tuple[Array, ...]
    squares: Array


@dataclass(frozen=True)
class Source:
    """What an operation adds to its result.

    Attributes:
        even: variance of what differs from copy to copy, of the mean over the copies, where it is
            the same in all slots.
        own: the same where it is not.
        known: error that is known, from numbers encoded for all slots.
        rounding: of encoded vectors.
        key: steps and level of the key switch, if it is one.
        scale: of the result of the key switch.
    """

    even: float = 0.0
    own: Array | None = None
    known: Array | None = None
    rounding: Rounding | None = None
    key: tuple[int, int] | None = None
    scale: float = 1.0


SILENT = Source()
"""Nothing is added."""


@dataclass(frozen=True)
class Spread:
    """Variances of a value's slots: an array, and what is added to all of it.

    Much noise is alike in all slots; adding it up as a number spares most passes over arrays.
    """

    slots: Array
    even: float = 0.0

    def total(self) -> Array:
        """All in one array (runs or 1, width)."""
        return self.slots + self.even if self.even else self.slots


def squared(x: Array) -> Array:
    """Squares, as exact as factors of variances need to be."""
    return np.asarray(np.square(x, dtype=np.float32))


def sum_of_squares(*factors: Array) -> Array:
    """Sum of the squares of slot vectors (runs or 1, width), over the longest width."""
    if len({x.shape for x in factors}) == 1:
        stacked = np.stack(factors)
        return np.asarray(np.einsum("nrs,nrs->rs", stacked, stacked))
    total = NOTHING
    for x in factors:
        total = plus(total, x**2)
    return total


def turned(x: Array, steps: int) -> Array:
    """Slot vectors (n or 1, p) moved to the right, cyclically: `np.roll`, with less ado."""
    ahead = steps % x.shape[1]
    return np.concatenate([x[:, x.shape[1] - ahead :], x[:, : x.shape[1] - ahead]], axis=1)


def times(x: Array, y: Array) -> Array:
    """Product of slot vectors (n or 1, p) and (n or 1, q), one a multiple of the other.

    This and `plus` keep single precision: what is of noise needs few digits.
    """
    return _aligned(np.multiply, x, y)


def plus(x: Array, y: Array) -> Array:
    """Sum of slot vectors (n or 1, p) and (n or 1, q), one a multiple of the other."""
    return _aligned(np.add, x, y)


def _aligned(function: np.ufunc, x: Array, y: Array) -> Array:
    if y.size == 1:
        return np.asarray(function(x, float(y[0, 0]), dtype=np.float32))
    if x.size == 1:
        return np.asarray(function(float(x[0, 0]), y, dtype=np.float32))
    short, long = sorted((x.shape[1], y.shape[1]))
    if short == long:
        return np.asarray(function(x, y, dtype=np.float32))
    cut = function(x.reshape(len(x), -1, short), y.reshape(len(y), -1, short), dtype=np.float32)
    return np.asarray(cut.reshape(len(cut), long))
