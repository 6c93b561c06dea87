"""How long SEAL takes for each primitive: tables by ring and primes left, interpolated.

The figures are CPU seconds of one thread. The size of the primes (28 or 54 bits) does not change
them, for SEAL computes in 64-bit words either way, but for two: saving a ciphertext, which
compresses it, is quicker for large primes, and matrices of scalars are slower (by a third from 28
to 54 bits; a mean is given). Machines differ mostly by one factor, so the shipped table compares
plans rightly everywhere; `hecompile calibrate` measures the seconds of one machine.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from hecompile.errors import CompileError, InputError
from hecompile.numeric.cost_table import SHIPPED_MICROSECONDS
from hecompile.numeric.security import MAX_MODULUS_BITS

Points = tuple[tuple[int, float], ...]
"""(primes, CPU seconds of one call), primes ascending."""

KEY_SWITCHES: Final = frozenset({"rotate", "relinearize"})
"""Operations that cost about (primes left)^2 N log N."""

OPERATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "rotate": "rotation, with its key switch",
        "relinearize": "from three polynomials to two",
        "multiply": "product of two ciphertexts",
        "square": "product of a ciphertext with itself",
        "multiply_plain": "product with an encoded plaintext",
        "add": "sum of two ciphertexts",
        "sub": "difference of two ciphertexts",
        "add_plain": "sum with an encoded plaintext",
        "negate": "change of sign",
        "rescale": "division by the last prime",
        "drop_level": "dropping one prime without division",
        "encode": "encoding of a slot vector",
        "encode_scalar": "encoding of one number for all slots",
        "encrypt": "encryption under the public key",
        "encrypt_symmetric": "encryption under the secret key",
        "decrypt": "decryption",
        "decode": "decoding to slots",
        "save": "writing a ciphertext, compressed",
        "load": "reading and checking a ciphertext",
        "galois_key": "making and writing one Galois key, by all data primes",
        "galois_key_load": "reading one Galois key, by all data primes",
        "scalar_matrix": "one product within a matrix of scalars times ciphertexts",
        "scalar_matrix_operand": "converting one operand of such a matrix",
        "scalar_matrix_result": "converting one result of such a matrix",
    }
)
"""Every primitive with a cost, and what it is."""

_BY_POLYNOMIAL: Final = frozenset(
    {"multiply_plain", "add", "sub", "negate", "rescale", "drop_level", "save", "load", "decrypt"}
    | {"scalar_matrix", "scalar_matrix_operand", "scalar_matrix_result"}
)
"""Primitives that take half as long again for three polynomials as for two."""


@dataclass(frozen=True)
class CostModel:
    """Predicts CPU seconds of single primitives.

    Attributes:
        name: What the table is, for reports.
        table: By primitive, by ring degree: measured points. A primitive's primes are those of
            its operand (level + 1); keys count all data primes.

    Raises:
        InputError: A primitive is missing or unknown, or its points are no costs.
    """

    name: str
    table: Mapping[str, Mapping[int, Points]]

    def __post_init__(self) -> None:
        """Refuse tables that could not be interpolated."""
        if set(self.table) != set(OPERATIONS):
            wrong = ", ".join(sorted(set(self.table) ^ set(OPERATIONS)))
            raise InputError(f"a cost table has every primitive and no other; look at {wrong}")
        for op, rings in self.table.items():
            if not rings or not set(rings) <= set(MAX_MODULUS_BITS):
                known = ", ".join(map(str, MAX_MODULUS_BITS))
                raise InputError(f"the costs of '{op}' are by ring degree, of {known}")
            for degree, points in rings.items():
                _check_points(f"'{op}' at ring degree {degree}", points)

    def seconds(
        self, op: str, poly_modulus_degree: int, primes_left: int, polynomials: int = 2
    ) -> float:
        """Return the predicted CPU seconds of one call.

        Args:
            op: One of `OPERATIONS`.
            poly_modulus_degree: Ring degree N.
            primes_left: Data primes of the operand, its level + 1; for keys all data primes.
            polynomials: Of the operand; three cost 1.5 times as much as two where it matters.

        Raises:
            CompileError: If the operation is unknown or there is no prime left.
        """
        if primes_left < 1:
            raise CompileError(
                f"operation '{op}' with {primes_left} primes left has no cost; at least one prime"
                f" must be left."
            )
        rings = self.table.get(op)
        if rings is None:
            known = ", ".join(sorted(OPERATIONS))
            raise CompileError(f"operation '{op}' has no known cost; known are {known}.")
        ring = min(rings, key=lambda degree: abs(math.log2(degree / poly_modulus_degree)))
        seconds = _interpolate(rings[ring], primes_left)
        if ring != poly_modulus_degree:
            seconds *= _work(poly_modulus_degree) / _work(ring)
        return seconds * (polynomials / 2 if op in _BY_POLYNOMIAL else 1.0)


def _check_points(where: str, points: Points) -> None:
    primes = [count for count, _ in points]
    if not points or primes[0] < 1 or primes != sorted(set(primes)):
        raise InputError(f"the costs of {where} need points with 1 prime or more, ascending")
    if not all(math.isfinite(seconds) and seconds > 0 for _, seconds in points):
        raise InputError(f"the costs of {where} are finite seconds above 0")


def _work(poly_modulus_degree: int) -> float:
    return poly_modulus_degree * math.log2(poly_modulus_degree)


def _interpolate(points: Points, primes: int) -> float:
    """Interpolate on a log-log scale, prolonging the first and the last segment."""
    if len(points) == 1:
        return points[0][1] * primes / points[0][0]
    right = bisect_left([count for count, _ in points], primes)
    right = min(max(right, 1), len(points) - 1)
    (low, low_cost), (high, high_cost) = points[right - 1], points[right]
    slope = math.log(high_cost / low_cost) / math.log(high / low)
    return float(low_cost * (primes / low) ** slope)


DEFAULT_COST_MODEL: Final = CostModel(
    "shipped",
    {
        op: {
            ring: tuple((primes, microseconds * 1e-6) for primes, microseconds in points)
            for ring, points in rings.items()
        }
        for op, rings in SHIPPED_MICROSECONDS.items()
    },
)
"""TenSEAL 0.3.18 (SEAL 4.3) on one core of a two-core Xeon of the Sapphire Rapids kind."""

_ACTIVE: Final[ContextVar[CostModel]] = ContextVar("cost_model", default=DEFAULT_COST_MODEL)


def active_cost_model() -> CostModel:
    """The cost model that plans are compared by: the shipped one, unless another is in use."""
    return _ACTIVE.get()


@contextmanager
def using_cost_model(model: CostModel) -> Iterator[None]:
    """Compare plans by another cost model within the block, in this thread."""
    token = _ACTIVE.set(model)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
