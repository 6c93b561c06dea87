"""How large the masks of refreshed values are, and how much of the modulus they take.

The key holder decrypts m + r, where m is a polynomial of integers (slot values times the scale,
noise included) and r is uniform in [-M, M) in each of the N coefficients. For two polynomials m
and m' the statistical distance of what it sees is at most |m - m'|_1 / 2M, by the union over the
coefficients. Slots that repeat with a period of P leave 2P coefficients that are not zero, whose
2-norm is the root mean square of the slots (Parseval), hence |m|_1 <= sqrt(2P) * bound * scale. The
noise has N coefficients, with a 1-norm of at most sqrt(N) times its root mean square in the slots.
Two values in one ciphertext are orthogonal (`ir.parcels`): their 2-norms combine as the sides of a
right angle, in the 2P coefficients of the longer period.
Distances add up: of all ciphertexts of an evaluation that go up, the key holder sees what differs
by at most their number times 2**-mask_bits.

Only what goes up needs the room. The key holder's answer may wrap around its modulus: evaluator and
key holder compute modulo each prime, so that the mask is taken off exactly (`runtime.rounds`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

NOISE_SHARE = 1.0 / 64.0
"""Largest root mean square of the noise that the masks hide, as a share of the bound."""

BELOW_TOP = 2
"""Levels below the top of the chain at which masked values are handed over, at least.

There is a public key that encrypts zero up to that level, see `runtime.rounds`.
"""


class Content(NamedTuple):
    """A value in a masked ciphertext.

    Attributes:
        period: slots P after which it repeats.
        size: its largest absolute slot value, times its scale.
    """

    period: int
    size: float


def mask_bits_needed(ring: int, contents: Sequence[Content], mask_bits: int) -> float:
    """Binary logarithm of M for one ciphertext.

    Args:
        ring: polynomial modulus degree N.
        contents: one value, or the real and the imaginary one.
        mask_bits: the statistical distance is 2**-mask_bits at most for any two contents within
            the sizes.
    """
    period = max(one.period for one in contents)
    spread = math.sqrt(2 * period) + math.sqrt(ring) * NOISE_SHARE
    size = math.hypot(*(one.size for one in contents))
    return mask_bits + math.log2(spread) + math.log2(size)


def modulus_bits_needed(ring: int, contents: Sequence[Content], mask_bits: int) -> float:
    """Bits of a modulus in which what is masked does not wrap around, a margin included."""
    largest = mask_bits_needed(ring, contents, mask_bits)
    return math.log2(2.0**largest + 2 * sum(one.size for one in contents)) + 1.01
