"""Merging of linear operations into affine maps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array
from hecompile.ir.linear import LinearForm, Reader, linear_form
from hecompile.ir.operation import Operation, Symbol, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import TensorOperation, tensor_type
from hecompile.ir.types import Interval, TensorType
from hecompile.numeric.sparse import SparseMatrix
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class MergeLinear(Pass):
    """Merge what is linear between two non-linear operations into one tensor.affine.

    Every value is written as a sum of sparse matrices applied to results of non-linear operations,
    plus a bias: maps compose by sparse products, equal entries add up, exact zeros vanish. Only
    values that a non-linear operation or an output reads are computed. Of such a sum, whole runs
    of flattened elements stay free views (tensor.slice, tensor.reshape) that are added, subtracted
    or negated without a level; the rest is one affine map. What enters a map with equal weights, or
    opposite ones, is added up before.

    Requires: constants folded (fold-constants); a tensor program.
    Ensures: linear operations other than tensor.affine are contiguous slices, reshapes, neg, and
    add or sub of two secrets of one shape; an affine map reads no affine map, unless merging them
    would give more than `max_growth` times the entries of both.

    Attributes:
        max_growth: see above.
    """

    name: ClassVar[str] = "merge-linear"
    after: ClassVar[tuple[str, ...]] = ("fold-constants", "fold-batchnorm", "unroll-recurrent")
    max_growth: float = 16.0

    def run(self, program: Program, context: Context) -> Program:
        """Write every value as an affine combination, then emit those that are needed."""
        analysis = _Analysis(program, self.max_growth)
        for op in program:
            analysis.visit(op)
        emitter = _Emitter(program, analysis)
        for op in program:
            emitter.visit(op)
        merged = emitter.builder.finish()
        return program if _same_but_for_names(program, merged) else merged


@dataclass(frozen=True, eq=False)
class _Sum:
    """`sum of matrix @ flattened base value, plus bias`; no terms for a constant."""

    terms: dict[str, SparseMatrix]
    bias: Array

    @property
    def entries(self) -> int:
        return sum(matrix.entries for matrix in self.terms.values())


class _Analysis:
    """What every value is in terms of base values, and which values must be computed.

    Attributes:
        sums: by value name; a base value is the identity of itself.
        linear: names of values that are no base values.
        views: values that are a run of another value's elements: that value and the first element.
        wanted: names of values that must exist.
    """

    def __init__(self, program: Program, max_growth: float) -> None:
        self.sums: dict[str, _Sum] = {}
        self.linear: set[str] = set()
        self.views: dict[str, tuple[str, int]] = {}
        self.wanted: set[str] = set()
        self._max_growth = max_growth
        self._reader = Reader(program, self._constant)

    def visit(self, op: Operation) -> None:
        """Record one operation."""
        form = linear_form(op, self._reader)
        if form is None:
            self.wanted.update(v.name for v in op.operands)
            if op.result is not None and isinstance(op.result.type, TensorType):
                self.sums[op.result.name] = _base(op.result)
            return
        name = op.defined.name
        self.linear.add(name)
        self.sums[name] = self._compose(form)
        if len(form.terms) == 1 and not form.bias.any():
            value, matrix = form.terms[0]
            run = _run(matrix)
            if run is not None and run.sign > 0:
                self.views[name] = (value.name, run.start)

    def _constant(self, value: Value) -> Array | None:
        found = self.sums[value.name]
        return None if found.terms else found.bias.reshape(tensor_type(value).shape)

    def _compose(self, form: LinearForm) -> _Sum:
        """Write a form in terms of base values."""
        merged: dict[str, SparseMatrix] = {}
        bias = form.bias
        for value, matrix in form.terms:
            inner = self.sums[value.name]
            products = self._products(value.name, matrix, inner)
            if products is None:
                self.wanted.add(value.name)
                products = {value.name: matrix}
            else:
                bias = bias + matrix.apply(inner.bias)
            for base, product in products.items():
                merged[base] = merged[base] + product if base in merged else product
        kept = {base: matrix for base, matrix in merged.items() if matrix.entries}
        # A secret stays one even if all its weights vanish.
        return _Sum(kept or dict(list(merged.items())[:1]), bias)

    def _products(
        self, name: str, matrix: SparseMatrix, inner: _Sum
    ) -> dict[str, SparseMatrix] | None:
        """The matrix composed with each term of an inner sum; None if that grows too much."""
        if name not in self.linear:
            return {name: matrix}
        products = {base: matrix @ term for base, term in inner.terms.items()}
        entries = sum(product.entries for product in products.values())
        grown = entries > self._max_growth * (matrix.entries + inner.entries)
        return None if grown else products


@dataclass(frozen=True)
class _Run:
    """A matrix that takes `count` consecutive elements from `start` on, times `sign`."""

    start: int
    count: int
    sign: int


def _run(matrix: SparseMatrix) -> _Run | None:
    """The run of elements that a matrix takes as it is, if it does."""
    count = matrix.shape[0]
    if matrix.entries != count or not count or abs(matrix.values[0]) != 1.0:
        return None
    index = np.arange(count)
    start = int(matrix.columns[0])
    straight = np.array_equal(matrix.rows, index)
    straight = straight and np.array_equal(matrix.columns, index + start)
    even = bool(np.all(matrix.values == matrix.values[0]))
    return _Run(start, count, int(matrix.values[0])) if straight and even else None


def _proportion(one: SparseMatrix, other: SparseMatrix) -> int:
    """1 if two matrices are equal, -1 if they are opposite, else 0."""
    if one.shape != other.shape or one.entries != other.entries or not one.entries:
        return 0
    same = np.array_equal(one.rows, other.rows) and np.array_equal(one.columns, other.columns)
    sign = 1 if one.values[0] == other.values[0] else -1
    return sign if same and np.array_equal(one.values, sign * other.values) else 0


class _Emitter:
    """Writes the new program."""

    def __init__(self, program: Program, analysis: _Analysis) -> None:
        self.builder = Builder(program)
        self._analysis = analysis
        self._values: dict[str, Value] = {}
        self._pending: list[Operation] = []

    def visit(self, op: Operation) -> None:
        """Emit one operation of the old program if it is not linear, or what it has become."""
        if op.result is None or op.result.name not in self._analysis.linear:
            kept = self.builder.keep(op.with_operands(self._values))
            if kept.result is not None:
                self._values[kept.result.name] = kept.result
        elif op.result.name in self._analysis.wanted:
            last = self._compute(op.result)
            self._values[op.result.name] = self._flush(op) if self._pending else last

    def _compute(self, target: Value) -> Value:
        """Emit what gives a value that is linear in values emitted before."""
        total = self._of_existing(target.name)
        if not total.terms:
            dims = tensor_type(target).shape
            symbol = self.builder.constant(total.bias.reshape(dims), target.name)
            return self._emit(tensor.ConstantTensor(value=symbol, dims=dims), None, target)
        found = {base: _run(matrix) for base, matrix in total.terms.items()}
        runs = {base: run for base, run in found.items() if run is not None}
        rest = {base: matrix for base, matrix in total.terms.items() if base not in runs}
        if not runs or (not rest and total.bias.any()):
            return self._affine(total, tensor_type(target).interval, target)
        if not rest and self._of_one_shape(runs):
            whole = [(run.sign, self._values[base]) for base, run in runs.items()]
            return self._reshaped(self._add(whole, target), target)
        pieces = [(run.sign, self._view(base, run, target)) for base, run in runs.items()]
        if rest:
            interval = tensor_type(target).interval
            for sign, view in pieces:
                interval = _signed_sum(interval, -sign, tensor_type(view).interval)
            pieces.append((1, self._affine(_Sum(rest, total.bias), interval, target)))
        return self._add(pieces, target)

    def _of_existing(self, name: str) -> _Sum:
        """A value's sum, or its place in another linear value that is computed anyway."""
        start, source = 0, name
        while source in self._analysis.views:
            source, first = self._analysis.views[source]
            start += first
            if source in self._values and source in self._analysis.linear:
                size = tensor_type(self._values[source]).size
                count = self._analysis.sums[name].bias.size
                taken = SparseMatrix.selection(np.arange(start, start + count), size)
                return _Sum({source: taken}, np.zeros(count))
        return self._analysis.sums[name]

    def _affine(self, total: _Sum, interval: Interval | None, target: Value) -> Value:
        terms = self._added_up(total.terms, target)
        maps: list[Symbol] = []
        for i, (_, matrix) in enumerate(terms):
            entries = np.stack([matrix.rows, matrix.columns, matrix.values]).astype(np.float64)
            number = i if len(terms) > 1 else ""
            maps.append(self.builder.constant(entries, f"{target.name}.map{number}"))
        affine = movement.Affine(
            xs=tuple(value for value, _ in terms),
            maps=tuple(maps),
            bias=self.builder.constant(total.bias, f"{target.name}.bias"),
            dims=tensor_type(target).shape,
        )
        return self._emit(affine, interval, target)

    def _added_up(
        self, terms: Mapping[str, SparseMatrix], target: Value
    ) -> list[tuple[Value, SparseMatrix]]:
        """The terms of a map, with sums of what has one shape and equal or opposite weights."""
        found: list[tuple[Value, SparseMatrix]] = []
        for base, matrix in terms.items():
            value = self._values[base]
            for i, (sum_, known) in enumerate(found):
                sign = _proportion(known, matrix)
                if sign and tensor_type(sum_).shape == tensor_type(value).shape:
                    kind = tensor.Add if sign > 0 else tensor.Sub
                    ends = (tensor_type(sum_).interval, sign, tensor_type(value).interval)
                    both = self._emit(kind(x=sum_, y=value), _signed_sum(*ends), target)
                    found[i] = both, known
                    break
            else:
                found.append((value, matrix))
        return found

    def _view(self, base: str, run: _Run, target: Value) -> Value:
        """A run of a value's elements, in the shape of the target, without its sign."""
        value = self._values[base]
        interval = tensor_type(value).interval
        shape = tensor_type(value).shape
        if run.count < math.prod(shape):
            axis = next(i for i, extent in enumerate(shape) if extent > 1)
            inner = math.prod(shape[axis + 1 :])
            if run.start % inner or run.count % inner:
                flat = movement.Reshape(x=value, dims=(math.prod(shape),))
                value, axis, inner = self._emit(flat, interval, target), 0, 1
            start, stop = run.start // inner, (run.start + run.count) // inner
            cut = movement.Slice(x=value, axis=axis, start=start, stop=stop)
            value = self._emit(cut, interval, target)
        return self._reshaped(value, target)

    def _of_one_shape(self, runs: Mapping[str, _Run]) -> bool:
        """Whether runs are several whole values of one shape, which can be added up as they are."""
        shapes = {tensor_type(self._values[base]).shape for base in runs}
        whole = all(run.count == tensor_type(self._values[b]).size for b, run in runs.items())
        return len(runs) > 1 and len(shapes) == 1 and whole

    def _reshaped(self, value: Value, target: Value) -> Value:
        """A value in the shape of the target."""
        dims = tensor_type(target).shape
        if tensor_type(value).shape == dims:
            return value
        reshape = movement.Reshape(x=value, dims=dims)
        return self._emit(reshape, tensor_type(value).interval, target)

    def _add(self, pieces: list[tuple[int, Value]], target: Value) -> Value:
        """Emit a signed sum of values."""
        # A positive piece first saves the negation.
        (sign, total), *others = sorted(pieces, key=lambda piece: -piece[0])
        for other_sign, other in others:
            kind = tensor.Add if other_sign == sign else tensor.Sub
            interval = _signed_sum(
                tensor_type(total).interval, other_sign * sign, tensor_type(other).interval
            )
            total = self._emit(kind(x=total, y=other), interval, target)
        if sign > 0:
            return total
        interval = _signed_sum(Interval(0.0, 0.0), -1, tensor_type(total).interval)
        return self._emit(tensor.Neg(x=total), interval, target)

    def _emit(self, op: TensorOperation, interval: Interval | None, target: Value) -> Value:
        """Hold an operation back under a fresh name; `_flush` appends it."""
        secret = any(tensor_type(v).secret for v in op.operands)
        kind = TensorType(op.shape(), secret, interval if secret else None)
        value = Value(self.builder.fresh(target.name), kind)
        self._pending.append(op.with_result(value))
        return value

    def _flush(self, original: Operation) -> Value:
        """Append what is held back; the last operation defines the result of the original."""
        *before, last = self._pending
        self._pending = []
        for op in before:
            self.builder.keep(dataclasses.replace(op, location=original.location))
        named = dataclasses.replace(last, result=original.result, location=original.location)
        return self.builder.keep(named).defined


def _base(value: Value) -> _Sum:
    """A base value in terms of itself."""
    size = tensor_type(value).size
    return _Sum({value.name: SparseMatrix.identity(size)}, np.zeros(size))


def _signed_sum(x: Interval | None, sign: int, y: Interval | None) -> Interval | None:
    """The range of x + sign * y."""
    if x is None or y is None:
        return None
    if sign > 0:
        return Interval(x.lower + y.lower, x.upper + y.upper)
    return Interval(x.lower - y.upper, x.upper - y.lower)


def _same_but_for_names(old: Program, new: Program) -> bool:
    """Whether two programs differ at most in the names of their values."""
    if len(old.operations) != len(new.operations) or old.constants != new.constants:
        return False
    names: dict[str, Value] = {}
    for before, after in zip(old, new, strict=True):
        if after.result is not None and before.result is not None:
            names[after.result.name] = before.result
        if dataclasses.replace(after.with_operands(names), result=before.result) != before:
            return False
        if after.result is not None and after.result.type != before.defined.type:
            return False
    return True
