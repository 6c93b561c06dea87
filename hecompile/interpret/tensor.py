"""Interpreter of tensor programs: exact meaning in float64, all samples at once."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike

from hecompile.errors import ProgramError
from hecompile.interpret.inputs import check_inputs
from hecompile.interpret.kernels import KERNELS
from hecompile.interpret.scope import Scope
from hecompile.ir.constants import Array
from hecompile.ir.operation import Operation
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Input, Output


def run_tensor(
    program: Program,
    inputs: Mapping[str, ArrayLike],
    keep: Collection[str] | None = None,
    single: bool = False,
) -> dict[str, Array]:
    """Run a tensor program on S samples.

    Args:
        program: a verified program of `tensor.*` operations.
        inputs: by label, each (S, *dims of the input); further names are ignored.
        keep: names of values to return instead of the outputs.
        single: round every value to float32, as a runtime in single precision does.

    Returns:
        By output label, or by value name if `keep` is given: arrays (S, *shape). Outputs are raw,
        before their `post` steps. Values too large for float64 are infinite or NaN.

    Raises:
        InputError: an input is missing, has another shape, or is not finite.
        ProgramError: the program is not a tensor program, or has no value of a name in `keep`.
    """
    unknown = set(keep or ()) - program.definitions.keys()
    if unknown:
        raise ProgramError(
            f"program '{program.name}' has no value {', '.join(f'%{n}' for n in sorted(unknown))}"
        )
    arrays, samples = _check(program, inputs)
    found: dict[str, Array] = {}
    for op, array in _walk(program, arrays, single):
        if isinstance(op, Output):
            if keep is None:
                found[op.label] = array
        elif keep is not None and op.defined.name in keep:
            found[op.defined.name] = array
    return {
        name: np.array(np.broadcast_to(array, (samples, *array.shape[1:])))
        for name, array in found.items()
    }


def trace_tensor(
    program: Program, inputs: Mapping[str, ArrayLike]
) -> Iterator[tuple[Operation, Array]]:
    """Run a tensor program and show the value of each operation, in execution order.

    A value is forgotten after its last use, so that only what is alive takes memory; keep a copy
    of what you need longer, and do not write into the arrays. Arguments and errors are those of
    `run_tensor`.

    Yields:
        Each operation that defines a value, with its array: (S, *shape), or (1, *shape) where the
        value is the same for all samples.
    """
    arrays, _ = _check(program, inputs)
    return ((op, array) for op, array in _walk(program, arrays) if op.result is not None)


def _check(program: Program, inputs: Mapping[str, ArrayLike]) -> tuple[dict[str, Array], int]:
    if program.dialect != "tensor":
        raise ProgramError(
            f"program '{program.name}' is at the {program.dialect} level; run_tensor reads tensor.*"
        )
    return check_inputs({op.label: op.dims for op in program.select(Input)}, inputs)


def _compute(op: Operation, scope: Scope) -> Array:
    # What grows beyond float64 becomes infinite; who asked sees that and knows what to say.
    with np.errstate(over="ignore", invalid="ignore"):
        return KERNELS[type(op)](op, scope)


def _walk(
    program: Program, inputs: Mapping[str, Array], single: bool = False
) -> Iterator[tuple[Operation, Array]]:
    """Every operation with its array (an output with its operand's), freeing what is dead."""
    alive: dict[str, Array] = {}
    scope = Scope(program, alive, single)
    last = program.last_uses
    for position, op in enumerate(program):
        if isinstance(op, Output):
            yield op, scope(op.x)
        else:
            array = inputs[op.label] if isinstance(op, Input) else _compute(op, scope)
            if single:
                with np.errstate(over="ignore"):
                    array = array.astype(np.float32).astype(np.float64)
            alive[op.defined.name] = array
            yield op, array
        for value in (*op.operands, *((op.result,) if op.result else ())):
            if last.get(value.name, position) <= position:
                alive.pop(value.name, None)
