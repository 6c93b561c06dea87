"""Random operands, maps and targets, and what kernels give on them, by numpy alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from hecompile.ir.constants import SparseMap
from hecompile.ir.types import GARBAGE, ZERO
from hecompile.packing.kernels import Entries, Target, weights
from hecompile.packing.places import NOTHING, Places
from hecompile.packing.targets import natural

Array = NDArray[np.float64]

SEEDS = st.integers(0, 2**32 - 1)


def random_places(random: np.random.Generator, size: int) -> tuple[Places, ...]:
    """Every element in one place or several, in up to three ciphertexts with gaps."""
    parts = []
    for owned in np.array_split(random.permutation(size), min(size, int(random.integers(1, 4)))):
        period = 1 << int(np.ceil(np.log2(len(owned))) + random.integers(0, 3))
        extra = random.integers(0, period - len(owned) + 1)
        held = [*owned, *random.integers(0, size, extra)]
        elements = np.full(period, NOTHING, dtype=np.int64)
        elements[random.permutation(period)[: len(held)]] = held
        parts.append(Places(elements, str(random.choice([ZERO, GARBAGE]))))
    return tuple(parts)


@st.composite
def operands(draw: st.DrawFn, most: int = 12) -> tuple[tuple[Places, ...], int]:
    """Places of a tensor and its size: in order, strided, or anywhere with copies."""
    size = draw(st.integers(1, most))
    if draw(st.booleans()):
        stride = 1 << draw(st.integers(0, 2))
        capacity = stride << draw(st.integers(0, 4))
        return tuple(t.places for t in natural(size, capacity, stride)), size
    return random_places(np.random.default_rng(draw(SEEDS)), size), size


@st.composite
def maps(draw: st.DrawFn, rows: int, columns: int) -> SparseMap:
    """A map with about as many zeros as drawn; some entries are stored though they are zero."""
    random = np.random.default_rng(draw(SEEDS))
    kept = random.random((rows, columns)) < draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    at = np.argwhere(kept)
    return SparseMap(at[:, 0], at[:, 1], random.integers(-3, 4, len(at)).astype(np.float64))


def fill(parts: Sequence[Places], x: Array, seed: int = 0) -> list[Array]:
    """Slots of each ciphertext; places without an element are zero or hold anything."""
    random = np.random.default_rng(seed)
    filled = []
    for places in parts:
        rest = random.normal(size=places.period) * (places.rest == GARBAGE)
        filled.append(np.where(places.elements >= 0, x[places.elements], rest))
    return filled


def evaluate(slots: Sequence[Array], entries: Entries, target: Target) -> Array:
    """One period of the result of a kernel: rotate, multiply, add, fold."""
    period = target.places.period
    total = np.zeros(period)
    for length in entries.lengths():
        turns, table = weights(entries, length)
        for (part, rotation), row in zip(turns, table, strict=True):
            turned = np.roll(slots[part], -rotation)
            assert rotation < len(turned) <= length
            total += (np.tile(turned, length // len(turned)) * row).reshape(-1, period).sum(axis=0)
    for bit in reversed(range(target.low)):
        total = total + np.roll(total, -(1 << bit))
    return total


def assert_holds(result: Array, places: Places, expected: Array) -> None:
    """A ciphertext holds a tensor's elements at its places, and zeros where it says so."""
    held = places.elements >= 0
    np.testing.assert_allclose(result[held], expected[places.elements[held]], rtol=0, atol=1e-9)
    if places.rest == ZERO:
        np.testing.assert_allclose(result[~held], 0.0, rtol=0, atol=1e-12)
