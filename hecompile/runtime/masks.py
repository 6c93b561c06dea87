"""Masks of refreshed values: pseudorandom numbers that only the evaluator knows.

A mask is uniform in [-M, M) with M = bound * 2**mask_bits, where `bound` is the compiler's bound on
the slot's value, taken from calibration with a margin. For any two values x, x' within the bound,
what the key holder sees (x + mask, x' + mask) differs by a statistical distance of |x - x'| / 2M,
at most 2**-mask_bits. Nothing is claimed for a value beyond the bound, which samples unlike those
of calibration can give: it is hidden by fewer bits, the fewer the farther beyond it is. One period
of slots carries one value each, repeated over the ciphertext; the mask repeats with it, so that
repetitions reveal no more.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from hecompile.ir.constants import Array

SEED_BYTES = 32


@dataclass(frozen=True)
class MaskSource:
    """Masks from AES-256 in counter mode under a seed of the operating system.

    Attributes:
        seed: 32 bytes, secret from the key holder.
    """

    seed: bytes = field(default_factory=lambda: secrets.token_bytes(SEED_BYTES), repr=False)

    def mask(self, name: str, period: int, magnitude: float) -> Array:
        """The mask of the value `name`, shape (period,), uniform in [-magnitude, magnitude).

        Equal arguments give the equal mask.
        """
        start = sha256(name.encode("utf-8")).digest()[:16]
        stream = Cipher(algorithms.AES(self.seed), modes.CTR(start)).encryptor()
        words = np.frombuffer(stream.update(bytes(8 * period)), dtype="<u8")
        # 53 bits fill a double's mantissa.
        unit = (words >> np.uint64(11)).astype(np.float64) * 2.0**-53
        return np.asarray((2.0 * unit - 1.0) * magnitude)
