"""Which slot of which operand each slot of a refreshed ciphertext takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import ProgramError
from hecompile.ir import he_ops as he
from hecompile.ir.program import Program

Indices = NDArray[np.int64]

_LARGEST = 2**31
"""Beyond any operand or slot."""


@dataclass(frozen=True, eq=False)
class Gather:
    """Slots of a refresh's result, (period,) each.

    Attributes:
        source: the operand, -1 for zero.
        place: the slot of that operand's period; 0 where there is no operand.
    """

    source: Indices
    place: Indices


def gather_of(op: he.Refresh, program: Program) -> Gather:
    """Read a refresh's gather; one without takes the slots of its operand as they are.

    Raises:
        ProgramError: the constant has another shape, or names what the operands do not have.
    """
    periods = np.array([he.cipher_type(x).period for x in op.xs], dtype=np.int64)
    if op.gather is None:
        return Gather(np.zeros(periods[0], dtype=np.int64), np.arange(periods[0]))
    table = program.array(op.gather)
    integers = (table == np.floor(table)) & (np.abs(table) <= _LARGEST)
    if table.shape != (2, op.period) or not integers.all():
        raise ProgramError(f"{op.defined}: its gather is no table of (2, {op.period}) integers")
    source, place = table.astype(np.int64)
    held = source >= 0
    if (source >= len(periods)).any() or (source < -1).any():
        raise ProgramError(f"{op.defined}: its gather names an operand that it does not have")
    if (place[held] < 0).any() or (place[held] >= periods[source[held]]).any():
        raise ProgramError(f"{op.defined}: its gather names a slot that its operand does not have")
    return Gather(source, np.where(held, place, 0))
