"""Primes of a CKKS coefficient modulus, the very ones that SEAL's CoeffModulus.Create picks.

The compiler must know them without the HE library at hand, since scales are exact functions of
the primes. A prime q supports the number-theoretic transform of degree N if q = 1 mod 2N.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from hecompile.errors import CompileError

MIN_PRIME_BITS: Final = 2
MAX_PRIME_BITS: Final = 60

_WITNESSES: Final = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def is_prime(number: int) -> bool:
    """Tell whether `number` < 2**64 is prime.

    Miller-Rabin with the first twelve primes as bases, which is deterministic below 3.1e23
    (Sorenson and Webster, Math. Comp. 86, 2017).
    """
    if number < 2:
        return False
    for prime in _WITNESSES:
        if number % prime == 0:
            return number == prime
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd //= 2
        twos += 1
    return all(_passes(number, base, odd, twos) for base in _WITNESSES)


def _passes(number: int, base: int, odd: int, twos: int) -> bool:
    """Tell whether `number` = odd * 2**twos + 1 is a probable prime to `base`."""
    power = pow(base, odd, number)
    if power in (1, number - 1):
        return True
    for _ in range(twos - 1):
        power = power * power % number
        if power == number - 1:
            return True
    return False


def ntt_primes(poly_modulus_degree: int, bit_sizes: Sequence[int]) -> tuple[int, ...]:
    """Return the primes of SEAL's `CoeffModulus.Create(poly_modulus_degree, bit_sizes)`.

    For each distinct size the largest primes = 1 mod 2N of exactly that many bits are taken, as
    many as that size occurs, and handed out in ascending order.

    Args:
        poly_modulus_degree: Ring degree N, a power of two.
        bit_sizes: Size of each prime in bits, each from 2 to 60.

    Returns:
        One prime per size, in the order of `bit_sizes`.

    Raises:
        CompileError: If a size is out of range or too few primes of a size exist.
    """
    return _ntt_primes(poly_modulus_degree, tuple(bit_sizes))


@lru_cache(maxsize=4096)
def _ntt_primes(poly_modulus_degree: int, bit_sizes: tuple[int, ...]) -> tuple[int, ...]:
    stock = {
        bits: iter(reversed(_largest_primes(poly_modulus_degree, bits, count)))
        for bits, count in Counter(bit_sizes).items()
    }
    return tuple(next(stock[bits]) for bits in bit_sizes)


@lru_cache(maxsize=4096)
def _largest_primes(poly_modulus_degree: int, bits: int, count: int) -> tuple[int, ...]:
    """Return the `count` largest primes = 1 mod 2N of exactly `bits` bits, descending."""
    if not MIN_PRIME_BITS <= bits <= MAX_PRIME_BITS:
        raise CompileError(
            f"a prime of {bits} bits cannot be part of a coefficient modulus; every size must be"
            f" from {MIN_PRIME_BITS} to {MAX_PRIME_BITS} bits."
        )
    step = 2 * poly_modulus_degree
    candidate = (2**bits - 1) // step * step + 1
    found: list[int] = []
    while len(found) < count:
        if candidate <= 2 ** (bits - 1):
            raise CompileError(
                f"only {len(found)} of the {count} primes of {bits} bits that were asked for exist"
                f" for ring degree {poly_modulus_degree}; choose larger or more varied sizes."
            )
        if is_prime(candidate):
            found.append(candidate)
        candidate -= step
    return tuple(found)
