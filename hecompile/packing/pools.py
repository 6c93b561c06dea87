"""Columns of a map that are alike: their elements can be added up before the products.

A pooling that was merged into the next convolution leaves such columns. Adding first takes a few
rotations and shrinks the map; it costs no level.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hecompile.ir.constants import SparseMap
from hecompile.ir.types import GARBAGE
from hecompile.packing.places import NOTHING, Indices, Places, power_of_two


@dataclass(frozen=True, eq=False)
class Pool:
    """Elements in groups of equal size whose columns in a map are equal.

    Attributes:
        members: (groups, size), ascending within a group and by first member.
    """

    members: Indices

    @property
    def groups(self) -> int:
        """Number of groups."""
        return len(self.members)

    @property
    def size(self) -> int:
        """Elements of a group, a power of two."""
        return int(self.members.shape[1])

    def reduce(self, linear: SparseMap) -> SparseMap:
        """The map on the sums of the groups."""
        group = np.full(int(self.members.max()) + 1, NOTHING, dtype=np.int64)
        group[self.members[:, 0]] = np.arange(self.groups)
        inside = linear.columns < len(group)
        inside[inside] = group[linear.columns[inside]] >= 0
        columns = group[linear.columns[inside]]
        return SparseMap(linear.rows[inside], columns, linear.values[inside])

    def phases(self, blocks: int) -> Places | None:
        """All elements with the members of a group one period behind the other.

        The groups of each of `blocks` leading blocks of the tensor start at a power of two, so
        that shifts within a block and between blocks stay apart.
        """
        if self.groups % blocks:
            return None
        each = self.groups // blocks
        width = power_of_two(each)
        period = power_of_two(blocks) * width
        home = np.arange(self.groups) // each * width + np.arange(self.groups) % each
        elements = np.full(period * self.size, NOTHING, dtype=np.int64)
        for phase in range(self.size):
            elements[phase * period + home] = self.members[:, phase]
        return Places(elements)

    def folded(self, parts: Sequence[Places]) -> Places | None:
        """Places of the groups after adding all ciphertexts and folding; None where they miss."""
        lengths = {p.period for p in parts}
        total = sum(p.period for p in parts)
        period = total // self.size
        if len(lengths) != 1 or total % self.size or period > min(lengths) or period < 1:
            return None
        whole = np.concatenate([p.elements for p in parts])
        group = np.full(int(max(whole.max(), self.members.max())) + 1, NOTHING, dtype=np.int64)
        group[self.members.ravel()] = np.repeat(np.arange(self.groups), self.size)
        found = np.where(whole >= 0, group[np.maximum(whole, 0)], NOTHING)
        stacked = found.reshape(self.size, period)
        members = np.sort(whole.reshape(self.size, period), axis=0)
        # Two copies of one member are no sum of the group.
        together = (stacked == stacked[0]).all(axis=0) & (np.diff(members, axis=0) > 0).all(axis=0)
        elements = np.where(together, stacked[0], NOTHING)
        if len(np.unique(elements[elements >= 0])) != self.groups:
            return None
        return Places(elements, GARBAGE)


def find_pool(linear: SparseMap) -> Pool | None:
    """Groups of equal columns that cover every column used; None if there are none to gain by."""
    keep = linear.values != 0
    order = np.lexsort((linear.rows[keep], linear.columns[keep]))
    columns = linear.columns[keep][order]
    rows, values = linear.rows[keep][order], linear.values[keep][order]
    starts = np.flatnonzero(np.diff(columns, prepend=NOTHING))
    alike: dict[bytes, list[int]] = defaultdict(list)
    for low, high in zip(starts, np.append(starts[1:], len(columns)), strict=False):
        alike[rows[low:high].tobytes() + values[low:high].tobytes()].append(int(columns[low]))
    sizes = {len(group) for group in alike.values()}
    if len(sizes) != 1 or (size := sizes.pop()) < 2 or size & (size - 1):
        return None
    return Pool(np.array(sorted(alike.values()), dtype=np.int64))
