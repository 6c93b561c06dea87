"""Places: which element of a tensor each place of a ciphertext's period holds.

A ciphertext that packs `lanes` samples has its slots in groups: place k is the slots from k * lanes
to (k + 1) * lanes, one slot a sample. An element may have several places (replicas, or the taps of
a convolution that the client gathers), and a place may hold none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import PassError
from hecompile.ir.operation import Value
from hecompile.ir.types import GARBAGE, ZERO, Layout

Indices = NDArray[np.int64]

NOTHING = -1
"""Stands for the element of a place that holds none."""


def power_of_two(n: int) -> int:
    """Smallest power of two that is `n` or more."""
    return 1 << max(n - 1, 0).bit_length()


@dataclass(frozen=True, eq=False)
class Places:
    """One period of a ciphertext, place by place.

    Attributes:
        elements: (places,), a power of two long: index in the flattened tensor, or `NOTHING`.
        rest: what places without an element hold, "zero" or "garbage".
    """

    elements: Indices
    rest: str = ZERO

    @property
    def period(self) -> int:
        """Number of places after which the ciphertext repeats."""
        return len(self.elements)

    @cached_property
    def held(self) -> Indices:
        """The places that hold an element, ascending."""
        return np.flatnonzero(self.elements >= 0)

    @cached_property
    def key(self) -> bytes:
        """Equal for equal placements."""
        return self.elements.tobytes() + self.rest.encode()

    @property
    def unique(self) -> bool:
        """Whether every element has one place."""
        return len(np.unique(self.elements[self.held])) == len(self.held)

    def view(self, start: int, count: int) -> Places | None:
        """The places of elements `start` to `start + count`, numbered from 0; None for none."""
        inside = (self.elements >= start) & (self.elements < start + count)
        if not inside.any():
            return None
        whole = inside.sum() == len(self.held)
        elements = np.where(inside, self.elements - start, NOTHING)
        return Places(elements, self.rest if whole else GARBAGE)

    def turned(self, steps: int) -> Places:
        """After a rotation to the left by `steps` places."""
        return Places(np.roll(self.elements, -steps), self.rest)

    def layout(self, lanes: int) -> Layout | None:
        """The same as a layout of the IR; None if elements are not evenly spaced and in order."""
        elements = self.elements[self.held]
        if not len(elements):
            return None
        step = int(self.held[1] - self.held[0]) if len(self.held) > 1 else 1
        even = step & (step - 1) == 0 and (np.diff(self.held) == step).all()
        if not even or (np.diff(elements) != 1).any():
            return None
        offset, count = int(self.held[0]), len(elements)
        if offset + count * step > self.period:
            return None
        return Layout(int(elements[0]), count, step * lanes, offset * lanes, self.rest)


@dataclass(frozen=True)
class Part:
    """A ciphertext and the elements of one tensor in it (views share a ciphertext)."""

    value: Value
    places: Places


@dataclass(frozen=True)
class Packed:
    """A flattened tensor of `size` elements in ciphertexts."""

    parts: tuple[Part, ...]
    size: int

    @cached_property
    def places(self) -> tuple[Places, ...]:
        """Where elements are, ciphertext by ciphertext."""
        return tuple(part.places for part in self.parts)

    @cached_property
    def occurrences(self) -> Occurrences:
        """Every place of every element."""
        return occurrences(self.places, self.size)


def distinct(numbers: Indices) -> Indices:
    """The distinct values of small numbers, 0 or above, ascending; faster than sorting them."""
    seen = np.zeros(int(numbers.max(initial=-1)) + 1, dtype=bool)
    seen[numbers] = True
    return np.flatnonzero(seen)


def same_elements(a: Sequence[Places], b: Sequence[Places]) -> bool:
    """Whether two tensors are cut into ciphertexts alike, so that they meet slot by slot."""
    return len(a) == len(b) and all(
        set(x.elements[x.held].tolist()) == set(y.elements[y.held].tolist())
        for x, y in zip(a, b, strict=True)
    )


def in_order(parts: Sequence[Places]) -> bool:
    """Whether layouts describe ciphertexts that hold a tensor's elements one run after another."""
    reached = 0
    for places in parts:
        layout = places.layout(1)
        if layout is None or layout.first != reached:
            return False
        reached += layout.count
    return True


def shift_between(a: Places, b: Places) -> int | None:
    """Steps by which `b` must turn to the left so that its elements meet those of `a`.

    Places that hold an element of `a` must then hold the same element of `b`; None if no rotation
    does that.
    """
    if not len(a.held):
        return None
    if a is b:
        return 0
    period = max(a.period, b.period)
    left = np.tile(a.elements, period // a.period)
    right = np.tile(b.elements, period // b.period)
    place = int(a.held[0])
    wanted = left >= 0
    for candidate in np.flatnonzero(right == left[place]):
        steps = int(candidate - place) % period
        if (np.roll(right, -steps)[wanted] == left[wanted]).all():
            return steps % b.period
    return None


def alignment(a: Sequence[Places], b: Sequence[Places]) -> list[tuple[int, int]] | None:
    """Steps by which the ciphertexts of two tensors must turn to the left to meet slot by slot.

    One of each pair is 0: the one with its first element further right turns, so that chains of
    products meet at the left. None where no rotation makes the elements meet.
    """
    if not same_elements(a, b):
        return None
    steps = []
    for x, y in zip(a, b, strict=True):
        forth, back = shift_between(x, y), shift_between(y, x)
        if forth is not None and (back is None or x.held[0] <= y.held[0]):
            steps.append((0, forth))
        elif back is not None:
            steps.append((back, 0))
        else:
            return None
    return steps


def joined(a: Places, b: Places, product: bool) -> Places:
    """Places of a slot-wise result: a product is zero where a factor is, a sum where both are."""
    period = max(a.period, b.period)
    left, right = (np.tile(p.elements, period // p.period) for p in (a, b))
    elements = np.where(left == right, left, NOTHING)
    zeros = sum(p.rest == ZERO and p.period == period for p in (a, b))
    alike = (left == right).all() and zeros >= (1 if product else 2)
    return Places(elements, ZERO if alike else GARBAGE)


@dataclass(frozen=True, eq=False)
class Occurrences:
    """Every place of every element of a tensor.

    Each array is (size, most occurrences); where an element has fewer, part and place are -1.

    Attributes:
        part: the ciphertext.
        place: in its period.
        period: of that ciphertext, in places.
    """

    part: Indices
    place: Indices
    period: Indices


def occurrences(parts: Sequence[Places], size: int) -> Occurrences:
    """Find every place of every element.

    Raises:
        PassError: an element has no place.
    """
    part = np.concatenate([np.full(len(p.held), i) for i, p in enumerate(parts)])
    place = np.concatenate([p.held for p in parts])
    element = np.concatenate([p.elements[p.held] for p in parts])
    order = np.argsort(element, kind="stable")
    counts = np.bincount(element, minlength=size)
    if len(counts) > size or not counts.all():
        raise PassError("lower-to-slots: a tensor's ciphertexts do not hold its elements")
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    where = np.full((2, size, int(counts.max())), NOTHING, dtype=np.int64)
    where[:, element[order], rank] = part[order], place[order]
    periods = np.array([p.period for p in parts], dtype=np.int64)
    return Occurrences(where[0], where[1], periods[where[0]])
