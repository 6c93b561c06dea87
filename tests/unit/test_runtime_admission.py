from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hecompile.errors import PassError, ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir import movement_ops as move
from hecompile.ir import tensor_ops
from hecompile.ir.constants import Constant
from hecompile.ir.operation import Operation, Value
from hecompile.ir.parcels import parcels
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType, TensorType
from hecompile.numeric.parameters import Parameters
from hecompile.passbase import Context
from hecompile.passes.insert_refresh import InsertRefresh
from hecompile.runtime.admission import check_program
from tests.encrypted.relayout_rounds import DEEP, round_program
from tests.encrypted.runtime_programs import matrix_program, polynomial_program, refresh_program

POLYNOMIAL = polynomial_program(np.arange(1.0, 4.0))
POWER = refresh_program()


def retyped(program: Program, kind: type[Operation], **facts: object) -> Program:
    """The program with facts of the first such operation's result changed, users included."""
    target = program.select(kind)[0].defined
    assert isinstance(target.type, CipherType)
    new = Value(target.name, replace(target.type, **facts))  # type: ignore[arg-type]
    operations = tuple(
        replace(op.with_operands({target.name: new}), result=new)
        if op.result == target
        else op.with_operands({target.name: new})
        for op in program
    )
    return program.replace(operations=operations)


def test_sound_programs_are_admitted() -> None:
    for program in (POLYNOMIAL, POWER, matrix_program(np.eye(4), np.ones(4))):
        assert check_program(program) == program.parameters


@pytest.mark.parametrize(
    ("kind", "facts", "message"),
    [
        (he.Input, {"level": 2}, "levels 2, 2 and 3 differ"),
        (he.Input, {"level": None}, "has no level and scale"),
        (he.Input, {"scale": 2.0**31}, "its scale is not the product"),
        (he.Input, {"scale": 2.0**300}, "does not fit the modulus of level 3"),
        (he.Input, {"period": 8192}, "longer than the 4096 slots"),
        (he.Mul, {"level": 7}, "level 7 does not exist"),
        (he.Rescale, {"level": 1}, "goes from level 3 to 1"),
        (he.Rescale, {"scale": 2.0**29}, "its scale is not .* divided by"),
        (he.DropLevel, {"level": 1}, "goes from level 3 to 1, not 1 down"),
        (he.DropLevel, {"scale": 2.0**29}, "changes the scale"),
        (he.Add, {"scale": 2.0**29}, "has the scale"),
        (he.Negate, {"level": 1}, "is at level 0, the result at 1"),
        (he.SumMulPlain, {"level": 0}, "is at level 1, the result at 0"),
        (he.SumMulPlain, {"scale": 2.0**20}, "leaves none for the weights"),
    ],
)
def test_wrong_facts_are_refused(
    kind: type[Operation], facts: dict[str, object], message: str
) -> None:
    with pytest.raises(ProgramError, match=message) as caught:
        check_program(retyped(POLYNOMIAL, kind, **facts))
    assert "^^^" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: retyped(p, he.Refresh, bound=None), "no bound above 0"),
        (lambda p: retyped(p, he.Refresh, bound=0.0), "no bound above 0"),
        (lambda p: retyped(p, he.Refresh, bound=2.0**12), "mask of 10 bits .* overflows"),
        (lambda p: refresh_program(mask_bits=24), "mask of 24 bits .* overflows"),
    ],
)
def test_masks_must_hide_and_fit(change: Callable[[Program], Program], message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        check_program(change(POWER))


def regathered(table: list[list[float]], **facts: object) -> Program:
    """The program with its first refresh's slots taken from elsewhere."""
    build = Builder(POWER)
    for op in POWER:
        if isinstance(op, he.Refresh) and op == POWER.select(he.Refresh)[0]:
            symbol = build.constant(np.array(table), "gather")
            bounded = replace(he.cipher_type(op.xs[0]), **({"bound": 4.0} | facts))  # type: ignore[arg-type]
            xs = (Value(op.xs[0].name, bounded),)
            op = replace(op, xs=xs, gather=symbol, period=4)
        build.keep(op)
    return build.finish()


def test_gathers_must_take_slots_that_are_there() -> None:
    check_program(regathered([[0, 0, -1, 0], [3, 3, 0, 1]]))
    cases: list[tuple[list[list[float]], str]] = [
        ([[0, 0, 1, 0], [0, 0, 0, 0]], "names an operand that it does not have"),
        ([[0, 0, -2, 0], [0, 0, 0, 0]], "names an operand that it does not have"),
        ([[0, 0, 0, 0], [0, 4, 0, 0]], "names a slot that its operand does not have"),
        ([[0, 0, 0, 0], [0, -1, 0, 0]], "names a slot that its operand does not have"),
        ([[0, 0, 0, 0], [0, 0.5, 0, 0]], "no table of"),
        ([[0, 0, 0], [0, 0, 0]], "no table of"),
    ]
    for table, message in cases:
        with pytest.raises(ProgramError, match=message):
            check_program(regathered(table))


def test_a_result_s_bound_says_nothing_of_slots_that_it_does_not_take() -> None:
    with pytest.raises(ProgramError, match="has no bound above 0"):
        check_program(regathered([[0, 0, 0, 0], [1, 1, 1, 1]], bound=None))


def test_masks_beyond_exact_arithmetic_are_refused() -> None:
    deep = Parameters(16384, (60, 60, 60, 60, 60), 60)
    with pytest.raises(ProgramError, match="makes its slots larger than 100 bits"):
        check_program(round_program((4,), [np.array([[0] * 4, [0] * 4])], deep, 40))
    check_program(round_program((4,), [np.array([[0] * 4, [0] * 4])], deep, 30))


def test_constants_must_have_the_declared_shape() -> None:
    program = matrix_program(np.eye(4), np.arange(4.0))
    short = {symbol: Constant(c.array[..., :2]) for symbol, c in program.constants.items()}
    with pytest.raises(ProgramError, match=r"has the shape \(4, 2\), not \(4, 4\)"):
        check_program(program.replace(constants=short))


def test_tensor_programs_are_refused() -> None:
    op = tensor_ops.Input(label="x", dims=(1,), result=Value("x", TensorType((1,))))
    with pytest.raises(ProgramError, match="not compiled to the end"):
        check_program(Program("t", (op,), parameters=POWER.parameters))


def test_masks_are_for_all_ciphertexts_together() -> None:
    """Two values of one period travel together; three of them take two ciphertexts."""
    table = [np.array([[0] * 4, [0] * 4])]
    for values, more in ((1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (8, 2), (9, 3)):
        ((found),) = parcels(round_program((4,) * values, table, mask_bits=30)).values()
        assert [parcel.mask_bits for parcel in found] == [30 + more] * ((values + 1) // 2)
        ((found),) = parcels(round_program((4,) * values, table, mask_bits=0)).values()
        assert {parcel.mask_bits for parcel in found} == {0}


@pytest.mark.parametrize("bits", [-1, 65, 5000])
def test_mask_bits_that_nothing_is_planned_with_are_no_program(bits: int) -> None:
    table = [np.array([[0] * 4, [0] * 4])]
    with pytest.raises(ProgramError, match=f"masks have 0 to 64 bits, not {bits}"):
        round_program((4,), table, mask_bits=bits)
    x = Value("x", TensorType((1, 2)))
    with pytest.raises(ProgramError, match=f"masks have 0 to 64 bits, not {bits}"):
        move.Refresh(x=x, mask_bits=bits).infer()
    read = Program("t", (tensor_ops.Input(label="x", dims=(2,), result=x),))
    with pytest.raises(PassError, match=f"insert-refresh: masks have 0 to 64 bits, not {bits}"):
        InsertRefresh(mask_bits=bits).run(read, Context(None))


@pytest.mark.parametrize(("level", "message"), [(2, "1 level more"), (3, "2 levels more")])
def test_what_is_handed_over_too_high_is_told_how_much_too_high(level: int, message: str) -> None:
    table = [np.array([[0] * 4, [0] * 4])]
    program = round_program((4,), table, DEEP, 20)
    scale = DEEP.scale(level)
    with pytest.raises(ProgramError, match=message):
        check_program(retyped(program, he.Input, level=level, scale=scale))
