"""Weights of a program as encoded plaintexts: each encoded once, equal ones shared."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import numpy as np

from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.runtime.admission import facts
from hecompile.runtime.context import Context
from hecompile.runtime.keys import Progress, no_progress

_MEMORY_SHARE: Final = 2


@dataclass(frozen=True)
class WeightCounts:
    """How the weights of a program are held.

    Attributes:
        stored: Plaintexts encoded at load.
        stored_bytes: Their memory.
        uniform: Weights with one value in all slots, which encode so fast that none is kept.
        at_use: Weights beyond the memory limit, encoded at every use.
    """

    stored: int
    stored_bytes: int
    uniform: int
    at_use: int


@dataclass(frozen=True)
class Weight:
    """One slot vector at a level and scale: encoded, or to be encoded at use."""

    values: Array | float
    level: int
    scale: float
    plain: Any = None


class Weights:
    """The weights of each operation that has some.

    Attributes:
        counts: How they are held.
    """

    def __init__(
        self,
        program: Program,
        context: Context,
        memory_limit: int | None = None,
        progress: Progress = no_progress,
    ) -> None:
        """Encode the weights of a checked program.

        Args:
            program: Checked by `check_program`.
            context: Its context.
            memory_limit: Most bytes that encoded weights may take; None for half of the
                machine's memory.
            progress: Called for each operation with weights.
        """
        self._context = context
        self._limit = _default_limit() if memory_limit is None else memory_limit
        self._shared: dict[tuple[bytes, int, float], Weight] = {}
        self._bytes = self._uniform = self._at_use = 0
        self._of: dict[str, tuple[Weight, ...]] = {}
        ops = [op for op in program if isinstance(op, he.Encode | he.SumMulPlain)]
        for done, op in enumerate(ops, start=1):
            self._of[op.defined.name] = tuple(self._weights(program, op))
            progress("encoding weights", done, len(ops))
        self.counts = WeightCounts(
            sum(w.plain is not None for w in self._shared.values()),
            self._bytes,
            self._uniform,
            self._at_use,
        )

    def of(self, name: str) -> tuple[Weight, ...]:
        """The weights of the operation that defines the value `name`, one for each operand."""
        return self._of[name]

    def plain(self, weight: Weight) -> Any:
        """The encoded plaintext."""
        if weight.plain is not None:
            return weight.plain
        return self._context.encode(weight.values, weight.level, weight.scale)

    def smallest(self, level: int, scale: float) -> Any:
        """The smallest plaintext that is not zero: 1 / scale in every slot."""
        return self._context.encode(1.0 / scale, level, scale)

    def _weights(self, program: Program, op: he.Encode | he.SumMulPlain) -> Iterator[Weight]:
        result = facts(op.defined)
        if isinstance(op, he.Encode):
            yield self._weight(program.array(op.value), result.level, result.scale)
            return
        for row, x in zip(program.array(op.weights), op.xs, strict=True):
            yield self._weight(row, result.level, result.scale / facts(x).scale)

    def _weight(self, row: Array, level: int, scale: float) -> Weight:
        if np.all(row == row[0]):
            self._uniform += 1
            return Weight(float(row[0]), level, scale)
        key = (blake2b(row.tobytes(), digest_size=20).digest(), level, scale)
        if key not in self._shared:
            size = self._context.parameters.ciphertext_bytes(level, polynomials=1)
            if self._bytes + size <= self._limit:
                self._bytes += size
                plain = self._context.encode(row, level, scale)
                self._shared[key] = Weight(row, level, scale, plain)
            else:
                self._shared[key] = Weight(row, level, scale)
        weight = self._shared[key]
        self._at_use += weight.plain is None
        return weight


def _default_limit() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MEMORY_SHARE
