"""How long SEAL takes for each operation, measured once and interpolated.

The figures are CPU seconds of one thread of one quiet core. Other machines differ by a factor,
which leaves comparisons between plans right.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hecompile.errors import CompileError

KEY_SWITCHES: Final = frozenset({"rotate", "relinearize"})
"""Operations that cost about (primes left)^2 N log N."""


@dataclass(frozen=True)
class OperationCost:
    """Cost of an operation in nanoseconds per N log2(N), as a polynomial in the primes left."""

    fixed: float = 0.0
    per_prime: float = 0.0
    per_prime_squared: float = 0.0

    def at(self, primes_left: int) -> float:
        """Return the cost with `primes_left` primes, in nanoseconds per N log2(N)."""
        return self.fixed + (self.per_prime + self.per_prime_squared * primes_left) * primes_left


@dataclass(frozen=True)
class CostModel:
    """Predicts CPU seconds of single operations.

    Attributes:
        key_switch: Ring degree to measured (primes left, milliseconds) of one key switch, primes
            ascending. Points in between are interpolated on a log-log scale.
        operations: Cost of every other operation by name.
        memory_factor: Ring degree to a factor on `operations` where ciphertexts outgrow the cache.
    """

    key_switch: Mapping[int, tuple[tuple[int, float], ...]]
    operations: Mapping[str, OperationCost]
    memory_factor: Mapping[int, float]

    def seconds(self, op: str, poly_modulus_degree: int, primes_left: int) -> float:
        """Return the predicted CPU seconds of one operation.

        Args:
            op: `rotate`, `relinearize` or a name in `operations`.
            poly_modulus_degree: Ring degree N.
            primes_left: Data primes of the operand, its level + 1.

        Raises:
            CompileError: If the operation is unknown or there is no prime left.
        """
        if primes_left < 1:
            raise CompileError(
                f"operation '{op}' with {primes_left} primes left has no cost; at least one prime"
                f" must be left."
            )
        if op in KEY_SWITCHES:
            return self._key_switch_seconds(poly_modulus_degree, primes_left)
        cost = self.operations.get(op)
        if cost is None:
            known = ", ".join(sorted(KEY_SWITCHES | set(self.operations)))
            raise CompileError(f"operation '{op}' has no known cost; known are {known}.")
        factor = self.memory_factor.get(poly_modulus_degree, 1.0)
        return cost.at(primes_left) * factor * _work(poly_modulus_degree) * 1e-9

    def _key_switch_seconds(self, poly_modulus_degree: int, primes_left: int) -> float:
        """Interpolate within the ring's points, or scale those of the nearest ring."""
        ring = min(self.key_switch, key=lambda degree: abs(math.log2(degree / poly_modulus_degree)))
        milliseconds = _interpolate(self.key_switch[ring], primes_left)
        return milliseconds * 1e-3 * _work(poly_modulus_degree) / _work(ring)


def _work(poly_modulus_degree: int) -> float:
    return poly_modulus_degree * math.log2(poly_modulus_degree)


def _interpolate(points: tuple[tuple[int, float], ...], primes_left: int) -> float:
    """Interpolate on a log-log scale, prolonging the first and the last segment."""
    right = bisect_left([primes for primes, _ in points], primes_left)
    right = min(max(right, 1), len(points) - 1)
    (low, low_cost), (high, high_cost) = points[right - 1], points[right]
    slope = math.log(high_cost / low_cost) / math.log(high / low)
    return float(low_cost * (primes_left / low) ** slope)


DEFAULT_COST_MODEL: Final = CostModel(
    key_switch=MappingProxyType(
        {
            8192: ((1, 0.8), (2, 1.5), (3, 2.8), (4, 3.7), (5, 5.7), (6, 7.8)),
            16384: ((2, 5.0), (4, 11.0), (6, 17.0), (8, 26.0), (10, 40.0), (13, 61.0)),
            32768: ((3, 18.0), (6, 47.0), (12, 155.0), (15, 245.0), (21, 400.0), (27, 750.0)),
        }
    ),
    operations=MappingProxyType(
        {
            "multiply_plain": OperationCost(per_prime=0.65),
            "multiply": OperationCost(per_prime=1.37),
            "add": OperationCost(per_prime=0.23),
            "sub": OperationCost(per_prime=0.23),
            "add_plain": OperationCost(per_prime=0.14),
            "negate": OperationCost(per_prime=0.14),
            "rescale": OperationCost(per_prime=2.2),
            "drop_level": OperationCost(per_prime=0.05),
            "encode": OperationCost(fixed=1.64, per_prime=0.95),
            "encode_scalar": OperationCost(per_prime=0.013),
            "encrypt": OperationCost(fixed=13.5, per_prime=6.5),
            "decrypt": OperationCost(per_prime=0.46),
            "decode": OperationCost(per_prime=2.8, per_prime_squared=0.21),
        }
    ),
    memory_factor=MappingProxyType({32768: 1.4}),
)
"""TenSEAL 0.3.18 (SEAL 4), one core."""
