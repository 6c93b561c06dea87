"""What approximating activations costs: errors at the outputs, values outside fitted ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hecompile.errors import ProgramError
from hecompile.interpret.samples import as_samples
from hecompile.interpret.tensor import run_tensor, trace_tensor
from hecompile.ir.constants import Array
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Activation, Polynomial


@dataclass(frozen=True)
class OutputError:
    """Distances of one output from its reference, over all samples and elements.

    Attributes:
        max: largest absolute difference.
        mean: mean absolute difference.
        rms: root of the mean squared difference.
    """

    max: float
    mean: float
    rms: float


@dataclass(frozen=True)
class ApproximationError:
    """Distances of raw outputs (before the client's steps) from their references.

    Attributes:
        max: largest absolute difference at any output.
        mean: mean absolute difference over all outputs' elements.
        rms: root of the mean squared difference over all outputs' elements.
        outputs: the same for each output, by its label.
    """

    max: float
    mean: float
    rms: float
    outputs: Mapping[str, OutputError]


@dataclass(frozen=True)
class OutOfRange:
    """How far the operand of one polynomial left the range that the polynomial was fitted on.

    Attributes:
        value: name of the polynomial's result.
        location: name of the source node.
        functions: what the polynomial approximates, one a segment.
        fraction: share of the values outside.
        excess: largest distance of a value from the range, in the values' own unit.
        relative_excess: the same in widths of the range.
    """

    value: str
    location: str
    functions: tuple[str, ...]
    fraction: float
    excess: float
    relative_excess: float


def approximation_error(
    original: Program, approximated: Program, samples: Mapping[str, ArrayLike]
) -> ApproximationError:
    """Compare the outputs of two tensor programs on samples.

    Args:
        original: the reference.
        approximated: a program with the same inputs and outputs.
        samples: by input label, as `as_samples` takes them.

    Raises:
        InputError: the samples do not fit the inputs.
        ProgramError: the programs have different outputs.
    """
    arrays = as_samples(original, samples)
    expected = run_tensor(original, arrays)
    with np.errstate(all="ignore"):
        return output_error(expected, run_tensor(approximated, arrays))


def output_error(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> ApproximationError:
    """Compare outputs by label; a value that is not a number counts as infinitely far.

    Raises:
        ProgramError: labels or shapes differ.
    """
    shapes = {label: array.shape for label, array in expected.items()}
    if shapes != {label: array.shape for label, array in actual.items()}:
        raise ProgramError(f"only programs with the same outputs compare, here {sorted(shapes)}")
    with np.errstate(all="ignore"):
        differences = {
            label: np.nan_to_num(np.abs(actual[label] - reference), nan=np.inf).ravel()
            for label, reference in expected.items()
        }
        outputs = {label: _statistics(d) for label, d in differences.items()}
        whole = _statistics(np.concatenate([*differences.values(), np.zeros(0)]))
    return ApproximationError(whole.max, whole.mean, whole.rms, outputs)


def _statistics(differences: Array) -> OutputError:
    if not differences.size:
        return OutputError(0.0, 0.0, 0.0)
    rms = math.sqrt(float(np.mean(differences**2)))
    return OutputError(float(differences.max()), float(differences.mean()), rms)


def segments(op: Activation | Polynomial) -> tuple[slice, ...]:
    """Where each segment lies on the last axis."""
    if not op.sections:
        return (slice(None),)
    ends = np.cumsum(op.sections)
    return tuple(
        slice(int(end) - length, int(end)) for end, length in zip(ends, op.sections, strict=True)
    )


def out_of_range(program: Program, samples: Mapping[str, ArrayLike]) -> tuple[OutOfRange, ...]:
    """Measure, for each polynomial, how much of its operand lies outside the fitted range.

    Args:
        program: a tensor program; polynomials without a fitted range are left out.
        samples: by input label, as `as_samples` takes them.

    Returns:
        One entry a polynomial, in order of the program, also where nothing lies outside.

    Raises:
        InputError: the samples do not fit the inputs.
    """
    fitted = [op for op in program.select(Polynomial) if op.lower]
    readers: dict[str, list[Polynomial]] = {}
    for op in fitted:
        readers.setdefault(op.x.name, []).append(op)
    found: dict[str, OutOfRange] = {}
    with np.errstate(all="ignore"):
        for definition, array in trace_tensor(program, as_samples(program, samples)):
            for op in readers.get(definition.defined.name, ()):
                found[op.defined.name] = _measure(op, array)
    return tuple(found[op.defined.name] for op in fitted)


def _measure(op: Polynomial, operand: Array) -> OutOfRange:
    outside, excess, relative = 0, 0.0, 0.0
    widths = (high - low for low, high in zip(op.lower, op.upper, strict=True))
    for place, (low, high), width in zip(segments(op), op.ranges, widths, strict=True):
        part = operand[..., place]
        beyond = np.maximum(low - part, part - high)
        beyond = np.nan_to_num(beyond, nan=np.inf)
        outside += int(np.count_nonzero(beyond > 0.0))
        worst = max(float(np.max(beyond)), 0.0)
        share = worst / (high - low) if high > low else worst
        relative = max(relative, share)
        # The operand of a Chebyshev polynomial is mapped; tell the distance before the map.
        excess = max(excess, share * width if width > 0.0 else worst)
    fraction = outside / operand.size
    return OutOfRange(op.defined.name, op.location, op.functions, fraction, excess, relative)
