"""Bytes of what travels: SEAL compresses what it saves, and keeps a seed in place of half a key."""

from __future__ import annotations

from typing import Final

from hecompile.numeric.parameters import Parameters

PACKED_HEADER_BYTES: Final = 20
"""What stands before the residues of a packed ciphertext."""

_RESIDUE_BYTES: Final = 8
_RESIDUE_BITS: Final = 64
_OVERHEAD: Final = 0.1
"""What zstd loses on residues, against 8 bytes each; measured for primes of 27 to 53 bits."""


def packed_share(prime_bits: int) -> float:
    """Compressed size of random residues modulo a prime, against 8 bytes each, to within 3 %."""
    return min(1.0, prime_bits / _RESIDUE_BITS + _OVERHEAD)


def ciphertext_file_bytes(parameters: Parameters, level: int, polynomials: int = 2) -> int:
    """Bytes of a ciphertext that travels; one polynomial where the other is a seed.

    Whole ciphertexts are written with each residue in whole bytes of its prime
    (`hecompile.runtime.wire`), exactly; those with a seed as SEAL compresses them, to within 3 %.
    """
    bits = parameters.coeff_modulus_bits[: level + 1]
    degree = parameters.poly_modulus_degree
    if polynomials > 1:
        return PACKED_HEADER_BYTES + polynomials * degree * sum(-(-size // 8) for size in bits)
    return round(degree * _RESIDUE_BYTES * sum(map(packed_share, bits)))


def galois_key_file_bytes(parameters: Parameters) -> int:
    """Bytes of one saved Galois key (the relinearization key is as large)."""
    bits = parameters.coeff_modulus_bits
    shares = sum(map(packed_share, bits))
    return round((len(bits) - 1) * parameters.poly_modulus_degree * _RESIDUE_BYTES * shares)
