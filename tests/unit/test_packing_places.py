"""Places: views, turns, layouts, and where two placements meet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hecompile.errors import PassError
from hecompile.ir.types import GARBAGE, ZERO, Layout
from hecompile.packing.places import (
    Places,
    distinct,
    in_order,
    occurrences,
    power_of_two,
    same_elements,
    shift_between,
)
from hecompile.packing.targets import natural
from hecompile.runtime.packing import unpack
from tests.unit.packing_cases import SEEDS, fill, operands, random_places


def places(*elements: int, rest: str = ZERO) -> Places:
    return Places(np.array(elements, dtype=np.int64), rest)


@pytest.mark.parametrize(("n", "power"), [(0, 1), (1, 1), (2, 2), (3, 4), (4, 4), (5, 8)])
def test_power_of_two(n: int, power: int) -> None:
    assert power_of_two(n) == power


@given(st.lists(st.integers(0, 50)))
def test_distinct_is_unique(numbers: list[int]) -> None:
    found = distinct(np.array(numbers, dtype=np.int64))
    np.testing.assert_array_equal(found, sorted(set(numbers)))


def test_a_view_numbers_from_zero_and_calls_the_others_garbage() -> None:
    view = places(3, -1, 0, 2).view(2, 2)
    assert view is not None
    np.testing.assert_array_equal(view.elements, [1, -1, -1, 0])
    assert view.rest == GARBAGE
    assert places(0, 1).view(2, 1) is None
    whole = places(0, 1, -1, -1).view(0, 2)
    assert whole is not None
    assert whole.rest == ZERO


@given(operands(), st.integers(0, 63))
def test_turned_places_are_those_of_a_rotated_vector(
    operand: tuple[tuple[Places, ...], int], steps: int
) -> None:
    parts, size = operand
    x = np.random.default_rng(1).normal(size=size)
    for part, slots in zip(parts, fill(parts, x), strict=True):
        turned = part.turned(steps)
        held = turned.elements >= 0
        np.testing.assert_array_equal(np.roll(slots, -steps)[held], x[turned.elements[held]])


@given(operands(), st.integers(1, 4))
def test_a_layout_says_where_the_elements_are(
    operand: tuple[tuple[Places, ...], int], lanes: int
) -> None:
    parts, size = operand
    lanes = power_of_two(lanes)
    x = np.arange(1.0, size + 1)
    for part, slots in zip(parts, fill(parts, x), strict=True):
        layout = part.layout(lanes)
        if layout is not None:
            assert layout.end <= part.period * lanes
            read = unpack(np.repeat(slots, lanes), layout, 1)
            np.testing.assert_array_equal(read[0], x[layout.first : layout.first + layout.count])


@pytest.mark.parametrize(
    ("held", "layout"),
    [
        (places(0, 1, 2, -1), Layout(0, 3, 2)),
        (places(-1, 4, -1, 5), None),  # the last stride would reach beyond the period
        (places(4, -1, 5, -1, rest=GARBAGE), Layout(4, 2, 4, 0, GARBAGE)),
        (places(-1, -1, 7, -1), Layout(7, 1, 2, 4)),
        (places(1, 0), None),
        (places(0, 0), None),
        (places(0, 1, -1, 2), None),
        (places(0, -1, -1, 1, -1, -1, -1, -1), None),
        (places(-1, -1), None),
    ],
)
def test_layouts_are_for_even_strides_in_order(held: Places, layout: Layout | None) -> None:
    assert held.layout(2) == layout


def test_outputs_are_in_order_without_gaps() -> None:
    assert in_order([places(0, 1), places(2, -1)])
    assert not in_order([places(2, 3), places(0, 1)])
    assert not in_order([places(0, 1), places(3, 4)])
    assert not in_order([places(1, 0)])


@given(operands(), st.integers(0, 15))
def test_a_shift_is_found_where_there_is_one(
    operand: tuple[tuple[Places, ...], int], steps: int
) -> None:
    for part in operand[0]:
        found = shift_between(part, part.turned(-steps))
        assert found is not None
        held = part.elements >= 0
        meeting = part.turned(-steps).turned(found)
        np.testing.assert_array_equal(meeting.elements[held], part.elements[held])


@given(SEEDS, st.integers(1, 6))
def test_a_shift_makes_elements_meet_or_there_is_none(seed: int, size: int) -> None:
    random = np.random.default_rng(seed)
    a, b = random_places(random, size)[0], random_places(random, size)[0]
    period = max(a.period, b.period)
    left = np.tile(a.elements, period // a.period)

    def meets(steps: int) -> bool:
        right = np.tile(b.turned(steps).elements, period // b.period)
        return bool((right[left >= 0] == left[left >= 0]).all())

    found = shift_between(a, b)
    if found is None:
        assert not any(meets(steps) for steps in range(b.period))
    else:
        assert 0 <= found < b.period
        assert meets(found)


def test_same_elements_goes_ciphertext_by_ciphertext() -> None:
    assert same_elements([places(0, 1)], [places(1, -1, 0, 0)])
    assert not same_elements([places(0, 1)], [places(0, -1)])
    assert not same_elements([places(0), places(1)], [places(1), places(0)])
    assert not same_elements([places(0, 1)], [places(0), places(1)])


@given(operands())
def test_occurrences_are_all_places_of_an_element(operand: tuple[tuple[Places, ...], int]) -> None:
    parts, size = operand
    where = occurrences(parts, size)
    for element in range(size):
        rows = zip(where.part[element], where.place[element], where.period[element], strict=True)
        found = {row for row in rows if row[0] >= 0}
        expected = {
            (i, place, one.period)
            for i, one in enumerate(parts)
            for place in np.flatnonzero(one.elements == element)
        }
        assert found == expected


@pytest.mark.parametrize("size", [1, 3])
def test_occurrences_refuse_a_tensor_that_is_not_there(size: int) -> None:
    with pytest.raises(PassError, match="do not hold its elements"):
        occurrences([places(0, 1)], size)


@given(st.integers(1, 40), st.integers(0, 3), st.integers(0, 4))
def test_natural_places_hold_each_element_once_in_order(size: int, bits: int, more: int) -> None:
    stride, capacity = 1 << bits, 1 << bits + more
    parts = [t.places for t in natural(size, capacity, stride)]
    assert all(p.period <= capacity for p in parts)
    assert in_order(parts)
    held = np.concatenate([p.elements[p.held] for p in parts])
    np.testing.assert_array_equal(held, np.arange(size))
    assert all(p.unique for p in parts)
