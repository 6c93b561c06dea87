"""Compile a recurrent network of many steps and run it encrypted, with rounds to the key holder."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

import hecompile
from hecompile.config import CompileOptions
from hecompile.models.export import export_onnx

STEPS, FEATURES, HIDDEN = 4, 4, 8


class Network(nn.Module):
    """A GRU over a sequence, and two logits from its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(FEATURES, HIDDEN, batch_first=True)
        self.dense = nn.Linear(HIDDEN, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.dense(self.gru(x)[0][:, -1])


def main(folder: Path) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(100, STEPS, FEATURES)).astype(np.float32)
    export_onnx(Network(), x, folder / "model.onnx", exporter="torchscript")

    # Degree 3 for every activation: coarser, and fewer levels than the compiler would choose.
    options = CompileOptions(degree=3)
    compiled = hecompile.compile(folder / "model.onnx", calibration={"x": x[:96]}, options=options)
    compiled.save(folder / "bundle")
    plan = compiled.report.estimate
    print(f"{STEPS} steps: {plan.refreshes} rounds with the key holder")
    for i, segment in enumerate(plan.segments):
        print(f"  segment {i}: {segment.levels} levels, {segment.key_switches} key switches,"
              f" then {segment.requests} up and {segment.responses} down")  # fmt: skip

    # The evaluator gets a process of its own, as with `hecompile run`.
    bundle = hecompile.open_bundle(folder / "bundle", user="owner")
    logits = bundle.run({"x": x[96:98]}).outputs["logits"]
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    error = np.abs(logits - session.run(["logits"], {"x": x[96:98]})[0]).max()
    print(f"largest error {error:.2g}, predicted at most {compiled.predicted_error:.2g}")
    if error > compiled.predicted_error:
        sys.exit("the prediction did not hold")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
