"""Arithmetic on wide integers and on numbers of two doubles, against Python's integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from hecompile.runtime.wide import (
    LARGEST,
    Double,
    Wide,
    double_of,
    factor_of,
    nearest,
    product,
    total,
    whole,
)

RNG = np.random.default_rng(5)


def random_wide(count: int, bits: int) -> Wide:
    values = [int.from_bytes(RNG.bytes(13), "little") % (2 << bits) - (1 << bits) for _ in
              range(count)]  # fmt: skip
    return Wide(np.array([v >> 48 for v in values]), np.array([v % (1 << 48) for v in values]))


def exact(x: Double) -> list[Fraction]:
    pairs = zip(x.high.ravel().tolist(), x.low.ravel().tolist(), strict=True)
    return [Fraction(high) + Fraction(low) for high, low in pairs]


@pytest.mark.parametrize("bits", [3, 40, 53, 60, 80, 99])
def test_integers_become_real_numbers_and_come_back(bits: int) -> None:
    values = random_wide(500, bits)
    assert exact(double_of(values)) == whole(values)
    assert whole(nearest(double_of(values))) == whole(values)


def test_a_large_lower_part_counts_in_full() -> None:
    values = Wide(np.array([-3, 0, 5]), np.array([(1 << 62) - 1, -(1 << 47), (1 << 61) + 7]))
    assert exact(double_of(values)) == whole(values)
    assert whole(nearest(double_of(values))) == whole(values)


def test_sums_and_products_keep_a_hundred_bits() -> None:
    x, y = (double_of(random_wide(500, bits)) for bits in (90, 88))
    factor = RNG.uniform(-1, 1, 500)
    zero = Double(np.zeros(500), np.zeros(500))
    found, scaled = exact(total(x, y)), exact(total(product(x, factor_of(factor)), zero))
    sizes = [Fraction(2) ** (90 - 100)] * 500
    for a, b, c, f, s, size in zip(exact(x), exact(y), found, factor, scaled, sizes, strict=True):
        assert abs(c - (a + b)) <= size
        assert abs(s - a * Fraction(f)) <= size


def test_rounding_goes_to_the_nearest_integer() -> None:
    base = double_of(random_wide(400, 85))
    parts = RNG.uniform(-0.4, 0.4, 400)
    moved = total(base, Double(parts, np.zeros(400)))
    assert whole(nearest(moved)) == whole(nearest(base))
    small = Double(np.array([0.4, -0.4, 2.6, -2.6]), np.zeros(4))
    assert whole(nearest(small)) == [0, 0, 3, -3]


def test_numbers_that_no_mask_makes_are_cut() -> None:
    huge = Double(np.array([1e300, -1e300, 2.0**120]), np.array([0.0, 5.0, -7.0]))
    assert whole(nearest(huge)) == [int(LARGEST), -int(LARGEST), int(LARGEST)]
