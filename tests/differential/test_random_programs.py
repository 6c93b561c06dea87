"""Passes refuse or keep the meaning of random programs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from hecompile.errors import HecompileError
from hecompile.interpret.tensor import trace_tensor
from hecompile.ir.constants import Constant
from hecompile.ir.movement_ops import Affine
from hecompile.ir.program import Program
from hecompile.ir.verifier import verify
from hecompile.passbase import Context, registered_passes
from hecompile.pipeline import build_pass, parse_pipeline
from tests.differential.meaning import assert_same_meaning
from tests.golden.cases import random_inputs
from tests.unit.ir_programs import tensor_programs

PASSES = [name for name, cls in registered_passes().items() if cls.tolerance is not None]
TO_SLOTS = (
    "normalise,fold-constants,fold-batchnorm,cse,dce,merge-linear,require-polynomial,dce,"
    "lower-to-slots,plan-rotations,cse,dce"
)
LARGEST = 1e6
QUICK = settings(
    deadline=None,
    derandomize=True,
    max_examples=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def tame(program: Program) -> Program:
    """The program with constants of ordinary size, and without what grows beyond all bounds."""
    random = np.random.default_rng(len(program.operations))
    maps = {symbol for op in program.select(Affine) for symbol in op.maps}
    constants = {}
    for symbol, constant in program.constants.items():
        array = random.uniform(0.25, 1.0, size=constant.array.shape)
        if symbol in maps:
            array[:2] = constant.array[:2]
        constants[symbol] = Constant(array)
    tamed = program.replace(constants=constants)
    with np.errstate(over="ignore", invalid="ignore"):
        for _, array in trace_tensor(tamed, random_inputs(tamed, 2 * tamed.batch + 1, seed=7)):
            assume(bool(np.all(np.abs(array) < LARGEST)))
    return tamed


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_refuses_or_keeps_the_meaning(name: str) -> None:
    try:
        one = build_pass(name)
    except HecompileError as error:
        pytest.skip(f"needs options: {error}")
    tolerance = one.tolerance
    assert tolerance is not None

    @QUICK
    @given(tensor_programs())
    def check(wild: Program) -> None:
        program = tame(wild)
        try:
            after = one.run(program, Context(random_inputs(program, 16, seed=3)))
        except HecompileError:
            return
        verify(after)
        assert_same_meaning(program, after, tolerance, name)

    check()


def test_the_way_to_slots_keeps_the_meaning() -> None:
    lowered = 0

    @settings(QUICK, max_examples=60)
    @given(tensor_programs())
    def check(wild: Program) -> None:
        nonlocal lowered
        program = tame(wild)
        try:
            after = parse_pipeline(TO_SLOTS).run(program, Context())
        except HecompileError:
            return
        lowered += 1
        assert_same_meaning(program, after, 1e-8, TO_SLOTS)

    check()
    assert lowered >= 10
