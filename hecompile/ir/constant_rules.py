"""What operations ask of the constants that they name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from hecompile.errors import ProgramError
from hecompile.ir import he_ops, movement_ops, tensor_ops
from hecompile.ir.constants import Array, Constant
from hecompile.ir.operation import Operation
from hecompile.ir.tensor_ops import need, tensor_type

Arrays = Mapping[str, Constant]


def check_constants(op: Operation, constants: Arrays) -> None:
    """Check that the constants an operation names have the shape and content it needs.

    Raises:
        ProgramError: a constant is missing or does not fit.
    """
    for symbol in op.symbols:
        need(symbol in constants, f"no constant @{symbol} in the program")
    rule = _RULES.get(type(op))
    if rule is not None:
        rule(op, constants)


def _shape(constants: Arrays, symbol: str, *shapes: tuple[int, ...]) -> Array:
    array = constants[symbol].array
    wanted = " or ".join(str(s) for s in shapes)
    need(array.shape in shapes, f"constant @{symbol} has the shape {array.shape}, not {wanted}")
    return array


def _constant_tensor(op: tensor_ops.ConstantTensor, constants: Arrays) -> None:
    _shape(constants, op.value, op.dims)


def _polynomial(op: tensor_ops.Polynomial, constants: Arrays) -> None:
    columns = len(op.sections) or 1
    _shape(constants, op.coefficients, (op.degree + 1, columns), (op.degree + 1, 1))


def _affine(op: movement_ops.Affine, constants: Arrays) -> None:
    outputs = math.prod(op.dims)
    _shape(constants, op.bias, (outputs,))
    for value, symbol in zip(op.xs, op.maps, strict=True):
        array = constants[symbol].array
        if array.ndim != 2 or len(array) != 3:
            raise ProgramError(f"constant @{symbol} is no linear map of shape (3, entries)")
        for axis, extent in enumerate((outputs, tensor_type(value).size)):
            indices = array[axis]
            inside = ((indices >= 0) & (indices < extent) & (indices == np.floor(indices))).all()
            what = ("rows", "columns")[axis]
            need(bool(inside), f"constant @{symbol}: {what} must be integers below {extent}")


def _encode(op: he_ops.Encode, constants: Arrays) -> None:
    _shape(constants, op.value, (op.period,))


def _weight(op: he_ops.Weight, constants: Arrays) -> None:
    if op.value is not None:
        _shape(constants, op.value, (op.period,))


def _sum_mul_plain(op: he_ops.SumMulPlain, constants: Arrays) -> None:
    _shape(constants, op.weights, (len(op.xs), op.period))


def _input(op: he_ops.Input, constants: Arrays) -> None:
    if op.gather is None:
        return
    need(op.period % op.stride == 0, f"places of {op.stride} slots do not fill {op.period}")
    places = _shape(constants, op.gather, (op.period // op.stride,))
    size = math.prod(op.dims)
    whole = (places >= -1) & (places < size) & (places == np.floor(places))
    need(bool(whole.all()), f"constant @{op.gather}: places hold elements below {size}, or -1")
    named = places[places >= 0]
    need(len(named) > 0, f"constant @{op.gather} names no element")
    first, last = int(named.min()), int(named.max())
    told = first == op.first and last == op.first + op.count - 1
    need(told, f"constant @{op.gather} names elements {first} to {last}, not as first and count")


_RULES: Final[Mapping[type[Operation], Callable[[Any, Arrays], None]]] = MappingProxyType(
    {
        tensor_ops.ConstantTensor: _constant_tensor,
        tensor_ops.Polynomial: _polynomial,
        movement_ops.Affine: _affine,
        he_ops.Input: _input,
        he_ops.Encode: _encode,
        he_ops.Weight: _weight,
        he_ops.SumMulPlain: _sum_mul_plain,
    }
)
