"""Linear forms of operations: what an operation does to flattened operands, as sparse matrices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array, SparseMap
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.numeric.sparse import SparseMatrix

Indices = NDArray[np.int64]
Terms = list[tuple[Value, SparseMatrix]]


@dataclass(frozen=True, eq=False)
class LinearForm:
    """`sum of matrix @ flattened value over the terms, plus bias`, flattened in row-major order.

    Attributes:
        terms: operands that are no constants, each with its matrix; a value may occur twice.
        bias: one number an element of the result.
    """

    terms: tuple[tuple[Value, SparseMatrix], ...]
    bias: Array


@dataclass(frozen=True)
class Reader:
    """What a form asks of the program around its operation.

    Attributes:
        program: for the constants that attributes name.
        constant: the array of a value that is constant, else None.
    """

    program: Program
    constant: Callable[[Value], Array | None]


def linear_form(op: Operation, reader: Reader) -> LinearForm | None:
    """The linear form of an operation; None where it is not linear in what is not constant.

    Args:
        op: an operation of the tensor level.
        reader: where to find constants.
    """
    form = _FORMS.get(type(op))
    if form is None or op.result is None:
        return None
    found = form(op, reader)
    if found is None:
        return None
    terms, bias = found
    total = np.zeros(tensor_type(op.result).size) + bias
    secret: Terms = []
    for value, matrix in terms:
        array = reader.constant(value)
        if array is None:
            secret.append((value, matrix))
        else:
            total += matrix.apply(array.ravel())
    return LinearForm(tuple(secret), total)


def _index(shape: tuple[int, ...]) -> Indices:
    """The position of each element in the flattened order."""
    return np.arange(math.prod(shape), dtype=np.int64).reshape(shape)


def _size(value: Value) -> int:
    return tensor_type(value).size


def _scatter(value: Value, op: Operation, rows: Any, columns: Any, values: Any) -> SparseMatrix:
    """A matrix from entries that broadcast; negative columns stand for zeros and are left out."""
    rows, columns, values = np.broadcast_arrays(rows, columns, values)
    inside = columns >= 0
    if not inside.all():
        rows, columns, values = rows[inside], columns[inside], values[inside]
    shape = (_size(op.defined), _size(value))
    return SparseMatrix.from_entries(rows, columns, values, shape)


def _constant(op: tensor.ConstantTensor, reader: Reader) -> tuple[Terms, Array]:
    return [], reader.program.array(op.value).ravel()


def _spread(op: Operation, value: Value, factor: float) -> SparseMatrix:
    """The matrix that broadcasts an operand to the result, times a factor."""
    rows = _index(tensor_type(op.defined).shape)
    return _scatter(value, op, rows, _index(tensor_type(value).shape), factor)


def _add(op: tensor.Add, reader: Reader) -> tuple[Terms, float]:
    return [(op.x, _spread(op, op.x, 1.0)), (op.y, _spread(op, op.y, 1.0))], 0.0


def _sub(op: tensor.Sub, reader: Reader) -> tuple[Terms, float]:
    return [(op.x, _spread(op, op.x, 1.0)), (op.y, _spread(op, op.y, -1.0))], 0.0


def _neg(op: tensor.Neg, reader: Reader) -> tuple[Terms, float]:
    return [(op.x, _spread(op, op.x, -1.0))], 0.0


def _mul(op: tensor.Mul, reader: Reader) -> tuple[Terms, float] | None:
    rows = _index(tensor_type(op.defined).shape)
    for value, other in ((op.x, op.y), (op.y, op.x)):
        factor = reader.constant(other)
        if factor is not None:
            columns = _index(tensor_type(value).shape)
            return [(value, _scatter(value, op, rows, columns, factor))], 0.0
    return None


def _matmul(op: tensor.MatMul, reader: Reader) -> tuple[Terms, float] | None:
    vector = [len(tensor_type(v).shape) == 1 for v in (op.x, op.y)]
    # Vectors become matrices; entries have the axes (stack..., row, column, inner).
    rows = _index(tensor_type(op.defined).shape)
    rows = rows[..., None] if vector[1] else rows
    rows = rows[..., None, :] if vector[0] else rows

    def left(x: NDArray[Any]) -> NDArray[Any]:
        return (x[None, :] if vector[0] else x)[..., :, None, :]

    def right(y: NDArray[Any]) -> NDArray[Any]:
        return np.swapaxes(y[:, None] if vector[1] else y, -1, -2)[..., None, :, :]

    weight = reader.constant(op.y)
    if weight is not None:
        columns = left(_index(tensor_type(op.x).shape))
        return [(op.x, _scatter(op.x, op, rows[..., None], columns, right(weight)))], 0.0
    weight = reader.constant(op.x)
    if weight is not None:
        columns = right(_index(tensor_type(op.y).shape))
        return [(op.y, _scatter(op.y, op, rows[..., None], columns, left(weight)))], 0.0
    return None


def _windows(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    positions: tuple[int, ...],
) -> Indices:
    """Element that each tap of each window reads: (N, C, positions, taps), flattened; -1 outside.

    Args:
        shape: (N, C, spatial...).
        kernel: taps on each spatial axis; the other arguments are those of the operation.
        strides: step on each spatial axis.
        pads: zeros before, then after, each spatial axis.
        dilations: distance between taps on each spatial axis.
        positions: number of windows on each spatial axis.
    """
    rank = len(kernel)
    offset = np.zeros((1,) * (2 * rank), dtype=np.int64)
    inside = np.ones((1,) * (2 * rank), dtype=np.bool_)
    for i, extent in enumerate(shape[2:]):
        starts = np.arange(positions[i])[:, None] * strides[i] - pads[i]
        taps = starts + np.arange(kernel[i])[None, :] * dilations[i]
        axes = [positions[i] if j == i else 1 for j in range(rank)]
        axes += [kernel[i] if j == i else 1 for j in range(rank)]
        inside = inside & ((taps >= 0) & (taps < extent)).reshape(axes)
        offset = offset * extent + taps.reshape(axes)
    flat = np.where(inside, offset, -1).reshape(math.prod(positions), math.prod(kernel))
    maps = _index(shape[:2])[..., None, None] * math.prod(shape[2:])
    return np.where(flat >= 0, maps + flat, -1)


def _conv(op: tensor.Conv, reader: Reader) -> tuple[Terms, Array | float] | None:
    weight = reader.constant(op.weight)
    bias = reader.constant(op.bias) if op.bias is not None else np.zeros(1)
    if weight is None or bias is None:
        return None
    shape = tensor_type(op.x).shape
    result = tensor_type(op.defined).shape
    positions, kernel = result[2:], weight.shape[2:]
    taps = _windows(shape, kernel, op.strides, op.pads, op.dilations, positions)
    # Axes: sample, group, map of the group, channel of the group, position, tap.
    batch, groups, inner = shape[0], op.groups, weight.shape[1]
    columns = taps.reshape(batch, groups, 1, inner, *taps.shape[2:])
    values = weight.reshape(1, groups, -1, inner, 1, taps.shape[-1])
    rows = _index(result).reshape(batch, groups, -1, 1, taps.shape[2], 1)
    per_map = bias.reshape(-1, *(1,) * len(positions))
    matrix = _scatter(op.x, op, rows, columns, values)
    return [(op.x, matrix)], np.broadcast_to(per_map, result).ravel()


def _average_pool(op: tensor.AveragePool, reader: Reader) -> tuple[Terms, float]:
    shape = tensor_type(op.x).shape
    rank = len(op.kernel)
    result = tensor_type(op.defined).shape
    taps = _windows(shape, op.kernel, op.strides, op.pads, op.dilations, result[2:])
    counted = taps
    if op.count_include_pad:
        # The divisor counts the declared padding, but nothing that ceil mode reaches beyond it.
        padded = tuple(e + op.pads[i] + op.pads[rank + i] for i, e in enumerate(shape[2:]))
        none = (0,) * (2 * rank)
        around = (1, 1, *padded)
        counted = _windows(around, op.kernel, op.strides, none, op.dilations, result[2:])
    divisor = np.maximum((counted >= 0).sum(axis=-1, keepdims=True), 1)
    rows = _index(result).reshape(*result[:2], -1, 1)
    return [(op.x, _scatter(op.x, op, rows, taps, 1.0 / divisor))], 0.0


def _batch_norm(op: tensor.BatchNorm, reader: Reader) -> tuple[Terms, Array] | None:
    parameters = [reader.constant(v) for v in (op.scale, op.bias, op.mean, op.variance)]
    found = [p for p in parameters if p is not None]
    if len(found) < 4:
        return None
    scale, bias, mean, variance = found
    if np.any(variance + op.epsilon <= 0.0):
        return None
    factor = scale / np.sqrt(variance + op.epsilon)
    shape = tensor_type(op.x).shape
    index = _index(shape)
    channels = (-1, *(1,) * (len(shape) - 2))
    matrix = _scatter(op.x, op, index, index, factor.reshape(channels))
    shift = np.broadcast_to((bias - mean * factor).reshape(channels), shape)
    return [(op.x, matrix)], shift.ravel()


def _reduce(op: tensor.Reduce, reader: Reader) -> tuple[Terms, float]:
    shape = tensor_type(op.x).shape
    kept = tuple(1 if i in op.axes else e for i, e in enumerate(shape))
    count = math.prod(shape) // max(math.prod(kept), 1)
    factor = 1.0 / count if isinstance(op, tensor.ReduceMean) else 1.0
    return [(op.x, _scatter(op.x, op, _index(kept), _index(shape), factor))], 0.0


def _pad(op: movement.Pad, reader: Reader) -> tuple[Terms, Array]:
    shape = tensor_type(op.x).shape
    rank = len(shape)
    widths = list(zip(op.pads[:rank], op.pads[rank:], strict=True))
    taken = np.pad(_index(shape), widths, constant_values=-1).ravel()
    return [(op.x, SparseMatrix.selection(taken, _size(op.x)))], np.where(taken < 0, op.fill, 0.0)


def _moved(op: Any, taken: Indices) -> tuple[Terms, float]:
    return [(op.x, SparseMatrix.selection(taken, _size(op.x)))], 0.0


def _reshape(op: movement.Reshape, reader: Reader) -> tuple[Terms, float]:
    return [(op.x, SparseMatrix.identity(_size(op.x)))], 0.0


def _transpose(op: movement.Transpose, reader: Reader) -> tuple[Terms, float]:
    return _moved(op, _index(tensor_type(op.x).shape).transpose(op.permutation))


def _slice(op: movement.Slice, reader: Reader) -> tuple[Terms, float]:
    before = (slice(None),) * op.axis
    cut = slice(op.start, op.stop, op.step)
    return _moved(op, _index(tensor_type(op.x).shape)[(*before, cut)])


def _gather(op: movement.Gather, reader: Reader) -> tuple[Terms, float]:
    indices = np.array(op.indices, dtype=np.int64).reshape(op.dims)
    return _moved(op, np.take(_index(tensor_type(op.x).shape), indices, axis=op.axis))


def _expand(op: movement.Expand, reader: Reader) -> tuple[Terms, float]:
    shape = tensor_type(op.defined).shape
    return _moved(op, np.broadcast_to(_index(tensor_type(op.x).shape), shape))


def _concat(op: movement.Concat, reader: Reader) -> tuple[Terms, float]:
    ends = np.cumsum([tensor_type(v).shape[op.axis] for v in op.xs])
    places = np.split(_index(tensor_type(op.defined).shape), ends[:-1], axis=op.axis)
    return [
        (value, _scatter(value, op, rows.ravel(), np.arange(rows.size), 1.0))
        for value, rows in zip(op.xs, places, strict=True)
    ], 0.0


def _affine(op: movement.Affine, reader: Reader) -> tuple[Terms, Array]:
    terms: Terms = []
    for value, symbol in zip(op.xs, op.maps, strict=True):
        m = SparseMap.from_constant(reader.program.array(symbol))
        terms.append((value, _scatter(value, op, m.rows, m.columns, m.values)))
    return terms, reader.program.array(op.bias)


def _polynomial(op: tensor.Polynomial, reader: Reader) -> tuple[Terms, Array] | None:
    table = reader.program.array(op.coefficients)
    if np.any(table[2:]):
        return None
    index = _index(tensor_type(op.x).shape or (1,))
    line = np.zeros((2, table.shape[1]))
    line[: len(table)] = table[:2]
    if op.sections:
        line = np.repeat(np.broadcast_to(line, (2, len(op.sections))), op.sections, axis=1)
    shift, slope = (np.broadcast_to(row, index.shape) for row in line)
    return [(op.x, _scatter(op.x, op, index, index, slope))], shift.ravel()


Form = Callable[[Any, Reader], tuple[Terms, Array | float] | None]

_FORMS: Final[Mapping[type[Operation], Form]] = MappingProxyType(
    {
        tensor.ConstantTensor: _constant,
        tensor.Add: _add,
        tensor.Sub: _sub,
        tensor.Neg: _neg,
        tensor.Mul: _mul,
        tensor.MatMul: _matmul,
        tensor.Conv: _conv,
        tensor.AveragePool: _average_pool,
        tensor.BatchNorm: _batch_norm,
        tensor.ReduceSum: _reduce,
        tensor.ReduceMean: _reduce,
        tensor.Polynomial: _polynomial,
        movement.Pad: _pad,
        movement.Reshape: _reshape,
        movement.Transpose: _transpose,
        movement.Slice: _slice,
        movement.Gather: _gather,
        movement.Concat: _concat,
        movement.Expand: _expand,
        movement.Affine: _affine,
    }
)
"""How to write each operation that can be linear."""
