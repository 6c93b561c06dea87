"""Unrolling of recurrent operators into straight lines."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from hecompile.errors import PassError
from hecompile.ir.constants import Array
from hecompile.ir.movement_ops import Concat, Slice
from hecompile.ir.operation import Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.recurrent_ops import Lstm, Recurrent
from hecompile.ir.tensor_ops import ConstantTensor, tensor_type
from hecompile.passbase import Context, Pass, register_pass
from hecompile.recurrence import Direction, Emit, State, Weights, stepper, walk


@register_pass
@dataclass(frozen=True)
class UnrollRecurrent(Pass):
    """Replace tensor.lstm, tensor.gru and tensor.rnn by a straight line for each time step.

    The gates of a step stay packed in one tensor (N, gates * H), which one affine map of the
    step's input and one of the hidden state give; an LSTM's in the order i, o, f, c:

        pre = x_t W^T + h R^T + b      act = activation(pre)      i, o, f, g = slices of act
        c = f * c + i * g              h = o * output activation(c)

    (Hochreiter and Schmidhuber 1997; Gers et al. 2000; Cho et al. 2014; Elman 1990; weights as in
    the ONNX operators.) Without an initial state the first step reads no state. Clipping becomes
    an activation before the gates'. Operations that differ only in which result they give share
    one line; steps that no output needs are left to dce.

    Requires: constants folded (fold-constants); weights and biases constant. A tensor program.
    Ensures: no tensor.lstm, tensor.gru or tensor.rnn.
    """

    name: ClassVar[str] = "unroll-recurrent"
    after: ClassVar[tuple[str, ...]] = ("fold-constants",)

    def run(self, program: Program, context: Context) -> Program:
        """Walk forwards and unroll each recurrent operator.

        Raises:
            PassError: weights are no constants, by the name of their node.
        """
        if not program.select(Recurrent):
            return program
        unroller = _Unroller(Builder(program), program, {}, {})
        for original in program:
            op = original.with_operands(unroller.renamed)
            if isinstance(op, Recurrent):
                unroller.renamed[op.defined.name] = unroller.result(op)
            else:
                unroller.builder.keep(op)
        return unroller.builder.finish()


@dataclass(frozen=True)
class _Line:
    """What one direction has computed: the states in order of time, and the one taken last."""

    states: tuple[State, ...]
    last: State


@dataclass(frozen=True, eq=False)
class _Unroller:
    """The program under construction.

    Attributes:
        builder: collects the new operations.
        program: the old program.
        renamed: results of recurrent operators by name, as they are computed now.
        lines: what each operator has computed, one line a direction; `output` does not count.
    """

    builder: Builder
    program: Program
    renamed: dict[str, Value]
    lines: dict[Recurrent, tuple[_Line, ...]]

    def result(self, op: Recurrent) -> Value:
        """The result that an operator gives."""
        emit = Emit(self.builder, op.location, op.defined.name)
        key = replace(op, output="Y", result=None)
        if key not in self.lines:
            weights = [self._weights(op, d) for d in range(op.directions)]
            self.lines[key] = tuple(self._line(op, emit, d, w) for d, w in enumerate(weights))
        lines, state = self.lines[key], (1, op.batch, op.hidden)
        if op.output == "Y":
            steps = zip(*(line.states for line in lines), strict=True)
            rows = [
                _join(emit, [_of(s, op.output) for s in step], (1, *state), 1) for step in steps
            ]
            return _join(emit, rows, (1, len(lines), *state[1:]), 0)
        return _join(emit, [_of(line.last, op.output) for line in lines], state, 0)

    def _line(self, op: Recurrent, emit: Emit, d: int, weights: Weights) -> _Line:
        mark = f".{d}" if op.directions > 1 else ""
        of = Direction(emit, weights, op.functions_of(d), op.hidden, op.clip, mark)
        step, initial = stepper(op, of), self._initial(op, emit, d)
        states = tuple(walk(of, step, op.x, initial, op.backwards(d)))
        return _Line(states[::-1] if op.backwards(d) else states, states[-1])

    def _weights(self, op: Recurrent, d: int) -> Weights:
        rows = op.gates * op.hidden
        bias, peepholes = np.zeros(2 * rows), np.zeros(3 * op.hidden)
        inputs = self._array(op, op.w, "weights")[d]
        recurrent = self._array(op, op.r, "recurrent weights")[d]
        if op.b is not None:
            bias = self._array(op, op.b, "bias")[d]
        if isinstance(op, Lstm) and op.p is not None:
            peepholes = self._array(op, op.p, "peephole weights")[d]
        return Weights(inputs, recurrent, bias[:rows], bias[rows:], peepholes)

    def _array(self, op: Recurrent, value: Value, what: str) -> Array:
        known = self._known(value)
        if known is None:
            remedy = "depend on the input; make them constants"
            if not tensor_type(value).secret:
                remedy = "are not folded yet; run fold-constants first"
            where = f"the {op.kind} '{op.location or op.defined.name}'"
            raise PassError(f"unroll-recurrent: the {what} of {where} {remedy}")
        return known

    def _known(self, value: Value) -> Array | None:
        source = self.program.definitions.get(value.name)
        return self.program.array(source.value) if isinstance(source, ConstantTensor) else None

    def _initial(self, op: Recurrent, emit: Emit, direction: int) -> State:
        def part(value: Value | None, name: str) -> Value | None:
            if value is None:
                return None
            known = self._known(value)
            if known is not None and not known[direction].any():
                return None
            mark = f"{name}.{direction}" if op.directions > 1 else name
            one = Slice(x=value, axis=0, start=direction, stop=direction + 1)
            row = emit(one, mark) if op.directions > 1 else value
            return emit.reshape(row, (op.batch, op.hidden), mark)

        return State(part(op.h0, "h0"), part(op.c0, "c0") if isinstance(op, Lstm) else None)


def _of(state: State, output: str) -> Value:
    """The part of a step's state that an operator gives."""
    value = state.cell if output == "Y_c" else state.hidden
    if value is None:
        raise PassError(f"unroll-recurrent: a step leaves no state for the output '{output}'")
    return value


def _join(emit: Emit, values: list[Value], dims: tuple[int, ...], axis: int) -> Value:
    """Reshape values and join them along an axis."""
    rows = tuple(emit.reshape(value, dims, "row") for value in values)
    return rows[0] if len(rows) == 1 else emit(Concat(xs=rows, axis=axis), "joined")
