"""Small programs written by hand, with levels and scales, and what they compute in numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.types import CipherType, Layout, PlainType, Type
from hecompile.numeric.parameters import Parameters

SMALL = Parameters(4096, (36, 30, 40), 30)
MEDIUM = Parameters(8192, (45, 30, 30, 30, 45), 30)


class Writer:
    """Appends operations whose result's level, scale, bound and layout are given."""

    def __init__(self, parameters: Parameters, name: str, batch: int = 1) -> None:
        self.parameters = parameters
        self.builder = Builder(name=name, batch=batch)

    def emit(self, op: Operation, level: int, scale: float, **changes: Any) -> Value:
        inferred = op.infer()
        assert isinstance(inferred, CipherType | PlainType)
        type_: Type = replace(inferred, level=level, scale=scale, **changes)
        result = Value(self.builder.fresh(op.name.partition(".")[2]), type_)
        self.builder.keep(op.with_result(result))
        return result

    def input(self, label: str, count: int, period: int, level: int, stride: int = 1) -> Value:
        op = he.Input(
            label=label, dims=(1, count), period=period, first=0, count=count, stride=stride
        )
        return self.emit(op, level, self.parameters.scale(level))

    def facts(self, value: Value) -> tuple[int, float]:
        type_ = value.type
        assert isinstance(type_, CipherType | PlainType)
        assert type_.level is not None
        assert type_.scale is not None
        return type_.level, type_.scale

    def encode(self, values: Array, level: int, scale: float) -> Value:
        symbol = self.builder.constant(np.asarray(values, dtype=np.float64), "c")
        op = he.Encode(value=symbol, period=len(values))
        return self.emit(op, level, scale)

    def same(self, op: he.Unary | he.Binary | he.PlainBinary, **changes: Any) -> Value:
        return self.emit(op, *self.facts(op.x), **changes)

    def mul(self, x: Value, y: Value) -> Value:
        level, scale = self.facts(x)
        return self.emit(he.Mul(x=x, y=y), level, scale * self.facts(y)[1])

    def rescale(self, x: Value, **changes: Any) -> Value:
        level = self.facts(x)[0] - 1
        return self.emit(he.Rescale(x=x), level, self.parameters.scale(level), **changes)

    def sum(self, xs: list[Value], weights: Array) -> Value:
        """Weighted sum, at the scale that rescales to the canonical one below."""
        level = self.facts(xs[0])[0]
        scale = self.parameters.scale(level - 1) * self.parameters.data_primes[level]
        symbol = self.builder.constant(weights, "w")
        op = he.SumMulPlain(xs=tuple(xs), weights=symbol, period=weights.shape[1])
        return self.emit(op, level, scale)

    def output(self, xs: list[Value], label: str, count: int, post: tuple[str, ...] = ()) -> None:
        op = he.Output(xs=tuple(xs), label=label, dims=(1, count), post=post)
        self.builder.keep(op)

    def finish(self) -> Program:
        return self.builder.finish(parameters=self.parameters)


def matrix_program(matrix: Array, bias: Array, parameters: Parameters = SMALL) -> Program:
    """y = M x + b by diagonals, for a square matrix; one row of zeros among the diagonals."""
    size = len(matrix)
    write = Writer(parameters, "matrix")
    x = write.input("x", size, size, 1)
    rotated = [x] + [write.same(he.Rotate(x=x, steps=k)) for k in range(1, size)]
    rows = np.arange(size)
    diagonals = np.stack([matrix[rows, (rows + k) % size] for k in range(size)])
    summed = write.rescale(write.sum(rotated, diagonals))
    level, scale = write.facts(summed)
    constant = write.encode(bias, level, scale)
    layout = Layout(0, size)
    y = write.same(he.AddPlain(x=summed, p=constant), layout=layout)
    write.output([y], "y", size)
    return write.finish()


def polynomial_program(weights: Array, batch: int = 2) -> Program:
    """y = (x * x + x) - w * x in mixed ops, with `batch` samples packed; every op but refresh."""
    count = len(weights)
    write = Writer(MEDIUM, "polynomial", batch)
    stride = 1 << (batch - 1).bit_length()
    period = 1 << (count * stride - 1).bit_length()
    x = write.input("x", count, period, 3, stride)
    square = write.same(he.Relinearize(x=write.mul(x, x)), polynomials=2)
    square = write.rescale(square)
    scale = write.facts(square)[1]
    lowered = write.emit(he.DropLevel(x=x, levels=1), 2, write.parameters.scale(3))
    # One more product brings x to the level and scale of its square.
    factor = write.parameters.scale(1) * write.parameters.data_primes[2]
    one = write.encode(np.ones(period), 2, factor / write.facts(lowered)[1])
    x_low = write.rescale(write.emit(he.MulPlain(x=lowered, p=one), 2, factor))
    square = write.rescale(
        write.emit(
            he.MulPlain(x=square, p=write.encode(np.ones(period), 2, factor / scale)), 2, factor
        )
    )
    total = write.same(he.Add(x=square, y=x_low))
    lanes = np.zeros((count, stride))
    lanes[:, :batch] = weights[:, None]
    row = np.zeros(period)
    row[: count * stride] = lanes.ravel()
    product = write.rescale(write.sum([x_low], row[None]))
    base = write.rescale(write.sum([total], np.ones((1, period))))
    difference = write.same(he.Sub(x=base, y=product))
    y = write.same(
        he.Negate(x=write.same(he.Negate(x=difference))), layout=Layout(0, count, stride)
    )
    write.output([y], "y", count, ("argmax(axis=1 keepdims=1)",))
    return write.finish()


POWER = Parameters(8192, (60, 40, 40, 60), 40)


def refresh_program(
    bound: float = 4.0, mask_bits: int = 10, parameters: Parameters = POWER
) -> Program:
    """y = x**8 by three squarings, two values refreshed in one group, then x**2 + x**8."""
    write = Writer(parameters, "power")
    layout = Layout(0, 4)
    x = write.input("x", 4, 4, 2)
    square = write.rescale(write.same(he.Relinearize(x=write.mul(x, x)), polynomials=2))
    fourth = write.rescale(write.same(he.Relinearize(x=write.mul(square, square)), polynomials=2))
    square_low = write.emit(he.DropLevel(x=square, levels=1), 0, write.parameters.scale(1))
    fresh = write.parameters.scale(2)
    first = write.emit(
        he.Refresh(xs=(fourth,), mask_bits=mask_bits, group=7), 2, fresh, bound=bound, layout=layout
    )
    second = write.emit(
        he.Refresh(xs=(square_low,), mask_bits=mask_bits, group=7),
        1,
        write.parameters.scale(1),
        bound=bound,
        layout=layout,
    )
    eighth = write.rescale(write.same(he.Relinearize(x=write.mul(first, first)), polynomials=2))
    y = write.same(he.Add(x=eighth, y=second), layout=layout)
    write.output([y], "y", 4)
    return write.finish()


def survivor_program() -> Program:
    """y = 3 x, of a refreshed x and twice the x that stayed behind."""
    write = Writer(Parameters(8192, (60, 40, 30, 30, 44), 40), "survivor")
    layout = Layout(0, 4)
    x = write.input("x", 4, 4, 1)
    op = he.Refresh(xs=(x,), mask_bits=10, group=0)
    fresh = write.emit(op, *write.facts(x), bound=2.0, layout=layout)
    twice = write.same(he.Add(x=fresh, y=x))
    y = write.same(he.Add(x=twice, y=x), layout=layout)
    write.output([y], "y", 4)
    return write.finish()
