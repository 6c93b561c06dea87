"""Running a program on representative samples: their form, and the ranges that values take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from hecompile.errors import InputError
from hecompile.interpret.inputs import check_inputs
from hecompile.interpret.tensor import trace_tensor
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Input
from hecompile.ir.types import Interval, TensorType


def as_samples(program: Program, arrays: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """Bring samples into the form that interpreters read.

    Args:
        program: a tensor program, each input of the shape of one sample.
        arrays: by input label, either (S, *shape of the input), or, where that shape starts with
            a batch axis of 1, batch first: (S, *the other extents). Further names are ignored.

    Returns:
        Finite float64 arrays (S, *shape of the input), S the same for all.

    Raises:
        InputError: an input is missing, empty, has another shape, is not finite, or the inputs
            differ in their number of samples.
    """
    dims = {op.label: op.dims for op in program.select(Input)}
    formed: dict[str, ArrayLike] = dict(arrays)
    for label, shape in dims.items():
        if label in arrays and shape[:1] == (1,):
            array = np.asarray(arrays[label])
            if array.ndim == len(shape) and array.shape[1:] == shape[1:]:
                formed[label] = array[:, None]
    return check_inputs(dims, formed)[0]


def largest_samples(samples: Mapping[str, Array], count: int) -> dict[str, Array]:
    """At most `count` samples: those with the largest inputs, and as many spread evenly.

    Args:
        samples: arrays (S, *shape) by input label.
        count: samples to keep, 2 or more.
    """
    total = len(next(iter(samples.values())))
    if total <= count:
        return dict(samples)
    size = np.zeros(total)
    for array in samples.values():
        flat = np.abs(array.reshape(total, -1))
        scale = max(float(flat.max(initial=0.0)), np.finfo(float).tiny)
        size = np.maximum(size, np.sqrt((flat**2).mean(axis=1)) / scale)
    order = np.argsort(-size, kind="stable")
    spread = order[count // 2 :][:: max(1, (total - count // 2) // (count - count // 2))]
    chosen = np.sort(np.concatenate([order[: count // 2], spread[: count - count // 2]]))
    return {label: array[chosen] for label, array in samples.items()}


def observe_ranges(program: Program, samples: Mapping[str, Array]) -> dict[str, Interval]:
    """The range of each secret value over the samples, all elements together, by the value's name.

    Args:
        program: a tensor program.
        samples: as `as_samples` gives them.

    Raises:
        InputError: the samples drive a value to NaN or infinity.
    """
    ranges: dict[str, Interval] = {}
    with np.errstate(all="ignore"):
        for op, array in trace_tensor(program, samples):
            if not _secret(op):
                continue
            lower, upper = float(np.min(array)), float(np.max(array))
            if not (np.isfinite(lower) and np.isfinite(upper)):
                raise InputError(
                    f"the calibration samples drive {op.name} at '{op.location or op.defined.name}'"
                    f" to a value from {lower} to {upper}; leave out samples that the model cannot"
                    " handle"
                )
            ranges[op.defined.name] = Interval(lower, upper)
    return ranges


def with_ranges(program: Program, ranges: Mapping[str, Interval]) -> Program:
    """The program with these ranges in the types of its values; others stay as they are."""
    values: dict[str, Value] = {}
    operations: list[Operation] = []
    for original in program:
        op = original.with_operands(values)
        if op.result is not None and op.result.name in ranges:
            declared = op.result.type
            if isinstance(declared, TensorType):
                known = replace(declared, interval=ranges[op.result.name])
                values[op.result.name] = Value(op.result.name, known)
                op = op.with_result(values[op.result.name])
        operations.append(op)
    return program.replace(operations=tuple(operations))


def _secret(op: Operation) -> bool:
    return isinstance(op.defined.type, TensorType) and op.defined.type.secret
