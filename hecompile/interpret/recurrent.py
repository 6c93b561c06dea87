"""The recurrent operators, step by step, as ONNX defines them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hecompile.interpret.scope import Scope, linear
from hecompile.ir.constants import Array
from hecompile.ir.operation import Value
from hecompile.ir.recurrent_ops import Gru, Lstm, Recurrent
from hecompile.numeric.activations import parse_activation

_State = tuple[Array, ...]
_Function = Callable[[Array], Array]


@dataclass(frozen=True)
class _Direction:
    """One direction of an operator; arrays have a leading sample axis (S or 1).

    Attributes:
        fed: the input's share of the gates at every step, (S, T, N, G H), its bias included.
        recurrent: what multiplies the hidden state from the right, (S, H, G H).
        bias: the hidden state's share of the bias, (S, 1, G H).
        functions: the activations.
        clip: bounds what enters the activations of the gates.
    """

    fed: Array
    recurrent: Array
    bias: Array
    functions: tuple[_Function, ...]
    clip: float

    def clipped(self, x: Array) -> Array:
        """What enters an activation of a gate."""
        return np.clip(x, -self.clip, self.clip)

    def step(self, fed: Array, state: _State) -> _State:
        """Advance by one step; the hidden state comes first in a state. This is the plain RNN."""
        (h,) = state
        (function,) = self.functions
        return (function(self.clipped(fed + linear(h, self.recurrent) + self.bias)),)


@dataclass(frozen=True)
class _GruDirection(_Direction):
    """One direction of a GRU."""

    linear_before_reset: bool

    def step(self, fed: Array, state: _State) -> _State:
        """Advance by one step."""
        (h,) = state
        gate, function = self.functions
        hidden = h.shape[-1]
        carried = linear(h, self.recurrent) + self.bias
        both = gate(self.clipped(fed[..., : 2 * hidden] + carried[..., : 2 * hidden]))
        z, r = np.split(both, 2, axis=-1)
        if self.linear_before_reset:
            kept = r * carried[..., 2 * hidden :]
        else:
            weights = self.recurrent[..., 2 * hidden :]
            kept = linear(r * h, weights) + self.bias[..., 2 * hidden :]
        new = function(self.clipped(fed[..., 2 * hidden :] + kept))
        return ((1.0 - z) * new + z * h,)


@dataclass(frozen=True)
class _LstmDirection(_Direction):
    """One direction of an LSTM; the state is hidden and cell state."""

    peepholes: tuple[Array, Array, Array]
    input_forget: bool

    def step(self, fed: Array, state: _State) -> _State:
        """Advance by one step."""
        h, c = state
        gate, cell, hidden = self.functions
        i, o, f, g = np.split(fed + linear(h, self.recurrent) + self.bias, 4, axis=-1)
        p_i, p_o, p_f = self.peepholes
        entry = gate(self.clipped(i + p_i * c))
        forget = 1.0 - entry if self.input_forget else gate(self.clipped(f + p_f * c))
        c = forget * c + entry * cell(self.clipped(g))
        exit_ = gate(self.clipped(o + p_o * c))
        # onnxruntime clips the four gates' inputs but not the cell on its way out; so do we.
        return exit_ * hidden(c), c


def recurrent(op: Recurrent, at: Scope) -> Array:
    """ONNX LSTM, GRU or RNN: the result that `op.output` names."""
    runs = [_run(op, at, d) for d in range(op.directions)]
    if op.output == "Y":
        # (S, T, N, H) of each direction to (S, T, D, N, H).
        return np.stack([sequence for sequence, _ in runs], axis=2)
    chosen = op.outputs.index(op.output) - 1
    return np.stack([last[chosen] for _, last in runs], axis=1)


def _run(op: Recurrent, at: Scope, d: int) -> tuple[Array, _State]:
    """Sequence (S, T, N, H) in the input's order, and the last state, each (S, N, H)."""
    x = at(op.x)
    zero = np.zeros((x.shape[0], x.shape[2], op.hidden))

    def initial(value: Value | None) -> Array:
        return zero if value is None else zero + at(value)[:, d]

    state: _State = (initial(op.h0),)
    if isinstance(op, Lstm):
        state = (*state, initial(op.c0))
    direction = _direction(op, at, d)
    order = range(x.shape[1])
    steps: dict[int, Array] = {}
    for t in reversed(order) if op.backwards(d) else order:
        state = direction.step(direction.fed[:, t], state)
        steps[t] = state[0]
    return np.stack([steps[t] for t in order], axis=1), state


def _direction(op: Recurrent, at: Scope, d: int) -> _Direction:
    fed = linear(at(op.x), at(op.w)[:, d].swapaxes(1, 2))
    matrix = at(op.r)[:, d].swapaxes(1, 2)
    bias = np.zeros((1, 1, op.gates * op.hidden))
    if op.b is not None:
        own, bias = np.split(at(op.b)[:, d, None, :], 2, axis=-1)
        fed = fed + own[:, None]
    functions = tuple(parse_activation(text) for text in op.functions_of(d))
    clip = op.clip or math.inf
    if isinstance(op, Gru):
        return _GruDirection(fed, matrix, bias, functions, clip, op.linear_before_reset)
    if isinstance(op, Lstm):
        zero = np.zeros((1, 1, 1))
        peepholes = (zero, zero, zero)
        if op.p is not None:
            p_i, p_o, p_f = np.split(at(op.p)[:, d, None, :], 3, axis=-1)
            peepholes = (p_i, p_o, p_f)
        return _LstmDirection(fed, matrix, bias, functions, clip, peepholes, op.input_forget)
    return _Direction(fed, matrix, bias, functions, clip)
