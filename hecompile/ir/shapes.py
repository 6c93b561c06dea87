"""Shape rules that the tensor operations share."""

from __future__ import annotations

import math

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


def window_counts(
    name: str,
    spatial: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    ceil: bool,
) -> tuple[int, ...]:
    """Number of positions of a sliding window on each spatial axis.

    Args:
        name: of the operation, for messages.
        spatial: extents of the input's spatial axes.
        kernel: extent of the window on each of them.
        strides: step on each.
        pads: zeros before, then after, each (ONNX order).
        dilations: distance between taps on each.
        ceil: whether a last partial window counts.

    Raises:
        ProgramError: ranks differ, or the window is larger than the padded input.
    """
    rank = len(spatial)
    same = all(len(v) == rank for v in (kernel, strides, dilations)) and len(pads) == 2 * rank
    need(rank >= 1 and same, f"{name}: window attributes do not fit {rank} spatial axes")
    sensible = min(*kernel, *strides, *dilations, 1) >= 1 and min(pads) >= 0
    need(sensible, f"{name}: kernel, strides and dilations are 1 or more, pads 0 or more")
    counts = []
    for i, extent in enumerate(spatial):
        room = extent + pads[i] + pads[rank + i] - (dilations[i] * (kernel[i] - 1) + 1)
        need(room >= 0, f"{name}: the window is larger than its input on axis {i + 2}")
        count = (math.ceil(room / strides[i]) if ceil else room // strides[i]) + 1
        # ONNX drops a window that would start in the padding behind the input.
        if ceil and (count - 1) * strides[i] >= extent + pads[i]:
            count -= 1
        counts.append(count)
    return tuple(counts)
