"""Slots of polynomials with coefficients of up to a hundred bits."""

from __future__ import annotations

import math
from fractions import Fraction
from hashlib import sha256

import numpy as np
import pytest

from hecompile.runtime.relayout import PROTOCOL, Pool, Taken, fourier, separated
from hecompile.runtime.wide import Double, Wide, double_of, nearest, whole

RNG = np.random.default_rng(7)


def random_polynomial(size: int, bits: int) -> Wide:
    values = [int.from_bytes(RNG.bytes(13), "little") % (2 << bits) - (1 << bits) for _ in
              range(size)]  # fmt: skip
    return Wide(np.array([v >> 48 for v in values]), np.array([v % (1 << 48) for v in values]))


def small_polynomial(size: int, bits: int) -> Wide:
    return Wide(np.zeros(size, dtype=np.int64), RNG.integers(-(1 << bits), 1 << bits, size))


def added(x: Wide, y: Wide) -> Wide:
    return Wide(x.high + y.high, x.low + y.low)


def stacked(*polynomials: Wide) -> Double:
    parts = [double_of(one) for one in polynomials]
    return Double(np.stack([x.high for x in parts]), np.stack([x.low for x in parts]))


@pytest.mark.parametrize("period", [1, 2, 4, 16, 64, 128, 256, 2048])
def test_slots_are_real_parts_at_powers_of_three(period: int) -> None:
    polynomials = [small_polynomial(2 * period, 30) for _ in range(3)]
    found = fourier(period).slots(stacked(*polynomials)).high
    powers = np.array([pow(3, j, 4 * period) for j in range(period)])
    angles = np.pi * np.outer(powers, np.arange(2 * period)) / (2 * period)
    wanted = np.stack([x.low for x in polynomials]) @ np.cos(angles).T
    # Cosines have 33 bits.
    assert np.abs(found - wanted).max() < 2.0**30 * 2.0**-33 * 4 * np.sqrt(2 * period) + 0.1


@pytest.mark.parametrize("period", [1, 2, 8, 64, 128, 4096])
def test_coefficients_have_the_slots_asked_for(period: int) -> None:
    slots = Double(RNG.uniform(-(2.0**50), 2.0**50, (2, period)), np.zeros((2, period)))
    found = fourier(period).coefficients(slots)
    assert found.high.shape == (2, 2 * period)
    again = fourier(period).slots(found).high
    assert np.abs(again - slots.high).max() < 2.0**50 * 2.0**-33 * 8


def random_taken(period: int, periods: list[int], ratios: tuple[float, ...]) -> Taken:
    source = RNG.integers(-1, len(periods), period)
    place = np.array([RNG.integers(0, periods[s]) if s >= 0 else 0 for s in source])
    return Taken(source, place, ratios)


@pytest.mark.parametrize("bits", [60, 80, 92])
def test_masks_leave_two_roundings(bits: int) -> None:
    """f(m + r) - f(r) is f(m) to within three halves, for r far beyond a double's precision."""
    periods, results = [8, 32, 32, 1], [32, 8, 64, 1, 32]
    values = [small_polynomial(2 * p, 30) for p in periods]
    masks = [random_polynomial(2 * p, bits) for p in periods]
    ratios = (1.0, 1.0 + 2.0**-20, 1.0, 1.25)
    taken = [random_taken(p, periods, ratios) for p in results]

    def put(polynomials: list[Wide]) -> list[Wide]:
        return Pool([double_of(x) for x in polynomials]).gather(taken)

    pairs = zip(values, masks, strict=True)
    both = put([added(*pair) for pair in pairs])
    for plain, masked, mask in zip(put(values), both, put(masks), strict=True):
        left = np.array(whole(masked), dtype=object) - np.array(whole(mask), dtype=object)
        assert np.abs((left - np.array(whole(plain), dtype=object)).astype(float)).max() <= 1


def test_gathered_slots_are_those_named() -> None:
    periods = [4, 16]
    values = [RNG.uniform(-1, 1, p) for p in periods]
    polynomials = [
        nearest(fourier(len(v)).coefficients(Double(v[None] * 2.0**40, np.zeros((1, len(v))))))
        for v in values
    ]
    taken = random_taken(16, periods, (0.5, 2.0))
    inputs = [double_of(Wide(x.high[0], x.low[0])) for x in polynomials]
    (found,) = Pool(inputs).gather([taken])
    slots = fourier(16).slots(stacked(found)).high[0] / 2.0**40
    scale = np.array([0.0, 0.5, 2.0])[taken.source + 1]
    wanted = [
        0.0 if s < 0 else values[s][p] for s, p in zip(taken.source, taken.place, strict=True)
    ]
    assert np.abs(slots - scale * np.array(wanted)).max() < 1e-9


def test_rounding_errors_of_the_transform_are_far_below_one() -> None:
    """Against exact sums of the same cosines: a transform of four slots, by hand."""
    polynomial = random_polynomial(2, 99)
    found = fourier(1).slots(stacked(polynomial))
    assert Fraction(found.high[0, 0]) + Fraction(found.low[0, 0]) == whole(polynomial)[0]
    two = random_polynomial(4, 96)
    a, b, _, d = whole(two)
    slots = fourier(2).slots(stacked(two))
    turn = Fraction(round(math.cos(math.pi / 4) * 2**33), 2**33)
    for place, sign in ((0, 1), (1, -1)):
        wanted = a + sign * (b - d) * turn
        got = Fraction(slots.high[0, place]) + Fraction(slots.low[0, place])
        assert abs(got - wanted) < Fraction(1, 4)


@pytest.mark.parametrize("period", [1, 32, 64, 128, 512, 4096])
def test_the_transform_is_linear_however_large_the_mask_is(period: int) -> None:
    """Not only near the truth: the same function of masked values and of masks."""
    value, mask = small_polynomial(2 * period, 30), random_polynomial(2 * period, 88)
    change = fourier(period)
    both, mine = (change.slots(stacked(x)) for x in (added(value, mask), mask))
    slots = (both.high - mine.high) + (both.low - mine.low)
    assert np.abs(slots - change.slots(stacked(value)).high).max() < 0.1
    back, other = (change.coefficients(x) for x in (both, mine))
    left = (back.high - other.high) + (back.low - other.low)
    again = change.coefficients(Double(slots, np.zeros(slots.shape))).high
    assert np.abs(left - again).max() < 0.05


@pytest.mark.parametrize("periods", [(8, 8), (2, 64), (256, 16)])
def test_two_values_in_one_polynomial_are_told_apart(periods: tuple[int, int]) -> None:
    values = [RNG.uniform(-1, 1, p) * 2.0**40 for p in periods]
    size = 2 * max(periods)
    both = np.zeros(size)
    for number, slots in enumerate(values):
        own = np.zeros(size)
        found = fourier(len(slots)).coefficients(Double(slots[None], np.zeros((1, len(slots)))))
        own[:: size // (2 * len(slots))] = found.high[0]
        # X**(N/2) moves by half of all coefficients.
        both += np.concatenate([-own[size // 2 :], own[: size // 2]]) if number else own
    parts = separated(Double(both, np.zeros(size)), periods)
    for part, slots in zip(parts, values, strict=True):
        again = fourier(len(slots)).slots(Double(part.high[None], part.low[None])).high[0]
        assert np.abs(again - slots).max() < 2.0**40 * 2.0**-30


@pytest.mark.parametrize("period", [1 << log for log in range(15)])
def test_no_machine_s_cosines_round_to_other_constants(period: int) -> None:
    """Libraries' cosines differ in their last bits; both sides' constants must not."""
    turns = np.pi * np.arange(4 * period) / (2 * period)
    scaled = np.cos(turns) * 2.0**33
    from_the_middle = np.abs(scaled - np.floor(scaled) - 0.5)
    assert from_the_middle.min() > 5 * 2.0**-53 * 2.0**33


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (16, "2b2d2572ccad633f"),
        (64, "2c6470c8ab2cd8ae"),
        (1024, "06714522a293f1e6"),
    ],
)
def test_the_arithmetic_is_the_one_that_its_number_stands_for(period: int, expected: str) -> None:
    """Both sides must agree to the last bit: other results need another `PROTOCOL`."""
    assert PROTOCOL == 1
    words = b"".join(sha256(f"{period} {n}".encode()).digest() for n in range(2 * period))
    numbers = np.frombuffer(words, dtype="<u8").reshape(4, 2 * period)
    mask = Wide((numbers[0] >> 14).astype(np.int64), (numbers[1] >> 16).astype(np.int64))
    table = random_order(period)
    taken = Taken(np.zeros(period, dtype=np.int64), table, (0.7310585786300049,))
    (found,) = Pool(separated(double_of(mask), [period])).gather([taken])
    text = " ".join(map(str, whole(found)))
    assert sha256(text.encode()).hexdigest()[:16] == expected


def random_order(period: int) -> np.ndarray:
    return (np.arange(period) * 5 + 3) % period
