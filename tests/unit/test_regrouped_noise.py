"""Factors that regrouped products fold away do not make noise explode."""

from __future__ import annotations

import numpy as np
import pytest

import hecompile
from hecompile import pipelines
from hecompile.config import CompileOptions
from tests.differential.onnx_cases import build, random

LSTM = """
  t = Transpose<perm=[1,0,2]>(x)
  v, h = LSTM<hidden_size=4>(t, w0, r0, b0)
  f = Flatten(h)  y = MatMul(f, d)
"""
WEIGHTS = {
    "w0": random(1, 16, 2, seed=0) / 2,
    "r0": random(1, 16, 4, seed=1) / 2,
    "b0": random(1, 32, seed=2) / 4,
    "d": random(4, 2, seed=3),
}


def compiled() -> hecompile.Compiled:
    model = build(LSTM, "float[N,2,2] x", weights=WEIGHTS)
    samples = np.random.default_rng(5).uniform(-1, 1, (60, 2, 2)).astype(np.float32)
    options = CompileOptions(degree=3, ring=8192)
    return hecompile.compile(model, calibration={"x": samples}, precision=2e-2, options=options)


def relative_noise(one: hecompile.Compiled) -> float:
    """The bound on noise in units of one rounding at the program's scale."""
    return one.report.noise_error * 2.0**one.report.parameters.scale_bits


def test_noise_stays_where_it_was_and_levels_are_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    regrouped = compiled()
    assert "regroup-products," in pipelines._FINISH_TENSOR
    plain = pipelines._FINISH_TENSOR.replace("regroup-products,", "")
    monkeypatch.setattr(pipelines, "_FINISH_TENSOR", plain)
    before = compiled()
    assert regrouped.report.depth == before.report.depth - 2
    # Two bits at most; a coefficient left where it is small costs more in one step.
    assert relative_noise(regrouped) <= 4 * relative_noise(before)
    assert regrouped.report.noise_error < 2e-2
