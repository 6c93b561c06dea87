"""The checks of finished programs, attacked: each lie that a pass could tell must be refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hecompile.errors import HecompileError, PassError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.numeric.parameters import Parameters
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline
from tests.unit.test_passes_slots import FINISH, PLAN, recurrence, refreshed


@pytest.fixture(scope="module")
def context() -> Context:
    return Context({"x": np.random.default_rng(0).normal(size=(40, 1, 8))})


@pytest.fixture(scope="module")
def finished(context: Context) -> Program:
    planned = parse_pipeline(refreshed(3, 4)).run(recurrence(5), context)
    chosen = planned.replace(parameters=Parameters(8192, (40, 30, 30, 30, 30, 44), 30))
    return parse_pipeline(FINISH).run(chosen, context)


def retyped(program: Program, change: Callable[[Operation, CipherType], CipherType]) -> Program:
    """The program with the types of ciphertexts changed, consistently at every use."""
    renamed: dict[str, Value] = {}
    operations = []
    for op in program:
        op = op.with_operands(renamed)
        if op.result is not None and isinstance(op.result.type, CipherType):
            renamed[op.result.name] = Value(op.result.name, change(op, op.result.type))
            op = op.with_result(renamed[op.result.name])
        operations.append(op)
    return program.replace(operations=tuple(operations))


def refuse(program: Program, context: Context, check: str, match: str) -> None:
    with pytest.raises(HecompileError, match=match):
        parse_pipeline(check).run(program, context)


def test_the_untouched_program_passes(finished: Program, context: Context) -> None:
    for check in ("check-levels", "check-scales", "check-parameters", "check-precision"):
        assert parse_pipeline(check).run(finished, context) == finished


def test_bounds_that_samples_exceed_are_refused(finished: Program, context: Context) -> None:
    lying = retyped(finished, lambda op, facts: dataclasses.replace(facts, bound=1e-3))
    refuse(lying, context, "check-precision", "on the calibration samples")


def test_samples_after_the_first_count(finished: Program, context: Context) -> None:
    calm = np.random.default_rng(1).normal(size=(200, 1, 8))
    wild = np.concatenate([calm, 50 * calm[:1]])
    refuse(finished, Context({"x": wild}), "check-precision", "on the calibration samples")
    planned = parse_pipeline(PLAN).run(recurrence(3), Context({"x": wild}))
    widest = max(he.cipher_type(op.defined).bound or 0 for op in planned.select(he.Mul))
    assert widest > 100


def test_periods_that_values_do_not_keep_are_refused(finished: Program, context: Context) -> None:
    halved = retyped(
        finished,
        lambda op, facts: (
            dataclasses.replace(facts, period=facts.period // 2, layout=None)
            if isinstance(op, he.SumMulPlain)
            else facts
        ),
    )
    refuse(halved, context, "check-precision", "does not repeat every|has the type")


def test_values_that_overflow_are_refused(finished: Program, context: Context) -> None:
    tight = finished.replace(parameters=Parameters(8192, (31, 30, 30, 30, 30, 44), 30))
    refuse(tight, context, "check-precision", "may overflow by")


@pytest.mark.parametrize("shift", [-1, 1, 9])
def test_a_level_out_of_place_is_refused(finished: Program, context: Context, shift: int) -> None:
    first = finished.select(he.SumMulPlain)[0]

    def change(op: Operation, facts: CipherType) -> CipherType:
        moved = op == first and facts.level is not None
        return dataclasses.replace(facts, level=facts.level + shift) if moved else facts  # type: ignore[operator]

    refuse(retyped(finished, change), context, "check-levels", "is at level|is not in 0")


def test_a_scattered_refresh_group_is_refused(finished: Program, context: Context) -> None:
    refreshes = [i for i, op in enumerate(finished) if isinstance(op, he.Refresh)]
    assert len(refreshes) >= 2
    operations: list[Any] = list(finished.operations)
    operations[refreshes[-1]] = dataclasses.replace(operations[refreshes[-1]], group=0)
    scattered = finished.replace(operations=tuple(operations))
    if refreshes[-1] - refreshes[0] == len(refreshes) - 1:
        pytest.fail("the program has one round only; the test needs two")
    refuse(scattered, context, "check-levels", "group 0 was closed before")


def test_a_product_that_is_not_relinearized_is_refused(finished: Program, context: Context) -> None:
    kept = []
    renamed: dict[str, Value] = {}
    for op in finished:
        op = op.with_operands(renamed)
        if isinstance(op, he.Relinearize):
            renamed[op.defined.name] = op.x
        elif op.result is not None and isinstance(op.result.type, CipherType):
            inferred = op.infer()
            polynomials = inferred.polynomials if isinstance(inferred, CipherType) else 2
            facts = dataclasses.replace(op.result.type, polynomials=polynomials)
            renamed[op.result.name] = Value(op.result.name, facts)
            kept.append(op.with_result(renamed[op.result.name]))
        else:
            kept.append(op)
    lazy = finished.replace(operations=tuple(kept))
    refuse(lazy, context, "check-levels", "must be relinearized first")


@pytest.mark.parametrize("kind", [he.Add, he.Mul, he.Rescale, he.Rotate, he.AddPlain])
def test_a_scale_out_of_place_is_refused(
    finished: Program, context: Context, kind: type[Operation]
) -> None:
    first = finished.select(kind)[0]

    def change(op: Operation, facts: CipherType) -> CipherType:
        off = op.result is not None and first.result is not None
        same = off and op.result.name == first.result.name  # type: ignore[union-attr]
        return dataclasses.replace(facts, scale=(facts.scale or 1) * 1.001) if same else facts

    refuse(retyped(finished, change), context, "check-scales", "scale")


@pytest.mark.parametrize(
    ("bits", "match"),
    [
        ((60, 60, 60, 60, 60, 60), "128-bit|bits"),
        ((60, 40, 30, 30, 30, 30), "128-bit|bits"),
    ],
)
def test_parameters_that_no_constructor_allows_are_refused(
    finished: Program, context: Context, bits: tuple[int, ...], match: str
) -> None:
    forged = Parameters(8192, (40, 30, 30, 30, 30, 44), 30)
    object.__setattr__(forged, "coeff_modulus_bits", bits)
    forged.__dict__.pop("primes", None)
    refuse(finished.replace(parameters=forged), context, "check-parameters", match)


def test_a_period_longer_than_the_ring_is_refused(finished: Program, context: Context) -> None:
    wide = retyped(finished, lambda op, facts: dataclasses.replace(facts, period=8192, layout=None))
    with pytest.raises(PassError, match="the ring only 4096"):
        parse_pipeline("check-parameters").passes[0].run(wide, context)
