"""Transforms and arithmetic modulo primes, against Python's integers."""

from __future__ import annotations

import numpy as np
import pytest

from hecompile.numeric.primes import ntt_primes
from hecompile.runtime.ntt import Moduli, Residues, Transform, root_of_unity
from hecompile.runtime.wide import Wide, nearest, whole

RNG = np.random.default_rng(6)
DEGREE = 256
NARROW = ntt_primes(DEGREE, (20, 30, 40, 48))
BOTH = ntt_primes(DEGREE, (60, 30, 50, 49))


def random_residues(primes: tuple[int, ...], *shape: int) -> Residues:
    found = [RNG.integers(0, q, size=shape, dtype=np.uint64) for q in primes]
    for row, q in zip(found, primes, strict=True):
        row.flat[:4] = (0, 1, q - 1, q // 2)
    return np.stack(found)


@pytest.mark.parametrize("primes", [NARROW, BOTH, ntt_primes(DEGREE, (60,))])
def test_products_sums_and_differences_are_exact(primes: tuple[int, ...]) -> None:
    moduli = Moduli(primes)
    x, y = random_residues(primes, 3000), random_residues(primes, 3000)
    found = (
        moduli.times(x, moduli.constants(y[:, ::-1].tolist())),
        moduli.add(x, y),
        moduli.subtract(x, y),
    )
    for n, q in enumerate(primes):
        a, b = x[n].tolist(), y[n].tolist()
        assert found[0][n].tolist() == [p * r % q for p, r in zip(a, b[::-1], strict=True)]
        assert found[1][n].tolist() == [(p + r) % q for p, r in zip(a, b, strict=True)]
        assert found[2][n].tolist() == [(p - r) % q for p, r in zip(a, b, strict=True)]


@pytest.mark.parametrize("primes", [NARROW, BOTH])
def test_residues_and_back(primes: tuple[int, ...]) -> None:
    high = RNG.integers(-(1 << 49), 1 << 49, 500)
    low = RNG.integers(0, 1 << 48, 500)
    high[:4], low[:4] = (0, -1, 0, 0), (0, (1 << 48) - 1, 1, (1 << 62) - 1)
    values = Wide(high, low)
    moduli = Moduli(primes)
    residues = moduli.residues(values)
    for n, q in enumerate(primes):
        assert residues[n].tolist() == [v % q for v in whole(values)]
    assert whole(nearest(moduli.integers(residues))) == whole(values)


def test_one_prime_gives_numbers_around_zero() -> None:
    (q,) = primes = ntt_primes(DEGREE, (60,))
    residues = np.array([[0, 1, q - 1, q // 2, q // 2 + 1]], dtype=np.uint64)
    found = whole(nearest(Moduli(primes).integers(residues)))
    assert found == [0, 1, -1, q // 2, q // 2 + 1 - q]


def slow(coefficients: list[int], q: int, size: int) -> list[int]:
    """Values at the powers of the root that SEAL's order names."""
    root = pow(root_of_unity(q, DEGREE), DEGREE // size, q)
    width = size.bit_length() - 1
    found = []
    for place in range(size):
        turned = int(f"{place:0{width}b}"[::-1], 2) if width else 0
        at = pow(root, 2 * turned + 1, q)
        value = 0
        for c in reversed(coefficients):
            value = (value * at + c) % q
        found.append(value)
    return found


@pytest.mark.parametrize("primes", [NARROW, BOTH])
@pytest.mark.parametrize("size", [1, 2, 4, 32, 256])
def test_transforms_are_those_of_the_definition(primes: tuple[int, ...], size: int) -> None:
    change = Transform(Moduli(primes), DEGREE, size)
    coefficients = random_residues(primes, 2 * max(size, 2)).reshape(len(primes), -1, size)
    values = change.forward(coefficients)
    for n, q in enumerate(primes):
        for row, found in zip(coefficients[n][:3], values[n][:3], strict=True):
            assert found.tolist() == slow(row.tolist(), q, size)
    assert np.array_equal(change.project(change.spread(values)), coefficients)


def test_projection_keeps_every_so_many_th_coefficient() -> None:
    whole_ring, part = (Transform(Moduli(BOTH), DEGREE, size) for size in (DEGREE, 8))
    coefficients = random_residues(BOTH, 2 * DEGREE).reshape(len(BOTH), 2, DEGREE)
    found = part.project(whole_ring.forward(coefficients))
    assert np.array_equal(found, coefficients[..., :: DEGREE // 8])


@pytest.mark.parametrize("degree", [4, 256])
def test_roots_are_the_least(degree: int) -> None:
    (q,) = ntt_primes(DEGREE, (20,))
    roots = [r for r in range(q) if pow(r, degree, q) == q - 1]
    assert root_of_unity(q, degree) == min(roots)
