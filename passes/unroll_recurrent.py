"""Unrolling of recurrent operators into straight lines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from hecompile.errors import PassError
from hecompile.ir.constants import Array
from hecompile.ir.movement_ops import Concat, Lstm, Reshape, Slice
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder, Program
from hecompile.ir.tensor_ops import (
    Activation,
    Add,
    ConstantTensor,
    MatMul,
    Mul,
    tensor_type,
)
from hecompile.passbase import Context, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class UnrollRecurrent(Pass):
    """Replace tensor.lstm by one straight line of operations for each time step.

    The four gates stay packed in one tensor of shape (1, 4H), in the order i, o, f, c:

        pre = x_t W^T + h R^T + b      act = activation(pre)      i, o, f, g = slices of act
        c = f * c + i * g              h = o * output activation(c)

    (Hochreiter and Schmidhuber 1997; Gers et al. 2000; weights as in the ONNX operator LSTM.)
    Without an initial state the first step reads no state. Operations that differ only in which
    result they give share one line; steps that no output needs are left to dce.

    Requires: constants folded (fold-constants); weights and biases constant; one sequence (N = 1);
    no peepholes, clipping, or coupled input and forget gates. A tensor program.
    Ensures: no tensor.lstm.
    """

    name: ClassVar[str] = "unroll-recurrent"
    after: ClassVar[tuple[str, ...]] = ("fold-constants",)

    def run(self, program: Program, context: Context) -> Program:
        """Walk forwards and unroll each recurrent operator.

        Raises:
            PassError: an operator uses what is not supported, by the name of its node.
        """
        if not program.select(Lstm):
            return program
        unroller = _Unroller(Builder(program), program, {}, {})
        for original in program:
            op = original.with_operands(unroller.renamed)
            if isinstance(op, Lstm):
                unroller.renamed[op.defined.name] = unroller.result(op)
            else:
                unroller.builder.keep(op)
        return unroller.builder.finish()


@dataclass(frozen=True)
class _State:
    """Hidden and cell state before a step, each (1, H); None for zero."""

    hidden: Value | None
    cell: Value | None


@dataclass(frozen=True)
class _Step:
    """Hidden and cell state after a step, each (1, H)."""

    hidden: Value
    cell: Value


@dataclass(frozen=True, eq=False)
class _Emit:
    """Appends operations at one place of the source model."""

    builder: Builder
    location: str
    hint: str

    def __call__(self, op: Operation, hint: str) -> Value:
        return self.builder.emit(replace(op, location=self.location), f"{self.hint}.{hint}")

    def constant(self, array: Array, hint: str) -> Value:
        symbol = self.builder.constant(array, f"{self.hint}.{hint}")
        return self(ConstantTensor(value=symbol, dims=array.shape), hint)

    def reshape(self, value: Value, dims: tuple[int, ...], hint: str) -> Value:
        return self(Reshape(x=value, dims=dims), hint)


class _Cell(ABC):
    """One direction of a recurrent operator: its weights, and how it advances by one step."""

    @abstractmethod
    def step(self, emit: _Emit, x: Value, state: _State, mark: str) -> _Step:
        """Append one step.

        Args:
            emit: where to append.
            x: the step's input, (1, F).
            state: the state before.
            mark: suffix of the names given, as in `3` or `reverse.3`.
        """


@dataclass(frozen=True, eq=False)
class _LstmCell(_Cell):
    """Weights of one LSTM direction, as matrices that multiply rows from the right."""

    weight: Value
    recurrent: Value
    bias: Value
    units: int
    activations: tuple[str, ...]

    def step(self, emit: _Emit, x: Value, state: _State, mark: str) -> _Step:
        """Append one LSTM step."""
        gate, cell, output = self.activations
        pre = emit(MatMul(x=x, y=self.weight), f"input{mark}")
        if state.hidden is not None:
            carried = emit(MatMul(x=state.hidden, y=self.recurrent), f"carried{mark}")
            pre = emit(Add(x=pre, y=carried), f"sum{mark}")
        pre = emit(Add(x=pre, y=self.bias), f"pre{mark}")
        functions, sections = (gate, gate, gate, cell), (self.units,) * 4
        act = emit(Activation(x=pre, functions=functions, sections=sections), f"gates{mark}")
        entry, exit_, forget, new = (
            emit(Slice(x=act, axis=1, start=n * self.units, stop=(n + 1) * self.units), name + mark)
            for n, name in enumerate("iofg")
        )
        c = emit(Mul(x=entry, y=new), f"entered{mark}")
        if state.cell is not None:
            kept = emit(Mul(x=forget, y=state.cell), f"kept{mark}")
            c = emit(Add(x=kept, y=c), f"c{mark}")
        shown = emit(Activation(x=c, functions=(output,)), f"shown{mark}")
        return _Step(emit(Mul(x=exit_, y=shown), f"h{mark}"), c)


@dataclass(frozen=True)
class _Line:
    """What one direction has computed: the steps in order of time, and the one taken last."""

    steps: tuple[_Step, ...]
    last: _Step


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
    lines: dict[Lstm, tuple[_Line, ...]]

    def result(self, op: Lstm) -> Value:
        """The result that an operator gives."""
        emit = _Emit(self.builder, op.location, op.defined.name)
        key = replace(op, output="Y", result=None)
        if key not in self.lines:
            _check(op)
            cells = [self._cell(op, emit, d) for d in range(op.directions)]
            self.lines[key] = tuple(
                _run(emit, cell, op.x, self._initial(op, emit, d), _backwards(op, d))
                for d, cell in enumerate(cells)
            )
        lines, units = self.lines[key], op.hidden
        if op.output == "Y":
            steps = zip(*(line.steps for line in lines), strict=True)
            rows = [_join(emit, [s.hidden for s in step], (1, 1, 1, units), 1) for step in steps]
            return _join(emit, rows, (1, len(lines), 1, units), 0)
        last = [s.hidden if op.output == "Y_h" else s.cell for s in (ln.last for ln in lines)]
        return _join(emit, last, (1, 1, units), 0)

    def _cell(self, op: Lstm, emit: _Emit, direction: int) -> _Cell:
        weight = self._array(op, op.w, "weights")[direction]
        recurrent = self._array(op, op.r, "recurrent weights")[direction]
        bias = np.zeros(8 * op.hidden)
        if op.b is not None:
            bias = self._array(op, op.b, "bias")[direction]
        mark = f".{direction}" if op.directions > 1 else ""
        return _LstmCell(
            emit.constant(weight.T, f"w{mark}"),
            emit.constant(recurrent.T, f"r{mark}"),
            emit.constant((bias[: 4 * op.hidden] + bias[4 * op.hidden :])[None], f"b{mark}"),
            op.hidden,
            op.activations[3 * direction : 3 * direction + 3],
        )

    def _array(self, op: Lstm, value: Value, what: str) -> Array:
        known = self._known(value)
        if known is None:
            remedy = "depend on the input; make them constants"
            if not tensor_type(value).secret:
                remedy = "are not folded yet; run fold-constants first"
            raise PassError(f"unroll-recurrent: the {what} of {_where(op)} {remedy}")
        return known

    def _known(self, value: Value) -> Array | None:
        source = self.program.definitions.get(value.name)
        return self.program.array(source.value) if isinstance(source, ConstantTensor) else None

    def _initial(self, op: Lstm, emit: _Emit, direction: int) -> _State:
        def part(value: Value | None, name: str) -> Value | None:
            if value is None:
                return None
            known = self._known(value)
            if known is not None and not known[direction].any():
                return None
            mark = f"{name}.{direction}" if op.directions > 1 else name
            one = Slice(x=value, axis=0, start=direction, stop=direction + 1)
            row = emit(one, mark) if op.directions > 1 else value
            return emit.reshape(row, (1, op.hidden), mark)

        return _State(part(op.h0, "h0"), part(op.c0, "c0"))


def _where(op: Lstm) -> str:
    return f"the LSTM '{op.location or op.defined.name}'"


def _check(op: Lstm) -> None:
    """Refuse what is not supported."""
    reasons = {
        "peephole weights": op.p is not None,
        "cell clipping": op.clip != 0.0,
        "coupled input and forget gates (input_forget)": op.input_forget,
    }
    used = [reason for reason, present in reasons.items() if present]
    if used:
        raise PassError(
            f"unroll-recurrent: {_where(op)} uses {' and '.join(used)}, which no encrypted"
            " counterpart exists for here; train it without"
        )
    count = tensor_type(op.x).shape[1]
    if count != 1:
        raise PassError(
            f"unroll-recurrent: {_where(op)} reads {count} sequences at a time; export the model"
            " for one (batch 1), samples are packed later"
        )


def _backwards(op: Lstm, direction: int) -> bool:
    return op.direction == "reverse" or direction == 1


def _run(emit: _Emit, cell: _Cell, x: Value, state: _State, backwards: bool) -> _Line:
    """Append every step of one direction."""
    length, _, features = tensor_type(x).shape
    order = range(length - 1, -1, -1) if backwards else range(length)
    steps: dict[int, _Step] = {}
    mark = ".back" if backwards else ""
    for t in order:
        part = emit(Slice(x=x, axis=0, start=t, stop=t + 1), f"slice{mark}.{t}")
        fed = emit.reshape(part, (1, features), f"x{mark}.{t}")
        steps[t] = cell.step(emit, fed, state, f"{mark}.{t}")
        state = _State(steps[t].hidden, steps[t].cell)
    return _Line(tuple(steps[t] for t in range(length)), steps[order[-1]])


def _join(emit: _Emit, values: list[Value], dims: tuple[int, ...], axis: int) -> Value:
    """Reshape values and join them along an axis."""
    rows = tuple(emit.reshape(value, dims, "row") for value in values)
    return rows[0] if len(rows) == 1 else emit(Concat(xs=rows, axis=axis), "joined")
