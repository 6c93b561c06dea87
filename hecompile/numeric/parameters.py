"""CKKS encryption parameters and what follows from them: primes, levels, scales and sizes.

Level l means that l rescale primes are left besides q_0: a value at level l lives modulo
q_0 * ... * q_l, and a rescale takes it to level l - 1 by dividing by q_l.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

from hecompile.errors import CompileError, InputError
from hecompile.numeric.primes import MAX_PRIME_BITS, MIN_PRIME_BITS, ntt_primes
from hecompile.numeric.security import SECURITY_BITS, check_security, max_modulus_bits

_BYTES_PER_RESIDUE: Final = 8
_FIELDS: Final = ("poly_modulus_degree", "coeff_modulus_bits", "scale_bits", "security_bits")


@dataclass(frozen=True)
class Parameters:
    """Parameters of a CKKS context, always at 128-bit security.

    Attributes:
        poly_modulus_degree: Ring degree N.
        coeff_modulus_bits: Prime sizes in bits in SEAL's order: q_0, q_1, ..., q_L, and last the
            special prime of key switching.
        scale_bits: Binary logarithm of the canonical scale at level 0.
        security_bits: Security level in bits; 128 is the only one.

    Raises:
        CompileError: If a size is out of range, the special prime is smaller than a data prime
            (key-switch noise grows with max(q_i) / special prime), or the total is not secure.
    """

    poly_modulus_degree: int
    coeff_modulus_bits: tuple[int, ...]
    scale_bits: int
    security_bits: int = SECURITY_BITS

    def __post_init__(self) -> None:
        """Refuse parameters that are not well formed or not secure."""
        object.__setattr__(self, "coeff_modulus_bits", tuple(self.coeff_modulus_bits))
        if self.security_bits != SECURITY_BITS:
            raise CompileError(
                f"a security level of {self.security_bits} bits is not offered;"
                f" use {SECURITY_BITS}."
            )
        max_modulus_bits(self.poly_modulus_degree)
        bits = self.coeff_modulus_bits
        if len(bits) < 2:
            raise CompileError(
                f"a coefficient modulus of {len(bits)} primes is too short; give at least q_0 and"
                f" the special prime."
            )
        for index, size in enumerate(bits):
            if not MIN_PRIME_BITS <= size <= MAX_PRIME_BITS:
                raise CompileError(
                    f"prime {index} of the coefficient modulus has {size} bits; every size must be"
                    f" from {MIN_PRIME_BITS} to {MAX_PRIME_BITS} bits."
                )
        if bits[-1] < max(bits[:-1]):
            raise CompileError(
                f"the special prime has {bits[-1]} bits, fewer than the largest data prime's"
                f" {max(bits[:-1])}; key switching would drown the result in noise, so make the"
                f" last prime the largest."
            )
        if not 1 <= self.scale_bits <= MAX_PRIME_BITS:
            raise CompileError(
                f"a scale of 2**{self.scale_bits} cannot be used; scale_bits must be from 1 to"
                f" {MAX_PRIME_BITS}."
            )
        check_security(self.poly_modulus_degree, self.modulus_bits)

    @property
    def slots(self) -> int:
        """Number of slots of a ciphertext, N / 2."""
        return self.poly_modulus_degree // 2

    @property
    def levels(self) -> int:
        """The top level L: how many rescales a fresh ciphertext allows."""
        return len(self.coeff_modulus_bits) - 2

    @property
    def modulus_bits(self) -> int:
        """Total size of the coefficient modulus in bits, the special prime included."""
        return sum(self.coeff_modulus_bits)

    @cached_property
    def primes(self) -> tuple[int, ...]:
        """All primes in SEAL's order: q_0, ..., q_L, special prime.

        Raises:
            CompileError: If too few primes of a size exist for this ring.
        """
        return ntt_primes(self.poly_modulus_degree, self.coeff_modulus_bits)

    @property
    def data_primes(self) -> tuple[int, ...]:
        """The primes q_0, ..., q_L that ciphertexts live in."""
        return self.primes[:-1]

    @property
    def special_prime(self) -> int:
        """The prime P that only key switching uses."""
        return self.primes[-1]

    def scale(self, level: int) -> float:
        """Return the canonical scale at `level`.

        scale(0) = 2**scale_bits and scale(l) = sqrt(scale(l - 1) * q_l), so that the product of
        two canonical values of level l rescales exactly to the canonical scale of level l - 1.

        Raises:
            CompileError: If these parameters have no such level.
        """
        self._check_level(level)
        return _canonical_scales(self.primes[:-1], self.scale_bits)[level]

    def modulus(self, level: int) -> int:
        """Return q_0 * ... * q_level.

        Raises:
            CompileError: If these parameters have no such level.
        """
        self._check_level(level)
        return math.prod(self.primes[: level + 1])

    @property
    def galois_key_bytes(self) -> int:
        """Bytes of one Galois key (the relinearization key is as large)."""
        data = len(self.coeff_modulus_bits) - 1
        return data * 2 * (data + 1) * self.poly_modulus_degree * _BYTES_PER_RESIDUE

    def ciphertext_bytes(self, level: int, polynomials: int = 2) -> int:
        """Return the uncompressed bytes of a ciphertext of `polynomials` polynomials at `level`.

        Raises:
            CompileError: If these parameters have no such level.
        """
        self._check_level(level)
        return polynomials * (level + 1) * self.poly_modulus_degree * _BYTES_PER_RESIDUE

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a JSON object."""
        return {
            "poly_modulus_degree": self.poly_modulus_degree,
            "coeff_modulus_bits": list(self.coeff_modulus_bits),
            "scale_bits": self.scale_bits,
            "security_bits": self.security_bits,
        }

    @classmethod
    def from_json(cls, data: object) -> Parameters:
        """Build parameters from a JSON object as `to_json` writes it.

        Raises:
            InputError: If a field is missing, unknown or of the wrong type.
            CompileError: If the fields are well formed but not usable or not secure.
        """
        if not isinstance(data, Mapping):
            raise InputError("encryption parameters must be a JSON object with named fields.")
        if set(data) != set(_FIELDS):
            raise InputError(
                f"encryption parameters must have exactly the fields {', '.join(_FIELDS)};"
                f" found {', '.join(sorted(map(str, data))) or 'none'}."
            )
        bits = data["coeff_modulus_bits"]
        if not isinstance(bits, (list, tuple)):
            raise InputError("field coeff_modulus_bits of encryption parameters must be a list.")
        return cls(
            poly_modulus_degree=_integer("poly_modulus_degree", data["poly_modulus_degree"]),
            coeff_modulus_bits=tuple(_integer("coeff_modulus_bits", size) for size in bits),
            scale_bits=_integer("scale_bits", data["scale_bits"]),
            security_bits=_integer("security_bits", data["security_bits"]),
        )

    def _check_level(self, level: int) -> None:
        if not 0 <= level <= self.levels:
            raise CompileError(
                f"level {level} does not exist; these parameters have levels 0 to {self.levels}."
            )


def _integer(field: str, value: object) -> int:
    """Return `value` if it is an integer (bool is not), else raise InputError."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(
            f"field {field} of encryption parameters must hold integers, found {value!r}."
        )
    return value


@lru_cache(maxsize=1024)
def _canonical_scales(data_primes: tuple[int, ...], scale_bits: int) -> tuple[float, ...]:
    scales = [2.0**scale_bits]
    for prime in data_primes[1:]:
        scales.append(math.sqrt(scales[-1] * prime))
    return tuple(scales)
