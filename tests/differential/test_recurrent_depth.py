"""Levels, maps and products of PyTorch's recurrent modules after the tensor passes, as numbers."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from hecompile.config import CompileOptions
from hecompile.frontend import import_onnx
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.movement_ops import Affine
from hecompile.ir.program import Program
from hecompile.ir.tensor_ops import Mul, Polynomial
from hecompile.packing.depth import Levels
from hecompile.passbase import Context
from hecompile.pipelines import tensor_pipeline
from tests.differential.test_frontend_torch import export
from tests.differential.test_recurrent_torch import SEQUENCE, Layers, Loop


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def compiled(
    model: nn.Module, shapes: dict[str, tuple[int, ...]], degree: int
) -> tuple[Program, Program]:
    """The program before and after the passes that reduce depth, of equal meaning."""
    original = import_onnx(export(model, shapes, False, opset=18))
    dims = original.operations[0].dims  # type: ignore[attr-defined]
    samples = {"x": np.random.default_rng(0).normal(size=(64, *dims))}
    whole = tensor_pipeline(CompileOptions(degree=degree)).passes
    names = [one.name for one in whole]
    approximated = original
    for one in whole[: names.index("merge-linear") + 1]:
        approximated = one.run(approximated, Context(samples))
    program = approximated
    for one in whole[names.index("merge-linear") + 1 :]:
        program = one.run(program, Context(samples))
    expected, found = run_tensor(approximated, samples), run_tensor(program, samples)
    for label, array in expected.items():
        np.testing.assert_allclose(found[label], array, atol=1e-10)
    return approximated, program


def counts(program: Program) -> tuple[int, int, int, int]:
    """Levels, affine maps, polynomials of degree 2 and more, products."""
    curved = [op for op in program.select(Polynomial) if op.degree > 1]
    maps, products = program.select(Affine), program.select(Mul)
    return max(Levels(program).used().values()), len(maps), len(curved), len(products)


@pytest.mark.parametrize(
    ("kind", "degree", "before", "after"),
    [
        ("LSTM", 3, (22, 4, 6, 8), (19, 4, 3, 14)),
        ("GRU", 3, (22, 9, 6, 5), (19, 5, 3, 13)),
        ("RNN", 3, (10, 4, 3, 0), (10, 4, 3, 0)),
        # The last step's states are outputs: no constant takes the leading coefficient there.
        ("LSTM", 7, (28, 4, 6, 8), (26, 4, 4, 20)),
        ("GRU", 7, (28, 9, 6, 5), (25, 5, 3, 25)),
    ],
)
def test_layers(kind: str, degree: int, before: tuple[int, ...], after: tuple[int, ...]) -> None:
    approximated, program = compiled(Layers(kind, batch_first=True), SEQUENCE, degree)
    assert counts(approximated) == before
    assert counts(program) == after


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_a_cell_in_a_loop_becomes_the_layer(kind: str) -> None:
    _, program = compiled(Loop(kind), SEQUENCE, 3)
    _, layer = compiled(Layers(kind, batch_first=True), SEQUENCE, 3)
    assert counts(program) == counts(layer)


class LastOfBoth(nn.Module):
    """The last step of a layer in both directions, as classifiers read it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = nn.LSTM(3, 2, bidirectional=True, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.lstm(x)[0]
        return y[:, -1]


def test_steps_that_are_cut_off_are_not_fitted() -> None:
    """Five steps forwards and one backwards, where the operator gives ten."""
    notes: list[str] = []
    original = import_onnx(export(LastOfBoth(), {"x": (5, 3)}, False, opset=18))
    dims = original.operations[0].dims  # type: ignore[attr-defined]
    samples = {"x": np.random.default_rng(0).normal(size=(64, *dims))}
    context = Context(samples, note=notes.append)
    tensor_pipeline(CompileOptions(degree=3)).run(original, context)
    assert len([one for one in notes if ", degree " in one]) == 12
