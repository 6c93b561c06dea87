"""What a linear map is said to take is what the packer emits for it."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hecompile.ir import he_ops as he
from hecompile.ir.constants import SparseMap
from hecompile.ir.program import Builder
from hecompile.packing import targets as goals
from hecompile.packing.demand import Source, demand
from hecompile.packing.packer import Packer, Term
from hecompile.packing.places import Packed, Part, Places, power_of_two
from hecompile.packing.sources import Handed, Model
from tests.unit.packing_cases import maps, operands


def packed(build: Builder, label: str, parts: tuple[Places, ...], size: int) -> Packed:
    """Ciphertexts with an operand at these places."""
    found = []
    for i, places in enumerate(parts):
        shape = {"dims": (size,), "period": places.period, "first": 0, "count": 1}
        op = he.Input(label=f"{label}.{i}", **shape)  # type: ignore[arg-type]
        found.append(Part(build.emit(op, label), places))
    return Packed(tuple(found), size)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.data())
def test_a_map_takes_what_is_counted(data: st.DataObject) -> None:
    """Of operands with different periods the longest sums are folded until they meet the next."""
    rows = data.draw(st.integers(1, 10))
    targets = data.draw(
        st.sampled_from(list(goals.strided(rows, data.draw(st.sampled_from([4, 16, 64])))))
    )
    build = Builder(name="map")
    packer = Packer(build, 64, 1)
    terms, sources = [], []
    for i in range(data.draw(st.integers(1, 3))):
        parts, columns = data.draw(operands())
        linear = data.draw(maps(rows, columns))
        terms.append(Term(packed(build, f"x{i}", parts, columns), linear))
        sources.append(Source(linear, parts, columns))
    # A map of zeros is not free, for it hides that it is one.
    reached = {int(r) for s in sources for r in s.linear.rows[s.linear.values != 0]}
    assume(all(reached & set(t.places.elements[t.places.held].tolist()) for t in targets))
    given_operands = {op.defined.name for op in build.finish().select(he.Input)}
    packer.affine(terms, np.zeros(rows), targets)
    program = build.finish()
    rotations = program.select(he.Rotate)
    before = {(op.x.name, op.steps) for op in rotations if op.x.name in given_operands}
    folds = [op for op in rotations if op.x.name not in given_operands]
    counted = demand(sources, targets)
    assert counted.folds == len(folds)
    assert counted.rotations <= len(before)
    assert counted.products == sum(len(op.xs) for op in program.select(he.SumMulPlain))
    assert counted.results == len(targets)
    assert counted.low == sum(t.low for t in targets)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data())
def test_what_is_gathered_for_a_map_is_counted_beside_what_is_not(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 10))
    (target,) = goals.natural(rows, 16)
    most = 64 // target.places.period
    chunks = 1 << data.draw(st.integers(0, most.bit_length() - 1))
    parts, columns = data.draw(operands())
    near, far = data.draw(maps(rows, columns)), data.draw(maps(rows, 8))
    assume(near.values.any() and far.values.any())
    for kind in (he.Input, he.Refresh):
        build = Builder(name="map")
        packer = Packer(build, 64, 1)
        operand = packed(build, "x", parts, columns)
        handed = packed(build, "z", tuple(t.places for t in goals.natural(8, 8)), 8)
        model = Model("y", (8,))
        free = packer.source("y", model if kind is he.Input else Handed(handed, 40, 0))
        known = {op.result for op in build.finish()}
        terms = [Term(operand, near), Term(free, far, chunks)]
        packer.affine(terms, np.zeros(rows), (target,))
        program = build.finish()
        counted = demand(
            [Source(near, parts, columns), Source(far, (), 8, chunks)],
            (target,),
        )
        new = [op for op in program.select(kind) if op.result not in known]
        # Taps that hold the same share a ciphertext.
        assert 1 <= len(new) <= counted.taps
        assert counted.products == sum(len(op.xs) for op in program.select(he.SumMulPlain))
        given_operands = {x.name for x in known | {op.result for op in new} if x is not None}
        rotations = program.select(he.Rotate)
        assert counted.folds == sum(op.x.name not in given_operands for op in rotations)


def test_sums_of_different_lengths_are_folded_one_into_the_other() -> None:
    """Periods 64, 16 and 4 onto 4 places: four folds, not four and two."""
    build = Builder(name="sums")
    packer = Packer(build, 64, 1)
    terms, sources = [], []
    for size in (64, 16, 4):
        linear = SparseMap.from_dense(np.ones((4, size)))
        parts = tuple(t.places for t in goals.natural(size, 64))
        assert parts[0].period == power_of_two(size)
        terms.append(Term(packed(build, f"x{size}", parts, size), linear))
        sources.append(Source(linear, parts, size))
    targets = goals.natural(4, 64)
    assert demand(sources, targets).folds == 4
    packer.affine(terms, np.zeros(4), targets)
    program = build.finish()
    inputs = {op.defined.name for op in program.select(he.Input)}
    assert sum(op.x.name not in inputs for op in program.select(he.Rotate)) == 4
