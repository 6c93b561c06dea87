"""Quadratic activations as one square between linear maps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array
from hecompile.ir.linear import Reader, linear_form
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.ir.types import Interval
from hecompile.passbase import Context, Pass, register_pass

_WITHOUT_LEVEL = (tensor.Add, tensor.Sub, tensor.Neg, movement.Reshape, movement.Slice)
"""Linear operations that need no product."""


@register_pass
@dataclass(frozen=True)
class CompleteSquare(Pass):
    """Write `a x**2 + b x + c` as `a (x + b / 2a)**2 + (c - b**2 / 4a)` where that saves a level.

    The shift goes into the linear map before, the factor and the constant into those after it
    (merge-linear), so that of two levels one remains. Without such maps nothing is gained, and the
    polynomial is left as it is. The noise that x brings is multiplied by
    2 a x + b either way; what is rounded after the square counts a times. A shift far beyond the
    range of x would make the square large and its difference from the constant small, therefore
    the polynomial is left as it is where the square exceeds `growth` times the largest x**2.

    Requires: calibrated ranges in types; approximate.
    Ensures: degree-2 polynomials remain only where no linear map stands before or after, where a
    leading coefficient is zero, or where the shift is too large; never more levels than before.

    Attributes:
        growth: see above.
    """

    name: ClassVar[str] = "complete-square"
    after: ClassVar[tuple[str, ...]] = ("approximate",)
    growth: float = 16.0

    def run(self, program: Program, context: Context) -> Program:
        """Rewrite every quadratic polynomial that stands between linear maps."""
        if not any(op.degree == 2 for op in program.select(tensor.Polynomial)):
            return program
        reader = Reader(program, lambda value: _constant(program, value))
        build = Builder(program)
        for op in program:
            square = self._square(program, op, reader)
            if square is not None:
                square.emit(build, op)
            else:
                build.keep(op)
        return build.finish()

    def _square(self, program: Program, op: Operation, reader: Reader) -> _Square | None:
        if not isinstance(op, tensor.Polynomial) or op.degree != 2:
            return None
        if not _comes_from_map(op.x, program, reader) or not _goes_to_maps(op, program, reader):
            return None
        found = _complete(op, program.array(op.coefficients))
        interval = tensor_type(op.x).interval
        if found is None or interval is None:
            return None
        largest = np.abs(found.shift).max() + interval.magnitude
        tame = largest**2 <= self.growth * max(interval.magnitude, 1e-300) ** 2
        return found if tame else None


def _comes_from_map(value: Value, program: Program, reader: Reader) -> bool:
    """Whether a linear map that takes a level can add a constant to a value."""
    op = program.definitions[value.name]
    if isinstance(op, _WITHOUT_LEVEL):
        return any(_comes_from_map(v, program, reader) for v in op.operands)
    return tensor_type(value).secret and linear_form(op, reader) is not None


def _goes_to_maps(op: Operation, program: Program, reader: Reader) -> bool:
    """Whether all that reads a result are linear maps that take a level."""
    users = program.users.get(op.defined.name, ())
    return bool(users) and all(
        linear_form(user, reader) is not None
        and (not isinstance(user, _WITHOUT_LEVEL) or _goes_to_maps(user, program, reader))
        for user in users
    )


@dataclass(frozen=True, eq=False)
class _Square:
    """`factor * (x + shift)**2 + rest`, each one number, or one an element of the last axis."""

    factor: Array
    shift: Array
    rest: Array

    def emit(self, build: Builder, op: Operation) -> None:
        """Append the square in place of the polynomial."""
        hint = op.defined.name
        x = op.operands[0]
        interval = tensor_type(x).interval or Interval(0.0, 0.0)
        low = interval.lower + float(self.shift.min())
        high = interval.upper + float(self.shift.max())
        moved = self._with(build, tensor.Add, x, self.shift, f"{hint}.moved", low, high)
        most = max(low**2, high**2)
        square = build.emit(tensor.Mul(x=moved, y=moved, location=op.location), f"{hint}.square")
        square = build.annotate(square, interval=Interval(0.0, most))
        ends = np.concatenate([self.factor * most, np.zeros(1)])
        scaled = self._with(
            build, tensor.Mul, square, self.factor, f"{hint}.scaled", ends.min(), ends.max()
        )
        rest = _emit_constant(build, self.rest, f"{hint}.rest")
        build.keep(tensor.Add(x=scaled, y=rest, result=op.result, location=op.location))

    def _with(
        self,
        build: Builder,
        kind: type[tensor.Add] | type[tensor.Mul],
        x: Value,
        constant: Array,
        hint: str,
        low: float,
        high: float,
    ) -> Value:
        value = build.emit(kind(x=x, y=_emit_constant(build, constant, hint)), hint)
        return build.annotate(value, interval=Interval(float(low), float(high)))


def _complete(op: tensor.Polynomial, coefficients: Array) -> _Square | None:
    """Complete the square of each segment; None if one is not quadratic."""
    c, b, a = coefficients
    if op.basis == "chebyshev":
        # c0 + c1 x + c2 (2 x**2 - 1)
        c, a = c - a, 2 * a
    if not a.all():
        return None
    if op.sections and len(a) > 1:
        a, b, c = (np.repeat(row, np.asarray(op.sections)) for row in (a, b, c))
    shift = b / (2 * a)
    return _Square(a, shift, c - a * shift**2)


def _constant(program: Program, value: Value) -> Array | None:
    op = program.definitions[value.name]
    return program.array(op.value) if isinstance(op, tensor.ConstantTensor) else None


def _emit_constant(build: Builder, array: Array, hint: str) -> Value:
    symbol = build.constant(array, hint)
    op = tensor.ConstantTensor(value=symbol, dims=array.shape)
    return build.emit(op, hint)
