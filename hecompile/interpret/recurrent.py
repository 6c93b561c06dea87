"""The recurrent operator, step by step, as ONNX defines it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hecompile.interpret.scope import Scope, linear
from hecompile.ir.constants import Array
from hecompile.ir.movement_ops import Lstm
from hecompile.numeric.activations import Activation, parse_activation


@dataclass(frozen=True)
class _Direction:
    """Weights and activations of one direction; arrays have a leading sample axis (S or 1)."""

    recurrent: Array
    peepholes: tuple[Array, Array, Array]
    gate: Activation
    cell: Activation
    hidden: Activation
    clip: float
    input_forget: bool

    def step(self, fed: Array, h: Array, c: Array) -> tuple[Array, Array]:
        """Advance the state (S, N, H) by the input's share of the gates (S, N, 4H)."""
        i, o, f, g = np.split(fed + linear(h, self.recurrent), 4, axis=-1)
        p_i, p_o, p_f = self.peepholes
        entry = self.gate(self._clipped(i + p_i * c))
        forget = 1.0 - entry if self.input_forget else self.gate(self._clipped(f + p_f * c))
        c = forget * c + entry * self.cell(self._clipped(g))
        exit_ = self.gate(self._clipped(o + p_o * c))
        # onnxruntime clips the four gates' inputs but not the cell on its way out; so do we.
        return exit_ * self.hidden(c), c

    def _clipped(self, x: Array) -> Array:
        return np.clip(x, -self.clip, self.clip)


def lstm(op: Lstm, at: Scope) -> Array:
    """ONNX LSTM: the result that `op.output` names."""
    runs = [_run_direction(op, at, d) for d in range(op.directions)]
    if op.output == "Y":
        # (S, T, N, H) of each direction to (S, T, D, N, H).
        return np.stack([sequence for sequence, _, _ in runs], axis=2)
    chosen = 1 if op.output == "Y_h" else 2
    return np.stack([run[chosen] for run in runs], axis=1)


def _run_direction(op: Lstm, at: Scope, d: int) -> tuple[Array, Array, Array]:
    """Sequence (S, T, N, H) in the input's order, last hidden and cell state (S, N, H)."""
    x, hidden = at(op.x), op.hidden
    direction = _direction(op, at, d)
    fed = linear(x, at(op.w)[:, d].swapaxes(1, 2))
    if op.b is not None:
        b = at(op.b)[:, d]
        fed = fed + (b[:, : 4 * hidden] + b[:, 4 * hidden :])[:, None, None, :]
    start = np.zeros((x.shape[0], x.shape[2], hidden))
    h = start if op.h0 is None else start + at(op.h0)[:, d]
    c = start if op.c0 is None else start + at(op.c0)[:, d]
    backwards = op.direction == "reverse" or d == 1
    steps: list[Array] = []
    for t in reversed(range(x.shape[1])) if backwards else range(x.shape[1]):
        h, c = direction.step(fed[:, t], h, c)
        steps.append(h)
    sequence = np.stack(steps[::-1] if backwards else steps, axis=1)
    return sequence, h, c


def _direction(op: Lstm, at: Scope, d: int) -> _Direction:
    gate, cell, hidden = (parse_activation(t) for t in op.activations[3 * d : 3 * d + 3])
    if op.p is None:
        zero = np.zeros((1, 1, 1))
        peepholes = (zero, zero, zero)
    else:
        i, o, f = np.split(at(op.p)[:, d, None, :], 3, axis=-1)
        peepholes = (i, o, f)
    return _Direction(
        recurrent=at(op.r)[:, d].swapaxes(1, 2),
        peepholes=peepholes,
        gate=gate,
        cell=cell,
        hidden=hidden,
        clip=op.clip or math.inf,
        input_forget=op.input_forget,
    )
