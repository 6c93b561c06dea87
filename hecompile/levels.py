"""Facts about levels and scales that the management passes share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.numeric.parameters import Parameters

PRODUCTS = (he.Mul, he.MulPlain, he.SumMulPlain)
"""Operations whose result carries the square of the scale until it is rescaled."""


def is_cipher(value: Value) -> bool:
    """Whether a value is a ciphertext."""
    return isinstance(value.type, CipherType)


def scale_powers(program: Program) -> Mapping[str, int]:
    """How many scale factors each ciphertext of a managed program carries: 1, or 2 for products."""
    powers: dict[str, int] = {}
    for op in program:
        if op.result is None or not isinstance(op.result.type, CipherType):
            continue
        if isinstance(op, PRODUCTS):
            powers[op.result.name] = 2
        elif isinstance(op, he.Rescale | he.Input | he.Refresh):
            powers[op.result.name] = 1
        else:
            powers[op.result.name] = max(powers[v.name] for v in op.operands if is_cipher(v))
    return powers


def refresh_floor(value: Value, parameters: Parameters, mask_bits: int) -> int:
    """Lowest level at which a value and its mask fit the modulus; one too many if none does."""
    bound = he.cipher_type(value).bound
    for level in range(parameters.levels + 1):
        needed = math.log2(bound or 1.0) + mask_bits + 3 + math.log2(parameters.scale(level))
        if needed <= math.log2(parameters.modulus(level)):
            return level
    return parameters.levels + 1


def program_depth(program: Program) -> int:
    """Levels on the deepest chain of products, from fresh to fresh or output."""
    return max(_depths(program.operations).values(), default=0)


def _depths(operations: Sequence[Operation]) -> dict[str, int]:
    depth: dict[str, int] = {}
    for op in operations:
        if op.result is not None and is_cipher(op.result):
            before = max((depth.get(v.name, 0) for v in op.operands), default=0)
            fresh = isinstance(op, he.Refresh)
            depth[op.result.name] = 0 if fresh else before + isinstance(op, PRODUCTS)
    return depth


def gather_groups(program: Program) -> Program:
    """Move the refreshes of each group together, to where the last of them stands.

    What later passes put between them (rescales, drops) prepares operands of refreshes that
    follow, so nothing that moves past reads a refreshed value.
    """
    last = {op.group: i for i, op in enumerate(program) if isinstance(op, he.Refresh)}
    waiting: list[Operation] = []
    operations: list[Operation] = []
    for i, op in enumerate(program):
        if not isinstance(op, he.Refresh):
            operations.append(op)
            continue
        waiting.append(op)
        if last[op.group] == i:
            operations += waiting
            waiting = []
    return program.replace(operations=tuple(operations))
