"""Places of tensors that a search asks for again and again, each computed once."""

from __future__ import annotations

from collections.abc import Sequence

from hecompile.packing import targets as goals
from hecompile.packing.places import Places, alignment, joined
from hecompile.packing.plans import Placement, placement_key
from hecompile.packing.sources import Fit, Free


def views(places: Sequence[Places], start: int, count: int) -> tuple[Places, ...]:
    """A run of a tensor's elements, without an operation."""
    found = (p.view(start, count) for p in places)
    return tuple(v for v in found if v is not None)


class Arrangements:
    """Ways to put tensors into ciphertexts of one capacity."""

    def __init__(self, capacity: int) -> None:
        """Remember nothing yet.

        Args:
            capacity: places of a ciphertext.
        """
        self._capacity = capacity
        self._ordered: dict[int, Fit] = {}
        self._wholes: dict[tuple[int, int, int], Fit] = {}
        self._replicas: dict[tuple[int, int], tuple[Fit, ...]] = {}
        self._steps: dict[object, list[tuple[int, int]] | None] = {}
        self._joined: dict[object, tuple[Places, ...]] = {}
        self._shared: dict[object, Placement] = {}

    def shared(self, placement: Placement) -> Placement:
        """One object for all equal placements."""
        return self._shared.setdefault(placement_key(placement), placement)

    def in_order(self, size: int) -> Fit:
        """Elements in order."""
        if size not in self._ordered:
            targets = goals.natural(size, self._capacity)
            self._ordered[size] = Fit(tuple(t.places for t in targets))
        return self._ordered[size]

    def whole(self, free: Free, size: int) -> Fit | None:
        """A view of its tensor of `size` elements in order; None if it is all of that."""
        if size == free.size:
            return None
        key = size, free.start, free.size
        if key not in self._wholes:
            found = views(self.in_order(size).places, free.start, free.size)
            self._wholes[key] = Fit(found, whole=True)
        return self._wholes[key]

    def replicas(self, size: int, rows: int) -> tuple[Fit, ...]:
        """Copies for a map of so many rows, see `targets.replicas`."""
        key = size, rows
        if key not in self._replicas:
            found = goals.replicas(size, self._capacity, rows)
            self._replicas[key] = tuple(Fit((places,)) for places in found)
        return self._replicas[key]

    def steps(self, x: tuple[Places, ...], y: tuple[Places, ...]) -> list[tuple[int, int]] | None:
        """By how much two tensors turn to meet, see `places.alignment`."""
        key = placement_key(x), placement_key(y)
        if key not in self._steps:
            self._steps[key] = alignment(x, y)
        return self._steps[key]

    def met(
        self,
        x: tuple[Places, ...],
        y: tuple[Places, ...],
        steps: Sequence[tuple[int, int]],
        product: bool,
    ) -> tuple[Places, ...]:
        """Places of a slot-wise result of operands that turn by these steps."""
        key = placement_key(x), placement_key(y), product
        if key not in self._joined:
            self._joined[key] = tuple(
                joined(a.turned(left), b.turned(right), product)
                for a, b, (left, right) in zip(x, y, steps, strict=True)
            )
        return self._joined[key]
