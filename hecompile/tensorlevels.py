"""Multiplicative levels that operations of the tensor level take."""

from __future__ import annotations

from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.scaling import is_shift


def levels_of(op: Operation, program: Program) -> int:
    """Levels that an operation takes: one for a product, ceil(log2(degree + 1)) for a polynomial.

    A polynomial `x + c` is an addition and takes none.
    """
    match op:
        case movement.Affine():
            return 1
        case tensor.Mul():
            return int(all(tensor.tensor_type(v).secret for v in op.operands))
        case tensor.Polynomial():
            return 0 if is_shift(op, program) else op.degree.bit_length()
    return 0


def depths(program: Program) -> dict[str, int]:
    """Levels between the inputs and each value of a merged tensor program, by name."""
    found: dict[str, int] = {}
    for op in program:
        if op.result is not None:
            before = max((found[v.name] for v in op.operands), default=0)
            found[op.result.name] = before + levels_of(op, program)
    return found
