"""One function for each tensor operation: what it means, in float64, for many samples at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from hecompile.interpret.recurrent import recurrent
from hecompile.interpret.scope import Scope, align, linear
from hecompile.interpret.windows import average_pool, conv
from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array, SparseMap
from hecompile.ir.operation import Operation
from hecompile.ir.recurrent_ops import Gru, Lstm, Rnn
from hecompile.numeric.activations import parse_activation

Kernel = Callable[[Any, Scope], Array]


def _binary(function: Callable[[Array, Array], Array]) -> Kernel:
    def run(op: tensor.Binary, at: Scope) -> Array:
        x, y = at(op.x), at(op.y)
        rank = max(x.ndim, y.ndim) - 1
        return np.asarray(function(align(x, rank), align(y, rank)))

    return run


def _constant(op: tensor.ConstantTensor, at: Scope) -> Array:
    return at.constant(op.value)[None]


def _negate(op: tensor.Neg, at: Scope) -> Array:
    return -at(op.x)


def _power(op: tensor.Power, at: Scope) -> Array:
    return at(op.x) ** op.exponent


def _activation(op: tensor.Activation, at: Scope) -> Array:
    x = at(op.x)
    functions = [parse_activation(text) for text in op.functions]
    if not op.sections:
        return functions[0](x)
    parts = np.split(x, np.cumsum(op.sections[:-1]), axis=-1)
    return np.concatenate([f(p) for f, p in zip(functions, parts, strict=True)], axis=-1)


def _polynomial(op: tensor.Polynomial, at: Scope) -> Array:
    x, table = at(op.x), at.constant(op.coefficients)
    if op.sections:
        spread = np.broadcast_to(table, (len(table), len(op.sections)))
        table = np.repeat(spread, op.sections, axis=1)
    # A scalar tensor has no last axis for the columns to lie along.
    rows = table if x.ndim > 1 else table[:, 0]
    return _clenshaw(x, rows) if op.basis == "chebyshev" else _horner(x, rows)


def _horner(x: Array, rows: Array) -> Array:
    result = np.zeros_like(x)
    for row in rows[::-1]:
        result = result * x + row
    return result


_BLOCK = 1 << 14
"""Elements of a polynomial's operand that are worked on at a time: what a fast cache holds."""


def _clenshaw(x: Array, rows: Array) -> Array:
    """Sum of rows[k] * T_k(x), stable on [-1, 1] (Clenshaw 1955)."""
    result = np.empty_like(x)
    step = max(1, _BLOCK // max(1, x[:1].size))
    for start in range(0, len(x), step):
        block = x[start : start + step]
        twice = 2.0 * block
        last, before = np.zeros_like(block), np.zeros_like(block)
        for row in rows[:0:-1]:
            # In place: before becomes row + 2 x last - before.
            np.subtract(row, before, out=before)
            before += twice * last
            last, before = before, last
        result[start : start + step] = rows[0] + block * last - before
    return result


def _matmul(op: tensor.MatMul, at: Scope) -> Array:
    x, y = at(op.x), at(op.y)
    if y.ndim == 3 and y.shape[0] == 1 and x.ndim > 1:
        return linear(x, y)
    # Vectors become matrices, so that numpy does not take the sample axis for rows.
    left = x[:, None, :] if x.ndim == 2 else x
    right = y[:, :, None] if y.ndim == 2 else y
    rank = max(left.ndim, right.ndim) - 1
    product: Array = np.matmul(align(left, rank), align(right, rank))
    return product.reshape(product.shape[0], *op.shape())


def _batch_norm(op: tensor.BatchNorm, at: Scope) -> Array:
    x = at(op.x)

    def by_channel(parameter: Array) -> Array:
        return parameter.reshape(parameter.shape[0], 1, -1, *(1,) * (x.ndim - 3))

    scale = at(op.scale) / np.sqrt(at(op.variance) + op.epsilon)
    return (x - by_channel(at(op.mean))) * by_channel(scale) + by_channel(at(op.bias))


def _reduce(function: Callable[..., Array]) -> Kernel:
    def run(op: tensor.Reduce, at: Scope) -> Array:
        axes = tuple(a + 1 for a in op.axes)
        return np.asarray(function(at(op.x), axis=axes, keepdims=op.keepdims))

    return run


def _pad(op: movement.Pad, at: Scope) -> Array:
    x = at(op.x)
    rank = x.ndim - 1
    widths = [(0, 0), *zip(op.pads[:rank], op.pads[rank:], strict=True)]
    return np.pad(x, widths, constant_values=op.fill)


def _reshape(op: movement.Reshape, at: Scope) -> Array:
    x = at(op.x)
    return x.reshape(x.shape[0], *op.dims)


def _transpose(op: movement.Transpose, at: Scope) -> Array:
    return at(op.x).transpose(0, *(p + 1 for p in op.permutation))


def _slice(op: movement.Slice, at: Scope) -> Array:
    before = (slice(None),) * (op.axis + 1)
    return at(op.x)[(*before, slice(op.start, op.stop, op.step))]


def _gather(op: movement.Gather, at: Scope) -> Array:
    indices = np.array(op.indices, dtype=np.int64).reshape(op.dims)
    return np.take(at(op.x), indices, axis=op.axis + 1)


def _concat(op: movement.Concat, at: Scope) -> Array:
    arrays = [at(value) for value in op.xs]
    samples = max(len(a) for a in arrays)
    spread = [np.broadcast_to(a, (samples, *a.shape[1:])) for a in arrays]
    return np.concatenate(spread, axis=op.axis + 1)


def _expand(op: movement.Expand, at: Scope) -> Array:
    x, shape = at(op.x), op.shape()
    return np.broadcast_to(align(x, len(shape)), (x.shape[0], *shape))


def _affine(op: movement.Affine, at: Scope) -> Array:
    bias = at.constant(op.bias)
    parts = [
        SparseMap.from_constant(at.constant(symbol)).apply(_flat(at(value)), bias.size)
        for value, symbol in zip(op.xs, op.maps, strict=True)
    ]
    total = functools.reduce(np.add, parts, bias[None])
    return total.reshape(total.shape[0], *op.dims)


def _flat(x: Array) -> Array:
    return x.reshape(x.shape[0], -1)


KERNELS: Final[Mapping[type[Operation], Kernel]] = MappingProxyType(
    {
        tensor.ConstantTensor: _constant,
        tensor.Add: _binary(np.add),
        tensor.Sub: _binary(np.subtract),
        tensor.Mul: _binary(np.multiply),
        tensor.Neg: _negate,
        tensor.Power: _power,
        tensor.Activation: _activation,
        tensor.Polynomial: _polynomial,
        tensor.MatMul: _matmul,
        tensor.Conv: conv,
        tensor.AveragePool: average_pool,
        tensor.BatchNorm: _batch_norm,
        tensor.ReduceSum: _reduce(np.sum),
        tensor.ReduceMean: _reduce(np.mean),
        movement.Pad: _pad,
        movement.Refresh: lambda op, at: at(op.x),
        movement.Reshape: _reshape,
        movement.Transpose: _transpose,
        movement.Slice: _slice,
        movement.Gather: _gather,
        movement.Concat: _concat,
        movement.Expand: _expand,
        movement.Affine: _affine,
        Lstm: recurrent,
        Gru: recurrent,
        Rnn: recurrent,
    }
)
"""The kernel of each tensor operation that computes something."""
