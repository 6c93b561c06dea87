"""What packing decisions cost, before levels are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hecompile.ir import movement_ops as move
from hecompile.ir.program import Program
from hecompile.numeric.cost import CostModel, active_cost_model
from hecompile.packing.depth import Levels

PRIMES_PER_LEVEL = 0.6
"""Primes that a multiplicative level takes, where one prime may stand for two levels."""

MOST_PRIMES = 6
"""Primes of a ciphertext at most, as plans with refreshes have them."""

PRIMES_AT_REFRESH = 2
"""Primes left of what is handed over for a refresh, as masks of 40 bits need them."""

SCALAR_SHARE = 0.1
"""Cost of a product with one number beside a product with a vector: it is part of a matrix."""


@dataclass(frozen=True)
class Weighing:
    """How much resources count beside a CPU second of the evaluator.

    Attributes:
        client: a CPU second of the client.
        key: a Galois key, in seconds.
        byte: a byte that the client sends, in seconds.
        line: a byte of a refresh, in seconds, besides.
    """

    client: float = 0.1
    key: float = 1e-5
    byte: float = 0.0
    line: float = 0.0


@dataclass(frozen=True)
class Prices:
    """Predicted seconds of primitives on one ring, by the levels that remain to be consumed."""

    ring: int
    weighing: Weighing = Weighing()
    primes_per_level: float = PRIMES_PER_LEVEL
    cost: CostModel = field(default_factory=active_cost_model)
    _known: dict[tuple[str, int], float] = field(default_factory=dict, compare=False, repr=False)

    def primes(self, depth: int) -> int:
        """Primes left of a value that `depth` more levels follow."""
        return min(1 + int(self.primes_per_level * depth + 0.5), MOST_PRIMES)

    def of(self, operation: str, depth: int) -> float:
        """Seconds of one operation on a value that `depth` more levels follow."""
        key = operation, self.primes(depth)
        if key not in self._known:
            self._known[key] = self.cost.seconds(operation, self.ring, key[1])
        return self._known[key]

    def product(self, depth: int, scalar: bool = False) -> float:
        """Seconds of one plaintext product, its addition included."""
        whole = self.of("multiply_plain", depth) + self.of("add", depth)
        return whole * SCALAR_SHARE if scalar else whole

    def square(self, depth: int) -> float:
        """Seconds of one product of ciphertexts with what it entails."""
        return self.of("multiply", depth) + self.completion(depth)

    def completion(self, depth: int) -> float:
        """Seconds of what a product of ciphertexts entails once, for sums of products too."""
        return sum(self.of(name, depth) for name in ("relinearize", "rescale"))

    def packed(self, ciphertexts: int, depth: int) -> float:
        """Price of input ciphertexts: the client's time and bytes."""
        seconds = self.of("encode", depth) + self.of("encrypt", depth)
        size = 2 * self.primes(depth) * self.ring * 8
        return ciphertexts * (self.weighing.client * seconds + self.weighing.byte * size)

    def handed(self, ciphertexts: int) -> float:
        """Price of ciphertexts that go to the key holder, masked."""
        names, primes = ("encode", "add_plain", "save"), PRIMES_AT_REFRESH
        own = sum(self.cost.seconds(name, self.ring, primes) for name in names)
        opened = sum(self.cost.seconds(n, self.ring, primes) for n in ("load", "decrypt", "decode"))
        size = 2 * primes * self.ring * 8
        return ciphertexts * (own + self.weighing.client * opened + self._crossing(size))

    def returned(self, ciphertexts: int, depth: int) -> float:
        """Price of ciphertexts that come back from the key holder."""
        own = sum(self.of(name, depth) for name in ("load", "encode", "add_plain"))
        made = sum(self.of(name, depth) for name in ("encode", "encrypt_symmetric", "save"))
        size = 2 * self.primes(depth) * self.ring * 8
        return ciphertexts * (own + self.weighing.client * made + self._crossing(size))

    def _crossing(self, size: int) -> float:
        """Price of words of a ciphertext between evaluator and key holder, half of them empty."""
        return 0.5 * size * (self.weighing.byte + self.weighing.line)


def remaining_levels(program: Program) -> Mapping[str, int]:
    """Levels between each value of a tensor program and the outputs, or the next refresh."""
    own = Levels(program)
    levels: dict[str, int] = {}
    for op in reversed(program.operations):
        after = levels.get(op.result.name, 0) if op.result is not None else 0
        fresh = isinstance(op, move.Refresh)
        needed = PRIMES_AT_REFRESH - 1 if fresh else after + own.of(op)
        for value in op.operands:
            levels[value.name] = max(levels.get(value.name, 0), needed)
    return levels
