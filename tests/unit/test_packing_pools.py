"""Pools: groups of equal columns, whose elements can be added up first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.ir.constants import SparseMap
from hecompile.packing.places import Places, power_of_two
from hecompile.packing.pools import Pool, find_pool
from hecompile.packing.targets import natural, phased
from tests.unit.packing_cases import SEEDS, assert_holds, fill


@st.composite
def pooled(draw: st.DrawFn) -> tuple[SparseMap, Pool]:
    """A map whose columns are alike in random groups, and these groups."""
    random = np.random.default_rng(draw(SEEDS))
    size, groups = 1 << draw(st.integers(1, 3)), draw(st.integers(1, 6))
    members = np.sort(random.permutation(size * groups).reshape(groups, size), axis=1)
    members = members[np.argsort(members[:, 0])]
    matrix = np.zeros((4, size * groups))
    # No two groups are alike.
    columns = random.normal(size=(4, groups)) * (random.random((4, groups)) < 0.7)
    columns[0] = 1 + np.arange(groups)
    matrix[:, members] = columns[:, :, None]
    return SparseMap.from_dense(matrix), Pool(members)


def added_up(slots: list[np.ndarray], period: int) -> np.ndarray:
    """The sum of all ciphertexts, folded."""
    total: np.ndarray = np.sum(slots, axis=0)
    while len(total) > period:
        total = total[: len(total) // 2] + total[len(total) // 2 :]
    return total


@given(pooled())
def test_groups_of_equal_columns_are_found(case: tuple[SparseMap, Pool]) -> None:
    linear, pool = case
    found = find_pool(linear)
    assert found is not None
    np.testing.assert_array_equal(found.members, pool.members)
    assert (found.groups, found.size) == pool.members.shape


@given(pooled())
def test_the_reduced_map_acts_on_sums(case: tuple[SparseMap, Pool]) -> None:
    linear, pool = case
    x = np.random.default_rng(0).normal(size=pool.members.size)
    sums = x[pool.members].sum(axis=1)
    reduced = pool.reduce(linear).dense(4, pool.groups) @ sums
    np.testing.assert_allclose(reduced, linear.dense(4, len(x)) @ x, atol=1e-12)


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 2, 3, 4]],  # nothing is alike
        [[1, 1, 1, 2, 2, 2]],  # groups of three
        [[1, 1, 2, 2, 2, 2]],  # groups of two sizes
        [[0, 0, 0]],
    ],
)
def test_other_maps_have_no_pool(matrix: list[list[float]]) -> None:
    assert find_pool(SparseMap.from_dense(np.array(matrix, dtype=np.float64))) is None


def test_columns_without_weights_belong_to_no_group() -> None:
    matrix = np.array([[1.0, 0.0, 2.0, 1.0, 2.0]])
    pool = find_pool(SparseMap.from_dense(matrix))
    assert pool is not None
    np.testing.assert_array_equal(pool.members, [[0, 3], [2, 4]])
    np.testing.assert_array_equal(pool.reduce(SparseMap.from_dense(matrix)).columns, [0, 1])


@settings(max_examples=200)
@given(pooled(), st.data())
def test_phases_fold_to_the_sums(case: tuple[SparseMap, Pool], data: st.DataObject) -> None:
    """Also when they are cut into ciphertexts, and for every number of blocks."""
    _, pool = case
    blocks = data.draw(st.sampled_from([b for b in (1, 2, 3, 4) if not pool.groups % b]))
    capacity = 1 << data.draw(st.integers(0, 7))
    x = np.random.default_rng(0).normal(size=pool.members.size)
    for targets in phased(pool, (blocks, pool.members.size // blocks), capacity):
        parts = [t.places for t in targets]
        assert all(p.period <= capacity for p in parts)
        assert sorted(np.concatenate([p.elements[p.held] for p in parts])) == list(range(len(x)))
        folded = pool.folded(parts)
        if folded is not None:
            sums = x[pool.members].sum(axis=1)
            assert_holds(added_up(fill(parts, x), folded.period), folded, sums)


def test_phases_of_whole_blocks_fold() -> None:
    pool = Pool(np.array([[0, 4], [1, 5], [2, 6], [3, 7]]))
    places = pool.phases(2)
    assert places is not None
    np.testing.assert_array_equal(places.elements, [0, 1, 2, 3, 4, 5, 6, 7])
    assert pool.phases(3) is None
    folded = pool.folded([places])
    assert folded is not None
    np.testing.assert_array_equal(folded.elements, [0, 1, 2, 3])


@settings(max_examples=300)
@given(SEEDS)
def test_what_folds_is_a_sum_of_distinct_members(seed: int) -> None:
    """On placements with gaps and copies: either none, or the sums stand where it says."""
    random = np.random.default_rng(seed)
    pool = Pool(np.arange(4).reshape(2, 2))
    period = 1 << random.integers(1, 4)
    parts = [
        Places(random.integers(-1, 4, period), "garbage") for _ in range(random.integers(1, 3))
    ]
    folded = pool.folded(parts)
    if folded is not None:
        x = random.normal(size=4)
        sums = x[pool.members].sum(axis=1)
        assert_holds(added_up(fill(parts, x), folded.period), folded, sums)


def test_copies_of_a_member_are_no_sum() -> None:
    pool = Pool(np.array([[0, 1]]))
    copies = Places(np.array([0, 1, 0, 1]))
    assert pool.folded([copies]) is None
    assert pool.folded([Places(np.array([0, 1, 1, 0]))]) is not None


def test_ciphertexts_of_several_lengths_do_not_fold() -> None:
    pool = Pool(np.array([[0, 1]]))
    assert pool.folded([Places(np.array([0])), Places(np.array([1, -1]))]) is None


def test_natural_places_fold_where_the_members_lie_half_a_tensor_apart() -> None:
    pool = Pool(np.stack([np.arange(8), np.arange(8) + 8], axis=1))
    for capacity in (4, 8, 16):
        parts = [t.places for t in natural(16, capacity)]
        folded = pool.folded(parts)
        assert (folded is not None) == (capacity >= power_of_two(pool.groups))
