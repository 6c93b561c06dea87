"""What a program computes, at whatever level it is, to compare it before and after a pass."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from hecompile.interpret.slots import pack_inputs, run_program_slots, walk_slots
from hecompile.interpret.tensor import run_tensor
from hecompile.ir import he_ops, tensor_ops
from hecompile.ir.program import Program
from hecompile.ir.types import ZERO, CipherType
from tests.golden.cases import random_inputs

Array = NDArray[np.float64]
EXACT = 1e-9
"""What "exact up to the last bits" means for a pass that declares a tolerance of 0."""


def interpret(program: Program, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by label, from the interpreter of the program's level."""
    run = run_tensor if program.dialect == "tensor" else run_program_slots
    return run(program, inputs)


def signature(program: Program) -> dict[str, tuple[str, ...]]:
    """Outputs by label with the client's steps, which no pass may lose."""
    outputs = (tensor_ops.Output, he_ops.Output)
    return {op.label: op.post for op in program if isinstance(op, outputs)}


def assert_same_meaning(before: Program, after: Program, tolerance: float, what: str) -> None:
    """Compare two programs on random inputs, more of them than fill whole batches."""
    inputs = random_inputs(before, 2 * before.batch + 1, seed=7)
    assert signature(after) == signature(before), what
    with np.errstate(over="ignore", invalid="ignore"):
        old, new = interpret(before, inputs), interpret(after, inputs)
    for label, expected in old.items():
        assert new[label].shape == expected.shape, f"{what}: output '{label}'"
        # Golden programs that are refused for their overflow have no meaning to keep.
        tame = np.isfinite(expected)
        error = np.abs(new[label][tame] - expected[tame]) / np.maximum(1.0, np.abs(expected[tame]))
        worst = float(error.max(initial=0.0))
        assert worst <= max(tolerance, EXACT), f"{what}: output '{label}' is off by {worst:.3g}"
    if after.dialect == "he":
        assert_zeros_are_zero(after, inputs, what)


def assert_zeros_are_zero(program: Program, inputs: Mapping[str, Array], what: str) -> None:
    """Check the layouts' word: slots outside are zero where the rest is said to be zero."""
    packed, _ = pack_inputs(program, inputs)
    for op, array in walk_slots(program, packed):
        kind = op.defined.type
        if not isinstance(kind, CipherType) or kind.layout is None or kind.layout.rest != ZERO:
            continue
        layout = kind.layout
        outside = np.ones(kind.period, dtype=bool)
        outside[layout.offset : layout.end] = False
        slots = np.broadcast_to(array, (len(array), array.shape[-1]))
        rest = np.tile(slots, kind.period // slots.shape[-1])[:, outside]
        largest = float(np.abs(rest).max(initial=0.0))
        scale = max(1.0, float(np.abs(slots).max(initial=0.0)))
        assert largest <= EXACT * scale, (
            f"{what}: {op.defined} holds {largest:.3g} outside {layout}"
        )
