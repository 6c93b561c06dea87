"""Kernels of linear maps: which products with which rotations give which slots of the result.

A kernel multiplies rotations of the operands with plaintext vectors, adds the products, and folds
the sum: high folds shorten the period to the target's, low folds add up `2**low` neighbouring
places. For an entry (row, column) of the map, with the row's place t in the target and a place a of
the column in an operand of period n, P the target's period and D = min(n, P), the rotation is
(a - t) mod D with the lowest `low` bits cleared. With `low` = 0 these are the generalised diagonals
of Halevi and Shoup (CRYPTO 2014, section 4.1), in the hybrid form for few outputs of Juvekar et al.
(USENIX Security 2018, section 4.1); with 2**low = n the rows lie one behind the other and the
operand is not rotated at all. Where a column has several places, the least rotation is taken, so
that replicas that the client turned beforehand save rotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hecompile.ir.constants import Array, SparseMap
from hecompile.packing.places import NOTHING, Indices, Occurrences, Places, distinct

_FAR = np.iinfo(np.int64).max


@dataclass(frozen=True, eq=False)
class Target:
    """Where the elements of one ciphertext of a result go.

    Attributes:
        places: of the result.
        low: lowest bits of the place that are folded.
    """

    places: Places
    low: int = 0

    @cached_property
    def key(self) -> tuple[bytes, int]:
        """Equal for equal targets."""
        return self.places.key, self.low


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries of one map that fall to one target: arrays of equal length.

    Attributes:
        part: operand's ciphertext.
        rotation: of that ciphertext, in places.
        slot: place of the product.
        length: period of the product, in places.
        value: the weight.
    """

    part: Indices
    rotation: Indices
    slot: Indices
    length: Indices
    value: Array

    def turns(self) -> Indices:
        """The distinct (part, rotation) pairs, (pairs, 2)."""
        width = int(self.rotation.max(initial=0)) + 1
        key = distinct(self.part * width + self.rotation)
        return np.stack([key // width, key % width], axis=1)

    def lengths(self) -> list[int]:
        """The distinct lengths."""
        return [int(n) for n in distinct(self.length)]


def match(operand: Occurrences, linear: SparseMap, target: Target) -> Entries:
    """Give every entry of a map that falls to a target its rotation and its slot."""
    goal, period = target.places, target.places.period
    entry, counts = linear.entries_of(goal.elements[goal.held])
    t = np.repeat(goal.held, counts)[:, None]
    columns = linear.columns[entry]
    part, place, periods = (a[columns] for a in (operand.part, operand.place, operand.period))
    # Periods are powers of two.
    distance = (place - t) & (np.minimum(periods, period) - 1)
    rotation = np.where(part >= 0, distance >> target.low << target.low, _FAR)
    rows, pick = np.arange(len(columns)), np.argmin(rotation, axis=1)
    part, place, periods, distance, rotation = (
        a[:, 0] if a.shape[1] == 1 else a[rows, pick]
        for a in (part, place, periods, distance, rotation)
    )
    at_home = (place - rotation) & (periods - 1)
    slot = np.where(periods >= period, at_home, t[:, 0] + distance - rotation)
    return Entries(part, rotation, slot, np.maximum(periods, period), linear.values[entry])


@dataclass(frozen=True, eq=False)
class Taps:
    """An operand that the client packs for one map: ciphertexts that need no rotation.

    Attributes:
        places: of each ciphertext, `chunks` times the target's period.
        entries: of the map.
    """

    places: tuple[Places, ...]
    entries: Entries


def gather_taps(linear: SparseMap, target: Target, chunks: int) -> Taps:
    """Pack an operand so that each place of the target finds what it needs at that very place.

    The q-th non-zero column of a place's row goes into ciphertext q mod T of T; `chunks` of them
    share a ciphertext, one target period behind the other, and are folded (im2col: Chellapilla et
    al., IWFHR 2006; packed by the client as in Brutzkus et al., "LoLa", ICML 2019).

    Args:
        linear: the map.
        target: where its rows go.
        chunks: products that share a ciphertext, a power of two.
    """
    goal, period = target.places, target.places.period
    entry, counts = linear.entries_of(goal.elements[goal.held])
    taps = max(1, -(-int(counts.max(initial=0)) // chunks))
    place = np.repeat(goal.held, counts)
    nth = np.arange(len(place)) - np.repeat(np.cumsum(counts) - counts, counts)
    tap, slot = nth % taps, place + nth // taps * period
    elements = np.full((taps, chunks * period), NOTHING, dtype=np.int64)
    elements[tap, slot] = linear.columns[entry]
    if not len(entry):
        # A ciphertext holds something, even if no weight meets it.
        elements[0, 0] = 0
    length = np.full(len(place), chunks * period, dtype=np.int64)
    found = Entries(tap, np.zeros_like(tap), slot, length, linear.values[entry])
    return Taps(tuple(Places(e) for e in elements), found)


def weights(entries: Entries, lengths: int) -> tuple[Indices, Array]:
    """Rows of weights of the products of one length.

    Returns:
        The (part, rotation) of each row, (rows, 2), and the weights, (rows, `lengths`).
    """
    here = entries.length == lengths
    key, row = np.unique(entries.part[here] << 32 | entries.rotation[here], return_inverse=True)
    table = np.zeros((len(key), lengths))
    np.add.at(table, (row, entries.slot[here]), entries.value[here])
    return np.stack([key >> 32, key & 0xFFFFFFFF], axis=1), table
