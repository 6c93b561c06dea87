"""Interpreter of ciphertext programs on slot vectors, without encryption and without noise.

A value is an array (S, period): what one period of the ciphertext's slots holds, for S runs of the
program at once. Levels and scales mean nothing here, so that programs before and after their
assignment run alike: rescale, drop_level, relinearize and refresh change no slot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from hecompile.errors import InputError, ProgramError
from hecompile.interpret.inputs import check_inputs
from hecompile.interpret.scope import Scope
from hecompile.interpret.traced import RunSizes, Traced, fingerprint
from hecompile.ir import he_ops as he
from hecompile.ir.constants import Array
from hecompile.ir.gathers import gather_of
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Program
from hecompile.ir.types import CipherType, Layout
from hecompile.runtime.packing import place, unpack

SlotKernel = Callable[[Any, Scope], Array]

_CHUNK_ELEMENTS = 1 << 16

_RECENT: Final[dict[bytes, Traced]] = {}

_PERIOD_TOLERANCE = 1e-9
"""Relative difference that rounding may leave between the repetitions of a slot vector."""


def repeat_to(x: Array, period: int) -> Array:
    """Repeat slot vectors (..., p) to (..., period), p a divisor of `period`."""
    times = period // x.shape[-1]
    return np.tile(x, (*(1,) * (x.ndim - 1), times)) if times > 1 else x


def mean_of_copies(x: Array, period: int) -> Array:
    """One period (..., period) of slot vectors that are a multiple or a divisor of it long."""
    if x.shape[-1] <= period:
        return repeat_to(x, period)
    return np.asarray(x.reshape(*x.shape[:-1], -1, period).mean(axis=-2))


def _binary(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    def run(x: Array, y: Array) -> Array:
        period = max(x.shape[-1], y.shape[-1])
        return function(repeat_to(x, period), repeat_to(y, period))

    return run


_add, _sub, _mul = _binary(np.add), _binary(np.subtract), _binary(np.multiply)


def sum_of_products(operands: list[Array], weights: Array) -> Array:
    """Sum of operands[i] (S, p) times weights[i] (period,), each repeated to the longest period."""
    period = max(weights.shape[-1], *(x.shape[-1] for x in operands))
    total = np.zeros((max(len(x) for x in operands), period))
    product = np.empty_like(total)
    for x, row in zip(operands, weights, strict=True):
        factor = row if len(row) == 1 else repeat_to(row, period)
        total += np.multiply(repeat_to(x, period), factor, out=product)
    return total


def weight_array(op: he.Weight, at: Scope) -> Array:
    """The constant that an encrypted weight holds, (period,).

    Raises:
        ProgramError: the program is the evaluator's form, which lacks it.
    """
    if op.value is None:
        raise ProgramError(f"{op.defined} has no value here: only the model's owner has it")
    return at.constant(op.value)


def _unchanged(op: he.Unary, at: Scope) -> Array:
    return at(op.x)


def refreshed(op: he.Refresh, at: Scope) -> Array:
    """The slots that a refresh gives, (S, period): those of its operands in another order."""
    if op.gather is None:
        return at(op.xs[0])
    taken = gather_of(op, at.program)
    arrays = [at(x) for x in op.xs]
    found = np.zeros((max(len(a) for a in arrays), op.period))
    for i, array in enumerate(arrays):
        here = taken.source == i
        found[:, here] = array[:, taken.place[here] % array.shape[-1]]
    return found


SLOT_KERNELS: Final[Mapping[type[Operation], SlotKernel]] = MappingProxyType(
    {
        he.Encode: lambda op, at: at.constant(op.value)[None],
        he.Weight: lambda op, at: weight_array(op, at)[None],
        he.Add: lambda op, at: _add(at(op.x), at(op.y)),
        he.Sub: lambda op, at: _sub(at(op.x), at(op.y)),
        he.Mul: lambda op, at: _mul(at(op.x), at(op.y)),
        he.AddPlain: lambda op, at: _add(at(op.x), at(op.p)),
        he.MulPlain: lambda op, at: _mul(at(op.x), at(op.p)),
        he.Negate: lambda op, at: -at(op.x),
        he.Rotate: lambda op, at: np.roll(at(op.x), -op.steps, axis=-1),
        he.Relinearize: _unchanged,
        he.Rescale: _unchanged,
        he.DropLevel: _unchanged,
        he.Refresh: refreshed,
        he.SumMulPlain: lambda op, at: sum_of_products(
            [at(x) for x in op.xs], at.constant(op.weights)
        ),
    }
)
"""The meaning of each `he.*` operation that computes something."""


def run_slots(program: Program, ciphertexts: Mapping[str, ArrayLike]) -> dict[str, Array]:
    """Run a program of `he.*` operations on slot vectors.

    Args:
        program: a verified program, with or without levels and scales.
        ciphertexts: slots (S, period) by the name of each `he.input`'s result.

    Returns:
        Slots (S, period or a divisor of it) by the name of each value that an output reads.

    Raises:
        InputError: a ciphertext is missing, has another shape, or is not finite.
        ProgramError: the program is not at the ciphertext level.
    """
    dims = {op.defined.name: (op.period,) for op in program.select(he.Input)}
    wanted = {x.name for op in program.select(he.Output) for x in op.xs}
    checked, samples = check_inputs(dims, ciphertexts)
    return {
        op.defined.name: np.array(np.broadcast_to(array, (samples, array.shape[-1])))
        for op, array in walk_slots(program, checked)
        if op.defined.name in wanted
    }


def run_program_slots(
    program: Program,
    inputs: Mapping[str, ArrayLike],
    kernels: Mapping[type[Operation], SlotKernel] = SLOT_KERNELS,
    slots: int = 1,
) -> dict[str, Array]:
    """Pack samples, run a program of `he.*` operations on them, and unpack its outputs.

    Args:
        program: a verified program, with or without levels and scales.
        inputs: by label, each (S, *dims of the input); `program.batch` samples share a run, and
            the last run is filled up with its last sample.
        kernels: what operations mean (`interpret.noisy` brings others); an `he.input` kernel, if
            there is one, receives the packed slots as its result's array in the scope.
        slots: length of the vectors that the kernels make of them, if longer than the periods.

    Returns:
        By output label: arrays (S, *dims), before their `post` steps.

    Raises:
        InputError: an input is missing, has another shape, or is not finite.
        ProgramError: the program is not at the ciphertext level, or an output's layouts do not
            cover its elements in order.
    """
    packed, samples = pack_inputs(program, inputs)
    outputs = program.select(he.Output)
    wanted = {x.name for op in outputs for x in op.xs}
    pieces: dict[str, list[Array]] = {op.label: [] for op in outputs}
    for some, runs in _in_chunks(program, packed, slots):
        found = {
            op.defined.name: array
            for op, array in walk_slots(program, some, kernels)
            if op.defined.name in wanted
        }
        for op in outputs:
            pieces[op.label].append(_unpack_output(program, op, found, runs))
    return {label: np.concatenate(parts)[:samples] for label, parts in pieces.items()}


def trace_slots(program: Program, inputs: Mapping[str, ArrayLike]) -> Traced:
    """Run a program as `run_program_slots` does and tell how large its values become.

    Returns:
        Largest absolute value of each slot over all runs, (period,), by value name, and the runs
        that say most about noise. The latest answer is kept for who asks the same again.
    """
    key = fingerprint(program, inputs)
    if key not in _RECENT:
        _RECENT.clear()
        _RECENT[key] = _trace(program, pack_inputs(program, inputs)[0])
    return _RECENT[key]


def _trace(program: Program, packed: Mapping[str, Array]) -> Traced:
    largest: dict[str, Array] = {}
    sizes = RunSizes(program)
    for some, _ in _in_chunks(program, packed, 1):
        for op, array in walk_slots(program, some):
            name = op.defined.name
            here = np.maximum(array.max(axis=0), -array.min(axis=0))
            known = largest.get(name)
            largest[name] = here if known is None else np.maximum(known, here)
            sizes.see(name, array)
    telling = sizes.telling(max((len(x) for x in packed.values()), default=1))
    return Traced(program, largest, {name: x[telling] for name, x in packed.items()})


def walk_slots(
    program: Program,
    packed: Mapping[str, Array],
    kernels: Mapping[type[Operation], SlotKernel] = SLOT_KERNELS,
) -> Iterator[tuple[Operation, Array]]:
    """Run each operation in order and yield it with its slots, forgetting what is dead.

    Args:
        program: a verified program of `he.*` operations.
        packed: slots by the name of each `he.input`'s result.
        kernels: what operations mean.

    Raises:
        ProgramError: the program is not at the ciphertext level.
    """
    if program.dialect != "he":
        raise ProgramError(
            f"program '{program.name}' is at the {program.dialect} level; lower it to slots first"
        )
    alive: dict[str, Array] = {}
    scope = Scope(program, alive)
    last = program.last_uses
    for position, op in enumerate(program):
        if op.result is not None:
            if isinstance(op, he.Input):
                alive[op.result.name] = packed[op.result.name]
            if type(op) in kernels:
                array = kernels[type(op)](op, scope)
                # Simulated noise differs from slot to slot, so only exact slots repeat exactly.
                exact = kernels is SLOT_KERNELS
                alive[op.result.name] = _shorten(op, array) if exact else array
            yield op, alive[op.result.name]
        for value in (*op.operands, *((op.result,) if op.result else ())):
            if last.get(value.name, position) <= position:
                alive.pop(value.name, None)


def _shorten(op: Operation, array: Array) -> Array:
    """Cut a result to the period that its type declares, if it does repeat so soon.

    Raises:
        ProgramError: it does not.
    """
    kind = op.defined.type
    period = kind.period if isinstance(kind, CipherType) else array.shape[-1]
    if array.shape[-1] <= period or array.shape[-1] % period:
        return array
    runs = array.reshape(*array.shape[:-1], -1, period)
    spread = np.abs(runs - runs[..., :1, :]).max()
    if spread > _PERIOD_TOLERANCE * max(1.0, float(np.abs(array).max())):
        raise ProgramError(f"{op.defined} does not repeat every {period} slots, as it declares")
    return np.ascontiguousarray(runs[..., 0, :])


def pack_inputs(program: Program, inputs: Mapping[str, ArrayLike]) -> tuple[dict[str, Array], int]:
    """Pack samples for every `he.input`.

    Returns:
        Slots (runs, period) by the name of each input's result, and the number of samples S.

    Raises:
        InputError: an input is missing, has another shape, or is not finite.
    """
    ops = program.select(he.Input)
    checked, samples = check_inputs({op.label: op.dims for op in ops}, inputs)
    batch = program.batch
    order = np.minimum(np.arange(math.ceil(samples / batch) * batch), samples - 1)
    groups = {
        label: x[order].reshape(len(order) // batch, batch, -1) for label, x in checked.items()
    }
    packed = {}
    for op in ops:
        layout = Layout(op.first, op.count, op.stride)
        where = layout if op.gather is None else program.array(op.gather)
        packed[op.defined.name] = place(groups[op.label], where, op.stride, op.period)
    return packed, samples


def _in_chunks(
    program: Program, packed: Mapping[str, Array], slots: int
) -> Iterator[tuple[dict[str, Array], int]]:
    """Cut the runs into chunks whose values stay within a processor's cache."""
    runs = max((len(x) for x in packed.values()), default=1)
    types = (op.result.type for op in program if op.result is not None)
    periods = (t.period for t in types if isinstance(t, CipherType))
    step = max(1, _CHUNK_ELEMENTS // max(slots, *periods, 1))
    for i in range(0, runs, step):
        yield {name: x[i : i + step] for name, x in packed.items()}, min(step, runs - i)


def _unpack_output(program: Program, op: he.Output, found: Mapping[str, Array], runs: int) -> Array:
    """Gather an output's elements from its ciphertexts: (samples of all runs, *dims)."""
    parts = []
    reached = 0
    for value in op.xs:
        layout = _layout(op, value)
        if layout.first != reached:
            raise ProgramError(
                f"output '{op.label}': {value} starts at element {layout.first}, not {reached}"
            )
        reached += layout.count
        slots = mean_of_copies(found[value.name], he.cipher_type(value).period)
        try:
            elements = unpack(slots, layout, program.batch)
        except InputError as error:
            raise ProgramError(f"output '{op.label}': {error}") from error
        parts.append(np.broadcast_to(elements, (runs, *elements.shape[1:])))
    if reached != math.prod(op.dims):
        raise ProgramError(f"output '{op.label}' holds {reached} elements, not shape {op.dims}")
    return np.concatenate(parts, axis=-1).reshape(-1, *op.dims)


def _layout(op: he.Output, value: Value) -> Layout:
    layout = he.cipher_type(value).layout
    if layout is None:
        raise ProgramError(f"output '{op.label}': {value} does not say where its elements are")
    return layout
