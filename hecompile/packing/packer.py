"""The packer behind `lower-to-slots`: where elements sit, and how operations meet there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array, SparseMap
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder
from hecompile.ir.types import GARBAGE, ZERO, Layout
from hecompile.packing.diagonals import Diagonals
from hecompile.packing.parts import Packed, Part
from hecompile.packing.polynomial import evaluate_polynomial


def power_of_two(n: int) -> int:
    """Smallest power of two that is `n` or more."""
    return 1 << max(n - 1, 0).bit_length()


class Packer:
    """Emits ciphertext operations for whole tensors.

    Args:
        build: where operations go.
        slots: longest period allowed (a power of two).
        batch: samples packed; elements sit `stride` = next power of two slots apart.
    """

    def __init__(self, build: Builder, slots: int, batch: int) -> None:
        """Keep where to emit and the room there is."""
        self._build = build
        self._stride = power_of_two(batch)
        self._capacity = slots // self._stride

    def input(self, label: str, dims: tuple[int, ...]) -> Packed:
        """Declare an input's ciphertexts in the standard layout."""
        parts = []
        for layout, period in self._standard(int(np.prod(dims))):
            op = he.Input(
                label=label,
                dims=dims,
                period=period,
                first=layout.first,
                count=layout.count,
                stride=layout.stride,
            )
            parts.append(Part(self._build.emit(op, label), layout))
        return Packed(tuple(parts))

    def output(self, x: Packed) -> tuple[Value, ...]:
        """The ciphertexts of a tensor that leaves; a view of a larger one is packed anew."""
        if any(he.cipher_type(p.value).layout != p.layout for p in x.parts):
            x = self._repack(x)
        return tuple(p.value for p in x.parts)

    def affine(
        self, operands: Sequence[Packed], maps: Sequence[Array], bias: Array, location: str = ""
    ) -> Packed:
        """Apply `sum of maps[i] x operands[i] + bias`; one level."""
        sparse = [SparseMap.from_constant(m) for m in maps]
        parts = []
        for layout, period in self._standard(bias.size):
            diagonals = Diagonals(layout, period)
            for operand, linear in zip(operands, sparse, strict=True):
                for part in operand.parts:
                    diagonals.add(part, linear)
            if not diagonals.groups:
                # A map of zeros still gives a ciphertext, so that it hides that it is one.
                diagonals.add_zero(operands[0].parts[0])
            value = self._sum(diagonals, location)
            value = self._add_bias(value, bias, layout, period)
            parts.append(self._label(value, layout))
        return Packed(tuple(parts))

    def binary(self, kind: type[he.Binary], x: Packed, y: Packed) -> Packed:
        """Apply a slot-wise operation after aligning the operands."""
        if x.partition != y.partition:
            x, y = self._repack(x), self._repack(y)
        parts = []
        for left, right in zip(x.parts, y.parts, strict=True):
            a, b = self._align(left, right)
            result = self._build.emit(kind(x=a.value, y=b.value))
            parts.append(self._label(result, _joint(kind, a, b)))
        return Packed(tuple(parts))

    def negate(self, x: Packed) -> Packed:
        """Negate every element."""
        emit = self._build.emit
        return Packed(tuple(self._label(emit(he.Negate(x=p.value)), p.layout) for p in x.parts))

    def polynomial(
        self, x: Packed, coefficients: Array, sections: Sequence[int], basis: str
    ) -> Packed:
        """Evaluate polynomials, (degree + 1, segments), by sections of the last axis."""
        parts = []
        for part in x.parts:
            vectors, rest = coefficients, GARBAGE
            if coefficients.shape[1] > 1:
                rows = np.repeat(coefficients, np.asarray(sections), axis=1)
                vectors, rest = self._spread(rows, part), ZERO
            result = evaluate_polynomial(self._build, part.value, vectors, basis)
            layout = dataclasses.replace(part.layout, rest=rest)
            unchanged = result == part.value
            parts.append(part if unchanged else self._label(result, layout))
        return Packed(tuple(parts))

    def view(self, x: Packed, start: int, count: int) -> Packed:
        """Elements `start` to `start + count` as a tensor of their own, without an operation."""
        parts = []
        for part in x.parts:
            old = part.layout
            low, high = max(start, old.first), min(start + count, old.first + old.count)
            if low >= high:
                continue
            whole = high - low == old.count and old.rest == ZERO
            layout = Layout(
                first=low - start,
                count=high - low,
                stride=old.stride,
                offset=old.offset + (low - old.first) * old.stride,
                rest=ZERO if whole else GARBAGE,
            )
            parts.append(Part(part.value, layout))
        return Packed(tuple(parts))

    def _standard(self, size: int) -> list[tuple[Layout, int]]:
        length = min(power_of_two(size), self._capacity)
        return [
            (Layout(first, min(length, size - first), self._stride), length * self._stride)
            for first in range(0, size, length)
        ]

    def _repack(self, x: Packed) -> Packed:
        index = np.arange(x.size, dtype=np.float64)
        identity = np.stack([index, index, np.ones(x.size)])
        return self.affine([x], [identity], np.zeros(x.size), "repack")

    def _spread(self, rows: Array, part: Part) -> Array:
        """Coefficients by element of the last axis, (degree + 1, width), to slots."""
        layout = part.layout
        elements = np.arange(layout.first, layout.first + layout.count) % rows.shape[1]
        vectors = np.zeros((len(rows), part.period))
        for lane in range(layout.stride):
            slots = layout.offset + np.arange(layout.count) * layout.stride + lane
            vectors[:, slots] = rows[:, elements]
        return vectors

    def _sum(self, diagonals: Diagonals, location: str) -> Value:
        total: Value | None = None
        for length, terms in sorted(diagonals.groups.items()):
            operands = tuple(self._rotate(value, steps) for value, steps in terms)
            weights = self._build.constant(np.stack(list(terms.values())), "diagonals")
            op = he.SumMulPlain(xs=operands, weights=weights, period=length, location=location)
            value = self._build.emit(op)
            folded = length
            while folded > diagonals.period:
                folded //= 2
                value = self._build.emit(he.Add(x=value, y=self._rotate(value, folded)))
                value = self._build.annotate(value, period=folded)
            total = value if total is None else self._build.emit(he.Add(x=total, y=value))
        if total is None:
            raise PassError(f"lower-to-slots: the linear map '{location}' has no operand")
        return total

    def _add_bias(self, value: Value, bias: Array, layout: Layout, period: int) -> Value:
        padded = np.zeros(period)
        held = bias[layout.first : layout.first + layout.count]
        padded[: layout.end] = np.repeat(held, layout.stride)
        if not padded.any():
            return value
        encode = he.Encode(value=self._build.constant(padded, "bias"), period=period)
        return self._build.emit(he.AddPlain(x=value, p=self._build.emit(encode)))

    def _rotate(self, value: Value, steps: int) -> Value:
        steps %= he.cipher_type(value).period
        return self._build.emit(he.Rotate(x=value, steps=steps)) if steps else value

    def _align(self, a: Part, b: Part) -> tuple[Part, Part]:
        """Rotate the operand that sits higher, so that chains of products meet at slot 0."""
        shift = b.layout.offset - a.layout.offset
        if shift % min(a.period, b.period) == 0:
            return a, b
        moved, still = (b, a) if shift > 0 else (a, b)
        layout = dataclasses.replace(moved.layout, offset=moved.layout.offset - abs(shift))
        rotated = Part(self._rotate(moved.value, abs(shift)), layout)
        return (still, rotated) if shift > 0 else (rotated, still)

    def _label(self, value: Value, layout: Layout) -> Part:
        return Part(self._build.annotate(value, layout=layout), layout)


def _joint(kind: type[he.Binary], a: Part, b: Part) -> Layout:
    """Layout of a slot-wise result: a product is zero where a factor is, a sum where both are."""
    longer = a if a.period >= b.period else b
    zeros = [p for p in (a, b) if p.layout.rest == ZERO and p.period == longer.period]
    needed = 1 if kind is he.Mul else 2
    rest = ZERO if len(zeros) >= needed else GARBAGE
    return dataclasses.replace(longer.layout, rest=rest)
