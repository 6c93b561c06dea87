"""Rewriting into a small core of tensor operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Final

import numpy as np

from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.numeric.activations import parse_activation
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class Normalise(Pass):
    """Rewrite a tensor program into fewer kinds of operations and remove what changes nothing.

    Powers become products by repeated squaring, x**(a+b) = x**a * x**b with b - a <= 1, which
    takes ceil(log2 n) levels and shares what two powers of one value have in common. Subtracting
    a constant becomes adding its negative, constant operands of sums and products come second,
    chains of reshapes or transposes become one, factors of a product of two secrets are expanded
    to one shape. Moves that move nothing, sums with 0, products with 1 and double negations go.

    Requires: a tensor program.
    Ensures: no tensor.power; no operation that returns its operand; factors have one shape.
    """

    name: ClassVar[str] = "normalise"

    def run(self, program: Program, context: Context) -> Program:
        """Walk forwards and apply rules to each operation until none fires."""
        rewriter = _Rewriter(Builder(program), {}, {}, {})
        for op in program:
            rewriter.visit(op)
        return rewriter.builder.finish()


@dataclass(frozen=True, eq=False)
class _Rewriter:
    """The program under construction.

    Attributes:
        builder: collects the new operations.
        renamed: values of the old program that another one stands for now.
        definitions: operations of the new program by the name of their result.
        powers: known powers by base and exponent.
    """

    builder: Builder
    renamed: dict[str, Value]
    definitions: dict[str, Operation]
    powers: dict[tuple[str, int], Value]

    def visit(self, original: Operation) -> None:
        """Rewrite one operation of the old program."""
        op = original.with_operands(self.renamed)
        while op.result is not None:
            same = _unchanged(op, self)
            rule = _RULES.get(type(op))
            found = same if same is not None else rule(op, self) if rule else None
            if found is None:
                break
            if isinstance(found, Value):
                self.renamed[op.result.name] = found
                return
            op = replace(found, result=op.result, location=op.location)
        self.builder.keep(op)
        if op.result is not None:
            self.definitions[op.result.name] = op

    def emit(self, op: Operation, hint: str) -> Value:
        """Append an operation under a fresh name."""
        value = self.builder.emit(op, hint)
        self.definitions[value.name] = op.with_result(value)
        return value

    def constant(self, value: Value) -> Array | None:
        """The array of a constant, else None."""
        op = self.definitions.get(value.name)
        return self.builder.array(op.value) if isinstance(op, tensor.ConstantTensor) else None

    def negated(self, value: Value, array: Array) -> Value:
        """A new constant, the negative of one that is known."""
        symbol = self.builder.constant(-array, f"{value.name}.neg")
        new = tensor.ConstantTensor(value=symbol, dims=array.shape)
        return self.emit(new, f"{value.name}.neg")


def _unchanged(op: Operation, at: _Rewriter) -> Value | None:
    """The operand that an operation returns as it is, if it does so."""
    rule = _IDENTITIES.get(type(op))
    if rule is None or not rule(op, at):
        return None
    value = op.operands[0]
    return value if tensor_type(value).shape == tensor_type(op.defined).shape else None


def _shape(op: Any) -> tuple[int, ...]:
    return tensor_type(op.x).shape


def _whole_slice(op: movement.Slice, at: _Rewriter) -> bool:
    return op.step == 1 and op.start == 0 and op.stop == _shape(op)[op.axis]


def _whole_gather(op: movement.Gather, at: _Rewriter) -> bool:
    return op.indices == tuple(range(_shape(op)[op.axis])) and len(op.dims) == 1


def _same_order(op: movement.Transpose, at: _Rewriter) -> bool:
    return op.permutation == tuple(sorted(op.permutation))


def _single_window(op: tensor.AveragePool, at: _Rewriter) -> bool:
    return math.prod(op.kernel) == math.prod(op.strides) == 1 and not any(op.pads)


def _adds_nothing(op: tensor.Add | tensor.Sub, at: _Rewriter) -> bool:
    array = at.constant(op.y)
    return array is not None and not array.any()


def _multiplies_by_one(op: tensor.Mul, at: _Rewriter) -> bool:
    array = at.constant(op.y)
    return array is not None and bool(np.all(array == 1.0))


def _clips_nothing(op: tensor.Activation, at: _Rewriter) -> bool:
    functions = map(parse_activation, op.functions)
    endless = (("min", -math.inf), ("max", math.inf))
    return all(f.name == "clip" and f.parameters == endless for f in functions)


_IDENTITIES: Final[Mapping[type[Operation], Callable[[Any, _Rewriter], bool]]] = MappingProxyType(
    {
        movement.Reshape: lambda op, at: True,
        movement.Expand: lambda op, at: True,
        movement.Concat: lambda op, at: len(op.xs) == 1,
        movement.Pad: lambda op, at: True,
        movement.Slice: _whole_slice,
        movement.Gather: _whole_gather,
        movement.Transpose: _same_order,
        tensor.Power: lambda op, at: op.exponent == 1,
        tensor.AveragePool: _single_window,
        tensor.ReduceSum: lambda op, at: True,
        tensor.ReduceMean: lambda op, at: True,
        tensor.Add: _adds_nothing,
        tensor.Sub: _adds_nothing,
        tensor.Mul: _multiplies_by_one,
        tensor.Activation: _clips_nothing,
    }
)
"""Whether an operation returns its first operand, provided that the shapes are the same."""


def _power(op: tensor.Power, at: _Rewriter) -> Operation | Value:
    known = at.powers.setdefault((op.x.name, op.exponent), op.defined)
    if known != op.defined:
        return known
    half = op.exponent // 2
    return tensor.Mul(x=_raised(op.x, half, at), y=_raised(op.x, op.exponent - half, at))


def _raised(base: Value, exponent: int, at: _Rewriter) -> Value:
    if exponent == 1:
        return base
    key = (base.name, exponent)
    if key not in at.powers:
        half = exponent // 2
        product = tensor.Mul(x=_raised(base, half, at), y=_raised(base, exponent - half, at))
        at.powers[key] = at.emit(product, f"{base.name}.{exponent}")
    return at.powers[key]


def _sub(op: tensor.Sub, at: _Rewriter) -> Operation | None:
    array = at.constant(op.y)
    if array is not None and at.constant(op.x) is None:
        return tensor.Add(x=op.x, y=at.negated(op.y, array))
    return None


def _add(op: tensor.Add, at: _Rewriter) -> Operation | None:
    return tensor.Add(x=op.y, y=op.x) if _constant_first(op, at) else None


def _mul(op: tensor.Mul, at: _Rewriter) -> Operation | None:
    if _constant_first(op, at):
        return tensor.Mul(x=op.y, y=op.x)
    if at.constant(op.y) is not None or _shape(op) == tensor_type(op.y).shape == op.shape():
        return None
    return tensor.Mul(x=_expanded(op.x, op.shape(), at), y=_expanded(op.y, op.shape(), at))


def _constant_first(op: tensor.Binary, at: _Rewriter) -> bool:
    return at.constant(op.x) is not None and at.constant(op.y) is None


def _expanded(value: Value, shape: tuple[int, ...], at: _Rewriter) -> Value:
    if tensor_type(value).shape == shape:
        return value
    return at.emit(movement.Expand(x=value, dims=shape), f"{value.name}.expand")


def _neg(op: tensor.Neg, at: _Rewriter) -> Value | None:
    inner = at.definitions.get(op.x.name)
    return inner.x if isinstance(inner, tensor.Neg) else None


def _reshape(op: movement.Reshape, at: _Rewriter) -> Operation | None:
    inner = at.definitions.get(op.x.name)
    return (
        movement.Reshape(x=inner.x, dims=op.dims) if isinstance(inner, movement.Reshape) else None
    )


def _transpose(op: movement.Transpose, at: _Rewriter) -> Operation | None:
    inner = at.definitions.get(op.x.name)
    if not isinstance(inner, movement.Transpose):
        return None
    joined = tuple(inner.permutation[p] for p in op.permutation)
    return movement.Transpose(x=inner.x, permutation=joined)


def _reduce(op: tensor.Reduce, at: _Rewriter) -> Operation | None:
    if all(_shape(op)[axis] == 1 for axis in op.axes):
        return movement.Reshape(x=op.x, dims=op.shape())
    return None


_RULES: Final[Mapping[type[Operation], Callable[[Any, _Rewriter], Operation | Value | None]]] = (
    MappingProxyType(
        {
            tensor.Power: _power,
            tensor.Sub: _sub,
            tensor.Add: _add,
            tensor.Mul: _mul,
            tensor.Neg: _neg,
            tensor.ReduceSum: _reduce,
            tensor.ReduceMean: _reduce,
            movement.Reshape: _reshape,
            movement.Transpose: _transpose,
        }
    )
)
"""What an operation becomes: another operation, a value that is known already, or itself (None)."""
