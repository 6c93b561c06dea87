"""Passes keep the meaning of programs: interpret before, interpret after, compare."""

from __future__ import annotations

import pytest

from hecompile.errors import HecompileError
from hecompile.ir.program import Program
from hecompile.ir.verifier import verify
from hecompile.passbase import Context, Pass, registered_passes
from hecompile.pipeline import build_pass, parse_pipeline
from tests.differential.meaning import assert_same_meaning
from tests.golden.cases import Case, collect_cases, random_inputs

CASES = collect_cases()
RUNNING = [case for case in CASES if case.kind != "refuses"]
PASSES = [name for name, cls in registered_passes().items() if cls.tolerance is not None]


@pytest.mark.parametrize("case", RUNNING, ids=str)
def test_each_step_of_a_golden_pipeline_keeps_the_meaning(case: Case) -> None:
    program, context = case.program, case.context
    for one in parse_pipeline(case.headers["pipeline"]).passes:
        after = one.run(program, context)
        if one.tolerance is not None:
            assert_same_meaning(program, after, one.tolerance, f"{case}: {one}")
        program = after


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_refuses_or_keeps_the_meaning_of_every_golden_program(name: str) -> None:
    """Also of programs that its own golden files never show it."""
    try:
        one = build_pass(name)
    except HecompileError as error:
        pytest.skip(f"needs options: {error}")
    assert one.tolerance is not None
    for case in CASES:
        after = _attempt(one, case)
        if after is not None:
            verify(after)
            assert_same_meaning(case.program, after, one.tolerance, f"{name} on {case}")


def _attempt(one: Pass, case: Case) -> Program | None:
    """The rewritten program, or None where the pass refuses it with a proper error."""
    program = case.program
    try:
        return one.run(program, Context(random_inputs(program, 16, seed=3), precision=1e-2))
    except HecompileError:
        return None
