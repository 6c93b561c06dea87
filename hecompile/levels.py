"""Facts about virtual levels and scales that the management passes share.

The virtual level of a value (see `numeric.virtual`) counts what its rescaled form leaves: a product
at virtual level l reads its operands at l + 1. Where l is the top of a prime's group, the product
is "pending": it keeps a prime more, and a scale larger by that prime, until a rescale divides by
it. Elsewhere there is nothing to rescale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation, Value
from hecompile.ir.parcels import Parcel, parcels
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType
from hecompile.numeric.masking import Content, room_needed
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.virtual import VirtualLevels

PRODUCTS = (he.Mul, he.MulPlain, he.SumMulPlain)
"""Operations that consume a level."""

Floor = Callable[[he.Refresh], int]
"""The virtual level at which a refresh hands its operand over."""


_MANAGEMENT = (he.Relinearize, he.Rescale, he.DropLevel)


def is_managed(program: Program) -> bool:
    """Whether relinearizations, rescales or drops are in place."""
    return any(isinstance(op, _MANAGEMENT) for op in program)


def is_cipher(value: Value) -> bool:
    """Whether a value is a ciphertext."""
    return isinstance(value.type, CipherType)


def ciphertexts(op: Operation) -> list[Value]:
    """The operands of an operation that are ciphertexts."""
    return [value for value in op.operands if isinstance(value.type, CipherType)]


def required_levels(program: Program, virtual: VirtualLevels, floor: Floor) -> dict[str, int]:
    """The lowest virtual level of each ciphertext that its users allow, walking backwards.

    Outputs may be at level 0; what is handed over for a refresh keeps room for its mask; a product
    needs a level more than its result, and a product of ciphertexts the top of a group, so that
    its result may come out higher than it has to; everything else needs its own level. Another
    form of a value, relinearized or rescaled, has the value's level.
    """
    levels: dict[str, int] = {}
    for op in reversed(program.operations):
        own = levels.get(op.result.name, 0) if op.result is not None else 0
        needed = operand_level(program, op, own, virtual, floor)
        if isinstance(op, PRODUCTS):
            levels[op.defined.name] = needed - 1
        elif op.result is not None and is_cipher(op.result):
            levels[op.result.name] = own
        for value in ciphertexts(op):
            levels[value.name] = max(levels.get(value.name, 0), needed)
    for op in program:
        if isinstance(op, he.Relinearize | he.Rescale):
            levels[op.defined.name] = levels[op.x.name]
    return levels


def reads_top(program: Program, op: Operation) -> bool:
    """Whether an operation is a product that reads its operands at the top of a prime's group.

    An encrypted weight is fresh and comes at whatever scale its product needs, as a plaintext does.
    """
    if not isinstance(op, he.Mul):
        return False
    return not any(isinstance(program.definitions[v.name], he.Weight) for v in op.operands)


def operand_level(
    program: Program, op: Operation, level: int, virtual: VirtualLevels, floor: Floor
) -> int:
    """The virtual level at which an operation with its result at `level` reads its operands."""
    if reads_top(program, op):
        return virtual.top_from(level + 1)
    if isinstance(op, PRODUCTS):
        return level + 1
    if isinstance(op, he.Refresh):
        return floor(op)
    return level


def refresh_floors(program: Program, parameters: Parameters) -> Floor:
    """Where each group of refreshes hands its operands over: all of them at one virtual level.

    It is the lowest at which every ciphertext fits with its mask; one too many if there is none.
    """
    floors = {
        group: max(refresh_floor(parcel, parameters) for parcel in found)
        for group, found in parcels(program).items()
    }
    return lambda op: floors[op.group]


def refresh_floor(parcel: Parcel, parameters: Parameters) -> int:
    """Lowest virtual level at which values and their mask fit; one too many if none does."""
    virtual, ring = parameters.virtual, parameters.poly_modulus_degree
    for level in range(virtual.highest + 1):
        contents = expected_contents(parcel, parameters.virtual_scale(level))
        room = room_needed(ring, contents, parcel.mask_bits)
        if room.lacking(math.log2(parameters.modulus(virtual.prime(level)))) <= 0:
            return level
    return virtual.highest + 1


def expected_contents(parcel: Parcel, scale: float) -> list[Content]:
    """What a mask must hide where values have a scale; values without a bound count as 1."""
    pairs = zip(parcel.values, parcel.bounds, strict=True)
    return [Content(he.cipher_type(x).period, (bound or 1.0) * scale) for x, bound in pairs]


def program_depth(program: Program) -> int:
    """Levels on the deepest chain of products, from fresh to fresh or output."""
    return max(_depths(program.operations).values(), default=0)


class RefreshedDepth(NamedTuple):
    """Levels of the deepest chains of a program with refreshes, from fresh on.

    Attributes:
        handed: to what is handed over for a refresh.
        left: to an output.
    """

    handed: int
    left: int


def refreshed_depth(program: Program) -> RefreshedDepth:
    """Where the levels of a program with refreshes are used."""
    depths = _depths(program.operations)
    handed = [depths[x.name] for op in program.select(he.Refresh) for x in op.xs]
    left = [depths[x.name] for op in program.select(he.Output) for x in op.xs]
    return RefreshedDepth(max(handed, default=0), max(left, default=0))


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
