"""PyTorch's recurrent modules, by both of its exporters, mean what onnxruntime computes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hecompile.errors import UnsupportedError
from hecompile.frontend import import_onnx
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.program import Program
from hecompile.ir.recurrent_ops import Recurrent
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline
from tests.differential.onnx_cases import check, samples
from tests.differential.test_frontend_torch import export

SIMPLIFY = "normalise,fold-constants,unroll-recurrent,normalise,cse,dce,merge-linear"
LAYERS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
CELLS = {"LSTM": nn.LSTMCell, "GRU": nn.GRUCell, "RNN": nn.RNNCell}
STEPS, FEATURES, HIDDEN = 3, 3, 2
EXPORTERS = [False, pytest.param(True, marks=pytest.mark.slow)]
"""Whether the newer exporter, which takes seconds for each model, writes the model."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


class Layers(nn.Module):
    """Recurrent layers that give everything: the sequence and the last states."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.batch_first = bool(options.get("batch_first"))
        self.layers: Callable[..., Any] = LAYERS[kind](FEATURES, HIDDEN, **options)

    def forward(
        self, x: torch.Tensor, h: torch.Tensor | None = None, c: torch.Tensor | None = None
    ) -> Any:
        # The first axis counts samples, also where the layers want it second.
        sequence = x if self.batch_first else x.transpose(0, 1)
        layered = tuple(s.transpose(0, 1).contiguous() for s in (h, c) if s is not None)
        given = layered if len(layered) < 2 else (layered,)
        y, last = self.layers(sequence, *given)
        lasts = last if isinstance(last, tuple) else (last,)
        whole = y if self.batch_first else y.transpose(0, 1)
        return (whole, *(state.transpose(0, 1) for state in lasts))


class Loop(nn.Module):
    """A cell in a loop over time."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.cell: Callable[..., Any] = CELLS[kind](FEATURES, HIDDEN, **options)

    def forward(self, x: torch.Tensor) -> Any:
        state, seen = None, []
        for t in range(STEPS):
            state = self.cell(x[:, t], state)
            seen.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(seen, dim=1), seen[-1]


def checked(model: nn.Module, shapes: dict[str, tuple[int, ...]], dynamo: bool) -> Program:
    """Export, import, compare with onnxruntime, and compare what the passes make of it."""
    program = check(export(model, shapes, dynamo, opset=18))
    unrolled = parse_pipeline(SIMPLIFY).run(program, Context())
    inputs = samples(program)
    expected, found = run_tensor(program, inputs), run_tensor(unrolled, inputs)
    assert not unrolled.select(Recurrent)
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, atol=1e-11)
    return program


SEQUENCE: dict[str, tuple[int, ...]] = {"x": (STEPS, FEATURES)}
FORMS: dict[str, dict[str, Any]] = {
    "plain": {"batch_first": False},
    "deep in both directions": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "without bias": {"bias": False, "num_layers": 2, "batch_first": True},
}


@pytest.mark.parametrize("dynamo", EXPORTERS)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("kind", LAYERS)
def test_layers(kind: str, form: dict[str, Any], dynamo: bool) -> None:
    program = checked(Layers(kind, **form), SEQUENCE, dynamo)
    # The newer exporter unrolls an RNN itself.
    assert program.select(Recurrent) or (kind == "RNN" and dynamo)


@pytest.mark.parametrize("dynamo", EXPORTERS)
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_with_initial_states(kind: str, dynamo: bool) -> None:
    states = ("h", "c") if kind == "LSTM" else ("h",)
    shapes = SEQUENCE | dict.fromkeys(states, (4, HIDDEN))
    form = {"num_layers": 2, "bidirectional": True, "batch_first": True}
    program = checked(Layers(kind, **form), shapes, dynamo)
    assert program.select(Recurrent) or (kind == "RNN" and dynamo)


@pytest.mark.parametrize("dynamo", EXPORTERS)
@pytest.mark.parametrize(
    "model",
    [*(lambda k=k: Loop(k) for k in CELLS), lambda: Loop("RNN", nonlinearity="relu")],
    ids=[*CELLS, "RNN with relu"],
)
def test_cells_in_a_loop(model: Callable[[], nn.Module], dynamo: bool) -> None:
    checked(model(), SEQUENCE, dynamo)


@pytest.mark.parametrize("dynamo", EXPORTERS)
def test_an_rnn_with_relu(dynamo: bool) -> None:
    checked(Layers("RNN", nonlinearity="relu", batch_first=True), SEQUENCE, dynamo)


def test_a_layer_by_the_newer_exporter() -> None:
    deep = FORMS["deep in both directions"]
    assert checked(Layers("GRU", **deep), SEQUENCE, dynamo=True).select(Recurrent)


def test_a_projection_is_refused() -> None:
    # The older exporter refuses proj_size itself; the newer one writes an LSTM that is none.
    with pytest.raises(UnsupportedError, match="proj_size"):
        import_onnx(export(Layers("LSTM", proj_size=1, batch_first=True), SEQUENCE, True, 18))
