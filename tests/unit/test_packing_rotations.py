"""Baby steps and giant steps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hecompile.packing.rotations import Split, best_split

LONGEST = 64
PAIRS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, LONGEST - 1)), min_size=1, max_size=40, unique=True
)


def count(sums: list[list[tuple[int, int]]], step: int) -> tuple[int, int]:
    """Rotations of a split and distinct steps among them, counted one by one."""
    babies = {(p, d % step) for pairs in sums for p, d in pairs if d % step}
    giants = {(i, d - d % step) for i, pairs in enumerate(sums) for _, d in pairs if d >= step}
    steps = {d for _, d in babies | giants}
    return len(babies) + len(giants), len(steps)


@given(st.lists(PAIRS, min_size=1, max_size=4))
def test_the_split_is_the_best_there_is(sums: list[list[tuple[int, int]]]) -> None:
    plain = {pair for pairs in sums for pair in pairs if pair[1]}
    options = {0: (len(plain), len({d for _, d in plain}))}
    options |= {1 << k: count(sums, 1 << k) for k in range(1, LONGEST.bit_length())}
    found = best_split([np.array(pairs) for pairs in sums], LONGEST)
    assert (found.rotations, found.distinct) == options[found.step]
    assert (found.rotations, found.distinct) == min(options.values())
    assert found.rotations <= options[0][0]


def test_all_rotations_take_two_roots_of_them() -> None:
    everything = np.stack([np.zeros(64, dtype=np.int64), np.arange(64)], axis=1)
    assert best_split([everything], 64) == Split(8, 14, 14)


def test_several_sums_share_baby_steps() -> None:
    everything = np.stack([np.zeros(64, dtype=np.int64), np.arange(64)], axis=1)
    found = best_split([everything] * 4, 64)
    assert found == Split(16, 15 + 4 * 3, 15 + 3)


def test_sums_without_rotations_are_left_alone() -> None:
    assert best_split([np.zeros((1, 2), dtype=np.int64)], 8) == Split(0, 0, 0)
    assert best_split([np.zeros((0, 2), dtype=np.int64)], 8) == Split(0, 0, 0)
