"""The packer behind `lower-to-slots`: emits ciphertext operations for whole tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hecompile.errors import PassError
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array, SparseMap
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder
from hecompile.ir.types import GARBAGE, ZERO
from hecompile.packing import targets as goals
from hecompile.packing.kernels import Entries, Target, gather_taps, match, weights
from hecompile.packing.places import (
    NOTHING,
    Packed,
    Part,
    Places,
    alignment,
    distinct,
    in_order,
    joined,
)
from hecompile.packing.polynomial import evaluate_polynomial
from hecompile.packing.pools import Pool
from hecompile.packing.sources import Fit, Free, Handed, Model


@dataclass(frozen=True)
class Term:
    """An operand of a linear map.

    Attributes:
        source: what the map reads, packed, or what is gathered for it.
        linear: the map.
        chunks: for what is gathered, products that share a ciphertext.
        pool: elements that are added up first.
    """

    source: Packed | Free
    linear: SparseMap
    chunks: int = 1
    pool: Pool | None = None


class Packer:
    """Emits ciphertext operations for whole tensors.

    Args:
        build: where operations go.
        capacity: places of a ciphertext at most (a power of two).
        lanes: slots of a place, one a packed sample (a power of two).
    """

    def __init__(self, build: Builder, capacity: int, lanes: int) -> None:
        """Keep where to emit and the room there is."""
        self._build = build
        self._capacity = capacity
        self._lanes = lanes
        self._declared: dict[tuple[str, bytes], Value] = {}
        self._sources: dict[str, Model | Handed] = {}

    def source(self, name: str, source: Model | Handed) -> Free:
        """Make a tensor known that is packed as its uses ask."""
        self._sources[name] = source
        return Free(name, 0, source.size)

    def ordered(self, free: Free) -> Packed:
        """A free tensor with its elements in order."""
        targets = goals.natural(free.size, self._capacity)
        return self.fitted(free, Fit(tuple(t.places for t in targets)))

    def fitted(self, free: Free, fit: Fit) -> Packed:
        """A free tensor where an operation wants it."""
        if fit.whole:
            whole = self.ordered(Free(free.source, 0, self._sources[free.source].size))
            return self.view(whole, free.start, free.size)
        parts = tuple(
            Part(self._declare(free.source, free.within(places)), places) for places in fit.places
        )
        return Packed(parts, free.size)

    def complete(self, free: Free) -> None:
        """Declare an input that nothing reads, for it belongs to the program's signature."""
        if all(name != free.source for name, _ in self._declared):
            self.ordered(free)

    def output(self, x: Packed) -> tuple[Value, ...]:
        """The ciphertexts of a tensor that leaves; an irregular placement is packed anew."""
        said = all(he.cipher_type(p.value).layout == p.places.layout(self._lanes) for p in x.parts)
        if not said or not in_order(x.places):
            x = self._repack(x)
        return tuple(p.value for p in x.parts)

    def affine(
        self, terms: Sequence[Term], bias: Array, targets: goals.Targets, location: str = ""
    ) -> Packed:
        """Apply `sum of the terms' maps + bias`; one level."""
        terms = [self._pooled(t) if t.pool is not None else t for t in terms]
        parts = []
        for target in targets:
            value = self._sum(terms, target, location)
            value = self._add_bias(value, bias, target.places)
            parts.append(self._label(value, target.places))
        return Packed(tuple(parts), bias.size)

    def binary(self, kind: type[he.Binary], x: Packed, y: Packed) -> Packed:
        """Apply a slot-wise operation after aligning the operands."""
        aligned = self._aligned(x, y) or self._aligned(self._repack(x), self._repack(y))
        if aligned is None:
            raise PassError("lower-to-slots: operands of a slot-wise operation do not meet")
        parts = []
        for a, b in aligned:
            result = self._build.emit(kind(x=a.value, y=b.value))
            parts.append(self._label(result, joined(a.places, b.places, kind is he.Mul)))
        return Packed(tuple(parts), x.size)

    def negate(self, x: Packed) -> Packed:
        """Negate every element."""
        emit = self._build.emit
        parts = (self._label(emit(he.Negate(x=p.value)), p.places) for p in x.parts)
        return Packed(tuple(parts), x.size)

    def polynomial(
        self, x: Packed, coefficients: Array, sections: Sequence[int], basis: str
    ) -> Packed:
        """Evaluate polynomials, (degree + 1, segments), by sections of the last axis."""
        parts = []
        for part in x.parts:
            vectors, rest = coefficients, GARBAGE
            if coefficients.shape[1] > 1:
                rows = np.repeat(coefficients, np.asarray(sections), axis=1)
                vectors, rest = self._spread(rows, part.places)
            result = evaluate_polynomial(self._build, part.value, vectors, basis)
            unchanged = result == part.value
            places = Places(part.places.elements, rest)
            parts.append(part if unchanged else self._label(result, places))
        return Packed(tuple(parts), x.size)

    def view(self, x: Packed, start: int, count: int) -> Packed:
        """Elements `start` to `start + count` as a tensor of their own, without an operation."""
        views = ((p, p.places.view(start, count)) for p in x.parts)
        return Packed(tuple(Part(p.value, v) for p, v in views if v is not None), count)

    def turned_home(self, x: Packed) -> Packed:
        """A tensor whose first element stands at the first place, by one rotation a ciphertext."""
        parts = (self._turned(part, int(part.places.held[0])) for part in x.parts)
        return Packed(tuple(parts), x.size)

    def _declare(self, name: str, places: Places) -> Value:
        """The ciphertext of a source with these places, one for all who read it."""
        key = name, places.key
        if key not in self._declared:
            source = self._sources[name]
            if isinstance(source, Model):
                self._declared[key] = self._new_input(source, places)
            else:
                self._declared[key] = self._new_refresh(source, places)
        return self._declared[key]

    def _new_input(self, source: Model, places: Places) -> Value:
        layout = places.layout(self._lanes)
        period = places.period * self._lanes
        elements = places.elements[places.held]
        first = int(elements.min())
        gather = None
        if layout is None or layout.offset or layout.stride != self._lanes:
            gather = self._build.constant(places.elements.astype(np.float64), "gather")
        op = he.Input(
            label=source.label,
            dims=source.dims,
            period=period,
            first=first,
            count=int(elements.max()) - first + 1,
            stride=self._lanes,
            gather=gather,
        )
        return self._build.emit(op, source.label)

    def _new_refresh(self, source: Handed, places: Places) -> Value:
        found = source.packed.occurrences
        held = places.elements[places.held]
        part, place = np.full((2, places.period), NOTHING, dtype=np.int64)
        part[places.held], place[places.held] = found.part[held, 0], found.place[held, 0]
        used = distinct(part[places.held])
        part[places.held] = np.searchsorted(used, part[places.held])
        slots = place[:, None] * self._lanes + np.arange(self._lanes)
        operands = np.repeat(part, self._lanes)
        table = np.stack([operands, np.where(operands >= 0, slots.ravel(), 0)])
        op = he.Refresh(
            xs=tuple(source.packed.parts[i].value for i in used),
            period=table.shape[1],
            gather=self._build.constant(table.astype(np.float64), "gather"),
            mask_bits=source.mask_bits,
            group=source.group,
        )
        return self._label(self._build.emit(op, "fresh"), places).value

    def _pooled(self, term: Term) -> Term:
        """Add up the ciphertexts of an operand and fold its phases."""
        source, pool = term.source, term.pool
        if isinstance(source, Free) or pool is None:
            return term
        folded = pool.folded(source.places)
        if folded is None:
            return Term(source, term.linear)
        value = source.parts[0].value
        for part in source.parts[1:]:
            value = self._build.emit(he.Add(x=value, y=part.value))
        value = self._fold(value, source.parts[0].places.period, folded.period)
        packed = Packed((Part(value, folded),), pool.groups)
        return Term(packed, pool.reduce(term.linear))

    def _repack(self, x: Packed) -> Packed:
        index = np.arange(x.size, dtype=np.int64)
        identity = SparseMap(index, index, np.ones(x.size))
        targets = goals.natural(x.size, self._capacity)
        return self.affine([Term(x, identity)], np.zeros(x.size), targets, "repack")

    def _spread(self, rows: Array, places: Places) -> tuple[Array, str]:
        """Coefficients by element of the last axis, (degree + 1, width), to slots.

        Coefficients that are the same for all elements are the same for all slots: they need no
        vector, and those that are 1 no product. What that leaves in places without an element is
        told beside them.
        """
        alike = (rows == rows[:, :1]).all(axis=1)
        vectors = np.where(alike[:, None], rows[:, :1], np.zeros(places.period))
        rest = GARBAGE if vectors.any() and len(places.held) < places.period else ZERO
        vectors[:, places.held] = rows[:, places.elements[places.held] % rows.shape[1]]
        return self._widen(vectors), rest

    def _widen(self, vectors: Array) -> Array:
        """Rows by place to rows by slot; one place alone stays one number."""
        if vectors.shape[-1] == 1:
            return vectors
        return np.repeat(vectors, self._lanes, axis=-1)

    def _sum(self, terms: Sequence[Term], target: Target, location: str) -> Value:
        groups: dict[int, list[tuple[Value, Array]]] = {}
        for term in terms:
            parts, entries = self._entries(term, target)
            for length in entries.lengths():
                turns, table = weights(entries, length)
                rotated = [self._rotate(parts[p].value, int(r)) for p, r in turns]
                groups.setdefault(length, []).extend(zip(rotated, table, strict=True))
        if not groups:
            # A map of zeros still gives a ciphertext, so that it hides that it is one.
            groups = self._zeros(terms[0], target)
        total: Value | None = None
        reached = 0
        for length, products in sorted(groups.items(), reverse=True):
            table = self._widen(np.stack([row for _, row in products]))
            op = he.SumMulPlain(
                xs=tuple(value for value, _ in products),
                weights=self._build.constant(table, "diagonals"),
                period=table.shape[1],
                location=location,
            )
            value = self._build.emit(op)
            if total is not None:
                folded = self._fold(total, reached, length)
                value = self._build.emit(he.Add(x=folded, y=value))
            total, reached = value, length
        if total is None:
            raise PassError(f"lower-to-slots: the linear map '{location}' has no operand")
        total = self._fold(total, reached, target.places.period)
        for bit in reversed(range(target.low)):
            total = self._build.emit(he.Add(x=total, y=self._rotate(total, 1 << bit)))
        return total

    def _entries(self, term: Term, target: Target) -> tuple[tuple[Part, ...], Entries]:
        if isinstance(term.source, Packed):
            return term.source.parts, match(term.source.occurrences, term.linear, target)
        taps = gather_taps(term.linear, target, term.chunks)
        if not len(taps.entries.value):
            return (), taps.entries
        return self.fitted(term.source, Fit(taps.places)).parts, taps.entries

    def _zeros(self, term: Term, target: Target) -> dict[int, list[tuple[Value, Array]]]:
        packed = term.source if isinstance(term.source, Packed) else self.ordered(term.source)
        part = packed.parts[0]
        length = max(part.places.period, target.places.period)
        return {length: [(part.value, np.zeros(length))]}

    def _fold(self, value: Value, length: int, period: int) -> Value:
        while length > period:
            length //= 2
            value = self._build.emit(he.Add(x=value, y=self._rotate(value, length)))
            value = self._build.annotate(value, period=length * self._lanes)
        return value

    def _add_bias(self, value: Value, bias: Array, places: Places) -> Value:
        padded = np.zeros(places.period)
        padded[places.held] = bias[places.elements[places.held]]
        if not padded.any():
            return value
        vector = self._widen(padded[None])[0]
        encode = he.Encode(value=self._build.constant(vector, "bias"), period=len(vector))
        return self._build.emit(he.AddPlain(x=value, p=self._build.emit(encode)))

    def _rotate(self, value: Value, steps: int) -> Value:
        """Rotate to the left by `steps` places."""
        slots = steps * self._lanes % he.cipher_type(value).period
        return self._build.emit(he.Rotate(x=value, steps=slots)) if slots else value

    def _aligned(self, x: Packed, y: Packed) -> list[tuple[Part, Part]] | None:
        """Pairs of parts that meet slot by slot; None where no rotation achieves it."""
        steps = alignment(x.places, y.places)
        if steps is None:
            return None
        return [
            (self._turned(a, left), self._turned(b, right))
            for a, b, (left, right) in zip(x.parts, y.parts, steps, strict=True)
        ]

    def _turned(self, part: Part, steps: int) -> Part:
        if not steps:
            return part
        return Part(self._rotate(part.value, steps), part.places.turned(steps))

    def _label(self, value: Value, places: Places) -> Part:
        layout = places.layout(self._lanes)
        return Part(self._build.annotate(value, layout=layout), places)
