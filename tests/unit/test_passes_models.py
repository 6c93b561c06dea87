"""The tensor passes together on whole models."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import hecompile
from hecompile.config import CompileOptions
from hecompile.interpret.samples import as_samples
from hecompile.interpret.tensor import run_tensor
from hecompile.ir.constants import Array
from hecompile.ir.movement_ops import Affine
from hecompile.ir.program import Builder, Program
from hecompile.ir.recurrent_ops import Lstm
from hecompile.passbase import Context
from hecompile.pipeline import parse_pipeline
from tests.unit.interpreting import clear, finish, secret

FRONT = "normalise,fold-constants,fold-batchnorm,unroll-recurrent,normalise,cse,dce,calibrate"
BACK = "merge-linear,cse,dce,require-polynomial"


@pytest.fixture(scope="module")
def refmodels(shared_dir: Path) -> ModuleType:
    pytest.importorskip("torch", reason="the reference models are written in torch")
    path = shared_dir / "refmodels.py"
    if not path.is_file():
        pytest.skip(f"no reference models: {path} is no file")
    spec = importlib.util.spec_from_file_location("refmodels", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def imported(module: ModuleType, name: str, folder: Path) -> Program:
    import torch

    from hecompile.frontend import import_onnx

    model = module.make(getattr(module, name))
    path = folder / f"{name}.onnx"
    example: Any = (torch.zeros(1, *model.sample),)
    torch.onnx.export(
        model, example, str(path), dynamo=False, input_names=["x"], output_names=["y"]
    )
    return import_onnx(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "affine", "polynomial", "mul"),
    [
        ("DiabetesMLP", 3, 0, 2),
        ("CryptoNets", 3, 0, 2),
        ("LeNet5", 5, 4, 0),
        ("CNNLSTM", 10, 17, 23),
    ],
)
def test_a_reference_model_becomes_polynomial(
    refmodels: ModuleType, tmp_path: Path, name: str, affine: int, polynomial: int, mul: int
) -> None:
    program = imported(refmodels, name, tmp_path)
    rng = np.random.default_rng(0)
    shape = program.operations[0].infer().shape  # type: ignore[union-attr]
    context = Context({"x": rng.normal(size=(16, *shape))})
    approximated = parse_pipeline(f"{FRONT},approximate{{degree=3}}").run(program, context)
    merged = parse_pipeline(BACK).run(approximated, context)
    counts = Counter(op.name for op in merged)
    assert counts["tensor.affine"] == affine
    assert counts["tensor.polynomial"] == polynomial
    assert counts["tensor.mul"] == mul
    inputs = as_samples(program, {"x": rng.normal(size=(3, *shape))})
    expected, found = run_tensor(approximated, inputs)["y"], run_tensor(merged, inputs)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore")
def test_the_reference_network_meets_a_precision_that_was_asked_for(
    refmodels: ModuleType, tmp_path: Path
) -> None:
    imported(refmodels, "CNNLSTM", tmp_path)
    calibration = {"x": np.random.default_rng(0).normal(size=(200, 4, 32)).astype(np.float32)}
    compiled = hecompile.compile(
        tmp_path / "CNNLSTM.onnx",
        calibration=calibration,
        precision=1e-3,
        options=CompileOptions(ring=8192),
    )
    assert compiled.predicted_error <= 1e-3
    by_node = {fit.node: fit.degree for fit in compiled.report.fits}
    assert by_node["/act/Relu"] > 31
    # The maps to [-1, 1] cost no affine map, and so no level.
    assert len(compiled.polynomial.select(Affine)) == 10


def random_lstm(
    direction: str, output: str, states: bool, activations: tuple[str, ...], seed: int
) -> tuple[Program, dict[str, Array]]:
    rng = np.random.default_rng(seed)
    b = Builder(name="m")
    d, hidden, features, steps = 1 + (direction == "bidirectional"), 3, 2, 4
    x = secret(b, "x", steps, 1, features)
    h0 = secret(b, "h0", d, 1, hidden) if states else None
    op = Lstm(
        x=x,
        w=clear(b, rng.normal(size=(d, 4 * hidden, features))),
        r=clear(b, rng.normal(size=(d, 4 * hidden, hidden))),
        b=clear(b, rng.normal(size=(d, 8 * hidden))),
        h0=h0,
        c0=clear(b, rng.normal(size=(d, 1, hidden))) if states else None,
        hidden=hidden,
        direction=direction,
        activations=activations * d,
        output=output,
    )
    program = finish(b, y=b.emit(op))
    inputs = {
        "x": rng.normal(size=(5, steps, 1, features)),
        "h0": rng.normal(size=(5, d, 1, hidden)),
    }
    return program, inputs


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("output", ["Y", "Y_h", "Y_c"])
@pytest.mark.parametrize("states", [False, True])
def test_an_unrolled_lstm_computes_the_same(direction: str, output: str, states: bool) -> None:
    activations = (
        ("hard_sigmoid(alpha=0.3)", "tanh", "softplus") if states else ("sigmoid", "tanh", "tanh")
    )
    program, inputs = random_lstm(direction, output, states, activations, seed=1)
    pipeline = parse_pipeline("unroll-recurrent,normalise,cse,dce,merge-linear")
    unrolled = pipeline.run(program, Context())
    assert not unrolled.select(Lstm)
    expected, found = run_tensor(program, inputs)["y"], run_tensor(unrolled, inputs)["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
