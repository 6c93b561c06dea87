"""Noise as predicted, as simulated, and as it is: on compiled models and random programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
import pytest

from hecompile.compiler import Compiled
from hecompile.interpret.noisy import run_program_noisy
from hecompile.interpret.samples import as_samples
from hecompile.interpret.slots import run_program_slots, trace_slots
from hecompile.ir.program import Program
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
from tests.unit.noise_programs import PARAMETER_SETS, random_program

SEEDS = 10
MODEL_KEYS = 4
KEYS = 16
"""Part of the noise is one number a key, so that one key alone tells little about the largest."""

PESSIMISM = 8.0
"""Most by which a predicted bound may exceed the largest error measured."""

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
    for _ in range(MODEL_KEYS):
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
    # A run with refreshes takes a second.
    found = measured(MODELS[name](), 3 if name == "recurrent" else 8)
    compiled = found.compiled
    seen = trace_slots(
        compiled.program, as_samples(compiled.original, samples(MODELS[name](), 200, seed=7))
    )
    for predicted in predict_noise(compiled.program, seen):
        encrypted = found.encrypted[predicted.label]
        assert encrypted.size >= 18
        assert np.abs(encrypted).max() <= predicted.bound
        assert found.compiled.report.noise_error >= predicted.bound * (1 - 1e-6)
        assert predicted.bound <= PESSIMISM * np.abs(encrypted).max()
        real = float(np.sqrt(np.mean(encrypted**2)))
        simulated = float(np.sqrt(np.mean(found.simulated[predicted.label] ** 2)))
        assert 1 / 3 < simulated / real < 3, (predicted.label, simulated, real)
        assert real <= predicted.deviation, (predicted.label, predicted.deviation, real)


def encrypted_errors(program: Program, inputs: Arrays) -> np.ndarray:
    """Errors (keys, samples, ...) of a program with input x and output y under fresh keys."""
    exact = run_program_slots(program, inputs)["y"]
    parties = (make_parties(program) for _ in range(KEYS))
    answers = [run_encrypted(some, {"x": inputs["x"][:, 0]}).raw["y"] for some in parties]
    return np.array([raw.reshape(exact.shape) - exact for raw in answers])


def assert_predicted(program: Program, calibration: Arrays, count: int) -> None:
    """On the samples with the largest inputs, for the bound is about the worst of all."""
    order = np.argsort(-np.abs(calibration["x"]).sum(axis=(1, 2)))
    inputs = {"x": calibration["x"][order[:count]]}
    (predicted,) = predict_noise(program, trace_slots(program, calibration))
    errors = np.abs(encrypted_errors(program, inputs))
    assert np.mean(errors <= predicted.bound) >= 0.999
    assert predicted.bound <= PESSIMISM * errors.max(), predicted.bound / errors.max()


@pytest.mark.parametrize("name", ["large special prime", "equal special prime"])
def test_random_programs_err_as_predicted(name: str) -> None:
    program, drawn = random_program(0, PARAMETER_SETS[name], period=64)
    assert_predicted(program, drawn, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", PARAMETER_SETS)
@pytest.mark.parametrize("seed", range(1, 7))
def test_many_random_programs_err_as_predicted(name: str, seed: int) -> None:
    period = 2 ** (4 + seed)
    program, drawn = random_program(seed, PARAMETER_SETS[name], period=period)
    assert_predicted(program, drawn, 4)


def test_batches_err_as_predicted() -> None:
    """Uniform weights, no copies: rounding of weights is known, tails are those of one slot."""
    parameters = PARAMETER_SETS["large special prime"]
    program, drawn = random_program(3, parameters, period=8 * 64, batch=64)
    assert_predicted(program, drawn, len(drawn["x"]))
