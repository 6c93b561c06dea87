"""Budgets of levels between refreshes: what limits allow, what rings have room for."""

from __future__ import annotations

from itertools import pairwise

import pytest

from hecompile.budgets import SegmentBudgets
from hecompile.config import CompileOptions
from hecompile.cuts import CutPrices, plan_cuts
from hecompile.ir.program import Program
from hecompile.packing.depth import Levels
from tests.unit.test_passes_slots import recurrence

RINGS = (4096, 8192, 16384, 32768)


@pytest.fixture(scope="module")
def deep() -> Program:
    """Of 17 levels."""
    return recurrence(8, size=4)


def on(program: Program, ring: int, **options: object) -> list[int | None]:
    return SegmentBudgets(program, CompileOptions(**options)).on(ring)  # type: ignore[arg-type]


def ranked(program: Program, ring: int, **options: object) -> list[tuple[int | None, float]]:
    return SegmentBudgets(program, CompileOptions(**options)).ranked(ring)  # type: ignore[arg-type]


def rounds(program: Program, levels: int) -> int:
    found = plan_cuts(program, levels, levels, CutPrices())
    assert found is not None
    return len(found.places)


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("options", [{"refresh": "never"}, {"max_refreshes": 0}])
def test_where_no_round_is_allowed_none_is_planned(
    deep: Program, ring: int, options: dict[str, object]
) -> None:
    assert set(on(deep, ring, **options)) <= {None}


@pytest.mark.parametrize("ring", RINGS)
def test_no_budget_needs_more_rounds_than_allowed(deep: Program, ring: int) -> None:
    free = on(deep, ring)
    for most in range(1, 18):
        allowed = on(deep, ring, max_refreshes=most)
        assert allowed == [n for n in free if n is None or rounds(deep, n) <= most]


def test_larger_rings_have_room_for_more_levels_and_larger_masks_for_fewer(deep: Program) -> None:
    found = [set(on(deep, ring)) for ring in RINGS]
    assert all(one <= other for one, other in pairwise(found))
    assert {1, 2, 3} <= found[1]
    assert None in found[3]
    assert None not in found[1]
    for ring in RINGS:
        assert set(on(deep, ring)) <= set(on(deep, ring, mask_bits=0))


def test_a_segment_is_never_as_deep_as_the_program() -> None:
    """Then the program needs no refresh."""
    for steps in range(1, 5):
        program = recurrence(steps, size=4)
        depth = Levels(program).total()
        found = on(program, 32768)
        assert None in found
        assert [n for n in found if n is not None] == list(range(1, depth))


@pytest.mark.parametrize("ring", RINGS)
def test_the_cheapest_budget_comes_first(deep: Program, ring: int) -> None:
    found = ranked(deep, ring)
    prices = [price for _, price in found]
    assert prices == sorted(prices)
    assert {levels for levels, _ in found} == set(on(deep, ring))


def test_a_program_that_needs_no_refresh_is_first_tried_without() -> None:
    for ring in (8192, 16384):
        assert ranked(recurrence(1, size=4), ring)[0][0] is None
    assert ranked(recurrence(8, size=4), 32768, rtt=100.0)[0][0] is None


def test_a_client_that_offers_rounds_is_not_asked_what_they_cost(deep: Program) -> None:
    near, far = (ranked(deep, 16384, refresh="client", rtt=rtt) for rtt in (0.0, 10.0))
    assert near == far
    slow = dict(ranked(deep, 16384, rtt=10.0))
    assert all(slow[levels] > price for levels, price in near if levels is not None)


def test_long_round_trips_ask_for_fewer_rounds(deep: Program) -> None:
    def first(rtt: float) -> int:
        budgets = [n for n, _ in ranked(deep, 16384, rtt=rtt, bandwidth=1e12) if n is not None]
        return rounds(deep, budgets[0])

    found = [first(rtt) for rtt in (0.0, 0.05, 5.0)]
    assert found == sorted(found, reverse=True)
    fewest = min(rounds(deep, n) for n in on(deep, 16384) if n is not None)
    assert found[-1] == fewest
