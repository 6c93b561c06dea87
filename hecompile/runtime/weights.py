"""Weights of a program as encoded plaintexts: each encoded once, equal ones shared."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.runtime.admission import facts
from hecompile.runtime.context import Context
from hecompile.runtime.keys import Progress, no_progress
from hecompile.runtime.weight_cache import Key, WeightCache

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


@dataclass
class _Vector:
    """A slot vector that is no single number, and how many operands it is multiplied with."""

    row: Array
    uses: int = 0


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
        cache: WeightCache | None = None,
    ) -> None:
        """Encode the weights of a checked program.

        Args:
            program: Checked by `check_program`.
            context: Its context.
            memory_limit: Most bytes that encoded weights may take; None for half of the
                machine's memory.
            progress: Called for each vector encoded.
            cache: Where encoded weights are kept from one load to the next.

        Raises:
            IntegrityError: The cache is damaged.
        """
        self._context = context
        self._cache = cache
        self._uniform = 0
        vectors: dict[Key, _Vector] = {}
        wanted: dict[str, list[Weight | Key]] = {}
        for op in program:
            if isinstance(op, he.Encode | he.SumMulPlain):
                wanted[op.defined.name] = list(self._found(program, op, vectors))
        limit = _default_limit() if memory_limit is None else memory_limit
        shared = self._encode(vectors, limit, progress)
        self._of = {
            name: tuple(w if isinstance(w, Weight) else shared[w] for w in weights)
            for name, weights in wanted.items()
        }
        stored = [key for key, weight in shared.items() if weight.plain is not None]
        self.counts = WeightCounts(
            len(stored),
            sum(self._size(key) for key in stored),
            self._uniform,
            sum(v.uses for key, v in vectors.items() if shared[key].plain is None),
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

    def _found(
        self, program: Program, op: he.Encode | he.SumMulPlain, vectors: dict[Key, _Vector]
    ) -> Iterator[Weight | Key]:
        """Weights of an operation: those with one value at once, the others by their key."""
        result = facts(op.defined)
        if isinstance(op, he.Encode):
            rows, scales = program.array(op.value)[None], [result.scale]
        else:
            rows = program.array(op.weights)
            scales = [result.scale / facts(x).scale for x in op.xs]
        for row, scale, same in zip(rows, scales, (rows == rows[:, :1]).all(axis=1), strict=True):
            if same:
                self._uniform += 1
                yield Weight(float(row[0]), result.level, scale)
                continue
            key = (blake2b(row.tobytes(), digest_size=20).digest(), result.level, scale)
            found = vectors.setdefault(key, _Vector(row))
            found.uses += 1
            yield key

    def _encode(
        self, vectors: Mapping[Key, _Vector], limit: int, progress: Progress
    ) -> dict[Key, Weight]:
        """Encode within the limit what saves most time for its memory."""

        def saved(key: Key) -> float:
            # Encoding takes about as long as two primes, plus one for each prime of the level.
            return vectors[key].uses * (2 + key[1] + 1) / self._size(key)

        shared: dict[Key, Weight] = {}
        kept: dict[Key, Any] = {}
        for done, key in enumerate(sorted(vectors, key=saved, reverse=True), start=1):
            row, (_, level, scale) = vectors[key].row, key
            plain = None
            if self._size(key) <= limit:
                limit -= self._size(key)
                plain = kept[key] = self._load(key, row)
            shared[key] = Weight(row, level, scale, plain)
            progress("encoding weights", done, len(vectors) + 1)
        # The last step is telling them from numbers, which is done already.
        progress("encoding weights", len(vectors) + 1, len(vectors) + 1)
        if self._cache is not None and any(key not in self._cache for key in kept):
            self._cache.write(kept)
        return shared

    def _load(self, key: Key, row: Array) -> Any:
        if self._cache is not None and key in self._cache:
            return self._cache.load(key)
        return self._context.encode(row, key[1], key[2])

    def _size(self, key: Key) -> int:
        return self._context.parameters.ciphertext_bytes(key[1], polynomials=1)


def _default_limit() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _MEMORY_SHARE
