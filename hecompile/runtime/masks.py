"""Masks of refreshed values: polynomials of pseudorandom integers that only the evaluator knows.

A mask is uniform in [-M, M) in every one of the N coefficients, those included that the key holder
drops: they hide the noise. `numeric.masking` says how large M is for a statistical distance of
2**-mask_bits, and why. The masked value is m + r, exact integers: what is said of two values within
the compiler's bound, which calibration with a margin gives, is said of their integers m. A value
beyond the bound is hidden by fewer bits, the fewer the farther beyond it is.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hecompile.runtime.wide import Wide, uniform

SEED_BYTES = 32
WORDS: Final = 4
"""Words of 64 bits that a coefficient takes from the stream."""

_DIGITS: Final = 13


def mask_size(bits: float) -> int:
    """The least M that is 2**bits or more and has 14 significant bits."""
    shift = max(0, math.floor(bits) - _DIGITS)
    return math.ceil(math.exp2(bits - shift)) << shift


@dataclass(frozen=True)
class MaskSource:
    """Masks from AES-256 in counter mode under a seed of the operating system.

    Attributes:
        seed: 32 bytes, secret from the key holder.
    """

    seed: bytes = field(default_factory=lambda: secrets.token_bytes(SEED_BYTES), repr=False)

    def mask(self, name: str, count: int, size: int, every: int = 1) -> Wide:
        """The mask of that name: integers of shape (count,), uniform in [-size, size).

        Equal arguments give the equal mask. No integer's probability differs from another's by
        more than 2**-81.

        Args:
            name: No two masks under one seed may share it.
            count: How many.
            size: A result of `mask_size`.
            every: Give each so many-th integer alone, from the first on.
        """
        start = sha256(name.encode("utf-8")).digest()[:16]
        stream = Cipher(algorithms.AES(self.seed), modes.CTR(start)).encryptor()
        words = np.frombuffer(stream.update(bytes(8 * WORDS * count)), dtype="<u8")
        return uniform(words.reshape(WORDS, count)[:, ::every], size)
