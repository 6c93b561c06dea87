"""Bytes of what travels: SEAL compresses what it saves, and keeps a seed in place of half a key."""

from __future__ import annotations

from typing import Final

from hecompile.numeric.parameters import Parameters

_RESIDUE_BYTES: Final = 8
_RESIDUE_BITS: Final = 64
_OVERHEAD: Final = 0.1
"""What zstd loses on residues, against 8 bytes each; measured for primes of 27 to 53 bits."""


def packed_share(prime_bits: int) -> float:
    """Compressed size of random residues modulo a prime, against 8 bytes each, to within 3 %."""
    return min(1.0, prime_bits / _RESIDUE_BITS + _OVERHEAD)


def ciphertext_file_bytes(parameters: Parameters, level: int, polynomials: int = 2) -> int:
    """Bytes of a saved ciphertext; one polynomial where the other is saved as a seed."""
    shares = sum(map(packed_share, parameters.coeff_modulus_bits[: level + 1]))
    return round(polynomials * parameters.poly_modulus_degree * _RESIDUE_BYTES * shares)


def galois_key_file_bytes(parameters: Parameters) -> int:
    """Bytes of one saved Galois key (the relinearization key is as large)."""
    bits = parameters.coeff_modulus_bits
    shares = sum(map(packed_share, bits))
    return round((len(bits) - 1) * parameters.poly_modulus_degree * _RESIDUE_BYTES * shares)
