"""Constant factors of products, folded for nothing into where values come from and go to.

Every value of a tensor program may be computed times a constant, if what reads it knows. Affine
maps and polynomials give and take factors in their weights, for each section of the result apart
that slices take out; sums need equal factors, products multiply them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.ir.types import Interval

_T = TypeVar("_T")


@dataclass(frozen=True)
class Scales:
    """Natural logarithms of the factors by which values are computed.

    Attributes:
        cuts: by value name, where its sections begin, and its size at the end.
        logs: by value name, one number a section.
        refused: results of products with constants whose factor nothing can take.
    """

    cuts: Mapping[str, tuple[int, ...]]
    logs: Mapping[str, Array]
    refused: frozenset[str]

    def factors(self, value: Value) -> Array:
        """The factor of each section of a value."""
        return np.asarray(np.exp(self.logs[value.name]))

    def of(self, value: Value) -> float:
        """The factor of a value that has one throughout."""
        return float(self.factors(value)[0])

    def touches(self, op: Operation) -> bool:
        """Whether an operation reads or gives a value with a factor."""
        values = [*op.operands, *([op.result] if op.result is not None else [])]
        return any(self.logs[v.name].any() for v in values)


def is_shift(op: Operation, program: Program) -> bool:
    """Whether an operation adds one number, as a polynomial `x + c`: it takes no level.

    With sections it is a product: slots between them are zeroed.
    """
    if not isinstance(op, tensor.Polynomial) or op.degree != 1 or op.basis != "monomial":
        return False
    table = program.array(op.coefficients)
    return table.shape[1] == 1 and bool(table[1, 0] == 1.0)


def constant_factor(op: Operation, program: Program) -> float | None:
    """The positive number that an operation multiplies by, if it does."""
    if not isinstance(op, tensor.Mul):
        return None
    source = program.definitions.get(op.y.name)
    if not isinstance(source, tensor.ConstantTensor):
        return None
    array = program.array(source.value)
    return float(array.flat[0]) if array.size == 1 and array.flat[0] > 0 else None


def apply_scales(program: Program, scales: Scales) -> Program:
    """The program with every value times its factor, without the products that they stand for."""
    build = Builder(program)
    renamed: dict[str, Value] = {}
    folded = {
        op.operands[0].name: op
        for op in program
        if constant_factor(op, program) is not None and op.defined.name not in scales.refused
    }
    gone = {op.defined.name for op in folded.values()}
    for op in program:
        if op.result is not None and op.result.name in gone:
            continue
        changed = op
        if scales.touches(op):
            changed = _scaled(op, program, scales, build)
        changed = changed.with_operands(renamed)
        product = folded.get(op.result.name) if op.result is not None else None
        if op.result is not None:
            named = product.defined if product is not None else op.result
            value = _with_range(named, scales.factors(named))
            renamed[op.result.name] = renamed[named.name] = value
            changed = changed.with_result(value)
        build.keep(changed)
    return build.finish()


def _with_range(value: Value, factors: Array) -> Value:
    interval = tensor_type(value).interval
    if interval is None or (factors == 1.0).all():
        return value
    ends = [f * e for f in factors for e in (interval.lower, interval.upper)]
    scaled = Interval(float(min(ends)), float(max(ends)))
    return Value(value.name, dataclasses.replace(tensor_type(value), interval=scaled))


def _scaled(op: Operation, program: Program, scales: Scales, build: Builder) -> Operation:
    """An operation whose constants give and take the factors."""
    match op:
        case tensor.Polynomial() if is_shift(op, program):
            table = program.array(op.coefficients).copy()
            table[0] *= scales.of(op.x)
            return _with_table(op, table, op.sections, build)
        case tensor.Polynomial():
            return _scaled_polynomial(op, program, scales, build)
        case movement.Affine():
            return _scaled_affine(op, program, scales, build)
    return op


def _with_table(
    op: tensor.Polynomial, table: Array, sections: tuple[int, ...], build: Builder
) -> tensor.Polynomial:
    symbol = build.constant(table, f"{op.defined.name}.coefficients")
    return dataclasses.replace(op, coefficients=symbol, sections=sections)


def _scaled_polynomial(
    op: tensor.Polynomial, program: Program, scales: Scales, build: Builder
) -> Operation:
    table = program.array(op.coefficients)
    taken, given = scales.of(op.x), scales.factors(op.defined)
    if (given == given[0]).all():
        sections, table = op.sections, table * given[0]
    else:
        size = tensor_type(op.defined).size
        edges = np.cumsum([0, *(op.sections or (size,))])
        cuts = np.union1d(edges, scales.cuts[op.defined.name])
        column = np.searchsorted(edges, cuts[:-1], side="right").astype(np.int64) - 1
        part = np.searchsorted(scales.cuts[op.defined.name], cuts[:-1], side="right") - 1
        spread = np.broadcast_to(table, (len(table), len(edges) - 1))
        table, sections = spread[:, column] * given[part], tuple(map(int, np.diff(cuts)))
        op = _with_columns(op, column)
    if taken != 1.0:
        table = table / taken ** np.arange(len(table))[:, None]
        op = dataclasses.replace(
            op,
            lower=tuple(end * taken for end in op.lower),
            upper=tuple(end * taken for end in op.upper),
        )
    return _with_table(op, np.ascontiguousarray(table), sections, build)


def _with_columns(op: tensor.Polynomial, column: NDArray[np.int64]) -> tensor.Polynomial:
    """What a polynomial tells of its sections, for sections that were cut."""
    return dataclasses.replace(
        op,
        functions=_spread(op.functions, column),
        lower=_spread(op.lower, column),
        upper=_spread(op.upper, column),
    )


def _spread(told: tuple[_T, ...], column: NDArray[np.int64]) -> tuple[_T, ...]:
    return tuple(told[int(i)] for i in column) if len(told) > 1 else told * len(column)


def _scaled_affine(
    op: movement.Affine, program: Program, scales: Scales, build: Builder
) -> Operation:
    size = tensor_type(op.defined).size
    cuts = np.array(scales.cuts[op.defined.name])
    given = np.repeat(scales.factors(op.defined), np.diff(cuts))
    maps = []
    for value, symbol in zip(op.xs, op.maps, strict=True):
        entries = program.array(symbol).copy()
        entries[2] *= given[entries[0].astype(np.int64)] / scales.of(value)
        maps.append(build.constant(entries, symbol))
    bias = build.constant(program.array(op.bias) * given[:size], op.bias)
    return dataclasses.replace(op, maps=tuple(maps), bias=bias)
