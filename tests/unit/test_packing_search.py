"""The search for layouts: what it proposes holds, and what it pays for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hecompile.interpret.slots import run_program_slots
from hecompile.ir import he_ops as he
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import SparseMap
from hecompile.ir.program import Builder, Program
from hecompile.packing.demand import Source, demand
from hecompile.packing.price import Prices, Weighing, remaining_levels
from hecompile.packing.search import LayoutSearch
from hecompile.packing.targets import natural
from hecompile.passbase import Context
from hecompile.passes.lower_to_slots import LowerToSlots
from tests.differential.test_packing_programs import random_program


def chain(*stages: np.ndarray | None) -> Program:
    """Linear maps in a row; None stands for a square."""
    build = Builder(name="chain")
    first = next(stage for stage in stages if stage is not None)
    value = build.emit(tensor.Input(label="x", dims=(1, first.shape[1])), "x")
    for stage in stages:
        if stage is None:
            value = build.emit(tensor.Mul(x=value, y=value))
            continue
        maps = (build.constant(SparseMap.from_dense(stage).to_array(), "map"),)
        bias = build.constant(np.zeros(len(stage)), "bias")
        op = move.Affine(xs=(value,), maps=maps, bias=bias, dims=(1, len(stage)))
        value = build.emit(op)
    build.keep(tensor.Output(x=value, label="y"))
    return build.finish()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 8, 64]))
def test_every_map_gets_targets_that_hold_its_result(seed: int, capacity: int) -> None:
    program = random_program(seed, 1, 2, 6, 1)
    decisions, price = LayoutSearch(program, capacity, Prices(8192)).best()
    assert price >= 0
    for op in program.select(move.Affine):
        targets = decisions.choices[op.defined.name].targets
        held = np.concatenate([t.places.elements[t.places.held] for t in targets])
        assert set(held.tolist()) == set(range(tensor.tensor_type(op.defined).size))
        assert all(t.places.period <= capacity for t in targets)


def rotations(program: Program) -> int:
    return len(program.select(he.Rotate))


def test_a_client_that_costs_nothing_saves_every_rotation_of_the_first_map() -> None:
    program = chain(np.arange(1.0, 65.0).reshape(8, 8))
    cheap = LowerToSlots(slots=64, client=0.0).run(program, Context())
    dear = LowerToSlots(slots=64, client=1e6).run(program, Context())
    assert rotations(cheap) == 0
    assert len(dear.select(he.Input)) == 1
    assert len(cheap.select(he.Input)) > 1


def test_inputs_that_two_maps_read_in_order_are_paid_once() -> None:
    build = Builder(name="twice")
    x = build.emit(tensor.Input(label="x", dims=(4,)), "x")
    build.keep(tensor.Output(x=build.emit(tensor.Mul(x=x, y=x)), label="y"))
    once = build.finish()
    build.keep(tensor.Output(x=build.emit(tensor.Neg(x=x)), label="z"))
    prices = Prices(8192, Weighing(client=1.0))
    found = [LayoutSearch(p, 4, prices).best()[1] for p in (once, build.finish())]
    assert found[0] == pytest.approx(found[1])
    assert found[0] >= prices.packed(1, 1)


def test_an_input_is_declared_once_for_all_who_read_it() -> None:
    """Also as a square before a map whose client packing the search may choose."""
    build = Builder(name="shared")
    x = build.emit(tensor.Input(label="x", dims=(1, 4)), "x")
    flat = build.emit(move.Reshape(x=x, dims=(4,)))
    build.keep(tensor.Output(x=build.emit(tensor.Mul(x=x, y=x)), label="a"))
    build.keep(tensor.Output(x=build.emit(tensor.Mul(x=flat, y=flat)), label="b"))
    lowered = LowerToSlots(slots=16).run(build.finish(), Context())
    assert len(lowered.select(he.Input)) == 1


def test_an_input_that_nothing_reads_stays_in_the_signature() -> None:
    build = Builder(name="unread")
    x = build.emit(tensor.Input(label="x", dims=(1, 4)), "x")
    build.emit(tensor.Input(label="unread", dims=(1, 2)), "unread")
    build.keep(tensor.Output(x=build.emit(tensor.Neg(x=x)), label="y"))
    lowered = LowerToSlots(slots=16).run(build.finish(), Context())
    assert {op.label for op in lowered.select(he.Input)} == {"x", "unread"}


@pytest.mark.parametrize("search", [True, False])
def test_a_map_of_zeros_that_follows_a_square_gives_zeros(search: bool) -> None:
    program = chain(np.eye(4), None, np.zeros((2, 4)))
    lowered = LowerToSlots(slots=16, search=search).run(program, Context())
    found = run_program_slots(lowered, {"x": np.ones((2, 1, 4))})
    np.testing.assert_array_equal(found["y"], np.zeros((2, 1, 2)))


def test_demand_counts_what_a_kernel_takes() -> None:
    linear = SparseMap.from_dense(np.arange(1.0, 65.0).reshape(8, 8))
    parts = tuple(t.places for t in natural(8, 64))
    plain = demand([Source(linear, parts, 8)], natural(8, 64))
    assert (plain.products, plain.rotations, plain.folds, plain.taps) == (8, 4, 0, 0)
    few = demand([Source(linear, parts, 8)], natural(8, 64, 8, 3))
    assert (few.products, few.rotations, few.folds) == (1, 0, 3)
    packed = demand([Source(linear, parts, 8, 4)], natural(8, 64))
    assert (packed.products, packed.rotations, packed.folds, packed.taps) == (2, 0, 2, 2)
    alone = tuple(t.places for t in natural(8, 1))
    assert demand([Source(linear, alone, 8)], natural(8, 1)).scalar


def test_remaining_levels_count_maps_products_and_polynomials() -> None:
    program = chain(np.ones((2, 2)), None, np.ones((2, 2)))
    levels = remaining_levels(program)
    assert levels["x"] == 3
    assert sorted(levels.values()) == [0, 1, 2, 3]
