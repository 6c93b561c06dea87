"""Placement of samples in slots and back, as a `Layout` says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import InputError
from hecompile.ir.types import Layout

Array = NDArray[np.float64]


def pack(samples: Array, layout: Layout, period: int) -> Array:
    """Place the elements that a layout names into one period of slots; other slots are zero.

    Args:
        samples: (..., batch, elements), the whole flattened tensor of each packed sample.
        layout: which elements go where.
        period: slots after which the packed vector repeats.

    Returns:
        Slots (..., period).

    Raises:
        InputError: the tensor has fewer elements than the layout holds, the batch does not fit
            into the stride, or the layout does not fit into the period.
    """
    *leading, batch, elements = samples.shape
    if layout.first + layout.count > elements:
        raise InputError(f"layout {layout} needs more elements than the {elements} of the tensor")
    _check_batch(batch, layout)
    if layout.end > period:
        raise InputError(f"layout {layout} does not fit a period of {period} slots")
    slots = np.zeros((*leading, period))
    held = samples[..., layout.first : layout.first + layout.count]
    lanes = np.zeros((*leading, layout.count, layout.stride))
    lanes[..., :batch] = np.swapaxes(held, -1, -2)
    slots[..., layout.offset : layout.end] = lanes.reshape(*leading, -1)
    return slots


def unpack(slots: Array, layout: Layout, batch: int) -> Array:
    """Read the elements that a layout names out of the slots.

    Args:
        slots: (..., period or more).
        layout: which elements are where.
        batch: number of packed samples.

    Returns:
        Elements (..., batch, count), of which the first is element `layout.first` of the tensor.

    Raises:
        InputError: the slots end before the layout does, or the batch does not fit the stride.
    """
    _check_batch(batch, layout)
    if layout.end > slots.shape[-1]:
        raise InputError(f"layout {layout} does not fit into {slots.shape[-1]} slots")
    lanes = slots[..., layout.offset : layout.end].reshape(
        *slots.shape[:-1], layout.count, layout.stride
    )
    return np.ascontiguousarray(np.swapaxes(lanes[..., :batch], -1, -2))


def _check_batch(batch: int, layout: Layout) -> None:
    if not 1 <= batch <= layout.stride:
        raise InputError(
            f"{batch} packed samples do not fit a layout whose stride is {layout.stride} slots"
        )
