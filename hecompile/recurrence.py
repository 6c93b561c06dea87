"""Steps of recurrent operators as straight lines: one function for each kind of cell.

A cell keeps its gates side by side in one tensor (N, gates * H), so that one affine map of a
step's input and one of its hidden state give what enters all of them, and functions of several
gates are evaluated at once. Weights are laid out as in the ONNX operators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from hecompile.ir.constants import Array
from hecompile.ir.movement_ops import Reshape, Slice
from hecompile.ir.operation import Operation, Value
from hecompile.ir.program import Builder
from hecompile.ir.recurrent_ops import Gru, Lstm, Recurrent
from hecompile.ir.tensor_ops import Activation, Add, ConstantTensor, MatMul, Mul, Sub, tensor_type
from hecompile.numeric import activations


@dataclass(frozen=True)
class State:
    """What a step hands on: hidden state and, of an LSTM, cell state, each (N, H); None for 0."""

    hidden: Value | None = None
    cell: Value | None = None


@dataclass(frozen=True)
class Weights:
    """Weights of one direction, the gates stacked in the order of the ONNX operator.

    Attributes:
        inputs: (G H, F).
        recurrent: (G H, H).
        own_bias: what is added to the input's product, (G H).
        carried_bias: what is added to the hidden state's product, (G H).
        peepholes: (3 H) for i, o, f of an LSTM; zeros for none.
    """

    inputs: Array
    recurrent: Array
    own_bias: Array
    carried_bias: Array
    peepholes: Array


@dataclass(frozen=True, eq=False)
class Emit:
    """Appends operations at one place of the source model."""

    builder: Builder
    location: str
    hint: str

    def __call__(self, op: Operation, hint: str) -> Value:
        """Append an operation."""
        return self.builder.emit(replace(op, location=self.location), f"{self.hint}.{hint}")

    def constant(self, array: Array, hint: str) -> Value:
        """Append a constant."""
        symbol = self.builder.constant(array, f"{self.hint}.{hint}")
        return self(ConstantTensor(value=symbol, dims=array.shape), hint)

    def reshape(self, value: Value, dims: tuple[int, ...], hint: str) -> Value:
        """Append a reshape."""
        return self(Reshape(x=value, dims=dims), hint)


Step = Callable[[Value, State, str], State]
"""Appends one step: from its input (N, F), the state before and a suffix for names."""


@dataclass(frozen=True, eq=False)
class Direction:
    """One direction of a recurrent operator.

    Attributes:
        emit: where to append.
        weights: its weights.
        functions: its activations.
        units: H.
        clip: bound on what enters the gates' activations; 0 for none.
        mark: suffix of the names of weights.
    """

    emit: Emit
    weights: Weights
    functions: tuple[str, ...]
    units: int
    clip: float
    mark: str

    def gates(self, stacked: Array, *chosen: int) -> Array:
        """Some of the gates' rows, in this order."""
        return np.concatenate([stacked[g * self.units : (g + 1) * self.units] for g in chosen])

    def matrix(self, rows: Array, hint: str) -> Value:
        """Weights (columns, rows) as a matrix that multiplies from the right."""
        return self.emit.constant(np.ascontiguousarray(rows.T), hint + self.mark)

    def row(self, numbers: Array, hint: str) -> Value:
        """Numbers that meet every row of a tensor."""
        return self.emit.constant(numbers[None], hint + self.mark)

    def plus(self, value: Value, x: Value | None, matrix: Value, names: tuple[str, str]) -> Value:
        """`value + x @ matrix`; `value` where x is zero."""
        if x is None:
            return value
        product = self.emit(MatMul(x=x, y=matrix), names[0])
        return self.emit(Add(x=value, y=product), names[1])

    def activate(self, x: Value, functions: tuple[str, ...], hint: str) -> Value:
        """Functions of as many gates side by side, of what clipping leaves of x."""
        if self.clip:
            bounds = (("min", -self.clip), ("max", self.clip))
            clip = str(activations.Activation("clip", bounds))
            x = self.emit(Activation(x=x, functions=(clip,)), f"clipped.{hint}")
        sections = (self.units,) * len(functions) if len(functions) > 1 else ()
        return self.emit(Activation(x=x, functions=functions, sections=sections), hint)

    def part(self, value: Value, first: int, count: int, hint: str) -> Value:
        """Some of the gates that lie side by side."""
        start, stop = first * self.units, (first + count) * self.units
        return self.emit(Slice(x=value, axis=1, start=start, stop=stop), hint)


def rnn(of: Direction) -> Step:
    """`h = f(x W + h R + b)` (Elman 1990)."""
    w, r = of.matrix(of.weights.inputs, "w"), of.matrix(of.weights.recurrent, "r")
    b = of.row(of.weights.own_bias + of.weights.carried_bias, "b")

    def step(x: Value, state: State, mark: str) -> State:
        pre = of.emit(MatMul(x=x, y=w), f"input{mark}")
        pre = of.plus(pre, state.hidden, r, (f"carried{mark}", f"sum{mark}"))
        pre = of.emit(Add(x=pre, y=b), f"pre{mark}")
        return State(of.activate(pre, of.functions, f"h{mark}"))

    return step


def gru(of: Direction, linear_before_reset: bool) -> Step:
    """`h = n + z * (h - n)` with one of two new states n (Cho et al. 2014).

    Where r multiplies what the state is mapped to, n = g(x W_n + b_n + r * (h R_n + c_n)), the
    gates z, r and both halves of n lie side by side, in this order. Where r multiplies the state
    itself, n = g(x W_n + (r * h) R_n + b_n), and n follows z and r.
    """
    return _gru_after(of) if linear_before_reset else _gru_before(of)


def _gru_after(of: Direction) -> Step:
    """The reset gate multiplies what the state is mapped to."""
    weights, zero = of.weights, np.zeros((of.units, 1))
    gate, function = of.functions
    inputs = np.concatenate([weights.inputs, zero * weights.inputs[:1]])
    z_r, memory = of.gates(weights.recurrent, 0, 1), of.gates(weights.recurrent, 2)
    recurrent = np.concatenate([z_r, zero * memory[:1], memory])
    w, r = of.matrix(inputs, "w"), of.matrix(recurrent, "r")
    own, kept = weights.own_bias, weights.carried_bias
    both = of.gates(own, 0, 1) + of.gates(kept, 0, 1)
    b = of.row(np.concatenate([both, of.gates(own, 2), of.gates(kept, 2)]), "b")
    # What the map of the state leaves of a state that is zero.
    rest = of.row(of.gates(kept, 2), "memory") if of.gates(kept, 2).any() else None

    def step(x: Value, state: State, mark: str) -> State:
        pre = of.emit(MatMul(x=x, y=w), f"input{mark}")
        pre = of.plus(pre, state.hidden, r, (f"carried{mark}", f"sum{mark}"))
        pre = of.emit(Add(x=pre, y=b), f"pre{mark}")
        opened = of.part(pre, 0, 2, f"opened{mark}")
        gates = of.activate(opened, (gate, gate), f"gates{mark}")
        fed = of.part(pre, 2, 1, f"fed{mark}")
        memory = rest if state.hidden is None else of.part(pre, 3, 1, f"memory{mark}")
        if memory is not None:
            let = of.emit(Mul(x=of.part(gates, 1, 1, f"r{mark}"), y=memory), f"let{mark}")
            fed = of.emit(Add(x=fed, y=let), f"sum{mark}")
        new = of.activate(fed, (function,), f"n{mark}")
        return _blended(of, of.part(gates, 0, 1, f"z{mark}"), new, state, mark)

    return step


def _gru_before(of: Direction) -> Step:
    """The reset gate multiplies the state."""
    weights = of.weights
    gate, function = of.functions
    w = of.matrix(weights.inputs, "w")
    r = of.matrix(of.gates(weights.recurrent, 0, 1), "r")
    memory = of.matrix(of.gates(weights.recurrent, 2), "memory")
    b = of.row(weights.own_bias + weights.carried_bias, "b")

    def step(x: Value, state: State, mark: str) -> State:
        pre = of.emit(MatMul(x=x, y=w), f"input{mark}")
        pre = of.emit(Add(x=pre, y=b), f"pre{mark}")
        opened = of.part(pre, 0, 2, f"opened{mark}")
        opened = of.plus(opened, state.hidden, r, (f"carried{mark}", f"sum{mark}"))
        gates = of.activate(opened, (gate, gate), f"gates{mark}")
        let = None
        if state.hidden is not None:
            reset = of.part(gates, 1, 1, f"r{mark}")
            let = of.emit(Mul(x=reset, y=state.hidden), f"let{mark}")
        fed = of.part(pre, 2, 1, f"fed{mark}")
        fed = of.plus(fed, let, memory, (f"memory{mark}", f"fed{mark}"))
        new = of.activate(fed, (function,), f"n{mark}")
        return _blended(of, of.part(gates, 0, 1, f"z{mark}"), new, state, mark)

    return step


def _blended(of: Direction, z: Value, new: Value, state: State, mark: str) -> State:
    """`n + z * (h - n)`: one product where (1 - z) * n + z * h has two."""
    if state.hidden is None:
        closed = of.emit(Mul(x=z, y=new), f"closed{mark}")
        return State(of.emit(Sub(x=new, y=closed), f"h{mark}"))
    change = of.emit(Sub(x=state.hidden, y=new), f"change{mark}")
    kept = of.emit(Mul(x=z, y=change), f"kept{mark}")
    return State(of.emit(Add(x=new, y=kept), f"h{mark}"))


_I, _O, _F, _G = range(4)
_LETTERS = "iofg"


def lstm(of: Direction, input_forget: bool) -> Step:
    """`c = f * c + i * g`, `h = o * output(c)` (Hochreiter and Schmidhuber 1997; Gers et al. 2000).

    The gates lie side by side in the order i, o, f, g. With f = 1 - i there is no f, and
    c = c + i * (g - c). A gate o that peeps at the new cell comes last, to be opened after it.
    """
    cell, output = of.functions[1:]
    p_i, p_o, p_f = np.split(of.weights.peepholes, 3)
    late = bool(p_o.any())
    order = [g for g in (_I, _O, _F, _G) if not (input_forget and g == _F)]
    early = [g for g in order if not (late and g == _O)]
    order = early + [_O] * late
    opens = _Opening(of, tuple(order), {_I: p_i, _F: p_f})
    peep = of.row(p_o, "p.o") if late else None

    def step(x: Value, state: State, mark: str) -> State:
        pre = opens(x, state, mark)
        functions = tuple(cell if g == _G else of.functions[0] for g in early)
        ready = of.part(pre, 0, len(early), f"opened{mark}") if late else pre
        act = of.activate(ready, functions, f"gates{mark}")
        gates = {g: of.part(act, n, 1, _LETTERS[g] + mark) for n, g in enumerate(early)}
        c = _cell(of, gates, state, mark)
        if peep is not None:
            seen = of.emit(Mul(x=c, y=peep), f"seen{mark}")
            waiting = of.part(pre, len(early), 1, f"waiting{mark}")
            exit_ = of.emit(Add(x=waiting, y=seen), f"exit{mark}")
            gates[_O] = of.activate(exit_, of.functions[:1], f"o{mark}")
        shown = of.emit(Activation(x=c, functions=(output,)), f"shown{mark}")
        return State(of.emit(Mul(x=gates[_O], y=shown), f"h{mark}"), c)

    return step


class _Opening:
    """What enters the gates of an LSTM step."""

    def __init__(self, of: Direction, order: tuple[int, ...], peepholes: dict[int, Array]) -> None:
        self._of = of
        self._w = of.matrix(of.gates(of.weights.inputs, *order), "w")
        self._r = of.matrix(of.gates(of.weights.recurrent, *order), "r")
        bias = of.weights.own_bias + of.weights.carried_bias
        self._b = of.row(of.gates(bias, *order), "b")
        seen = [np.diag(peepholes.get(g, np.zeros(of.units))) for g in order]
        self._p = of.matrix(np.concatenate(seen), "p") if np.any(seen) else None

    def __call__(self, x: Value, state: State, mark: str) -> Value:
        """Of a step's input and the state before, (N, gates * H)."""
        of = self._of
        pre = of.emit(MatMul(x=x, y=self._w), f"input{mark}")
        pre = of.plus(pre, state.hidden, self._r, (f"carried{mark}", f"sum{mark}"))
        if self._p is not None:
            pre = of.plus(pre, state.cell, self._p, (f"peeped{mark}", f"sum{mark}"))
        return of.emit(Add(x=pre, y=self._b), f"pre{mark}")


def _cell(of: Direction, gates: dict[int, Value], state: State, mark: str) -> Value:
    """The cell state after a step."""
    entry, new = gates[_I], gates[_G]
    if state.cell is None:
        return of.emit(Mul(x=entry, y=new), f"entered{mark}")
    if _F in gates:
        entered = of.emit(Mul(x=entry, y=new), f"entered{mark}")
        kept = of.emit(Mul(x=gates[_F], y=state.cell), f"kept{mark}")
        return of.emit(Add(x=kept, y=entered), f"c{mark}")
    change = of.emit(Sub(x=new, y=state.cell), f"change{mark}")
    entered = of.emit(Mul(x=entry, y=change), f"entered{mark}")
    return of.emit(Add(x=state.cell, y=entered), f"c{mark}")


def stepper(op: Recurrent, of: Direction) -> Step:
    """How one direction of an operator advances."""
    if isinstance(op, Lstm):
        return lstm(of, op.input_forget)
    if isinstance(op, Gru):
        return gru(of, op.linear_before_reset)
    return rnn(of)


def walk(of: Direction, step: Step, x: Value, state: State, backwards: bool) -> list[State]:
    """Append every step of one direction.

    Args:
        of: the direction.
        step: how it advances.
        x: the sequence, (T, N, F).
        state: the initial state.
        backwards: whether it starts at the last step.

    Returns:
        The state after each step, in the order in which the steps were taken.
    """
    length, count, features = tensor_type(x).shape
    mark = ".back" if backwards else ""
    states = []
    for t in reversed(range(length)) if backwards else range(length):
        cut = of.emit(Slice(x=x, axis=0, start=t, stop=t + 1), f"slice{mark}.{t}")
        fed = of.emit.reshape(cut, (count, features), f"x{mark}.{t}")
        state = step(fed, state, f"{mark}.{t}")
        states.append(state)
    return states
