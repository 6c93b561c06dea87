"""Masks are as large as hiding needs, and the modulus holds them: against real polynomials."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.numeric.masking import (
    MOST_SLOT_BITS,
    NOISE_SHARE,
    Content,
    mask_bits_needed,
    modulus_bits_needed,
    room_needed,
)

SIZES = st.integers(2, 8).flatmap(
    lambda log: st.tuples(st.just(1 << log), st.integers(0, log - 1).map(lambda p: 1 << p))
)
"""Ring degrees, with periods up to their slots."""


def coefficients(slots: np.ndarray) -> np.ndarray:
    """The real polynomial whose values at the roots of X**N + 1 are slots: N = 2 * slots."""
    ring = 2 * len(slots)
    powers = np.array([pow(5, j, 2 * ring) for j in range(len(slots))])
    roots = np.exp(1j * np.pi / ring * powers)
    # The other half of the roots are conjugates, so twice the real part is the whole sum.
    table = roots[:, None] ** -np.arange(ring)
    return 2.0 / ring * np.real(slots @ table)


def masked_values(
    random: np.random.Generator, ring: int, period: int, bound: float, scale: float
) -> np.ndarray:
    """A value that repeats, with noise that does not, as the key holder decrypts it."""
    values = random.choice([-1.0, 1.0], period) * bound
    if random.random() < 0.5:
        values *= random.random(period)
    noise = random.normal(size=ring)
    noise *= NOISE_SHARE * bound / np.linalg.norm(noise)
    return scale * (coefficients(np.tile(values, ring // 2 // period)) + noise)


def test_slots_are_the_values_at_the_roots() -> None:
    slots = np.random.default_rng(0).normal(size=8)
    found = coefficients(slots)
    roots = np.exp(1j * np.pi / 16 * np.array([pow(5, j, 32) for j in range(8)]))
    np.testing.assert_allclose(np.polynomial.polynomial.polyval(roots, found), slots, atol=1e-12)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.integers(0, 2**32 - 1),
    SIZES,
    st.floats(-20, 20),
    st.integers(10, 50),
    st.sampled_from([0, 20, 40]),
)
def test_masks_hide_what_they_promise_and_fit_the_modulus(
    seed: int, sizes: tuple[int, int], bound_bits: float, scale_bits: int, mask_bits: int
) -> None:
    ring, period = sizes
    bound, scale = 2.0**bound_bits, 2.0**scale_bits
    random = np.random.default_rng(seed)
    one, other = (masked_values(random, ring, period, bound, scale) for _ in range(2))
    contents = [Content(period, bound * scale)]
    largest = 2.0 ** mask_bits_needed(ring, contents, mask_bits)
    # Two uniform laws on 2M integers, one shifted by d, are d / 2M apart; coefficients add up.
    distance = np.abs(one - other).sum() / (2 * largest)
    assert distance <= 2.0**-mask_bits
    spread = np.sqrt(2 * period) * bound + np.sqrt(ring) * NOISE_SHARE * bound
    assert np.abs(one).sum() <= scale * spread * (1 + 1e-9)
    bits = modulus_bits_needed(ring, contents, mask_bits)
    assert np.abs(one).max() + largest < 2.0**bits / 2


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    st.integers(0, 2**32 - 1),
    SIZES,
    st.integers(0, 3),
    st.floats(-20, 20),
    st.floats(-6, 6),
    st.sampled_from([0, 20, 40]),
)
def test_masks_hide_two_values_in_one_ciphertext(
    seed: int, sizes: tuple[int, int], halvings: int, bound_bits: float, more: float, mask_bits: int
) -> None:
    ring, longer = sizes
    scale, random = 2.0**30, np.random.default_rng(seed)
    contents = [
        Content(longer, 2.0**bound_bits * scale),
        Content(max(1, longer >> halvings), 2.0 ** (bound_bits + more) * scale),
    ]

    def drawn() -> np.ndarray:
        x, y = (masked_values(random, ring, one.period, one.size, 1.0) for one in contents)
        # Times X**(N/2).
        return np.asarray(x + np.concatenate([-y[ring // 2 :], y[: ring // 2]]))

    one, other = drawn(), drawn()
    largest = 2.0 ** mask_bits_needed(ring, contents, mask_bits)
    assert np.abs(one - other).sum() / (2 * largest) <= 2.0**-mask_bits
    bits = modulus_bits_needed(ring, contents, mask_bits)
    assert np.abs(one).max() + largest < 2.0**bits / 2


@pytest.mark.parametrize("period", [1, 16, 4096])
def test_a_bit_of_hiding_scale_or_bound_takes_a_bit_of_the_modulus(period: int) -> None:
    one, larger = [Content(period, 2.0**27)], [Content(period, 2.0**28)]
    base = modulus_bits_needed(8192, one, 40)
    assert modulus_bits_needed(8192, one, 41) - base == pytest.approx(1, abs=1e-6)
    assert modulus_bits_needed(8192, larger, 40) - base == pytest.approx(1)
    assert modulus_bits_needed(8192, one * 2, 40) - base == pytest.approx(0.5)


def test_values_that_repeat_sooner_need_smaller_masks() -> None:
    needed = [mask_bits_needed(8192, [Content(1 << log, 2.0**30)], 40) for log in range(13)]
    assert needed == sorted(needed)
    assert needed[-1] - needed[0] > 5


def test_room_is_short_of_the_modulus_or_of_exact_slots() -> None:
    small = room_needed(8192, [Content(16, 2.0**24)], 40)
    assert small.modulus == modulus_bits_needed(8192, [Content(16, 2.0**24)], 40)
    assert small.lacking(small.modulus + 1) == pytest.approx(-1)
    assert small.lacking(small.modulus - 1) == pytest.approx(1)
    for bits in (60, 64):
        large = room_needed(8192, [Content(1024, 2.0**28)], bits)
        assert large.lacking(200) == large.slots - MOST_SLOT_BITS > 0
    grown = room_needed(8192, [Content(16, 2.0**24)], 40, 3.0)
    assert grown.slots - small.slots == pytest.approx(3)
    assert room_needed(8192, [Content(16, 2.0**24)], 40, -3.0) == small
