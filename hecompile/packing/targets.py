"""Candidates for where the elements of a linear map's result may go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hecompile.ir.constants import SparseMap
from hecompile.ir.types import GARBAGE, ZERO
from hecompile.packing.kernels import Target
from hecompile.packing.places import NOTHING, Places, power_of_two
from hecompile.packing.pools import Pool

Targets = tuple[Target, ...]
"""A target for each ciphertext of a result."""

_SPARSE_SHARE = 0.5


def natural(size: int, capacity: int, stride: int = 1, low: int = 0) -> Targets:
    """Elements in order, `stride` places apart, cut where a ciphertext is full."""
    length = min(power_of_two(size), max(capacity // stride, 1))
    rest = GARBAGE if low else ZERO
    return tuple(
        Target(_padded(first, min(length, size - first), length, stride, rest), low)
        for first in range(0, size, length)
    )


def _padded(first: int, count: int, length: int, stride: int, rest: str) -> Places:
    elements = np.full(length * stride, NOTHING, dtype=np.int64)
    elements[: count * stride : stride] = first + np.arange(count)
    return Places(elements, rest)


def strided(size: int, capacity: int) -> Iterator[Targets]:
    """Natural orders with growing strides, the places between folded or left alone."""
    yield natural(size, capacity)
    bits = 1
    while power_of_two(size) << bits <= capacity:
        yield natural(size, capacity, 1 << bits, bits)
        yield natural(size, capacity, 1 << bits)
        bits += 1


def inherited(
    size: int, capacity: int, linear: SparseMap, operand: Sequence[Places]
) -> Targets | None:
    """Rows at the place of their first column, rows that share it one block behind the other.

    Convolutions keep their grid so: the entries of one tap and one output channel share a
    rotation. None where the map is not sparse, a row is empty, the operand is in several
    ciphertexts or in copies, or a ciphertext would hold nothing.
    """
    if len(operand) != 1 or not operand[0].unique or not len(linear.rows):
        return None
    places = operand[0]
    if len(linear.rows) > _SPARSE_SHARE * size * len(places.held):
        return None
    place_of = np.full(int(places.elements.max()) + 1, NOTHING, dtype=np.int64)
    place_of[places.elements[places.held]] = places.held
    first = np.full(size, np.iinfo(np.int64).max)
    np.minimum.at(first, linear.rows, place_of[linear.columns])
    if (first > places.period).any():
        return None
    order = np.argsort(first, kind="stable")
    _, starts, counts = np.unique(first[order], return_index=True, return_counts=True)
    rank = np.empty(size, dtype=np.int64)
    rank[order] = np.arange(size) - np.repeat(starts, counts)
    block = power_of_two(int(first.max()) + 1)
    period = block * power_of_two(int(rank.max()) + 1)
    elements = np.full(period, NOTHING, dtype=np.int64)
    elements[rank * block + first] = np.arange(size)
    return _cut(Places(elements), capacity)


def turned_copies(size: int, capacity: int, rows: int) -> Iterator[Targets]:
    """For results whose operands the client packs: copies, turned for a next map of `rows` rows.

    With c copies the diagonals of the next map are c times fewer, for copy number k stands turned
    by k * rows / c places. With as many copies as rows none is left.
    """
    period = power_of_two(size)
    wanted = power_of_two(rows)
    copies = 1
    while copies <= min(wanted, capacity // period):
        index = np.arange(copies * period)
        turn = index // period * (wanted // copies)
        elements = (index % period + turn) % period
        yield (Target(Places(np.where(elements < size, elements, NOTHING))),)
        copies *= 2


def replicas(size: int, capacity: int, rows: int) -> Iterator[Places]:
    """Copies of an operand that somebody packs, such that a map of `rows` rows turns it less.

    Where the map has no more rows than columns, these are `turned_copies`. Else every block of as
    many places as the result holds the operand again and again, and c blocks follow each other,
    each turned by 1/c of it: then a row finds c columns at its own place, and the others by
    turning; the c partial sums are folded.
    """
    period, block = power_of_two(size), power_of_two(rows)
    if block <= period:
        yield from (targets[0].places for targets in turned_copies(size, capacity, rows))
        return
    copies = 1
    while copies <= min(period, capacity // block):
        index = np.arange(copies * block)
        elements = (index + index // block * (period // copies)) % period
        yield Places(np.where(elements < size, elements, NOTHING))
        copies *= 2


def phased(pool: Pool, shape: Sequence[int], capacity: int) -> Iterator[Targets]:
    """For results whose operands the client packs: what the next map pools lies in phases."""
    leading = {1, *(int(np.prod(shape[:axis])) for axis in range(1, len(shape)))}
    for blocks in sorted(leading):
        places = pool.phases(blocks)
        if places is not None:
            targets = _cut(places, capacity)
            if targets is not None:
                yield targets


def _cut(places: Places, capacity: int) -> Targets | None:
    """Cut a placement into ciphertexts; None if one would hold nothing."""
    length = min(capacity, places.period)
    pieces = [
        Places(places.elements[i : i + length], places.rest)
        for i in range(0, places.period, length)
    ]
    filled = [p for p in pieces if len(p.held)]
    return tuple(Target(p) for p in filled) if len(filled) == len(pieces) else None
