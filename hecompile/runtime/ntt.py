"""Arithmetic modulo several primes in numpy, and number-theoretic transforms as SEAL orders them.

A product modulo q is x*w - floor(x * (w/q)) * q, computed modulo 2**64: the quotient from doubles
is right or one too small, as w/q is rounded down. This module uses numpy only, so that generated
programs can hold a copy of it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hecompile.runtime.wide import SPLIT, Double, Wide, factor_of, product, total

Residues = NDArray[np.uint64]

_NARROW = 1 << 49
_HALF = np.uint64(30)
_TURN = 256


@dataclass(frozen=True, eq=False)
class Constants:
    """Constants below their primes.

    Attributes:
        parts: The constants w, and w / q rounded down; the same of w * 2**30 modulo q before them
            where a prime has 49 bits or more.
    """

    parts: tuple[tuple[Residues, NDArray[np.float64]], ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Their shape."""
        return self.parts[0][0].shape

    def spread(self, *shape: int) -> Self:
        """The constants in another shape."""
        return replace(
            self, parts=tuple((w.reshape(shape), s.reshape(shape)) for w, s in self.parts)
        )

    def taken(self, order: NDArray[np.int64]) -> Self:
        """Those of shape (primes, count) in another order."""
        return replace(self, parts=tuple((w[:, order], s[:, order]) for w, s in self.parts))


class Moduli:
    """Primes of at most 60 bits, for arrays whose first axis goes with them."""

    def __init__(self, primes: tuple[int, ...]) -> None:
        """Take the primes."""
        self.primes = primes
        self._wide = max(primes) >= _NARROW

    def q(self, dimensions: int) -> Residues:
        """The primes, for arrays of so many dimensions."""
        return np.array(self.primes, dtype=np.uint64).reshape(-1, *(1,) * (dimensions - 1))

    def constants(self, rows: list[list[int]]) -> Constants:
        """Constants of shape (primes, count)."""
        if not self._wide:
            return Constants((self._shared(rows),))
        pairs = zip(rows, self.primes, strict=True)
        upper = self._shared([[(w << int(_HALF)) % q for w in row] for row, q in pairs])
        return Constants((upper, self._shared(rows)))

    def _shared(self, rows: list[list[int]]) -> tuple[Residues, NDArray[np.float64]]:
        value = np.array(rows, dtype=np.uint64)
        # Below the true quotient by at least what the products round up.
        return value, value / self.q(2).astype(np.float64) * (1.0 - 2.0**-50)

    def constant(self, value: int) -> Constants:
        """One constant modulo each prime, shape (primes, 1)."""
        return self.constants([[value % q] for q in self.primes])

    def times(self, x: Residues, factor: Constants) -> Residues:
        """Products with constants, reduced."""
        q = self.q(x.ndim)
        if len(factor.parts) == 1:
            result = _lazy(x, *factor.parts[0], q)
        else:
            result = _lazy(x >> _HALF, *factor.parts[0], q)
            result += _lazy(x & np.uint64((1 << 30) - 1), *factor.parts[1], q)
            result = _least(result, result - (q + q))
        return _least(result, result - q)

    def add(self, x: Residues, y: Residues) -> Residues:
        """Sums, reduced."""
        result = x + y
        return _least(result, result - self.q(x.ndim))

    def subtract(self, x: Residues, y: Residues) -> Residues:
        """Differences, reduced."""
        result = x - y
        return _least(result, result + self.q(x.ndim))

    def residues(self, values: Wide) -> Residues:
        """Integers of shape (...) modulo each prime, shape (primes, ...)."""
        upper = self._reduced(values.high)
        shift = self.constant(1 << SPLIT).spread(-1, *(1,) * values.high.ndim)
        return self.add(self.times(upper, shift), self._reduced(values.low))

    def _reduced(self, values: NDArray[np.int64]) -> Residues:
        """Numbers of either sign, modulo each prime; numpy's own remainder is many times slower."""
        q = self.q(1 + values.ndim).view(np.int64)
        quotient = np.floor(values * (1.0 / q)).astype(np.int64)
        quotient *= q
        # The quotient is one too large, right, or one too small.
        result = (values - quotient).view(np.uint64)
        result = _least(result, result + q.view(np.uint64))
        return _least(result, result - q.view(np.uint64))

    def integers(self, residues: Residues) -> Double:
        """The integers of least absolute value that have given residues, as real numbers.

        Args:
            residues: Shape (primes, ...).

        Returns:
            Shape (...). Mixed radix digits are exact, their sum is to 2**-100 of itself
            (H. L. Garner, The residue number system, 1959).
        """
        digits = [np.array(row) for row in residues]
        for j, prime in enumerate(self.primes[:-1]):
            rest = self.primes[j + 1 :]
            others = Moduli(rest)
            mine = others.constants([[pow(prime, -1, q)] for q in rest])
            held = np.stack(digits[j + 1 :])
            known = digits[j] % others.q(held.ndim)
            inverse = mine.spread(*others.q(held.ndim).shape)
            digits[j + 1 :] = list(others.times(others.subtract(held, known), inverse))
        negative = digits[-1] > np.uint64(self.primes[-1] // 2)
        result = Double(np.zeros(negative.shape), np.zeros(negative.shape))
        for digit, prime in zip(digits[::-1], self.primes[::-1], strict=True):
            # -x - 1 has every digit turned round, and leading zeros where x is near the modulus.
            turned = np.where(negative, np.uint64(prime - 1) - digit, digit)
            rough = np.full(1, prime, dtype=np.float64)
            left = np.full(1, prime - int(rough[0]), dtype=np.float64)
            result = total(product(result, factor_of(rough)), product(result, factor_of(left)))
            result = total(result, _double(turned))
        sign = np.where(negative, -1.0, 1.0)
        one = np.where(negative, -1.0, 0.0)
        signed = Double(result.high * sign, result.low * sign)
        return total(signed, Double(one, np.zeros(one.shape)))


def _double(words: Residues) -> Double:
    rough = words.astype(np.float64)
    rest = (words - rough.astype(np.uint64)).view(np.int64)
    return Double(rough, rest.astype(np.float64))


def _least(x: Residues, y: Residues) -> Residues:
    """The one of two numbers a prime apart that is below it; the other may have wrapped around."""
    result: Residues = np.minimum(x, y)
    return result


def _lazy(x: Residues, w: Residues, share: NDArray[np.float64], q: Residues) -> Residues:
    """A product below 2q of x and w below q, one of them below 2**49."""
    quotient = (x.view(np.int64) * share).astype(np.int64).view(np.uint64)
    quotient *= q
    result = x * w
    result -= quotient
    return result


@functools.cache
def root_of_unity(prime: int, degree: int) -> int:
    """The least primitive 2N-th root of unity modulo a prime, which SEAL takes."""
    step = (prime - 1) // (2 * degree)
    found = next(r for x in range(2, prime) if pow(r := pow(x, step, prime), degree, prime) != 1)
    square, least = found * found % prime, found
    for _ in range(degree):
        found = found * square % prime
        least = min(least, found)
    return least


class Transform:
    """Negacyclic transforms of polynomials in X**(N/n), modulo several primes.

    Values come in SEAL's order, bit-reversed. Of the whole polynomial in X they are repeated in
    blocks of N/n. Algorithm: M. Scott, A note on the implementation of the number theoretic
    transform, 2017.
    """

    def __init__(self, moduli: Moduli, degree: int, size: int) -> None:
        """Take the primes, N, and the number n of coefficients, a power of two."""
        self.moduli = moduli
        self.degree = degree
        self.size = size
        self._stages = []
        self._inverse = []
        self._powers = [self._all_powers(q) for q in moduli.primes]
        exponents = [size]
        # Long vectors are turned halfway, so that numpy's inner loops stay long.
        self._turn = 1 << (size.bit_length() // 2) if size >= _TURN else size
        while len(exponents) < size:
            halves = [e // 2 for e in exponents]
            self._stages.append(self._twiddles(halves, 1))
            self._inverse.append(self._twiddles(halves, -1))
            exponents = [e for half in halves for e in (half, half + size)]

    def _all_powers(self, prime: int) -> list[int]:
        if self.size == 1:
            return [1]
        root = pow(root_of_unity(prime, self.degree), self.degree // self.size, prime)
        powers = [1]
        for _ in range(2 * self.size - 1):
            powers.append(powers[-1] * root % prime)
        return powers

    def _twiddles(self, exponents: list[int], sign: int) -> Constants:
        rows = [[powers[sign * e % len(powers)] for e in exponents] for powers in self._powers]
        factor, blocks = self.moduli.constants(rows), len(exponents)
        if blocks < self._turn:
            return factor.spread(len(rows), 1, blocks, 1, 1)
        outer, inner = self._turn, blocks // self._turn
        order = np.arange(blocks).reshape(outer, inner).T.ravel()
        return factor.taken(order).spread(len(rows), 1, inner, 1, outer)

    def forward(self, coefficients: Residues) -> Residues:
        """Values of polynomials, both of shape (primes, polynomials, n)."""
        primes, count, _ = coefficients.shape
        x, outer = coefficients[..., None], 1
        for factor in self._stages:
            blocks = factor.shape[2]
            if outer == 1 and factor.shape[4] > 1:
                outer = self._turn
                x = x.reshape(primes, count, outer, -1).swapaxes(2, 3)
            pairs = x.reshape(primes, count, blocks, 2, -1, outer)
            even = pairs[:, :, :, 0]
            odd = self.moduli.times(pairs[:, :, :, 1], factor)
            x = np.empty_like(pairs)
            x[:, :, :, 0] = self.moduli.add(even, odd)
            x[:, :, :, 1] = self.moduli.subtract(even, odd)
        if outer > 1:
            x = x.reshape(primes, count, -1, outer).swapaxes(2, 3)
        return x.reshape(coefficients.shape)

    def backward(self, values: Residues) -> Residues:
        """Coefficients times n, of polynomials with given values; shape (primes, count, n)."""
        primes, count, _ = values.shape
        x, outer = values[..., None], 1
        if self._inverse and self._inverse[-1].shape[4] > 1:
            outer = self._turn
            x = x.reshape(primes, count, outer, -1).swapaxes(2, 3)
        for factor in reversed(self._inverse):
            blocks = factor.shape[2]
            if outer > 1 and factor.shape[4] == 1:
                x = x.reshape(primes, count, -1, outer).swapaxes(2, 3)
                outer = 1
            pairs = x.reshape(primes, count, blocks, 2, -1, outer)
            even, odd = pairs[:, :, :, 0], pairs[:, :, :, 1]
            x = np.empty_like(pairs)
            x[:, :, :, 0] = self.moduli.add(even, odd)
            x[:, :, :, 1] = self.moduli.times(self.moduli.subtract(even, odd), factor)
        return x.reshape(values.shape)

    def spread(self, values: Residues) -> Residues:
        """Values in all N places, from those in n."""
        return np.repeat(values, self.degree // self.size, axis=-1)

    def project(self, values: Residues) -> Residues:
        """Coefficients of X**(kN/n) of polynomials with values in N places.

        Args:
            values: Shape (primes, polynomials, N).

        Returns:
            Shape (primes, polynomials, n).
        """
        kept = values.reshape(*values.shape[:2], self.size, -1)
        while kept.shape[-1] > 1:
            half = kept.shape[-1] // 2
            kept = self.moduli.add(kept[..., :half], kept[..., half:])
        shrink = self.moduli.constants([[pow(self.degree, -1, q)] for q in self.moduli.primes])
        found = self.backward(np.ascontiguousarray(kept[..., 0]))
        return self.moduli.times(found, shrink.spread(-1, 1, 1))


@functools.cache
def transform(primes: tuple[int, ...], degree: int, size: int) -> Transform:
    """The transform of polynomials with `size` coefficients, made once."""
    return Transform(Moduli(primes), degree, size)
