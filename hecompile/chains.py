"""Chains of primes that a program could run on: how its levels are shared out, and prime sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hecompile.errors import CompileError
from hecompile.ir import he_ops as he
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.levels import is_cipher, reads_top, required_levels
from hecompile.numeric.cost import active_cost_model
from hecompile.numeric.parameters import Parameters
from hecompile.numeric.primes import MAX_PRIME_BITS
from hecompile.numeric.security import max_modulus_bits
from hecompile.numeric.virtual import VirtualLevels, single
from hecompile.placement import PRIMITIVES

MOST_LEVELS_PER_PRIME = 3
"""Beyond, the scale would have to be below 20 bits."""

SPECIAL_MARGIN_BITS = 10
"""Bits by which the special prime exceeds the others, so that key-switch noise vanishes."""

MARGINS = (SPECIAL_MARGIN_BITS, 0, -10, -20)
"""Bits by which the special prime exceeds the others at least, down to where it is smaller.

Where keys are switched at the scale of several levels, as on grouped chains with late rescales,
their noise has room, and a smaller special prime leaves bits to the data primes.
"""


@dataclass(frozen=True)
class Demand:
    """What a program asks of a chain, whatever its primes.

    Attributes:
        depth: virtual levels above 0.
        tops: levels at which products of two ciphertexts read: tops of groups.
        work: by virtual level and primitive, how often it is called.
    """

    depth: int
    tops: frozenset[int]
    work: Mapping[tuple[int, str], int]

    @classmethod
    def of(cls, program: Program) -> Demand:
        """The demand of a program without refreshes."""
        definitions = program.definitions
        levels = required_levels(program, single(0), lambda op: 0)
        tops = {
            levels[op.result.name] + 1 for op in program if op.result and reads_top(program, op)
        }
        work: Counter[tuple[int, str]] = Counter()
        for op in definitions.values():
            if type(op) in PRIMITIVES and is_cipher(op.defined):
                work[levels[op.defined.name], PRIMITIVES[type(op)]] += _count(op)
                if isinstance(op, he.Mul):
                    work[levels[op.defined.name], "relinearize"] += 1
        return cls(max(levels.values(), default=0), frozenset(tops), work)

    def seconds(self, units: Sequence[int], ring: int) -> float:
        """About how long the work takes where the primes stand for so many levels each."""
        virtual, cost = VirtualLevels(tuple(units)), active_cost_model()
        return sum(
            count * cost.seconds(primitive, ring, virtual.prime(level) + 1)
            for (level, primitive), count in self.work.items()
        )

    def groupings(self) -> list[tuple[int, ...]]:
        """Ways to share out the levels, so that products of ciphertexts read tops.

        Groups below the first such product may belong to q_0; between two of them levels are
        joined greedily, two or three at a time, what is left over being lowest or highest.
        """
        found: dict[tuple[int, ...], None] = {}
        for most in range(1, MOST_LEVELS_PER_PRIME + 1):
            for bottom in range(1, MOST_LEVELS_PER_PRIME + 1):
                if bottom - 1 > min(self.tops | {self.depth}):
                    continue
                for small_first in (True, False):
                    units = [bottom]
                    below = bottom - 1
                    for top in sorted(self.tops | {self.depth}):
                        if top > below:
                            units += _split(top - below, most, small_first)
                            below = top
                    found[tuple(units)] = None
        return list(found)


def _split(levels: int, most: int, small_first: bool) -> list[int]:
    rest = [levels % most] if levels % most else []
    whole = [most] * (levels // most)
    return rest + whole if small_first else whole + rest


def _count(op: Operation) -> int:
    return len(op.xs) if isinstance(op, he.SumMulPlain) else 1


def chain(
    ring: int, scale_bits: int, units: Sequence[int], headroom: int, margin: int
) -> Parameters | None:
    """Lay out the primes; None if they do not fit.

    Args:
        ring: polynomial modulus degree.
        scale_bits: binary logarithm of the scale.
        units: virtual levels that each data prime stands for, q_0 first.
        headroom: bits that q_0 has above its levels' scales.
        margin: bits by which the special prime exceeds all others at least, or has the largest
            size there is; it gets up to `SPECIAL_MARGIN_BITS` where the table allows.
    """
    data = [count * scale_bits for count in units]
    data[0] += headroom
    largest = max(data)
    if largest > MAX_PRIME_BITS:
        return None
    least = min(largest + margin, MAX_PRIME_BITS)
    spare = max_modulus_bits(ring) - sum(data)
    if spare < least:
        return None
    special = min(spare, largest + SPECIAL_MARGIN_BITS, MAX_PRIME_BITS)
    try:
        parameters = Parameters(ring, (*data, special), scale_bits, level_units=tuple(units))
        return parameters if parameters.primes else None
    except CompileError:
        # Small primes are few on large rings.
        return None


def chains(
    ring: int, units: Sequence[int], headroom: int, margin: int, smallest: int
) -> Iterator[Parameters]:
    """All chains of one grouping, the largest scale first."""
    for scale_bits in range(MAX_PRIME_BITS, smallest - 1, -1):
        found = chain(ring, scale_bits, units, headroom, margin)
        if found is not None:
            yield found
