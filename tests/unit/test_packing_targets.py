"""Every proposed target covers the result once a place, and kernels reach it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.ir.constants import SparseMap
from hecompile.packing import targets as goals
from hecompile.packing.demand import Source, demand
from hecompile.packing.kernels import gather_taps, match
from hecompile.packing.places import Places, occurrences, power_of_two
from hecompile.packing.rotations import best_split
from tests.unit.packing_cases import assert_holds, evaluate, fill, maps, operands


def assert_covers(targets: goals.Targets, size: int, capacity: int) -> None:
    held = np.concatenate([t.places.elements[t.places.held] for t in targets])
    assert set(held.tolist()) == set(range(size))
    assert all(t.places.period <= capacity for t in targets)
    assert all(len(t.places.held) for t in targets)


def assert_gives(
    targets: goals.Targets, parts: Sequence[Places], columns: int, rows: int, linear: SparseMap
) -> None:
    x = np.random.default_rng(3).normal(size=columns)
    expected = linear.dense(rows, columns) @ x
    for target in targets:
        entries = match(occurrences(parts, columns), linear, target)
        assert_holds(evaluate(fill(parts, x), entries, target), target.places, expected)


@settings(deadline=None)
@given(st.data())
def test_strided_targets_give_the_product(data: st.DataObject) -> None:
    parts, columns = data.draw(operands())
    rows, capacity = data.draw(st.integers(1, 10)), 1 << data.draw(st.integers(0, 5))
    linear = data.draw(maps(rows, columns))
    for targets in goals.strided(rows, capacity):
        assert_covers(targets, rows, capacity)
        assert_gives(targets, parts, columns, rows, linear)


def test_strides_end_where_a_ciphertext_is_full() -> None:
    found = list(goals.strided(3, 16))
    assert [(t[0].places.period, t[0].low) for t in found] == [
        (4, 0),
        (8, 1),
        (8, 0),
        (16, 2),
        (16, 0),
    ]
    assert [len(t) for t in goals.strided(5, 2)] == [3]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_inherited_targets_give_the_product(data: st.DataObject) -> None:
    parts, columns = data.draw(operands(24))
    rows, capacity = data.draw(st.integers(1, 10)), 1 << data.draw(st.integers(0, 6))
    linear = data.draw(maps(rows, columns))
    targets = goals.inherited(rows, capacity, linear, parts)
    if targets is not None:
        assert_covers(targets, rows, capacity)
        assert_gives(targets, parts, columns, rows, linear)


def test_a_convolution_keeps_its_grid() -> None:
    """Two channels of a 3 x 3 window on 6 x 6 elements: 18 diagonals, not one an entry."""
    corner = np.add.outer(6 * np.arange(4), np.arange(4)).ravel()
    taps = np.add.outer(6 * np.arange(3), np.arange(3)).ravel()
    columns = np.tile(np.add.outer(corner, taps), (2, 1))
    values = np.repeat([1.0, 2.0], 16)[:, None] * np.arange(1.0, 10.0)
    linear = SparseMap(np.repeat(np.arange(32), 9), columns.ravel(), values.ravel())
    grid = goals.natural(36, 64)[0].places
    targets = goals.inherited(32, 64, linear, [grid])
    assert targets is not None
    (target,) = targets
    assert target.places.elements.tolist().index(31) == 21 + 32
    turns = match(occurrences([grid], 36), linear, target).turns()
    assert len(turns) == 18
    assert best_split([turns], 64).rotations == 9
    assert_gives(targets, [grid], 36, 32, linear)


def test_nothing_is_inherited_from_dense_maps_copies_or_rows_without_entries() -> None:
    grid = goals.natural(4, 4)[0].places
    assert goals.inherited(4, 16, SparseMap.from_dense(np.ones((4, 4))), [grid]) is None
    sparse = SparseMap.from_dense(np.eye(4))
    assert goals.inherited(4, 16, sparse, [grid]) is not None
    assert goals.inherited(4, 16, sparse, [grid, grid]) is None
    assert goals.inherited(4, 16, sparse, [Places(np.array([0, 1, 2, 3, 0, 0, 0, 0]))]) is None
    assert goals.inherited(5, 16, sparse, [grid]) is None
    assert goals.inherited(4, 16, SparseMap.from_dense(np.zeros((4, 4))), [grid]) is None


@settings(deadline=None)
@given(st.data())
def test_turned_copies_give_the_product_from_taps(data: st.DataObject) -> None:
    size, columns = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 6))
    rows, capacity = data.draw(st.integers(1, 9)), 1 << data.draw(st.integers(0, 7))
    linear = data.draw(maps(size, columns))
    x = np.random.default_rng(3).normal(size=columns)
    for targets in goals.turned_copies(size, capacity, rows):
        assert_covers(targets, size, capacity)
        for target in targets:
            taps = gather_taps(linear, target, 2)
            result = evaluate(fill(taps.places, x), taps.entries, target)
            assert_holds(result, target.places, linear.dense(size, columns) @ x)


def test_copies_leave_the_next_map_fewer_diagonals() -> None:
    matrix = SparseMap.from_dense(np.ones((4, 8)))
    (next_target,) = goals.natural(4, 64)
    rotations = [
        best_split(
            [match(occurrences([target.places], 8), matrix, next_target).turns()], 64
        ).rotations
        for (target,) in goals.turned_copies(8, 64, 4)
    ]
    assert rotations == [2, 1, 0]


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_replicas_hold_every_element_and_turn_less(data: st.DataObject) -> None:
    """With c blocks a map finds c columns at the place of each row."""
    columns, rows = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 40))
    capacity = power_of_two(rows) << data.draw(st.integers(0, 3))
    linear = data.draw(maps(rows, columns))
    (target,) = goals.natural(rows, capacity)
    period, block = power_of_two(columns), target.places.period
    for places in goals.replicas(columns, max(capacity, period), rows):
        assert set(places.elements[places.held].tolist()) == set(range(columns))
        assert places.period <= max(capacity, period)
        copies = places.period // max(period, block)
        assert_gives((target,), (places,), columns, rows, linear)
        turns = match(occurrences((places,), columns), linear, target).turns()
        most = min(period, block) // copies
        assert len(turns) <= most
        counted = demand([Source(linear, (places,), columns)], (target,))
        assert counted.rotations <= max(most - 1, 0)
        assert counted.products == len(turns)


def test_as_many_replicas_as_columns_leave_no_rotation() -> None:
    """Wide maps of few columns, as the gates of a recurrent layer are."""
    dense = np.random.default_rng(0).normal(size=(64, 16))
    (target,) = goals.natural(64, 1024)
    rotations = []
    for places in goals.replicas(16, 1024, 64):
        counted = demand([Source(SparseMap.from_dense(dense), (places,), 16)], (target,))
        rotations.append((places.period, counted.rotations, counted.folds))
    assert [r[0] for r in rotations] == [64, 128, 256, 512, 1024]
    assert rotations[-1][1:] == (0, 4)
    assert [r[1] for r in rotations] == sorted((r[1] for r in rotations), reverse=True)
