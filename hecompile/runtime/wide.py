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

LARGEST = 2.0**100
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


@dataclass(frozen=True, eq=False)
class Factor:
    """Doubles to multiply with, and their two halves of 26 bits."""

    value: Reals
    above: Reals
    below: Reals


def factor_of(values: Reals) -> Factor:
    """Split doubles for `product`."""
    return Factor(values, *_halves(values))


def product(x: Double, factor: Factor) -> Double:
    """Their product with doubles, not brought into the usual form: give it to `total`."""
    high = x.high * factor.value
    upper, lower = _halves(x.high)
    rest = upper * factor.above
    rest -= high
    rest += upper * factor.below
    rest += lower * factor.above
    rest += lower * factor.below
    rest += x.low * factor.value
    return Double(high, rest)


def _halves(values: Reals) -> tuple[Reals, Reals]:
    scaled = values * _HALVES
    upper = scaled - (scaled - values)
    return upper, values - upper


def double_of(values: Wide) -> Double:
    """The integers as real numbers, exactly."""
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


def uniform(words: NDArray[np.uint64], size: int) -> Wide:
    """Integers in [-size, size) from uniform words, all alike but for 2**-81.

    The range is a number of at most 15 bits times a power of two: the power takes bits as they are,
    the number a product with a fraction of 96 bits (D. Lemire, Fast random integer generation in an
    interval, 2019, without its rejections).

    Args:
        words: Shape (4, count).
        size: At most 14 significant bits and then zeros, below 2**97.
    """
    shift = max(0, (2 * size).bit_length() - 15)
    number = np.uint64(2 * size >> shift)
    fine = (words[1] >> np.uint64(16)) * number >> np.uint64(48)
    top = ((words[0] >> np.uint64(16)) * number + fine >> np.uint64(48)).astype(np.int64)
    if shift < SPLIT:
        low = (top << shift) + (words[2] & np.uint64((1 << shift) - 1)).astype(np.int64)
        return Wide(np.zeros_like(low) - (size >> SPLIT), low - size % (1 << SPLIT))
    low = (words[2] & np.uint64((1 << SPLIT) - 1)).astype(np.int64)
    middle = (words[3] & np.uint64((1 << (shift - SPLIT)) - 1)).astype(np.int64)
    high = (top << (shift - SPLIT)) + middle
    return Wide(high - (size >> SPLIT), low - size % (1 << SPLIT))
