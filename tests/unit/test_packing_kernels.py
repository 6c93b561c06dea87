"""Kernels give the map's result at the target's places, whatever the placements."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.ir.constants import SparseMap
from hecompile.packing.kernels import Target, gather_taps, match
from hecompile.packing.places import Places, occurrences
from hecompile.packing.targets import natural
from tests.unit.packing_cases import SEEDS, assert_holds, evaluate, fill, maps, operands


@settings(max_examples=200)
@given(st.data())
def test_matched_kernels_give_the_product(data: st.DataObject) -> None:
    parts, columns = data.draw(operands())
    goals, rows = data.draw(operands())
    linear = data.draw(maps(rows, columns))
    x = np.random.default_rng(2).normal(size=columns)
    expected = linear.dense(rows, columns) @ x
    for goal in goals:
        target = Target(Places(goal.elements))
        entries = match(occurrences(parts, columns), linear, target)
        result = evaluate(fill(parts, x), entries, target)
        assert_holds(result, target.places, expected)


@given(st.data(), st.integers(1, 3))
def test_low_folds_add_up_what_lies_side_by_side(data: st.DataObject, low: int) -> None:
    parts, columns = data.draw(operands())
    rows = data.draw(st.integers(1, 6))
    linear = data.draw(maps(rows, columns))
    x = np.random.default_rng(2).normal(size=columns)
    (target,) = natural(rows, 64, 1 << low, low)
    entries = match(occurrences(parts, columns), linear, target)
    assert not (entries.rotation % (1 << low)).any()
    result = evaluate(fill(parts, x), entries, target)
    assert_holds(result, target.places, linear.dense(rows, columns) @ x)


def test_rows_that_lie_behind_each_other_need_no_rotation() -> None:
    matrix = np.arange(1.0, 33.0).reshape(4, 8)
    operand = natural(8, 64)[0].places
    (target,) = natural(4, 64, 8, 3)
    entries = match(occurrences([operand], 8), SparseMap.from_dense(matrix), target)
    assert entries.turns().tolist() == [[0, 0]]


def test_copies_save_rotations() -> None:
    matrix = SparseMap.from_dense(np.ones((4, 4)))
    (target,) = natural(4, 64)
    index = np.arange(16)
    copies = Places((index + index // 4 * 2) % 4)
    assert len(match(occurrences([natural(4, 64)[0].places], 4), matrix, target).turns()) == 4
    assert len(match(occurrences([copies], 4), matrix, target).turns()) == 2


@settings(max_examples=200)
@given(st.data(), st.integers(0, 3))
def test_taps_give_the_product_without_rotations(data: st.DataObject, bits: int) -> None:
    goals, rows = data.draw(operands())
    columns = data.draw(st.integers(1, 10))
    linear = data.draw(maps(rows, columns))
    x = np.random.default_rng(2).normal(size=columns)
    for goal in goals:
        target = Target(Places(goal.elements))
        taps = gather_taps(linear, target, 1 << bits)
        assert not taps.entries.rotation.any()
        assert all(len(p.held) for p in taps.places)
        assert {p.period for p in taps.places} == {goal.period << bits}
        result = evaluate(fill(taps.places, x), taps.entries, target)
        assert_holds(result, target.places, linear.dense(rows, columns) @ x)


@given(SEEDS, st.integers(1, 9), st.integers(0, 3))
def test_there_are_no_more_taps_than_needed(seed: int, columns: int, bits: int) -> None:
    random = np.random.default_rng(seed)
    matrix = (random.random((5, columns)) < 0.5).astype(np.float64)
    (target,) = natural(5, 64)
    taps = gather_taps(SparseMap.from_dense(matrix), target, 1 << bits)
    most = int(matrix.sum(axis=1).max())
    assert len(taps.places) == max(1, -(-most // (1 << bits)))


def test_entries_of_other_targets_are_left_out() -> None:
    parts = natural(6, 4)
    linear = SparseMap.from_dense(np.eye(6))
    entries = [match(occurrences([t.places for t in parts], 6), linear, t) for t in parts]
    assert [e.part.tolist() for e in entries] == [[0] * 4, [1] * 2]
