from __future__ import annotations

import numpy as np

from hecompile.runtime.masks import SEED_BYTES, MaskSource


def test_masks_fill_the_range_evenly() -> None:
    mask = MaskSource().mask("x", 1 << 15, 8.0)
    assert mask.shape == (1 << 15,)
    assert -8.0 <= mask.min() < -7.99
    assert 7.99 < mask.max() < 8.0
    counts, _ = np.histogram(mask, bins=16, range=(-8.0, 8.0))
    # 16 bins of 2048 expected values each: six standard deviations.
    assert np.abs(counts - 2048).max() < 6 * 44


def test_one_seed_gives_each_value_its_own_mask_again_and_again() -> None:
    source = MaskSource(bytes(SEED_BYTES))
    assert np.array_equal(source.mask("x", 64, 1.0), MaskSource(bytes(32)).mask("x", 64, 1.0))
    assert not np.isin(source.mask("x", 64, 1.0), source.mask("y", 64, 1.0)).any()
    assert not np.isin(source.mask("x", 64, 1.0), MaskSource().mask("x", 64, 1.0)).any()


def test_the_seed_is_not_shown() -> None:
    source = MaskSource()
    assert source.seed.hex() not in repr(source)
    assert len(source.seed) == SEED_BYTES
