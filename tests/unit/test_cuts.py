"""Where programs are cut: as cheaply as any cuts in the two orders that are tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hecompile.cuts import VIEWS, CutPrices, plan_cuts, view_roots
from hecompile.errors import PassError
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.packing.depth import Levels
from hecompile.passbase import Context
from hecompile.passes.insert_refresh import InsertRefresh
from hecompile.passes.lower_to_slots import LowerToSlots
from tests.differential.meaning import assert_same_meaning
from tests.differential.test_packing_programs import random_program

PRICES = st.sampled_from([CutPrices(), CutPrices(0.0, 1.0), CutPrices(10.0, 1.0)])


def price_of(
    program: Program,
    order: Sequence[Operation],
    places: Sequence[int],
    budget: tuple[int, int],
    prices: CutPrices,
) -> float:
    """What cuts cost, by walking through the program; infinite if a segment is too deep."""
    levels, last = budget
    own, roots = Levels(program), view_roots(program)
    reads = [{roots[v.name] for v in op.operands} for op in order]
    depth: dict[str, int] = {}
    total = 0.0
    for i, op in enumerate(order):
        if i in places:
            live = set().union(*reads[i:])
            handed = [name for name in depth if name in live and depth[name] > 0]
            if any(depth[name] > levels for name in handed):
                return math.inf
            total += prices.round + prices.tensor * len(handed)
            depth |= dict.fromkeys(handed, 0)
        here = max((depth[name] for name in reads[i]), default=0) + own.of(op)
        if here > (last if isinstance(op, tensor.Output) else max(levels, last)):
            return math.inf
        if op.result is not None:
            depth[op.result.name] = here
    return total


def orders(program: Program) -> list[list[Operation]]:
    """As the program stands, and by depth."""
    used = Levels(program).used()
    plain = [op for op in program if not isinstance(op, VIEWS)]

    def depth(op: Operation) -> int:
        return used[op.result.name] if op.result is not None else used[op.operands[0].name]

    return [plain, sorted(plain, key=depth)]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(3, 7), st.integers(1, 2), PRICES)
def test_no_cuts_in_these_orders_cost_less(
    seed: int, steps: int, outputs: int, prices: CutPrices
) -> None:
    program = random_program(seed, 1, 1, steps, outputs)
    own = Levels(program)
    assume(own.total() > 1)
    random = np.random.default_rng(seed)
    levels = int(random.integers(1, own.total()))
    budget = levels, int(random.integers(0, levels + 1))
    best = math.inf
    for order in orders(program):
        for count in range(len(order)):
            for places in combinations(range(1, len(order)), count):
                best = min(best, price_of(program, order, places, budget, prices))
    found = plan_cuts(program, *budget, prices)
    if found is None:
        assert best == math.inf
        return
    assert found.price == pytest.approx(best)
    assert price_of(program, found.operations, found.places, budget, prices) == found.price
    assert len(found.places) * prices.round + found.tensors * prices.tensor == found.price


def build(write: Callable[[Builder, Value], Value]) -> Program:
    """A program on one input of four elements."""
    builder = Builder(name="small")
    x = builder.emit(tensor.Input(label="x", dims=(1, 4)), "x")
    builder.keep(tensor.Output(x=write(builder, x), label="y"))
    return builder.finish()


def square(builder: Builder, x: Value) -> Value:
    return builder.emit(tensor.Mul(x=x, y=x))


def test_chains_that_stand_one_after_the_other_share_rounds() -> None:
    def directions(builder: Builder, x: Value) -> Value:
        ends = []
        for _ in range(3):
            value = x
            for _ in range(4):
                value = square(builder, value)
            ends.append(value)
        both = builder.emit(tensor.Add(x=ends[0], y=ends[1]))
        return builder.emit(tensor.Add(x=both, y=ends[2]))

    program = build(directions)
    found = plan_cuts(program, 2, 2, CutPrices())
    assert found is not None
    assert len(found.places) == 1
    assert found.tensors == 3
    assert_same_meaning(program, InsertRefresh(levels=2).run(program, Context()), 0.0, "cut")


def test_the_narrow_place_is_cut() -> None:
    """Between the deep parts one tensor lives, inside them two."""

    def waists(builder: Builder, x: Value) -> Value:
        for _ in range(2):
            left, right = square(builder, x), builder.emit(tensor.Neg(x=x))
            x = builder.emit(tensor.Mul(x=left, y=square(builder, right)))
        return x

    found = plan_cuts(build(waists), 2, 2, CutPrices())
    assert found is not None
    assert found.refreshed == (found.refreshed[0],)
    assert len(found.refreshed[0]) == 1


def test_a_value_that_is_handed_over_is_read_through_its_views_only_anew() -> None:
    def views(builder: Builder, x: Value) -> Value:
        x = square(builder, x)
        half = builder.emit(move.Slice(x=x, axis=1, start=1, stop=3))
        flat = builder.emit(move.Reshape(x=half, dims=(2,)))
        early = builder.emit(tensor.Mul(x=flat, y=flat))
        return builder.emit(tensor.Mul(x=early, y=flat))

    program = build(views)
    cut = InsertRefresh(levels=2).run(program, Context())
    assert_same_meaning(program, cut, 0.0, "cut")
    for op in cut.select(move.Refresh):
        assert not isinstance(cut.definitions[op.x.name], VIEWS)


def test_dead_code_costs_no_round() -> None:
    def dead(builder: Builder, x: Value) -> Value:
        for _ in range(3):
            square(builder, x)
        return square(builder, x)

    program = build(dead)
    assert InsertRefresh(levels=1).run(program, Context()) == program


def test_refreshes_that_do_not_suffice_are_not_mixed_with_others() -> None:
    def deep(builder: Builder, x: Value) -> Value:
        for _ in range(6):
            x = square(builder, x)
        return x

    cut = InsertRefresh(levels=3).run(build(deep), Context())
    assert InsertRefresh(levels=4).run(cut, Context()) == cut
    with pytest.raises(PassError, match="run it once"):
        InsertRefresh(levels=2).run(cut, Context())


def test_a_round_that_is_torn_apart_is_refused() -> None:
    def torn(builder: Builder, x: Value) -> Value:
        first = builder.emit(move.Refresh(x=square(builder, x)))
        second = builder.emit(move.Refresh(x=square(builder, first)))
        return builder.emit(tensor.Mul(x=first, y=second))

    with pytest.raises(PassError, match="do not follow one another"):
        LowerToSlots(slots=8).run(build(torn), Context())


@pytest.mark.parametrize("search", [True, False])
def test_what_is_packed_for_its_refresh_is_there_before_it(search: bool) -> None:
    """Inputs and fresh values are ciphertexts only once something reads them."""

    def unused(builder: Builder, x: Value) -> Value:
        squared = square(builder, x)
        pair = [builder.emit(move.Refresh(x=v, group=0)) for v in (squared, x)]
        again = builder.emit(move.Refresh(x=pair[1], group=1))
        return builder.emit(tensor.Mul(x=pair[0], y=again))

    program = build(unused)
    packed = LowerToSlots(slots=8, search=search).run(program, Context())
    assert_same_meaning(program, packed, 1e-9, "lower-to-slots")
