"""How many modulus bits a ring may carry at 128-bit security.

The bound is the smaller of two tables for a uniform ternary secret and classical attacks: the
Homomorphic Encryption Standard (Albrecht et al., 2018) and the Security Guidelines for
Implementing Homomorphic Encryption (Bossuat et al., eprint 2024/463). It counts ALL
primes of the coefficient modulus, the special prime of key switching included, because the keys
that the evaluator holds are encryptions under the whole product.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from hecompile.errors import CompileError

SECURITY_BITS: Final = 128
"""The only security level that is offered, in bits."""

MAX_MODULUS_BITS: Final[Mapping[int, int]] = MappingProxyType(
    {4096: 106, 8192: 214, 16384: 430, 32768: 868}
)
"""Ring degree N to the largest total size of the coefficient modulus in bits."""


def max_modulus_bits(poly_modulus_degree: int) -> int:
    """Return the largest total modulus size in bits for ring degree `poly_modulus_degree`.

    Raises:
        CompileError: If the ring degree is not in the table.
    """
    try:
        return MAX_MODULUS_BITS[poly_modulus_degree]
    except KeyError:
        known = ", ".join(str(degree) for degree in MAX_MODULUS_BITS)
        raise CompileError(
            f"ring degree {poly_modulus_degree} is not in the {SECURITY_BITS}-bit security table;"
            f" choose one of {known}."
        ) from None


def check_security(poly_modulus_degree: int, coeff_modulus_bits: int) -> None:
    """Check that a ring with this total modulus size offers 128 bits of security.

    Args:
        poly_modulus_degree: Ring degree N.
        coeff_modulus_bits: Sum of the bits of all primes, the special prime included.

    Raises:
        CompileError: If the ring is unknown or its modulus is larger than the table allows.
    """
    limit = max_modulus_bits(poly_modulus_degree)
    if coeff_modulus_bits > limit:
        raise CompileError(
            f"a coefficient modulus of {coeff_modulus_bits} bits is too large for ring degree"
            f" {poly_modulus_degree}, which carries at most {limit} bits at {SECURITY_BITS}-bit"
            f" security with all primes counted; use a larger ring or fewer or smaller primes."
        )
