"""Chebyshev bases for polynomials of high degree, whose monomials would drown in noise."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.polynomial import chebyshev
from numpy.polynomial import polynomial as monomial

from hecompile.errors import PassError
from hecompile.ir.constants import Array, SparseMap
from hecompile.ir.movement_ops import Affine
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import Polynomial, tensor_type
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class ConditionPolynomials(Pass):
    """Write polynomials of degree `degree` or more in the Chebyshev basis on their fitted range.

    Their monomials are large and cancel, which multiplies ciphertext noise by the condition number
    of the basis, about (1 + sqrt(2))**degree; Chebyshev polynomials stay within [-1, 1]. The
    operand is mapped to [-1, 1] by the affine map that gives it, if nothing else reads it, else by
    an affine map of its own (one level).

    Requires: `approximate` (fitted ranges), `merge-linear`.
    Ensures: polynomials below `degree`, or without a fitted range, stay as they are.
    """

    name: ClassVar[str] = "condition-polynomials"
    after: ClassVar[tuple[str, ...]] = ("approximate", "merge-linear")
    tolerance: ClassVar[float | None] = 1e-6
    degree: int = 8

    def run(self, program: Program, context: Context) -> Program:
        """Rewrite each polynomial of high degree."""
        chosen = {
            op.defined.name: op
            for op in program.select(Polynomial)
            if op.degree >= self.degree and op.basis == "monomial" and op.lower
        }
        if not chosen:
            return program
        absorbed = {
            op.x.name
            for op in chosen.values()
            if isinstance(program.definitions[op.x.name], Affine)
            and len(program.users[op.x.name]) == 1
        }
        build = Builder(program)
        renamed: dict[str, Value] = {}
        for op in program:
            name = op.result.name if op.result is not None else ""
            if name in absorbed:
                continue
            if name in chosen:
                renamed[name] = _rewrite(program, build, chosen[name], absorbed, renamed)
            else:
                build.keep(op.with_operands(renamed))
        return build.finish()


def _rewrite(
    program: Program,
    build: Builder,
    op: Polynomial,
    absorbed: set[str],
    renamed: dict[str, Value],
) -> Value:
    factor, shift = _to_unit(op)
    source = program.definitions[op.x.name]
    if op.x.name in absorbed and isinstance(source, Affine):
        unit = _scaled(program, build, source, factor, shift, renamed)
    else:
        x = renamed.get(op.x.name, op.x)
        index = np.arange(factor.size)
        linear = SparseMap(index, index, factor)
        maps = (build.constant(linear.to_array(), "to_unit"),)
        bias = build.constant(shift, "to_unit.bias")
        dims = tensor_type(op.x).shape
        unit = build.emit(Affine(xs=(x,), maps=maps, bias=bias, dims=dims, location=op.location))
    table = np.stack(
        [
            _chebyshev(column, low, high)
            for column, low, high in zip(
                program.array(op.coefficients).T, op.lower, op.upper, strict=True
            )
        ],
        axis=1,
    )
    coefficients = build.constant(table, f"{op.defined.name}.chebyshev")
    conditioned = dataclasses.replace(op, x=unit, coefficients=coefficients, basis="chebyshev")
    return build.emit(conditioned, op.defined.name)


def _to_unit(op: Polynomial) -> tuple[Array, Array]:
    """Factor and shift of each element that map its fitted range to [-1, 1]."""
    lower, upper = np.array(op.lower), np.array(op.upper)
    if (lower >= upper).any():
        raise PassError(f"condition-polynomials: {op.defined} has an empty fitted range")
    size = tensor_type(op.x).size
    width = op.sections or (size,)
    repeats = size // sum(width)
    factor = np.tile(np.repeat(2 / (upper - lower), width), repeats)
    shift = np.tile(np.repeat(-(upper + lower) / (upper - lower), width), repeats)
    return factor, shift


def _scaled(
    program: Program,
    build: Builder,
    source: Affine,
    factor: Array,
    shift: Array,
    renamed: dict[str, Value],
) -> Value:
    """The affine map followed by `factor * y + shift`, as one map."""
    maps = []
    for symbol in source.maps:
        old = SparseMap.from_constant(program.array(symbol))
        new = SparseMap(old.rows, old.columns, old.values * factor[old.rows])
        maps.append(build.constant(new.to_array(), symbol))
    bias = build.constant(program.array(source.bias) * factor + shift, source.bias)
    scaled = dataclasses.replace(source, maps=tuple(maps), bias=bias)
    return build.emit(scaled.with_operands(renamed), source.defined.name)


def _chebyshev(coefficients: Array, lower: float, upper: float) -> Array:
    """Coefficients of p((upper - lower) / 2 * u + (upper + lower) / 2) in T_k(u)."""
    inner = np.array([(upper + lower) / 2, (upper - lower) / 2])
    composed = np.zeros(1)
    for coefficient in coefficients[::-1]:
        composed = monomial.polyadd(monomial.polymul(composed, inner), [coefficient])
    padded = np.zeros(len(coefficients))
    padded[: len(composed)] = composed[: len(coefficients)]
    converted = chebyshev.poly2cheb(padded)
    result = np.zeros(len(coefficients))
    result[: len(converted)] = converted
    return result
