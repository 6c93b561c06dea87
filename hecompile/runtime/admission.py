"""Checks that a program can run on SEAL, before a key is loaded or a ciphertext is touched.

They are derived from the operations alone, independently of the compiler's checkers: the
evaluator trusts no level, scale or period because a file states it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.gathers import gather_of
from hecompile.ir.operation import Operation, Value
from hecompile.ir.parcels import Parcel, parcels
from hecompile.ir.program import Program
from hecompile.ir.verifier import Offence, report
from hecompile.numeric.masking import BELOW_TOP, MOST_SLOT_BITS, Content, room_needed
from hecompile.numeric.parameters import Parameters
from hecompile.runtime.context import SCALE_TOLERANCE

REMEDY: Final = "compile the model again; the program does not fit its encryption parameters"


@dataclass(frozen=True)
class Facts:
    """Level and scale of a ciphertext or plaintext."""

    level: int
    scale: float


def facts(value: Value) -> Facts:
    """Level and scale of a value.

    Raises:
        ProgramError: It has none.
    """
    type_ = value.type
    level = getattr(type_, "level", None)
    scale = getattr(type_, "scale", None)
    if level is None or scale is None:
        raise ProgramError(f"{value} : {type_} has no level and scale")
    return Facts(level, scale)


def masked_contents(parcel: Parcel) -> list[Content]:
    """What the mask of a ciphertext that goes up must hide.

    Raises:
        ProgramError: A value has no bound, so no mask is known to hide it.
    """
    return [_content(*pair) for pair in zip(parcel.values, parcel.bounds, strict=True)]


def _content(value: Value, bound: float | None) -> Content:
    if bound is None or not 0 < bound < math.inf:
        raise ProgramError(f"{value} has no bound above 0, so no mask is known to hide it")
    return Content(he.cipher_type(value).period, bound * facts(value).scale)


def check_program(program: Program) -> Parameters:
    """Check levels, scales, periods, constants and masks of every operation.

    Returns:
        The program's parameters.

    Raises:
        ProgramError: With every operation that cannot run.
    """
    parameters = program.parameters
    if parameters is None or program.dialect != "he":
        raise ProgramError(
            f"program '{program.name}' is not compiled to the end: it has no encryption parameters."
        )
    offences = [
        Offence(op, reason, op.result) for op in program for reason in _reasons(program, op)
    ]
    if offences:
        raise ProgramError(report(program, offences, REMEDY))
    return parameters


def _reasons(program: Program, op: Operation) -> Iterator[str]:
    parameters = program.parameters
    rule = _RULES.get(type(op))
    if rule is None or parameters is None:
        yield "is no operation that the evaluator knows"
        return
    try:
        if op.result is not None:
            yield from _fits(parameters, op.result)
        yield from rule(program, op)
    except ProgramError as error:
        yield str(error)


def _fits(parameters: Parameters, value: Value) -> Iterator[str]:
    found = facts(value)
    period = getattr(value.type, "period", 0)
    if not 0 <= found.level <= parameters.levels:
        yield f"level {found.level} does not exist"
    elif not 1.0 <= found.scale < parameters.modulus(found.level) / 2:
        yield f"scale {found.scale!r} does not fit the modulus of level {found.level}"
    if period > parameters.slots:
        yield f"a period of {period} is longer than the {parameters.slots} slots"


def _close(x: float, y: float) -> bool:
    return abs(x / y - 1.0) < SCALE_TOLERANCE


def _same(program: Program, op: Any, *values: Value) -> Iterator[str]:
    """All values, the result included, are at one level and one scale."""
    result = facts(op.defined)
    for value in values:
        found = facts(value)
        if found.level != result.level:
            yield f"{value} is at level {found.level}, the result at {result.level}"
        elif not _close(found.scale, result.scale):
            yield f"{value} has the scale {found.scale!r}, the result {result.scale!r}"


def _product(program: Program, op: Any, x: Value, y: Value) -> Iterator[str]:
    result, left, right = facts(op.defined), facts(x), facts(y)
    if not left.level == right.level == result.level:
        yield f"levels {left.level}, {right.level} and {result.level} differ"
    elif not _close(left.scale * right.scale, result.scale):
        yield f"its scale is not the product of {left.scale!r} and {right.scale!r}"


def _constant(program: Program, symbol: str, shape: tuple[int, ...]) -> Iterator[str]:
    found = program.array(symbol).shape
    if found != shape:
        yield f"@{symbol} has the shape {found}, not {shape}"


def _encode(program: Program, op: he.Encode) -> Iterator[str]:
    yield from _constant(program, op.value, (op.period,))


def _weight(program: Program, op: he.Weight) -> Iterator[str]:
    if op.value is not None:
        yield from _constant(program, op.value, (op.period,))


def _sum(program: Program, op: he.SumMulPlain) -> Iterator[str]:
    yield from _constant(program, op.weights, (len(op.xs), op.period))
    result, first = facts(op.defined), facts(op.xs[0])
    for x in op.xs:
        found = facts(x)
        if found.level != result.level:
            yield f"{x} is at level {found.level}, the result at {result.level}"
        elif not _close(found.scale, first.scale):
            yield f"{x} has the scale {found.scale!r}, {op.xs[0]} {first.scale!r}"
    if result.scale < first.scale:
        yield "its scale leaves none for the weights"


def _rescale(program: Program, op: he.Rescale) -> Iterator[str]:
    before, after = facts(op.x), facts(op.defined)
    if before.level != after.level + 1:
        yield f"goes from level {before.level} to {after.level}"
    elif program.parameters is not None:
        prime = program.parameters.data_primes[before.level]
        if not _close(before.scale / prime, after.scale):
            yield f"its scale is not {before.scale!r} divided by {prime}"


def _drop(program: Program, op: he.DropLevel) -> Iterator[str]:
    before, after = facts(op.x), facts(op.defined)
    if before.level - op.levels != after.level:
        yield f"goes from level {before.level} to {after.level}, not {op.levels} down"
    elif not _close(before.scale, after.scale):
        yield f"changes the scale from {before.scale!r}"


def _refresh(program: Program, op: he.Refresh) -> Iterator[str]:
    gather_of(op, program)
    if program.parameters is None:
        return
    degree = program.parameters.poly_modulus_degree
    for parcel in parcels(program)[op.group]:
        if not set(parcel.values) & set(op.xs):
            continue
        x, found = " and ".join(map(str, parcel.values)), facts(parcel.values[0])
        name = f"a mask of {parcel.mask_bits} bits"
        least = min(facts(value).scale for value in parcel.values)
        growth = math.log2(facts(op.defined).scale / least)
        room = room_needed(degree, masked_contents(parcel), parcel.mask_bits, growth)
        # The response needs no room for its mask, which wraps around alike on both sides.
        if room.modulus > math.log2(program.parameters.modulus(found.level)):
            yield f"{name} on {x} overflows the modulus of level {found.level}"
        short = found.level + BELOW_TOP - program.parameters.levels
        if parcel.mask_bits and short > 0:
            yield (
                f"{x} is handed over at level {found.level}, where nothing hides where it comes"
                f" from; the chain needs {short} level{'s' if short > 1 else ''} more"
            )
        if room.slots > MOST_SLOT_BITS:
            yield f"{name} on {x} makes its slots larger than {MOST_SLOT_BITS:.0f} bits"


def _nothing(program: Program, op: Operation) -> Iterator[str]:
    yield from ()


_RULES: Final[dict[type[Operation], Callable[[Program, Any], Iterator[str]]]] = {
    he.Input: _nothing,
    he.Output: _nothing,
    he.Encode: _encode,
    he.Weight: _weight,
    he.Add: lambda program, op: _same(program, op, op.x, op.y),
    he.Sub: lambda program, op: _same(program, op, op.x, op.y),
    he.AddPlain: lambda program, op: _same(program, op, op.x, op.p),
    he.Mul: lambda program, op: _product(program, op, op.x, op.y),
    he.MulPlain: lambda program, op: _product(program, op, op.x, op.p),
    he.Negate: lambda program, op: _same(program, op, op.x),
    he.Rotate: lambda program, op: _same(program, op, op.x),
    he.Relinearize: lambda program, op: _same(program, op, op.x),
    he.Rescale: _rescale,
    he.DropLevel: _drop,
    he.Refresh: _refresh,
    he.SumMulPlain: _sum,
}
