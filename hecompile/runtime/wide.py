"""Arrays of integers of up to 100 bits, and of real numbers with twice a double's precision.

A real number is the sum of two doubles, of which the second is at most half a unit in the last
place of the first: 106 bits (T. J. Dekker, A floating-point technique for extending the available
precision, 1971; D. E. Knuth, TAOCP volume 2, 4.2.2). This module uses numpy only, so that generated
programs can hold a copy of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.int64]
Reals = NDArray[np.float64]

SPLIT = 48
"""Bits of the lower part of an integer."""

LARGEST = 2.0**97
"""Numbers beyond it are cut to it: no masked value is as large."""

_HALVES = 134217729.0


@dataclass(frozen=True, eq=False)
class Wide:
    """Integers high * 2**48 + low, below 2**101 in absolute value; the parts have one shape."""

    high: Integers
    low: Integers


@dataclass(frozen=True, eq=False)
class Double:
    """Real numbers high + low; the parts have one shape."""

    high: Reals
    low: Reals


def whole(values: Wide) -> list[int]:
    """The integers themselves, flattened."""
    pairs = zip(values.high.ravel().tolist(), values.low.ravel().tolist(), strict=True)
    return [(high << SPLIT) + low for high, low in pairs]


def total(x: Double, y: Double) -> Double:
    """Their sum."""
    high = x.high + y.high
    part = high - x.high
    low = (x.high - (high - part)) + (y.high - part) + (x.low + y.low)
    result = high + low
    return Double(result, low - (result - high))


def product(x: Double, factor: Reals) -> Double:
    """Their product with doubles, not brought into the usual form: give it to `total`."""
    high = x.high * factor
    upper, lower = _halves(x.high)
    above, below = _halves(factor)
    rest = ((upper * above - high) + upper * below + lower * above) + lower * below
    return Double(high, rest + x.low * factor)


def _halves(values: Reals) -> tuple[Reals, Reals]:
    scaled = values * _HALVES
    upper = scaled - (scaled - values)
    return upper, values - upper


def double_of(values: Wide) -> Double:
    """The integers as real numbers, exactly: those below 2**97 in absolute value."""
    rough = values.low.astype(np.float64)
    rest = (values.low - rough.astype(np.int64)).astype(np.float64)
    upper = values.high.astype(np.float64) * 2.0**SPLIT
    return total(Double(upper, np.zeros_like(upper)), Double(rough, rest))


def nearest(values: Double) -> Wide:
    """The nearest integers, cut to `LARGEST`."""
    upper = np.clip(values.high, -LARGEST, LARGEST)
    high = np.floor(upper * 2.0**-SPLIT)
    low = np.where(upper == values.high, values.low, 0.0) + (upper - high * 2.0**SPLIT)
    return Wide(high.astype(np.int64), np.rint(low).astype(np.int64))
