from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from hecompile.numeric.masking import Content, mask_bits_needed
from hecompile.runtime.masks import SEED_BYTES, MaskSource, mask_size
from hecompile.runtime.wide import Wide, uniform, whole

FIXED = MaskSource(bytes(range(SEED_BYTES)))


def distance(first: NDArray[np.int64], second: NDArray[np.int64], bins: int, low: int) -> float:
    """Pearson's statistic of two samples of one distribution, in standard deviations."""
    counts = [np.bincount(x - low, minlength=bins).astype(float) for x in (first, second)]
    total = counts[0] + counts[1]
    held = total > 0
    square = ((counts[0] - counts[1])[held] ** 2 / total[held]).sum()
    freedom = held.sum() - 1
    return float((square - freedom) / math.sqrt(2 * freedom))


@pytest.mark.parametrize("bits", [0.0, 0.3, 4.0, 13.5, 14.0, 20.7, 47.2, 62.9, 64.0, 78.3, 96.0])
def test_sizes_have_few_digits_and_are_no_smaller_than_asked(bits: float) -> None:
    size = mask_size(bits)
    assert 0 <= math.log2(size) - bits < (1e-3 if bits > 13 else 1.0)
    assert size % (1 << max(0, size.bit_length() - 14)) == 0


@pytest.mark.parametrize("bits", [0.0, 3.7, 20.0, 46.5, 60.2, 61.1, 62.9, 63.4, 78.3, 96.0])
def test_masks_fill_the_range_evenly(bits: float) -> None:
    size = mask_size(bits)
    found = np.array(whole(FIXED.mask("x", 1 << 14, size)), dtype=object)
    assert -size <= min(found)
    assert max(found) < size
    # 16 bins of 1024 expected values each: six standard deviations.
    bins = min(16, 2 * size)
    counts = np.bincount(((found + size) * bins // (2 * size)).astype(int), minlength=bins)
    share = (1 << 14) / bins
    if 2 * size % bins == 0 or bits > 20:
        assert np.abs(counts - share).max() < 6 * math.sqrt(share)
    # So do the lowest bits, which the products do not make.
    low = np.bincount((found % 8).astype(int), minlength=8)
    if bits > 20:
        assert np.abs(low - 2048).max() < 6 * math.sqrt(2048)


def test_every_value_of_a_small_range_is_taken_and_none_beyond() -> None:
    for size in (1, 3, 11, 100, 8191):
        found = whole(FIXED.mask("x", 1 << 18, size))
        assert set(found) == set(range(-size, size))


def test_the_ends_of_the_range_are_reached_and_not_passed() -> None:
    for bits in (5.0, 30.5, 60.2, 62.9, 63.4, 80.0, 96.0):
        size = mask_size(bits)
        least = uniform(np.zeros((4, 1), dtype=np.uint64), size)
        most = uniform(np.full((4, 1), (1 << 64) - 1, dtype=np.uint64), size)
        assert whole(least) == [-size]
        assert whole(most) == [size - 1]


def test_one_seed_gives_each_name_its_own_mask_again_and_again() -> None:
    size = mask_size(70.0)

    def found(source: MaskSource, name: str, every: int = 1) -> list[int]:
        return whole(source.mask(name, 64, size, every))

    source = MaskSource(bytes(SEED_BYTES))
    assert found(source, "x") == found(MaskSource(bytes(32)), "x")
    assert found(source, "x")[::16] == found(source, "x", 16)
    assert not set(found(source, "x")) & set(found(source, "y"))
    assert not set(found(source, "x")) & set(found(MaskSource(), "x"))


def test_the_seed_is_not_shown() -> None:
    source = MaskSource()
    assert source.seed.hex() not in repr(source)
    assert len(source.seed) == SEED_BYTES


def test_what_is_seen_of_any_two_values_is_alike() -> None:
    """Coefficients as far apart as the bound lets them be, under masks of few bits."""
    bits, period, bound, scale = 7, 4, 3.0, 16.0
    ring = 8 * period
    size = mask_size(mask_bits_needed(ring, [Content(period, bound * scale)], bits))
    # All of one value's 1-norm in one coefficient: the worst that the proof allows for.
    apart = round(math.sqrt(2 * period) * bound * scale)
    count = 1 << 18
    masks = [masks_as_array(name, count, size) for name in ("x", "y", "z")]
    bins, low = 2 * (size + apart), -size - apart
    same = distance(masks[0] + apart, masks[1] + apart, bins, low)
    other = distance(masks[0] + apart, masks[1] - apart, bins, low)
    # Exactly: two uniform distributions, moved by d of 2M, are d / 2M apart.
    assert 2 * apart / (2 * size) <= 2.0**-bits
    assert abs(same) < 5
    seen, reference = (np.bincount(x - low, minlength=bins) for x in (masks[0] + apart, masks[1]))
    assert seen.sum() == reference.sum() == count
    # The statistic of as many samples as there are values grows with the distance: what bounds
    # allow shows only at the ends, a mask 2**4 times too small shows at once.
    small = mask_size(math.log2(size) - 4)
    weak = [masks_as_array(name, count, small) for name in ("x", "y")]
    assert distance(weak[0] + apart, weak[1] - apart, bins, low) > 4 * max(other, 5)


def masks_as_array(name: str, count: int, size: int) -> NDArray[np.int64]:
    mask: Wide = FIXED.mask(name, count, size)
    return (mask.high << 48) + mask.low
