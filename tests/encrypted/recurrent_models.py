"""Small recurrent networks written with torch, as a user would write them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import onnx
import torch
from torch import nn

from tests.benchmarks.recurrent import Recurrent
from tests.differential.test_frontend_torch import export

Shapes = Mapping[str, tuple[int, ...]]

STEPS, FEATURES, HIDDEN = 3, 3, 4
CELLS: dict[str, Callable[..., Any]] = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}


class Resumed(nn.Module):
    """An LSTM that takes its states as inputs and gives them back beside the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(FEATURES, HIDDEN, batch_first=True)
        self.dense = nn.Linear(HIDDEN, 2)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> Any:
        # The first axis counts samples everywhere; the layer wants it second in its states.
        y, (last, cell) = self.layer(x, (h.transpose(0, 1), c.transpose(0, 1)))
        return self.dense(y[:, -1]), last.transpose(0, 1), cell.transpose(0, 1)


class Loop(nn.Module):
    """A cell in a loop over time, then a dense layer."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell = CELLS[kind](FEATURES, HIDDEN)
        self.dense = nn.Linear(HIDDEN, 2)

    def forward(self, x: torch.Tensor) -> Any:
        state = None
        for t in range(STEPS):
            state = self.cell(x[:, t], state)
        return self.dense(state[0] if isinstance(state, tuple) else state)


_layer = partial(Recurrent, features=FEATURES, hidden=HIDDEN)
_sequence = {"x": (STEPS, FEATURES)}
_state = (1, HIDDEN)

SMALL: dict[str, tuple[Callable[[], nn.Module], Shapes]] = {
    "LSTM": (lambda: _layer("LSTM"), _sequence),
    "GRU": (lambda: _layer("GRU"), _sequence),
    "RNN": (lambda: _layer("RNN"), _sequence),
    "two layers of LSTM in both directions": (
        lambda: _layer("LSTM", layers=2, bidirectional=True),
        {"x": (2, FEATURES)},
    ),
    "states go in and out": (Resumed, {**_sequence, "h": _state, "c": _state}),
    "LSTM cell in a loop": (lambda: Loop("LSTM"), _sequence),
    "GRU cell in a loop": (lambda: Loop("GRU"), _sequence),
    "the whole sequence is pooled": (lambda: _layer("GRU", pooled=True), _sequence),
}
"""How each is made, and the shapes of one sample of its inputs."""


def small(name: str) -> onnx.ModelProto:
    """One of `SMALL` as ONNX, with seeded weights; the number of samples is open."""
    make, shapes = SMALL[name]
    torch.manual_seed(6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return onnx.load_from_string(export(make(), dict(shapes), False, 18))
