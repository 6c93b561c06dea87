"""CKKS encryption parameters and what follows from them: primes, levels, scales and sizes.

Level l means that l rescale primes are left besides q_0: a value at level l lives modulo
q_0 * ... * q_l, and a rescale takes it to level l - 1 by dividing by q_l. A prime may stand for
several multiplicative levels, then called virtual levels: see `numeric.virtual`.
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
from hecompile.numeric.virtual import VirtualLevels

_BYTES_PER_RESIDUE: Final = 8
_FIELDS: Final = (
    "poly_modulus_degree",
    "coeff_modulus_bits",
    "scale_bits",
    "level_units",
    "security_bits",
)


@dataclass(frozen=True)
class Parameters:
    """Parameters of a CKKS context, always at 128-bit security.

    Attributes:
        poly_modulus_degree: Ring degree N.
        coeff_modulus_bits: Prime sizes in bits in SEAL's order: q_0, q_1, ..., q_L, and last the
            special prime of key switching.
        scale_bits: Binary logarithm of the canonical scale at level 0.
        security_bits: Security level in bits; 128 is the only one.
        level_units: Virtual levels that each data prime stands for, q_0 first; one each if left
            out.

    Raises:
        CompileError: If a size is out of range, the units do not match the primes, or the total
            is not secure. A special prime smaller than a data prime is allowed: key-switch noise
            grows with max(q_i) / special prime, which `numeric.noise` predicts.
    """

    poly_modulus_degree: int
    coeff_modulus_bits: tuple[int, ...]
    scale_bits: int
    security_bits: int = SECURITY_BITS
    level_units: tuple[int, ...] = ()

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
        if not 1 <= self.scale_bits <= MAX_PRIME_BITS:
            raise CompileError(
                f"a scale of 2**{self.scale_bits} cannot be used; scale_bits must be from 1 to"
                f" {MAX_PRIME_BITS}."
            )
        units = tuple(self.level_units) or (1,) * (len(bits) - 1)
        object.__setattr__(self, "level_units", units)
        if len(units) != len(bits) - 1:
            raise CompileError(
                f"{len(units)} numbers of levels do not match {len(bits) - 1} data primes; give"
                f" one for each."
            )
        VirtualLevels(units)
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

    @cached_property
    def virtual(self) -> VirtualLevels:
        """The virtual levels and the primes that stand for them."""
        return VirtualLevels(self.level_units)

    def virtual_scale(self, level: int) -> float:
        """Return the scale that values at virtual level `level` carry.

        With the virtual primes v = q_p**(1 / k) of a prime q_p that stands for k levels (and
        2**scale_bits for q_0, which no rescale divides by), the canonical scales are
        s(0) = 2**scale_bits and s(l) = sqrt(s(l - 1) * v_l). Inside the group whose top is t, a
        value carries s(l) * v_(l+1) * ... * v_t, for no rescale divided by these yet.

        Raises:
            CompileError: If these parameters have no such virtual level.
        """
        if not 0 <= level <= self.virtual.highest:
            raise CompileError(
                f"virtual level {level} does not exist; these parameters have levels 0 to"
                f" {self.virtual.highest}."
            )
        return _carried_scales(self.data_primes, self.level_units, self.scale_bits)[level]

    def scale(self, level: int) -> float:
        """Return the canonical scale at `level`, the highest virtual level with so many primes.

        Where every prime stands for one virtual level, scale(0) = 2**scale_bits and scale(l) =
        sqrt(scale(l - 1) * q_l), so that the product of two canonical values of level l rescales
        exactly to the canonical scale of level l - 1.

        Raises:
            CompileError: If these parameters have no such level.
        """
        self._check_level(level)
        return self.virtual_scale(self.virtual.top(level))

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
            "level_units": list(self.level_units),
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
        return cls(
            poly_modulus_degree=_integer("poly_modulus_degree", data["poly_modulus_degree"]),
            coeff_modulus_bits=_integers("coeff_modulus_bits", data["coeff_modulus_bits"]),
            scale_bits=_integer("scale_bits", data["scale_bits"]),
            security_bits=_integer("security_bits", data["security_bits"]),
            level_units=_integers("level_units", data["level_units"]),
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


def _integers(field: str, value: object) -> tuple[int, ...]:
    """Return `value` if it is a list of one or more integers, else raise InputError."""
    if not isinstance(value, (list, tuple)) or not value:
        raise InputError(f"field {field} of encryption parameters must be a list of integers.")
    return tuple(_integer(field, one) for one in value)


@lru_cache(maxsize=1024)
def _carried_scales(
    data_primes: tuple[int, ...], units: tuple[int, ...], scale_bits: int
) -> tuple[float, ...]:
    """The scale that values carry at each virtual level."""
    base = 2.0**scale_bits
    canonical, carried = base, [base ** (units[0] - level) for level in range(units[0])]
    for prime, count in zip(data_primes[1:], units[1:], strict=True):
        virtual = float(prime) ** (1.0 / count)
        for inside in range(count):
            canonical = math.sqrt(canonical * virtual)
            carried.append(canonical * virtual ** (count - 1 - inside))
    return tuple(carried)
