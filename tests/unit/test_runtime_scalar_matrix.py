"""Integer matrices times residues: exact for any sizes, signs and primes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.numeric.primes import ntt_primes
from hecompile.runtime.rawmemory import Residues
from hecompile.runtime.scalar_matrix import (
    Integers,
    Product,
    Splitter,
    choose_digits,
    integer_weights,
    weight_digits,
)


def matrix_times(weights: Integers, residues: Residues, prime: int) -> Residues:
    digits = choose_digits([weights], len(residues), prime)
    assert digits is not None
    cut = np.empty((digits.residue_count, *residues.shape))
    Splitter(digits, residues.shape[1])(list(residues), cut)
    return Product(weights, prime, digits)(list(cut))


def exact(weights: Integers, residues: Residues, prime: int) -> Residues:
    found = weights.astype(object) @ residues.astype(object) % prime
    return np.array(found, dtype=np.uint64)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(20, 60),
    st.integers(0, 60),
    st.integers(1, 6),
    st.integers(1, 40),
    st.integers(0, 2**32),
)
def test_every_residue_is_exact(
    prime_bits: int, weight_bits: int, results: int, operands: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    prime = ntt_primes(1024, [prime_bits])[0]
    top = 2**weight_bits
    weights = random.integers(-top, top, size=(results, operands), endpoint=True)
    weights[random.random(weights.shape) < 0.2] = 0
    residues = random.integers(0, prime, size=(operands, 33), dtype=np.uint64)
    residues[:, :4] = [0, 1, prime - 1, prime // 2]
    found = matrix_times(weights, residues, prime)
    assert np.array_equal(found, exact(weights, residues, prime))


@pytest.mark.parametrize("prime_bits", [28, 30, 54, 60])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_are_exact(prime_bits: int, sign: int) -> None:
    prime = ntt_primes(8192, [prime_bits])[0]
    weights = np.full((3, 1500), sign * (2**30 - 1))
    residues = np.full((1500, 5), prime - 1, dtype=np.uint64)
    found = matrix_times(weights, residues, prime)
    assert np.array_equal(found, exact(weights, residues, prime))


def test_digits_of_weights_add_up() -> None:
    weights = np.array([[0, 1, -1, 2**60, -(2**60), 123456789012345, 2**20 - 1, -(2**20)]])
    for width, count in ((62, 1), (31, 2), (21, 3)):
        digits = weight_digits(weights, width, count)
        total = sum(d.astype(object) * 2 ** (width * n) for n, d in enumerate(digits))
        assert np.array_equal(total, weights.astype(object))
        assert max(np.abs(d).max() for d in digits[:-1] or [np.zeros(1)]) <= 2 ** (width - 1)


def test_weights_round_halves_away_from_zero() -> None:
    values = np.array([0.5, -0.5, 1.5, 2.5, -2.5, 0.49999999999999994, 3.2, -3.7, 0.0])
    found = integer_weights(values, 1.0)
    assert found is not None
    assert found.tolist() == [1, -1, 2, 3, -3, 0, 3, -4, 0]


@pytest.mark.parametrize("value", [2.0**61, -(2.0**62), np.inf, np.nan])
def test_weights_that_are_too_large_are_none(value: float) -> None:
    assert integer_weights(np.array([1.0, value]), 1.0) is None
