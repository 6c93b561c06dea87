"""Bytes of what travels: ciphertexts are packed; SEAL compresses keys and keeps a seed of half."""

from __future__ import annotations

import struct
from typing import Final

from hecompile.numeric.parameters import Parameters

PACKED_HEADER: Final = struct.Struct("<4sHBBId")
"""Before a packed ciphertext's residues: magic, version, polynomials, primes left, N, scale."""

_RESIDUE_BYTES: Final = 8
_RESIDUE_BITS: Final = 64
_OVERHEAD: Final = 0.1
"""What zstd loses on residues, against 8 bytes each; measured for primes of 27 to 53 bits."""


def packed_share(prime_bits: int) -> float:
    """Compressed size of random residues modulo a prime, against 8 bytes each, to within 3 %."""
    return min(1.0, prime_bits / _RESIDUE_BITS + _OVERHEAD)


def residue_bytes(prime_bits: int) -> int:
    """Bytes of a residue modulo a prime, packed."""
    return (prime_bits + 7) // 8


def ciphertext_file_bytes(parameters: Parameters, level: int, polynomials: int = 2) -> int:
    """Exact bytes of a ciphertext that travels, packed (`hecompile.runtime.wire` does it)."""
    widths = sum(map(residue_bytes, parameters.coeff_modulus_bits[: level + 1]))
    return PACKED_HEADER.size + polynomials * parameters.poly_modulus_degree * widths


def galois_key_file_bytes(parameters: Parameters) -> int:
    """Bytes of one saved Galois key (the relinearization key is as large)."""
    bits = parameters.coeff_modulus_bits
    shares = sum(map(packed_share, bits))
    return round((len(bits) - 1) * parameters.poly_modulus_degree * _RESIDUE_BYTES * shares)
