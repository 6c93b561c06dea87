"""Models exported by both of PyTorch's exporters mean what onnxruntime computes."""

from __future__ import annotations

import importlib
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional

from hecompile.frontend import import_onnx
from hecompile.ir.recurrent_ops import Lstm
from hecompile.ir.tensor_ops import Activation, Output
from tests.differential.onnx_cases import check, compare, interpret, run_onnxruntime, samples

REFERENCE = ("DiabetesMLP", "CryptoNets", "LeNet5", "CNNLSTM")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


@pytest.fixture(scope="module")
def reference(shared_dir: Path) -> Iterator[ModuleType]:
    """The module of reference models beside the checkout."""
    if not (shared_dir / "refmodels.py").is_file():
        pytest.skip(f"no refmodels.py in {shared_dir}")
    sys.path.insert(0, str(shared_dir))
    yield importlib.import_module("refmodels")
    sys.path.remove(str(shared_dir))


def export(model: nn.Module, shapes: dict[str, tuple[int, ...]], dynamo: bool, opset: int) -> bytes:
    """Export with a dynamic batch axis; `shapes` are those of one sample."""
    model.eval()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        if dynamo:
            pairs = tuple(torch.randn(2, *shape) for shape in shapes.values())
            dynamic = tuple({0: "batch"} for _ in shapes)
            program = torch.onnx.export(
                model,
                pairs,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=dynamic,
                verbose=False,
            )
            assert program is not None
            program.save(path)
        else:
            torch.onnx.export(
                model,
                tuple(torch.randn(1, *shape) for shape in shapes.values()),
                path,
                dynamo=False,
                opset_version=opset,
                input_names=list(shapes),
                dynamic_axes={name: {0: "batch"} for name in shapes},
            )
        return path.read_bytes()


@pytest.mark.parametrize("opset", [13, 16, 20])
@pytest.mark.parametrize("name", REFERENCE)
def test_reference_models(reference: ModuleType, name: str, opset: int) -> None:
    kind = getattr(reference, name)
    check(export(reference.make(kind), {"x": kind.sample}, dynamo=False, opset=opset))


@pytest.mark.parametrize(("name", "opset"), [("CryptoNets", 18), ("CNNLSTM", 23)])
def test_reference_models_by_the_newer_exporter(
    reference: ModuleType, name: str, opset: int
) -> None:
    kind = getattr(reference, name)
    check(export(reference.make(kind), {"x": kind.sample}, dynamo=True, opset=opset))


class Beats(nn.Module):
    """Layers that a heartbeat classifier may have, in one model of two inputs and three outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 6, 5, stride=2, padding=2)
        self.depthwise = nn.Conv1d(6, 6, 3, groups=6, padding="same")
        self.norm = nn.BatchNorm1d(6)
        self.pool = nn.AvgPool1d(3, 2, padding=1, ceil_mode=True)
        self.lstm = nn.LSTM(6, 4, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Sequential(nn.Linear(11, 8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 3))
        for parameter in (self.norm.running_mean, self.norm.running_var):
            assert parameter is not None
            parameter.data = torch.rand(6) + 0.5

    def forward(self, signal: torch.Tensor, patient: torch.Tensor) -> Any:
        z = functional.leaky_relu(self.norm(self.conv(signal)))
        z = self.pool(functional.silu(self.depthwise(functional.pad(z, (1, 1)))))
        y, (hidden, _) = self.lstm(z.permute(0, 2, 1))
        first, second = y[:, -1].chunk(2, dim=-1)
        gate = torch.sigmoid(first) * torch.tanh(second)
        joined = torch.cat([gate, hidden[-1], z.mean(dim=-1)[:, ::3], patient[:, [0]] ** 2], dim=1)
        scores = self.head(joined)
        risk = torch.sigmoid(scores.sum(dim=1, keepdim=True) / 3).squeeze(-1)
        return scores, functional.log_softmax(scores, dim=-1), risk


@pytest.mark.parametrize(("dynamo", "opset"), [(False, 13), (False, 17), (True, 20)])
def test_heartbeat_classifier(dynamo: bool, opset: int) -> None:
    torch.manual_seed(3)
    shapes: dict[str, tuple[int, ...]] = {"signal": (2, 24), "patient": (3,)}
    program = check(export(Beats(), shapes, dynamo, opset))
    posts = [op.post for op in program.select(Output)]
    assert posts == [(), ("log_softmax(axis=1)",), ("sigmoid",)]
    assert {op.direction for op in program.select(Lstm)} == {"bidirectional"}


class Activations(nn.Module):
    """Every activation of PyTorch that has a counterpart."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        functions: list[Callable[[torch.Tensor], torch.Tensor]] = [
            *(torch.relu, torch.sigmoid, torch.tanh, torch.erf, functional.hardsigmoid),
            *(functional.elu, functional.selu, functional.softplus, functional.mish),
            *(functional.hardswish, functional.relu6, functional.gelu, torch.square),
            lambda z: functional.gelu(z, approximate="tanh"),
            lambda z: functional.softplus(z, beta=2),
            lambda z: torch.clamp(z, min=-0.25),
            lambda z: torch.clamp(z, -0.5, 0.75),
            lambda z: z**3 - z[:, :, :1].expand(-1, -1, 5),
        ]
        return torch.stack([function(x) for function in functions], dim=1)


@pytest.mark.parametrize("opset", [13, 14, 20])
def test_activations(opset: int) -> None:
    program = check(export(Activations(), {"x": (2, 5)}, dynamo=False, opset=opset))
    assert len(program.select(Activation)) >= 14


def test_activations_by_the_newer_exporter() -> None:
    check(export(Activations(), {"x": (2, 5)}, dynamo=True, opset=20))


def test_external_data(tmp_path: Path) -> None:
    torch.manual_seed(5)
    data = export(nn.Linear(12, 4), {"x": (12,)}, dynamo=False, opset=17)
    path = tmp_path / "linear.onnx"
    onnx.save_model(
        onnx.load_model_from_string(data),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    assert (tmp_path / "weights.bin").stat().st_size >= 4 * 12 * 4
    program = import_onnx(path)
    inputs = samples(program)
    assert program.name == "linear"
    compare(interpret(program, inputs), run_onnxruntime(str(path), inputs))
