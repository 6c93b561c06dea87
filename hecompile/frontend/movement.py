"""Operators that move elements without computing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hecompile.frontend.fold import fold
from hecompile.frontend.site import Clear, Result, Site, converts
from hecompile.ir.movement_ops import Concat, Expand, Gather, Pad, Reshape, Slice, Transpose
from hecompile.ir.operation import Value
from hecompile.ir.tensor_ops import tensor_type


def reshaped(site: Site, x: Value, dims: Sequence[int]) -> Value:
    """Append a reshape unless the shape is that already."""
    shape = tuple(int(d) for d in dims)
    return x if tensor_type(x).shape == shape else site.emit(Reshape(x=x, dims=shape))


def taken(site: Site, x: Value, axis: int, indices: Sequence[int]) -> Value:
    """Append a selection along one axis: nothing, a slice, or a gather."""
    extent = tensor_type(x).shape[axis]
    chosen = [int(i) for i in indices]
    if not chosen:
        site.invalid(f"it selects nothing along axis {axis}")
    if min(chosen) < 0 or max(chosen) >= extent:
        site.invalid(f"it reads outside the {extent} entries of axis {axis}")
    if chosen == list(range(extent)):
        return x
    step = chosen[1] - chosen[0] if len(chosen) > 1 else 1
    if step >= 1 and chosen == list(range(chosen[0], chosen[-1] + 1, step)):
        start, stop = chosen[0], chosen[-1] + 1
        return site.emit(Slice(x=x, axis=axis, start=start, stop=stop, step=step))
    return site.emit(Gather(x=x, axis=axis, indices=tuple(chosen), dims=(len(chosen),)))


@converts("Reshape")
def reshape(site: Site) -> Result:
    """With 0 for an extent to keep (unless allowzero) and -1 for the rest."""
    shape, dims = site.shape(0), list(site.integers(1, "extents"))
    if not site.flag("allowzero"):
        if any(d == 0 and i >= len(shape) for i, d in enumerate(dims)):
            site.invalid(f"it keeps an axis that its input of shape {shape} does not have")
        dims = [shape[i] if d == 0 else d for i, d in enumerate(dims)]
    if dims.count(-1) == 1:
        rest = math.prod(d for d in dims if d != -1)
        dims[dims.index(-1)] = math.prod(shape) // rest if rest else 0
    return reshaped(site, site.value(0), dims)


@converts("Flatten")
def flatten(site: Site) -> Result:
    """To two axes, cut before `axis`."""
    shape, axis = site.shape(0), site.integer("axis", 1)
    # Behind the last axis is allowed too.
    cut = axis if axis == len(shape) else site.axis(axis, len(shape))
    return reshaped(site, site.value(0), (math.prod(shape[:cut]), math.prod(shape[cut:])))


@converts("Squeeze")
def squeeze(site: Site) -> Result:
    """Drop axes of extent 1: those named, or all."""
    shape, axes = site.shape(0), site.axes(1)
    dropped = {i for i, e in enumerate(shape) if e == 1}
    if axes is not None:
        named = {site.axis(a, len(shape)) for a in axes}
        if not named <= dropped:
            site.invalid(f"it drops axes {sorted(named)} of shape {shape}, which are not all 1")
        dropped = named
    return reshaped(site, site.value(0), [e for i, e in enumerate(shape) if i not in dropped])


@converts("Unsqueeze")
def unsqueeze(site: Site) -> Result:
    """Insert axes of extent 1."""
    shape, axes = list(site.shape(0)), site.axes(1) or ()
    rank = len(shape) + len(axes)
    for axis in sorted(site.axis(a, rank) for a in axes):
        shape.insert(axis, 1)
    return reshaped(site, site.value(0), shape)


@converts("Transpose")
def transpose(site: Site) -> Result:
    """Permute axes; reverse them by default."""
    rank = len(site.shape(0))
    permutation = site.tuple_of("perm", tuple(reversed(range(rank))))
    if permutation == tuple(range(rank)):
        return site.value(0)
    return site.emit(Transpose(x=site.value(0), permutation=permutation))


@converts("Slice")
def slice_(site: Site) -> Result:
    """Constant bounds; a negative step reverses."""
    starts, ends = site.integers(1, "starts"), site.integers(2, "ends")
    axes = site.axes(3)
    steps = site.integers(4, "steps") if site.given(4) else (1,) * len(starts)
    x = site.value(0)
    shape = tensor_type(x).shape
    for axis, start, end, step in zip(
        range(len(starts)) if axes is None else axes, starts, ends, steps, strict=True
    ):
        along = site.axis(axis, len(shape))
        if step == 0:
            site.invalid("its step is 0")
        # Python clamps and counts from the end as ONNX does, but for "-1 is before the first".
        last = None if step < 0 and end < -shape[along] else end
        x = taken(site, x, along, range(shape[along])[start:last:step])
    return x


@converts("Gather")
def gather(site: Site) -> Result:
    """`numpy.take` with constant indices."""
    if site.is_clear(0):
        site.refuse(
            "it looks an encrypted index up in a table",
            "look up (embed) before encryption, and feed the result to the model",
        )
    shape = site.shape(0)
    axis = site.axis(site.integer("axis", 0), len(shape))
    indices = site.constant(1, "indices")
    flat = [int(i) + shape[axis] if i < 0 else int(i) for i in indices.ravel()]
    x = taken(site, site.value(0), axis, flat)
    return reshaped(site, x, (*shape[:axis], *indices.shape, *shape[axis + 1 :]))


@converts(
    "GatherND",
    "GatherElements",
    "DepthToSpace",
    "SpaceToDepth",
    "ReverseSequence",
    "Compress",
)
def rearrange(site: Site) -> Result:
    """Operators that only move elements: moving the elements' numbers tells where each goes."""
    x, shape = site.value(0), site.shape(0)
    for index in range(1, len(site.inputs)):
        if site.given(index):
            site.constant(index, "indices")
    numbers = Clear("numbers", np.arange(math.prod(shape), dtype=np.int64).reshape(shape))
    (moved,) = fold(site.with_inputs(numbers, *site.inputs[1:]), site.emitter.opsets)
    if moved is None:
        site.invalid("it has no result")
    flat = taken(site, reshaped(site, x, (math.prod(shape),)), 0, moved.array.ravel().tolist())
    return reshaped(site, flat, moved.array.shape)


@converts("Split")
def split(site: Site) -> Result:
    """One slice for each output that is used."""
    shape = site.shape(0)
    axis = site.axis(site.integer("axis", 0), len(shape))
    if site.given(1):
        sizes = site.integers(1, "sizes")
    else:
        parts = site.integer("num_outputs", len(site.node.output))
        size = -(-shape[axis] // parts)
        sizes = (*(size,) * (parts - 1), shape[axis] - size * (parts - 1))
    if sum(sizes) != shape[axis] or len(sizes) != len(site.node.output):
        site.invalid(f"it splits the {shape[axis]} entries of axis {axis} into {list(sizes)}")
    results, start = [], 0
    for size, wanted in zip(sizes, site.wanted, strict=True):
        part = range(start, start + size)
        results.append(taken(site, site.value(0), axis, part) if wanted else None)
        start += size
    return tuple(results)


@converts("Concat")
def concat(site: Site) -> Result:
    """Join along an axis; empty constants are left out."""
    axis = site.axis(site.integer("axis", 0), len(site.shape(0)))
    parts = [i for i in range(len(site.inputs)) if math.prod(site.shape(i)) > 0]
    values = tuple(site.value(i) for i in parts)
    return values[0] if len(values) == 1 else site.emit(Concat(xs=values, axis=axis))


@converts("Expand")
def expand(site: Site) -> Result:
    """Broadcast to a shape, both ways."""
    dims = np.broadcast_shapes(site.shape(0), site.integers(1, "extents"))
    if dims == site.shape(0):
        return site.value(0)
    return site.emit(Expand(x=site.value(0), dims=dims))


@converts("Tile")
def tile(site: Site) -> Result:
    """Repeat along axes."""
    x = site.value(0)
    repeats = site.integers(1, "repeats")
    if len(repeats) != len(site.shape(0)):
        site.invalid(f"{len(repeats)} repeats do not fit {len(site.shape(0))} axes")
    for axis, times in enumerate(repeats):
        extent = tensor_type(x).shape[axis]
        site.bounded(extent, times)
        x = taken(site, x, axis, list(range(extent)) * times)
    return x


@converts("Pad")
def pad(site: Site) -> Result:
    """With a constant; or by reflection, edge or wrapping, which are gathers."""
    x = site.value(0)
    rank = len(tensor_type(x).shape)
    axes = site.axes(3)
    along = [site.axis(a, rank) for a in axes] if axes is not None else list(range(rank))
    given = site.integers(1, "pads")
    if len(given) != 2 * len(along):
        site.invalid(f"{len(given)} pads do not fit {len(along)} axes")
    mode: Any = site.text("mode", "constant")
    if mode not in ("constant", "reflect", "edge", "wrap"):
        site.invalid(f"pad mode '{mode}' is not one of ONNX's")
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(along):
        low, high = given[position], given[len(along) + position]
        extent = tensor_type(x).shape[axis]
        # A negative pad removes entries.
        x = taken(site, x, axis, range(extent)[max(0, -low) : extent - max(0, -high)])
        before[axis], after[axis] = max(0, low), max(0, high)
    if mode != "constant":
        for axis in range(rank):
            source = np.arange(tensor_type(x).shape[axis])
            site.bounded(len(source) + before[axis] + after[axis])
            x = taken(
                site, x, axis, np.pad(source, (before[axis], after[axis]), mode=mode).tolist()
            )
        return x
    fill = float(site.numbers(2, "fill").flat[0]) if site.given(2) else 0.0
    if not math.isfinite(fill):
        site.refuse("it pads with an infinite value", "pad with a finite number")
    if not any(before + after):
        return x
    return site.emit(Pad(x=x, pads=(*before, *after), fill=fill))
