"""Shape rules that the tensor operations share."""

from __future__ import annotations

import numpy as np

from hecompile.errors import ProgramError
from hecompile.ir.operation import Value
from hecompile.ir.types import TensorType


def tensor_type(value: Value) -> TensorType:
    """The tensor type of a value.

    Raises:
        ProgramError: the value is a ciphertext or plaintext.
    """
    if not isinstance(value.type, TensorType):
        raise ProgramError(f"{value} is {value.type}, where a tensor is needed")
    return value.type


def need(condition: bool, message: str) -> None:
    """Raise ProgramError with `message` unless the condition holds."""
    if not condition:
        raise ProgramError(message)


def broadcast(*values: Value) -> tuple[int, ...]:
    """The shape to which tensors broadcast.

    Raises:
        ProgramError: they do not.
    """
    shapes = [tensor_type(v).shape for v in values]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ProgramError(f"shapes {shapes} do not broadcast") from error
