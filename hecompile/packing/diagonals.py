"""Generalised diagonals: linear maps as rotations and plaintext products."""

from __future__ import annotations

import numpy as np

from hecompile.ir.constants import Array, SparseMap
from hecompile.ir.operation import Value
from hecompile.ir.types import Layout
from hecompile.packing.parts import Part


class Diagonals:
    """The generalised diagonals of linear maps onto one ciphertext of the result.

    In units of elements, with p the period of an operand, q that of the result and
    D = min(p, q): entry (row, column) lies on the diagonal of rotation d < D, at slot i < max(p, q)
    with i = row (mod q) and column = i + d (mod p). Products with p > q are folded down to q.

    Attributes:
        period: slots of the result's period.
        groups: by product length (slots): weights by (operand, rotation in slots).
    """

    def __init__(self, layout: Layout, period: int) -> None:
        """Start without a map, for the elements in `layout`."""
        self._layout = layout
        self.period = period
        self.groups: dict[int, dict[tuple[Value, int], Array]] = {}

    def add(self, part: Part, linear: SparseMap) -> None:
        """Add a map's entries from one operand's ciphertext."""
        out, held, stride = self._layout, part.layout, self._layout.stride
        inside = (linear.rows >= out.first) & (linear.rows < out.first + out.count)
        inside &= (linear.columns >= held.first) & (linear.columns < held.first + held.count)
        inside &= linear.values != 0
        if not inside.any():
            return
        rows = linear.rows[inside] - out.first
        columns = linear.columns[inside] - held.first + held.offset // stride
        values = linear.values[inside]
        p, q = part.period // stride, self.period // stride
        distance = (columns - rows) % p
        rotation = distance % q if q <= p else distance
        slot = rows + q * (distance // q) if q <= p else rows
        length = max(p, q) * stride
        terms = self.groups.setdefault(length, {})
        order = np.argsort(rotation, kind="stable")
        steps, starts = np.unique(rotation[order], return_index=True)
        for d, on in zip(steps, np.split(order, starts[1:]), strict=True):
            diagonal = np.zeros(max(p, q))
            np.add.at(diagonal, slot[on], values[on])
            key = (part.value, int(d) * stride)
            repeated = np.repeat(diagonal, stride)
            terms[key] = terms[key] + repeated if key in terms else repeated

    def add_zero(self, part: Part) -> None:
        """Add a map of zeros from one operand's ciphertext."""
        length = max(part.period, self.period)
        self.groups[length] = {(part.value, 0): np.zeros(length)}
