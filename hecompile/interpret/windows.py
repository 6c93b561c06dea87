"""Convolution and average pooling over any number of spatial axes, without loops over positions."""

from __future__ import annotations

import math

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from hecompile.interpret.scope import Scope
from hecompile.ir.constants import Array
from hecompile.ir.tensor_ops import AveragePool, Conv

_CHUNK_ELEMENTS = 1 << 24


def extract(
    x: Array,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    positions: tuple[int, ...],
) -> Array:
    """View the windows of x (B, C, spatial...) as (B, C, positions..., kernel...), zeros around.

    Args:
        x: the input.
        kernel: taps on each spatial axis.
        strides: step on each spatial axis.
        pads: zeros before, then after, each spatial axis.
        dilations: distance between taps on each spatial axis.
        positions: number of windows on each spatial axis; the last one may reach beyond the
            padding (ceil mode) and sees zeros there.
    """
    rank = len(kernel)
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilations, strict=True)]
    widths = [(0, 0), (0, 0)]
    for i, extent in enumerate(x.shape[2:]):
        reach = (positions[i] - 1) * strides[i] + spans[i]
        widths.append((pads[i], max(0, reach - extent - pads[i])))
    padded = np.pad(x, widths)
    axes = tuple(range(2, 2 + rank))
    windows = sliding_window_view(padded, tuple(spans), axis=axes)
    steps = [slice(None, n * s, s) for n, s in zip(positions, strides, strict=True)]
    taps = [slice(None, None, d) for d in dilations]
    return windows[(slice(None), slice(None), *steps, *taps)]


def conv(op: Conv, at: Scope) -> Array:
    """ONNX Conv."""
    x, weight = at(op.x), at(op.weight)
    positions = op.shape()[2:]
    if weight.shape[0] == 1:
        y = _convolve_in_chunks(op, x, weight[0], positions)
    else:
        samples = max(x.shape[0], weight.shape[0])
        spread = np.broadcast_to(x, (samples, *x.shape[1:]))
        y = np.stack([_convolve(op, s, w, positions) for s, w in zip(spread, weight, strict=True)])
    if op.bias is not None:
        y = y + at(op.bias).reshape(-1, 1, y.shape[2], *(1,) * len(positions))
    return y


def _convolve_in_chunks(op: Conv, x: Array, weight: Array, positions: tuple[int, ...]) -> Array:
    """Convolve (S, N, C, spatial...); the unrolled windows of a chunk stay within the memory."""
    stacked = x.reshape(-1, *x.shape[2:])
    unrolled = x.shape[2] * math.prod(positions) * math.prod(weight.shape[2:])
    step = max(1, _CHUNK_ELEMENTS // max(1, unrolled))
    parts = [
        _convolve(op, stacked[i : i + step], weight, positions)
        for i in range(0, len(stacked), step)
    ]
    y = np.concatenate(parts)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _convolve(op: Conv, x: Array, weight: Array, positions: tuple[int, ...]) -> Array:
    """(B, C, spatial...) by (M, C/groups, kernel...) to (B, M, positions...)."""
    kernel = weight.shape[2:]
    windows = extract(x, kernel, op.strides, op.pads, op.dilations, positions)
    batch, rank, maps = x.shape[0], len(kernel), weight.shape[0]
    grouped = windows.reshape(batch, op.groups, weight.shape[1], *positions, *kernel)
    # (B, groups, positions..., C/groups, kernel...), then one matrix product a group.
    moved = np.moveaxis(grouped, 2, 2 + rank)
    columns = moved.reshape(batch, op.groups, math.prod(positions), -1)
    matrix = weight.reshape(op.groups, maps // op.groups, -1).swapaxes(1, 2)
    product = np.matmul(columns.swapaxes(0, 1).reshape(op.groups, -1, columns.shape[-1]), matrix)
    y: Array = product.reshape(op.groups, batch, math.prod(positions), -1).transpose(1, 0, 3, 2)
    return y.reshape(batch, maps, *positions)


def average_pool(op: AveragePool, at: Scope) -> Array:
    """ONNX AveragePool: taps beyond the declared padding (ceil mode) never count in the divisor."""
    x = at(op.x)
    positions = op.shape()[2:]
    stacked = x.reshape(-1, *x.shape[2:])
    rank = len(positions)
    windows = extract(stacked, op.kernel, op.strides, op.pads, op.dilations, positions)
    total = windows.sum(axis=tuple(range(2 + rank, 2 + 2 * rank)))
    counts = np.ones(())
    for i, extent in enumerate(x.shape[3:]):
        counts = np.multiply.outer(counts, _taps_inside(op, i, extent, positions[i]))
    y: Array = total / np.maximum(counts, 1.0)
    return y.reshape(*x.shape[:2], *y.shape[1:])


def _taps_inside(op: AveragePool, axis: int, extent: int, positions: int) -> Array:
    """Number of taps of each window, on one spatial axis, that the divisor counts."""
    before, after = op.pads[axis], op.pads[len(op.kernel) + axis]
    starts = np.arange(positions)[:, None] * op.strides[axis] - before
    taps = starts + np.arange(op.kernel[axis])[None, :] * op.dilations[axis]
    first, end = (-before, extent + after) if op.count_include_pad else (0, extent)
    return np.asarray(((taps >= first) & (taps < end)).sum(axis=1), dtype=np.float64)
