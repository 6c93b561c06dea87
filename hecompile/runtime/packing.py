"""Placement of samples in slots and back, as a `Layout` says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hecompile.errors import InputError
from hecompile.ir.types import Layout

Array = NDArray[np.float64]


def place(samples: Array, where: Layout | Sequence[int] | Array, stride: int, period: int) -> Array:
    """Fill one period of slots as a layout says, or as a list of the element of each place.

    Args:
        samples: (..., batch, elements), the whole flattened tensor of each packed sample.
        where: which elements go where.
        stride: slots of a place, where a list says it.
        period: slots after which the packed vector repeats, where a layout says it.

    Returns:
        Slots (..., period).

    Raises:
        InputError: the samples do not fit.
    """
    if isinstance(where, Layout):
        return pack(samples, where, period)
    return gather(samples, where, stride)


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
    _check_batch(batch, layout.stride)
    if layout.end > period:
        raise InputError(f"layout {layout} does not fit a period of {period} slots")
    slots = np.zeros((*leading, period))
    held = samples[..., layout.first : layout.first + layout.count]
    lanes = np.zeros((*leading, layout.count, layout.stride))
    lanes[..., :batch] = np.swapaxes(held, -1, -2)
    slots[..., layout.offset : layout.end] = lanes.reshape(*leading, -1)
    return slots


def gather(samples: Array, places: Sequence[int] | Array, stride: int) -> Array:
    """Place elements as a list says; slots of places without an element are zero.

    Args:
        samples: (..., batch, elements), the whole flattened tensor of each packed sample.
        places: element of each place, -1 for none.
        stride: slots of a place, at least the batch.

    Returns:
        Slots (..., places * stride).

    Raises:
        InputError: an element does not exist, or the batch does not fit into the stride.
    """
    *leading, batch, elements = samples.shape
    index = np.asarray(places, dtype=np.int64)
    _check_batch(batch, stride)
    if index.max(initial=0) >= elements:
        raise InputError(f"the packing needs more elements than the {elements} of the tensor")
    # One zero more, which -1 finds at the end.
    padded = np.concatenate([samples, np.zeros((*leading, batch, 1))], axis=-1)
    held = padded[..., index]
    if stride == 1:
        return held[..., 0, :]
    lanes = np.zeros((*leading, len(index), stride))
    lanes[..., :batch] = np.swapaxes(held, -1, -2)
    return lanes.reshape(*leading, -1)


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
    _check_batch(batch, layout.stride)
    if layout.end > slots.shape[-1]:
        raise InputError(f"layout {layout} does not fit into {slots.shape[-1]} slots")
    lanes = slots[..., layout.offset : layout.end].reshape(
        *slots.shape[:-1], layout.count, layout.stride
    )
    return np.ascontiguousarray(np.swapaxes(lanes[..., :batch], -1, -2))


def _check_batch(batch: int, stride: int) -> None:
    if not 1 <= batch <= stride:
        raise InputError(
            f"{batch} packed samples do not fit a layout whose stride is {stride} slots"
        )
