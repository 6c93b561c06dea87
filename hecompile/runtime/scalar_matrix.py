"""Integer matrices times residues modulo a prime, exactly, by floating-point matrix products.

Sums of ciphertexts with one integer weight each are linear algebra over each prime. Weights and
residues are cut into digits so small that every sum of products of digits stays below 2^53, where
doubles are exact whatever the order of additions; then BLAS does the work (Dumas, Gautier and
Pernet, "Finite field linear algebra subroutines", ISSAC 2002; Dumas, Giorgi and Pernet, ACM TOMS
35(3), 2008). A product V is reduced as V - rint(V/q)·q in wrapping 64-bit arithmetic with the
quotient from doubles, which is off by less than one while |V|/q < 2^49.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hecompile.ir.constants import Array
from hecompile.runtime.rawmemory import Residues

Integers = npt.NDArray[np.int64]

EXACT_BITS: Final = 53
MAX_WEIGHT_BITS: Final = 61
_MAX_DIGITS: Final = 4
_BLOCK: Final = 1 << 14
# Relative costs per column: of one product, of cutting a digit off, of adding a digit up.
_PRODUCT: Final = 1.0
_SPLIT: Final = 40.0
_REDUCE: Final = 100.0
_MAX_QUOTIENT: Final = 2.0**48


@dataclass(frozen=True)
class Digits:
    """How residues and weights are cut: signed digits, lowest first.

    Attributes:
        residue_width: Bits of a residue's digit.
        residue_count: Digits of a residue.
        weight_width: Bits of a weight's digit.
        weight_count: Digits of a weight.
    """

    residue_width: int
    residue_count: int
    weight_width: int
    weight_count: int


def integer_weights(weights: Array, scale: float | Array) -> Integers | None:
    """Weights times the scale, rounded as SEAL's scalar encoder rounds: halves away from zero.

    Returns:
        The integers; None where one is too large.
    """
    scaled = np.asarray(weights, dtype=np.float64) * scale
    if not np.all(np.abs(scaled) < 2.0**MAX_WEIGHT_BITS):
        return None
    whole = np.trunc(scaled)
    whole += np.copysign((np.abs(scaled - whole) >= 0.5).astype(np.float64), scaled)
    return whole.astype(np.int64)


def choose_digits(matrices: Sequence[Integers], operands: int, prime: int) -> Digits | None:
    """The cheapest cut that is exact for all matrices.

    Args:
        matrices: Each of shape (results, operands of its own).
        operands: Different operands of all matrices together.
        prime: At most 60 bits.

    Returns:
        The cut; None if there is none.
    """
    bits = prime.bit_length()
    largest = max(int(np.abs(m).max(initial=1)) for m in matrices)
    products = sum(m.size for m in matrices)
    results = sum(len(m) for m in matrices)
    best: tuple[float, Digits] | None = None
    for count in range(1, _MAX_DIGITS + 1):
        # Digits are balanced, so one more bit than the largest weight has.
        width = -(-(largest.bit_length() + 1) // count)
        sums = max(
            float(np.abs(digit).sum(axis=1).max(initial=0.0))
            for matrix in matrices
            for digit in weight_digits(matrix, width, count)
        )
        if sums >= _MAX_QUOTIENT:
            continue
        # The top digit of a residue is not balanced and therefore one bit narrower.
        room = EXACT_BITS - max(0, math.ceil(math.log2(max(sums, 1.0)))) + 1
        pieces = -(-(bits + 1) // room)
        digits = Digits(-(-(bits + 1) // pieces), pieces, width, count)
        cost = (_PRODUCT * products * count + _SPLIT * operands) * pieces
        cost += _REDUCE * results * count * (1 + pieces)
        if best is None or cost < best[0]:
            best = cost, digits
    return None if best is None else best[1]


def weight_digits(weights: Integers, width: int, count: int) -> list[Array]:
    """Balanced digits of integers, lowest first: `sum of digit[i] * 2**(i * width)`."""
    found = []
    rest = weights
    for _ in range(count - 1):
        high = (rest + (1 << (width - 1))) >> width
        found.append((rest - (high << width)).astype(np.float64))
        rest = high
    return [*found, rest.astype(np.float64)]


class Splitter:
    """Cuts residues into digits, balanced but for the top one."""

    def __init__(self, digits: Digits, columns: int) -> None:
        """Take room for intermediate results, small enough for a cache.

        Args:
            digits: The cut.
            columns: Most residues of one operand to be cut at once.
        """
        self._width = digits.residue_width
        self._count = digits.residue_count
        self._rows = max(1, _BLOCK // columns)
        self._whole = np.empty((2, self._rows, columns), dtype=np.int64)
        self._real = np.empty((2, self._rows, columns), dtype=np.float64)

    def __call__(self, operands: Sequence[Residues], into: Array) -> None:
        """Cut.

        Args:
            operands: Each of shape (columns,).
            into: Shape (residue_count, operands, columns), overwritten. Digit j is left multiplied
                by 2**(j * residue_width).
        """
        for start in range(0, len(operands), self._rows):
            block = operands[start : start + self._rows]
            self._cut(block, into[:, start : start + len(block)])

    def _cut(self, block: Sequence[Residues], into: Array) -> None:
        shape = (slice(len(block)), slice(len(block[0])))
        whole, place = block, 0
        # Doubles hold what has at most 53 bits; above, the lowest digits are cut off as integers.
        while self._width * (self._count - place) - 1 > EXACT_BITS:
            whole = self._cut_whole(whole, place, into[place], shape)
            place += 1
        rest, high = self._real[0][shape], self._real[1][shape]
        last = self._count - 1
        if place == last:
            rest = into[last]
        for row, residues in zip(rest, whole, strict=True):
            np.copyto(row, residues.view(np.int64), casting="unsafe")
        for low in range(place, last):
            # Adding and taking away 1.5 * 2^(52 + e) rounds to a multiple of 2^e.
            rounder = 1.5 * 2.0 ** (EXACT_BITS - 1 + self._width * (low + 1))
            target = into[last] if low == last - 1 else high
            np.add(rest, rounder, out=target)
            np.subtract(target, rounder, out=target)
            np.subtract(rest, target, out=into[low])
            rest, high = high, rest

    def _cut_whole(
        self, whole: Sequence[Residues], place: int, digit: Array, shape: tuple[slice, slice]
    ) -> Sequence[Residues]:
        """Cut the digit `place` off integers; what remains is a multiple of the next one's unit."""
        half = 1 << (self._width * (place + 1) - 1)
        above = self._whole[place % 2][shape]
        for row, residues in zip(above, whole, strict=True):
            np.add(residues.view(np.int64), half, out=row)
        above &= -(2 * half)
        for row, residues, low in zip(above, whole, digit, strict=True):
            np.subtract(residues.view(np.int64), row, out=low, casting="unsafe")
        return list(above.view(np.uint64))


class Product:
    """A matrix cut for one prime, ready to be multiplied with residues."""

    def __init__(self, weights: Integers, prime: int, digits: Digits) -> None:
        """Cut the matrix.

        Args:
            weights: Shape (results, operands).
            prime: The modulus.
            digits: What `choose_digits` gave for this matrix and prime.
        """
        self._prime = prime
        self._digits = digits
        self._weights = weight_digits(weights, digits.weight_width, digits.weight_count)

    def __call__(self, residues: Sequence[Array]) -> Residues:
        """Multiply.

        Args:
            residues: What `Splitter` left, each digit of shape (operands, columns).

        Returns:
            Shape (results, columns), each below the prime.
        """
        total: Integers | None = None
        for weights in reversed(self._weights):
            total = self._reduced([weights @ digit for digit in residues], total)
        if total is None:
            raise ValueError("a matrix has at least one digit")
        return total.view(np.uint64)

    def _reduced(self, products: list[Array], above: Integers | None) -> Integers:
        """`above * 2**weight_width + sum of products[j] * 2**(j * residue_width)` mod the prime."""
        width = self._digits.residue_width
        exact = products[0].astype(np.int64)
        near = products[0]
        for place, product in enumerate(products[1:], start=1):
            near += product
            product *= 2.0 ** -(width * place)
            digit = product.astype(np.int64)
            digit <<= width * place
            exact += digit
        if above is not None:
            near += above * 2.0**self._digits.weight_width
            exact += above << self._digits.weight_width
        near *= 1.0 / self._prime
        np.rint(near, out=near)
        quotient = near.astype(np.int64)
        quotient *= self._prime
        exact -= quotient
        # Now above -prime and below prime; the sign bit, spread out, selects the negative ones.
        np.right_shift(exact, 63, out=quotient)
        quotient &= self._prime
        exact += quotient
        return exact
