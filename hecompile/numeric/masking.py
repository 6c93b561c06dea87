"""How large the masks of refreshed values are, and how much of the modulus they take.

The key holder decrypts m + r, where m is a polynomial of integers (slot values times the scale,
noise included) and r is uniform in [-M, M) in each of the N coefficients. For two polynomials m
and m' the statistical distance of what it sees is at most |m - m'|_1 / 2M, by the union over the
coefficients. Slots that repeat with a period of P leave 2P coefficients that are not zero, whose
2-norm is the root mean square of the slots (Parseval), hence |m|_1 <= sqrt(2P) * bound * scale. The
noise has N coefficients, with a 1-norm of at most sqrt(N) times its root mean square in the slots.
Two values in one ciphertext are orthogonal (`ir.parcels`): their 2-norms combine as the sides of a
right angle, in the 2P coefficients of the longer period.
Distances add up: what the key holder sees of all n ciphertexts of an evaluation that go up differs
by at most n times what it sees of one. So that all of them together keep within 2**-mask_bits of a
refresh, each is masked with ceil(log2(n)) bits more (`ir.parcels`).

Only what goes up needs the room. The key holder's answer may wrap around its modulus: evaluator and
key holder compute modulo each prime, so that the mask is taken off exactly (`runtime.rounds`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from hecompile.errors import ProgramError

NOISE_SHARE = 1.0 / 64.0
"""Largest root mean square of the noise that the masks hide, as a share of the bound."""

BELOW_TOP = 2
"""Levels below the top of the chain at which masked values are handed over, at least.

There is a public key that encrypts zero up to that level, see `runtime.rounds`.
"""


MOST_MASK_BITS = 64
"""Most bits of hiding that a refresh may ask for."""

FEWEST_MASK_BITS = 20
"""Fewer bits of hiding count as none."""

MOST_SLOT_BITS = 100.0
"""Largest slots of masked values, times the scale, that are computed with exactly."""


def check_mask_bits(bits: int) -> None:
    """Refuse bits of hiding that nothing could be planned with.

    Raises:
        ProgramError: they are below 0 or above `MOST_MASK_BITS`.
    """
    if not 0 <= bits <= MOST_MASK_BITS:
        raise ProgramError(f"masks have 0 to {MOST_MASK_BITS} bits, not {bits}")


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
    values = 1 + math.log2(sum(one.size for one in contents))
    high, low = max(largest, values), min(largest, values)
    return high + math.log2(1 + 2.0 ** (low - high)) + 1.01


class Room(NamedTuple):
    """What a masked ciphertext takes.

    Attributes:
        modulus: bits of a modulus in which it does not wrap around.
        slots: bits of its largest slots, times the larger of its scale and its results'.
    """

    modulus: float
    slots: float

    def lacking(self, modulus_bits: float) -> float:
        """Bits by which it is too large for a modulus or for exact slots; at most 0 if it fits."""
        return max(self.modulus - modulus_bits, self.slots - MOST_SLOT_BITS)


def room_needed(
    ring: int, contents: Sequence[Content], mask_bits: int, growth_bits: float = 0.0
) -> Room:
    """What a refresh needs, for planning, for the compiler's checks and for the evaluator's.

    Args:
        ring: polynomial modulus degree N.
        contents: one value, or the real and the imaginary one.
        mask_bits: see `mask_bits_needed`.
        growth_bits: binary logarithm of the largest result's scale over the smallest content's.
    """
    # A slot's standard deviation is M * sqrt(P / 3).
    period = max(one.period for one in contents)
    slots = mask_bits_needed(ring, contents, mask_bits) + math.log2(period) / 2 + 3
    modulus = modulus_bits_needed(ring, contents, mask_bits)
    return Room(modulus, slots + max(growth_bits, 0.0))
