"""Tensors that are packed in any order: inputs by the client, refreshed ones by the key holder."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hecompile.packing.places import NOTHING, Packed, Places


@dataclass(frozen=True)
class Model:
    """An input as the model has it: the client packs it as each use asks."""

    label: str
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.dims))


@dataclass(frozen=True, eq=False)
class Handed:
    """A tensor that went to the key holder, who packs it anew as each use asks.

    Attributes:
        packed: as it was handed over.
        mask_bits: as in `he.refresh`.
        group: the round.
    """

    packed: Packed
    mask_bits: int
    group: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.packed.size


@dataclass(frozen=True)
class Free:
    """A run of elements of such a tensor that has no place yet.

    Attributes:
        source: name of the tensor.
        start: first element.
        size: number of elements.
    """

    source: str
    start: int
    size: int

    def view(self, start: int, count: int) -> Free:
        """Elements `start` to `start + count` of it."""
        return replace(self, start=self.start + start, size=count)

    def within(self, places: Places) -> Places:
        """Places that number the elements of this run, with the numbers of the whole tensor."""
        elements = np.where(places.elements >= 0, places.elements + self.start, NOTHING)
        return Places(elements, places.rest)


@dataclass(frozen=True, eq=False)
class Fit:
    """Where a free operand is put for one operation.

    Attributes:
        places: of each ciphertext; elements are numbered as in the operand.
        whole: whether it is a view of the whole tensor packed in order, which many may share.
    """

    places: tuple[Places, ...]
    whole: bool = False


def as_needed(places: Places) -> Places:
    """Places for what must meet others slot by slot: the same, and zero elsewhere."""
    return Places(places.elements)
