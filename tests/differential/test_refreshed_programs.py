"""Programs that are cut and packed compute what their tensors say, and no segment is too deep."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from hecompile.cuts import VIEWS
from hecompile.ir import he_ops as he
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.gathers import gather_of
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.ir.verifier import verify
from hecompile.levels import refreshed_depth
from hecompile.packing.depth import Levels
from hecompile.passbase import Context
from hecompile.passes.insert_refresh import InsertRefresh
from hecompile.pipeline import parse_pipeline
from tests.differential.meaning import assert_same_meaning
from tests.differential.test_packing_programs import BATCHES, random_program

REPACKING = "repack"
"""Location of the maps that bring an output which no layout describes in order: one level more."""


def rounds(program: Program, kind: type[Operation]) -> list[int | None]:
    """Groups of refreshes in the order in which rounds begin."""
    groups = [op.group if isinstance(op, kind) else None for op in program]  # type: ignore[attr-defined]
    return [group for group, _ in groupby(groups) if group is not None]


def budget(program: Program, seed: int) -> tuple[int, int]:
    """Levels of segments and of outputs for which some, but not all, is too deep."""
    random, levels = np.random.default_rng(seed), Levels(program)
    deepest, total = max(map(levels.of, program)), levels.total()
    assume(deepest < total)
    chosen = int(random.integers(max(deepest, 1), total))
    return chosen, int(random.integers(0, chosen + 1))


def assert_cut(program: Program, cut: Program, levels: int, last: int) -> None:
    """Every rule of `insert-refresh`, derived without its planner."""
    assert_same_meaning(program, cut, 0.0, "insert-refresh")
    own = Levels(cut)
    used: dict[str, int] = {}
    stale: set[str] = set()
    for op in cut:
        before = max((used[v.name] for v in op.operands), default=0)
        match op:
            case move.Refresh():
                assert before <= levels
                assert not isinstance(cut.definitions[op.x.name], VIEWS)
                stale |= {name for name, depth in used.items() if depth > 0}
            case tensor.Output():
                assert before <= last
        if not isinstance(op, move.Refresh):
            assert not stale & {v.name for v in op.operands}, "read across a cut"
        if op.result is not None:
            used[op.result.name] = 0 if isinstance(op, move.Refresh) else before + own.of(op)
            stale.discard(op.result.name)
    groups = rounds(cut, move.Refresh)
    assert groups == sorted(set(groups))  # type: ignore[type-var]


def assert_packed(cut: Program, packed: Program, levels: int, last: int) -> None:
    verify(packed)
    assert_same_meaning(cut, packed, 1e-8, "lower-to-slots")
    for op in packed.select(he.Refresh):
        gather = gather_of(op, packed)
        held = gather.source >= 0
        assert held.any()
        assert set(gather.source[held]) == set(range(len(op.xs)))
    groups = rounds(packed, he.Refresh)
    assert len(groups) == len(set(groups))
    assert set(groups) <= {op.group for op in cut.select(move.Refresh)}
    more = any(op.location == REPACKING for op in packed.select(he.SumMulPlain))
    depth = refreshed_depth(packed)
    assert depth.handed <= levels + more
    assert depth.left <= last + more


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("search", ["true", "false"])
def test_refreshes_keep_the_meaning_and_the_budget(batch: int, search: str) -> None:
    @settings(
        deadline=None,
        derandomize=True,
        max_examples=15,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(
        st.integers(0, 2**32 - 1),
        st.integers(1, 2),
        st.integers(3, 9),
        st.integers(1, 2),
        st.sampled_from([16, 32, 64]),
    )
    def check(seed: int, inputs: int, steps: int, outputs: int, slots: int) -> None:
        program = random_program(seed, batch, inputs, steps, outputs)
        levels, last = budget(program, seed)
        cut = InsertRefresh(levels=levels, last=last).run(program, Context())
        assert_cut(program, cut, levels, last)
        lower = f"dce,lower-to-slots{{slots={slots} search={search}}},cse,plan-rotations,cse,dce"
        assert_packed(cut, parse_pipeline(lower).run(cut, Context()), levels, last)
        assert InsertRefresh(levels=levels, last=last).run(cut, Context()) == cut

    check()
