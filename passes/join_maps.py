"""Affine maps and polynomials side by side as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np

from hecompile.ir import movement_ops as movement
from hecompile.ir import tensor_ops as tensor
from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import tensor_type
from hecompile.ir.types import Interval
from hecompile.packing.depth import Levels
from hecompile.passbase import Context, Pass, register_pass

_T = TypeVar("_T")


@register_pass
@dataclass(frozen=True)
class JoinMaps(Pass):
    """Compute affine maps of the same operands as one, and polynomials of its sections as one.

    The gates of a recurrent cell that a model writes out one by one (a cell in a loop) become one
    map of the step's input and the state, one polynomial with sections, and slices, which are free:
    the same program that the recurrent operators give. A map that reads fewer operands joins one
    that reads more where the deepest is the same.

    Requires: merge-linear, cse.
    Ensures: of the affine maps that give vectors (all axes but the last have length 1) no two read
    the same operands, unless joined they had more than `most` elements; polynomials of neighbouring
    sections with one basis are joined where they take equally many levels. Nothing is deeper than
    before.

    Attributes:
        most: largest result of a joined map, in elements.
    """

    name: ClassVar[str] = "join-maps"
    after: ClassVar[tuple[str, ...]] = ("merge-linear",)
    most: int = 2048

    def run(self, program: Program, context: Context) -> Program:
        """Join maps, then the polynomials of their results."""
        return _join_polynomials(_join_maps(program, self.most))


def _join_maps(program: Program, most: int) -> Program:
    first = {ops[0].defined.name: ops for ops in _groups(program, most)}
    if not first:
        return program
    build = Builder(program)
    members = {op.defined.name for ops in first.values() for op in ops}
    for op in program:
        name = op.result.name if op.result is not None else ""
        if name in first:
            ordered = sorted(first[name], key=lambda one: _reader(one.defined, program))
            _emit_joined(build, program, ordered)
        elif name not in members:
            build.keep(op)
    return build.finish()


def _groups(program: Program, most: int) -> list[list[movement.Affine]]:
    """Maps to be joined, in order of the program.

    A map that reads less than another joins it where both wait for the same operand.
    """
    depth = Levels(program).used()
    by_operands: dict[frozenset[str], list[movement.Affine]] = {}
    for op in program.select(movement.Affine):
        if _is_vector(op.defined):
            by_operands.setdefault(frozenset(v.name for v in op.xs), []).append(op)
    level = {names: max(depth[name] for name in names) for names in by_operands}
    for names in sorted(by_operands, key=len):
        wider = [o for o in by_operands if names < o and level[o] == level[names]]
        if wider:
            by_operands[max(wider, key=len)] += by_operands.pop(names)
    place = {op.result.name: i for i, op in enumerate(program) if op.result is not None}
    groups = []
    for names, ops in by_operands.items():
        ops.sort(key=lambda op: place[op.defined.name])
        ready = max(place[name] for name in names) < place[ops[0].defined.name]
        small = sum(tensor_type(op.defined).size for op in ops) <= most
        if len(ops) > 1 and ready and small:
            groups.append(ops)
    return groups


def _is_vector(value: Value) -> bool:
    shape = tensor_type(value).shape
    return bool(shape) and math.prod(shape[:-1]) == 1


def _reader(value: Value, program: Program) -> tuple[str, int]:
    """What polynomial reads a value: those that can be joined sort together."""
    readers = program.users[value.name]
    only = readers[0] if len(readers) == 1 else None
    if isinstance(only, tensor.Polynomial):
        return only.basis, only.degree.bit_length()
    return "", 0


def _emit_joined(build: Builder, program: Program, ops: Sequence[movement.Affine]) -> None:
    """Append one map in place of several, and a slice for each."""
    xs = max((op.xs for op in ops), key=len)
    sizes = [tensor_type(op.defined).size for op in ops]
    starts = np.cumsum([0, *sizes])
    entries: dict[str, list[Array]] = {x.name: [] for x in xs}
    for start, op in zip(starts, ops, strict=False):
        for x, symbol in zip(op.xs, op.maps, strict=True):
            entries[x.name].append(program.array(symbol) + np.array([[start], [0], [0]]))
    name = f"{ops[0].defined.name}.joined"
    joined = movement.Affine(
        xs=xs,
        maps=tuple(build.constant(np.hstack(entries[x.name]), f"{name}.map") for x in xs),
        bias=build.constant(np.concatenate([program.array(op.bias) for op in ops]), f"{name}.bias"),
        dims=(1, int(starts[-1])),
        location=ops[0].location,
    )
    value = _known(build, build.emit(joined, name), [op.defined for op in ops])
    for start, size, op in zip(starts, sizes, ops, strict=False):
        _take(build, value, int(start), size, op.defined, op.location)


def _known(build: Builder, value: Value, parts: Sequence[Value]) -> Value:
    """Annotate a value with the range of its parts, where they are known."""
    intervals = [tensor_type(part).interval for part in parts]
    known = [one for one in intervals if one is not None]
    if len(known) < len(intervals):
        return value
    over = Interval(min(one.lower for one in known), max(one.upper for one in known))
    return build.annotate(value, interval=over)


def _take(
    build: Builder, value: Value, start: int, size: int, result: Value, location: str
) -> None:
    """Append a run of a row's elements as the value that it was before."""
    shape = tensor_type(result).shape
    cut = movement.Slice(x=value, axis=1, start=start, stop=start + size, location=location)
    if shape == (1, size):
        build.keep(cut.with_result(result))
        return
    part = _known(build, build.emit(cut, f"{result.name}.row"), [result])
    build.keep(movement.Reshape(x=part, dims=shape, result=result, location=location))


@dataclass(frozen=True)
class _Section:
    """A polynomial that reads a run of a row, or a whole row."""

    op: tensor.Polynomial
    source: Value
    start: int
    size: int


def _join_polynomials(program: Program) -> Program:
    """Join the polynomials of neighbouring sections."""
    groups: dict[tuple[str, str, int, bool], list[_Section]] = {}
    for one in program.select(tensor.Polynomial):
        found = _section(one, program)
        if found is not None:
            key = found.source.name, one.basis, one.degree.bit_length(), bool(one.functions)
            groups.setdefault(key, []).append(found)
    chosen: dict[str, list[_Section]] = {}
    for sections in groups.values():
        for run in _neighbours(sections):
            chosen |= dict.fromkeys((one.op.defined.name for one in run), run)
    if not chosen:
        return program
    build = Builder(program)
    done: set[str] = set()
    for op in program:
        name = op.result.name if op.result is not None else ""
        if name not in chosen:
            build.keep(op)
        elif name not in done:
            _emit_sections(build, program, chosen[name])
            done |= {one.op.defined.name for one in chosen[name]}
    return build.finish()


def _section(op: tensor.Polynomial, program: Program) -> _Section | None:
    source, start = op.x, 0
    producer = program.definitions[source.name]
    if isinstance(producer, movement.Slice) and producer.axis == 1:
        source, start = producer.x, producer.start
    shape = tensor_type(source).shape
    if len(shape) != 2 or shape[0] != 1 or tensor_type(op.x).shape[0] != 1:
        return None
    return _Section(op, source, start, tensor_type(op.x).size)


def _neighbours(sections: Sequence[_Section]) -> list[list[_Section]]:
    """Runs of two and more sections, each beginning where the one before ends."""
    runs: list[list[_Section]] = []
    for one in sorted(sections, key=lambda s: (s.start, s.size)):
        if runs and runs[-1][-1].start + runs[-1][-1].size == one.start:
            runs[-1].append(one)
        else:
            runs.append([one])
    return [run for run in runs if len(run) > 1]


def _columns(section: _Section, program: Program, degree: int) -> Array:
    """Coefficients of a polynomial, a column for each of its sections."""
    table = program.array(section.op.coefficients)
    count = len(section.op.sections) or 1
    filled = np.zeros((degree + 1, count))
    filled[: len(table)] = np.broadcast_to(table, (len(table), count))
    return filled


def _spread(told: tuple[_T, ...], count: int) -> tuple[_T, ...]:
    """What a polynomial tells of each of its sections."""
    return told * count if len(told) == 1 else told


def _emit_sections(build: Builder, program: Program, run: Sequence[_Section]) -> None:
    """Append one polynomial in place of several, and a slice for each."""
    first, size = run[0], sum(one.size for one in run)
    x = first.source
    name = f"{first.op.defined.name}.joined"
    if size < tensor_type(x).size:
        cut = movement.Slice(x=x, axis=1, start=first.start, stop=first.start + size)
        x = _known(build, build.emit(cut, f"{name}.row"), [one.op.x for one in run])
    degree = max(one.op.degree for one in run)
    columns = [_columns(one, program, degree) for one in run]
    counts = [(one.op, len(one.op.sections) or 1) for one in run]
    joined = tensor.Polynomial(
        x=x,
        coefficients=build.constant(np.hstack(columns), f"{name}.coefficients"),
        degree=degree,
        sections=tuple(width for one in run for width in one.op.sections or (one.size,)),
        functions=tuple(text for one, n in counts for text in _spread(one.functions, n)),
        lower=tuple(end for one, n in counts for end in _spread(one.lower, n)),
        upper=tuple(end for one, n in counts for end in _spread(one.upper, n)),
        fit_error=max(one.op.fit_error for one in run),
        basis=first.op.basis,
        location=first.op.location,
    )
    value = _known(build, build.emit(joined, name), [one.op.defined for one in run])
    for one in run:
        place = one.start - first.start
        _take(build, value, place, one.size, one.op.defined, one.op.location)
