"""What of a program the evaluator may see where the model's weights are encrypted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType


def has_weights(program: Program) -> bool:
    """Whether a program has weights that its model's owner encrypts."""
    return any(isinstance(op, he.Weight) for op in program)


def public_form(program: Program) -> Program:
    """The program without what its encrypted weights could be read from.

    Weights keep name and type and lose their constant, of which even a digest would let guesses
    be confirmed. Bounds are left out too, for the bound of a product gives its weight's size;
    those of refreshed values stay, as their masks are sized by them.

    Returns:
        The program itself if no weight is encrypted.
    """
    if not has_weights(program):
        return program
    refreshes = program.select(he.Refresh)
    masked = {value.name for op in refreshes for value in (*op.xs, op.defined)}
    build = Builder(program)
    renamed: dict[str, Value] = {}
    for original in program:
        op: Operation = original.with_operands(renamed)
        if isinstance(op, he.Weight):
            op = dataclasses.replace(op, value=None)
        if op.result is not None:
            renamed[op.result.name] = _bare(op.result, masked)
            op = op.with_result(renamed[op.result.name])
        build.keep(op)
    return build.finish()


def weight_arrays(program: Program) -> Mapping[str, Array]:
    """The constants of the weights, shape (period,), by value name, in order of the program.

    Raises:
        ProgramError: The program is the evaluator's form, which lacks them.
    """
    found = {}
    for op in program.select(he.Weight):
        if op.value is None:
            raise ProgramError(
                f"program '{program.name}' does not hold {op.defined}: only the model's owner has"
                " the weights"
            )
        found[op.defined.name] = program.array(op.value)
    return found


def _bare(value: Value, masked: set[str]) -> Value:
    if not isinstance(value.type, CipherType) or value.name in masked:
        return value
    return Value(value.name, dataclasses.replace(value.type, bound=None))
