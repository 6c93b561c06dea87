"""Noise as predicted, as simulated, and as it is: on small compiled models with many outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from hecompile.compiler import Compiled
from hecompile.interpret.noisy import run_program_noisy
from hecompile.interpret.samples import as_samples
from hecompile.interpret.slots import trace_slots
from hecompile.precision import predict_noise
from tests.encrypted.compiled_models import (
    Arrays,
    compile_tiny,
    run_encrypted,
    samples,
    small_lstm,
    square_mlp,
    two_in_two_out,
)
from tests.encrypted.runtime_parties import make_parties

KEYS, SEEDS = 3, 20
MODELS: dict[str, Callable[[], onnx.ModelProto]] = {
    "squares": lambda: square_mlp(layers=(8, 8, 8)),
    "two inputs": two_in_two_out,
    "recurrent": lambda: small_lstm(steps=2),
}


@dataclass(frozen=True)
class Noise:
    """Differences from the exact slot program, by output: encrypted and simulated."""

    compiled: Compiled
    encrypted: Arrays
    simulated: Arrays


def measured(model: onnx.ModelProto, count: int) -> Noise:
    """Noise over fresh keys and over seeds: one key's noise repeats in part at every use."""
    compiled = compile_tiny(model)
    inputs = samples(model, count)
    given = {label: array[:, None] for label, array in inputs.items()}
    exact = compiled.simulate(given)
    encrypted: dict[str, list[np.ndarray]] = {label: [] for label in exact}
    simulated: dict[str, list[np.ndarray]] = {label: [] for label in exact}
    for _ in range(KEYS):
        parties = make_parties(compiled.program)
        for label, raw in run_encrypted(parties, inputs).raw.items():
            encrypted[label].append(raw - exact[label].reshape(raw.shape))
    for seed in range(SEEDS):
        for label, found in run_program_noisy(compiled.program, given, seed).items():
            simulated[label].append(found - exact[label])
    return Noise(
        compiled,
        {label: np.array(parts) for label, parts in encrypted.items()},
        {label: np.array(parts) for label, parts in simulated.items()},
    )


@pytest.mark.parametrize("name", MODELS)
def test_noise_is_as_simulated_and_within_its_bound(name: str) -> None:
    found = measured(MODELS[name](), 8)
    compiled = found.compiled
    seen = trace_slots(
        compiled.program, as_samples(compiled.original, samples(MODELS[name](), 200, seed=7))
    )
    for predicted in predict_noise(compiled.program, seen):
        encrypted = found.encrypted[predicted.label]
        assert encrypted.size >= 32
        assert np.abs(encrypted).max() <= predicted.bound
        assert found.compiled.report.noise_error >= predicted.bound * (1 - 1e-6)
        real = float(np.sqrt(np.mean(encrypted**2)))
        simulated = float(np.sqrt(np.mean(found.simulated[predicted.label] ** 2)))
        assert 1 / 3 < simulated / real < 3, (predicted.label, simulated, real)
        assert real <= predicted.deviation, (predicted.label, predicted.deviation, real)
